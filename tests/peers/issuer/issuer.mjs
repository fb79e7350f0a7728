// An OpenID Connect issuer by npm's oidc-provider: clients get tokens for the audience "metrics" by their
// secrets, and whoever comes with a browser to the client "gateway" logs in as "jane" without being asked.
// `node issuer.mjs PORT ALGORITHM SECONDS`: a port, what tokens are signed by, how long they are good.
// Each start has another key.
import { randomBytes } from "node:crypto";
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
  id_token_signed_response_alg: alg,
});
const gateway = {
  client_id: "gateway",
  client_secret: "gateway-secret",
  grant_types: ["authorization_code", "refresh_token"],
  redirect_uris: ["https://gateway.example/oidc/acme/callback"],
  response_types: ["code"],
  id_token_signed_response_alg: alg,
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [key] },
  clients: [client("agent"), client("stranger"), gateway],
  cookies: { keys: [randomBytes(16).toString("hex")] },
  ttl: {
    AccessToken: Number(seconds),
    ClientCredentials: Number(seconds),
    IdToken: Number(seconds),
    Grant: 3600,
    Interaction: 600,
    RefreshToken: 3600,
    Session: 3600,
  },
  claims: { openid: ["sub", "groups"] },
  conformIdTokenClaims: false,
  findAccount: (_, accountId) => ({
    accountId,
    claims: () => ({ sub: accountId, groups: ["people"] }),
  }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_, resource) => ({
        scope: "write",
        audience: resource.replace("urn:", ""),
        accessTokenFormat: "jwt",
        jwt: { sign: { alg } },
      }),
    },
  },
});
// Whoever is asked to log in is Jane, and whoever is asked to consent does.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/interaction/")) return next();
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  let result = { login: { accountId: "jane" } };
  if (prompt.name === "consent") {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope("openid offline_access");
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.respond = false;
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
});
provider.listen(Number(port), "127.0.0.1");
