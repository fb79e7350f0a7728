//! Tokens and users of a real Keycloak, which is down when the gateway starts.
//!
//! `make live` installs Keycloak and Chromium (`tests/peers`) and runs this test, which is ignored
//! otherwise.

use std::net::SocketAddr;

use serde_json::json;

use metrifold_testing::issuer::{claims, forged};
use metrifold_testing::peers::{Keycloak, log_in_and_out};
use metrifold_testing::{
    Authority, Endpoint, Metrifold, Reply, Sender, expect, fetch, free_address, until, up,
};

/// Status of a write with a token, and whether the answer has `Retry-After`.
fn write(gateway: &Metrifold, token: &str) -> (u16, bool) {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str())];
    let answer = Sender::new(gateway.ingest).post("/api/v1/write", &headers, &up(1));
    (answer.status, answer.header("retry-after").is_some())
}

/// A gateway to which the client `agent` of an issuer writes.
fn writing(issuer: &str, skew: &str, endpoint: &Endpoint) -> Metrifold {
    Metrifold::start(&format!(
        "[tenants.acme.oidc]\nissuer = \"{issuer}\"\naudience = \"metrics\"\n\
         username_claim = \"preferred_username\"\nclock_skew = \"{skew}\"\n\
         [roles.w]\ntenants = [\"acme\"]\npermissions = [\"write\"]\n\
         [role_bindings.w]\nroles = [\"w\"]\nsubjects = [{{ name = \"service-account-agent\" }}]\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    ))
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn keycloaks_tokens_are_accepted_for_what_they_are_and_its_users_log_in_with_a_browser() {
    let address = free_address();
    let keycloak = Keycloak::spawn(address);
    let issuer = keycloak.issuer("acme");
    let endpoint = Endpoint::healthy();
    // Two gateways: one with an exact clock, the other tolerates one that is five minutes off.
    let exact = writing(&issuer, "0s", &endpoint);
    let tolerant = writing(&issuer, "5m", &endpoint);
    let unverifiable = json!({ "iss": issuer, "aud": "metrics", "exp": u32::MAX });
    let unverifiable = forged(&unverifiable, "RS256", b"guess");
    assert_eq!(
        write(&exact, &unverifiable),
        (503, true),
        "the issuer was never reached: the sender keeps its samples"
    );

    let keycloak = keycloak.started();
    let api = free_address();
    let url = format!("https://{api}");
    keycloak.add_realm("acme", 6, &format!("{url}/oidc/acme/callback"));
    keycloak.add_realm("zeta", 60, "https://nowhere.example");
    for gateway in [&exact, &tolerant] {
        until("the issuer is known", || {
            let token = keycloak.token("acme", "agent");
            (write(gateway, &token).0 == 204).then_some(())
        });
    }
    refuses_other_tokens(&keycloak, &exact, &endpoint);
    expires(&keycloak, &exact, &tolerant);
    follows_a_rotation(&keycloak, &tolerant);
    a_user_logs_in(&keycloak, api, &url);
}

fn refuses_other_tokens(keycloak: &Keycloak, gateway: &Metrifold, endpoint: &Endpoint) {
    let written = endpoint.count();
    let good = claims(&keycloak.token("acme", "agent"));
    let mut others = vec![
        ("for another audience", keycloak.token("acme", "other")),
        ("from another issuer", keycloak.token("zeta", "agent")),
        ("unsigned", forged(&good, "none", b"")),
        ("with a wrong signature", forged(&good, "RS256", b"guess")),
    ];
    // Algorithm confusion: the public key as the secret of HS256.
    let secrets = keycloak.public_key("acme").into_iter();
    others.extend(secrets.map(|key| ("signed with the public key", forged(&good, "HS256", &key))));
    for (what, token) in others {
        until_refused(gateway, &token, what);
    }
    assert_eq!(endpoint.count(), written);
}

/// Waits until a token is refused. As long as the issuer may have a new key, nobody can tell.
fn until_refused(gateway: &Metrifold, token: &str, what: &str) {
    until(what, || {
        let (status, again) = write(gateway, token);
        assert!(
            status == 401 || (status == 503 && again),
            "{what}: {status}"
        );
        (status == 401).then_some(())
    });
}

fn expires(keycloak: &Keycloak, exact: &Metrifold, tolerant: &Metrifold) {
    let token = keycloak.token("acme", "agent");
    assert_eq!(write(exact, &token).0, 204);
    until("the token expires", || {
        (write(exact, &token).0 == 401).then_some(())
    });
    assert_eq!(write(tolerant, &token).0, 204, "within the clock skew");
}

fn follows_a_rotation(keycloak: &Keycloak, gateway: &Metrifold) {
    let old = keycloak.token("acme", "agent");
    assert_eq!(write(gateway, &old).0, 204);
    keycloak.rotate("acme");
    until("the new key is known", || {
        let token = keycloak.token("acme", "agent");
        let (status, again) = write(gateway, &token);
        assert!(status == 204 || (status == 503 && again), "{status}");
        (status == 204).then_some(())
    });
    until_refused(
        gateway,
        &old,
        "the token of a key that was withdrawn is refused",
    );
}

fn a_user_logs_in(keycloak: &Keycloak, api: SocketAddr, url: &str) {
    let issuer = keycloak.issuer("acme");
    let store = Endpoint::new(|_| {
        let reply = Reply::new(200).header("Content-Type", "application/json");
        reply.body(r#"{"status":"success"}"#)
    });
    let authority = Authority::new();
    let (cert, key) = authority.issue("server");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "gateway-secret").unwrap();
    let gateway = Metrifold::start(&format!(
        "[tenants.acme.oidc]\nissuer = \"{issuer}\"\nclient_id = \"gateway\"\n\
         username_claim = \"preferred_username\"\n\
         [tenants.acme.oidc.login]\nexternal_url = \"{url}\"\nclient_secret_file = {secret:?}\n\
         scopes = [\"openid\", \"profile\"]\n\
         [roles.r]\ntenants = [\"acme\"]\npermissions = [\"read\"]\n\
         [role_bindings.r]\nroles = [\"r\"]\nsubjects = [{{ name = \"jane\" }}]\n\
         [sources.api]\ntype = \"prometheus_api\"\naddress = \"{api}\"\npath = \"/of/{{tenant}}\"\n\
         access = \"tenants\"\nlogin = true\ntls = {{ cert_file = {cert:?}, key_file = {key:?} }}\n\
         [sinks.store]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{}\"\n",
        store.url()
    ));
    expect(&fetch(gateway.api, "/-/ready").unwrap(), 200);
    let page = format!("{url}/of/acme/api/v1/query?query=up");
    let seen = log_in_and_out(&page, &format!("{url}/oidc/acme/logout"), &issuer);
    let at_issuer = |place: &str| seen[place].as_str().unwrap().starts_with(&issuer);
    assert!(at_issuer("sentTo") && at_issuer("after"), "{seen}");
    let read = json!({ "status": 200, "text": r#"{"status":"success"}"# });
    assert_eq!(seen["read"], read, "{seen}");
    assert_eq!(seen["script"], 200, "{seen}");
    assert_eq!(seen["left"], 0, "{seen}");
    let cookies = seen["cookies"].as_array().unwrap();
    assert_eq!(cookies.len(), 1, "{seen}");
    let attributes = ["secure", "httpOnly", "sameSite"].map(|name| &cookies[0][name]);
    assert_eq!(attributes, [&json!(true), &json!(true), &json!("Lax")]);
    // The page and its script have read; the script of another origin has not.
    assert_eq!(store.count(), 2, "{seen}");
}
