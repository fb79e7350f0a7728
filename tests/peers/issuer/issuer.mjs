// An OpenID Connect issuer by npm's oidc-provider: clients get tokens for the audience "metrics" by their
// secrets. `node issuer.mjs PORT ALGORITHM SECONDS`: a port, what tokens are signed by, how long they are good.
// Each start has another key.
import { generateKeyPair, exportJWK } from "jose";
import Provider from "oidc-provider";

const [port, alg, seconds] = process.argv.slice(2);
const { privateKey } = await generateKeyPair(alg, { extractable: true });
const key = { ...(await exportJWK(privateKey)), alg, use: "sig", kid: `${alg}-${process.pid}` };
const client = (client_id) => ({
  client_id,
  client_secret: `${client_id}-secret`,
  token_endpoint_auth_method: "client_secret_post",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [key] },
  clients: [client("agent"), client("stranger")],
  ttl: { ClientCredentials: Number(seconds) },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: "write",
        audience: resource.replace("urn:", ""),
        accessTokenFormat: "jwt",
        jwt: { sign: { alg } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1");
