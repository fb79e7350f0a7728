//! Tokens of a real issuer, npm's oidc-provider, which is down at the start, comes up, is killed
//! and restarts with other keys.
//!
//! `make test` and `make live` install it (`tests/peers`) and run these tests, which are ignored otherwise.

use std::net::SocketAddr;

use metrifold_testing::peers::Issuer;
use metrifold_testing::{
    Browser, Endpoint, Metrifold, Reply, Sender, expect, free_address, until, up,
};

fn gateway(issuer: SocketAddr, endpoint: &Endpoint) -> Metrifold {
    Metrifold::start(&format!(
        "[tenants.acme]\n\
         oidc = {{ issuer = \"http://{issuer}\", audience = \"metrics\", clock_skew = \"0s\" }}\n\
         [roles.w]\ntenants = [\"acme\"]\npermissions = [\"write\"]\n\
         [role_bindings.w]\nroles = [\"w\"]\nsubjects = [{{ name = \"agent\" }}]\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    ))
}

/// Status of a write with a token, and whether the answer has `Retry-After`.
fn write(gateway: &Metrifold, token: &str) -> (u16, bool) {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str())];
    let answer = Sender::new(gateway.ingest).post("/api/v1/write", &headers, &up(1));
    (answer.status, answer.header("retry-after").is_some())
}

#[test]
#[ignore = "needs the issuer that tests/peers/build installs: run `make test`"]
fn tokens_of_every_kind_of_signature_are_good_and_none_but_those_for_us() {
    for algorithm in ["RS256", "PS256", "ES256"] {
        let (address, endpoint) = (free_address(), Endpoint::healthy());
        let gateway = gateway(address, &endpoint);
        // The issuer's keys are unknown, so that its token cannot be told from any other.
        let early = Issuer::start(free_address(), algorithm, 60).token("agent", "metrics");
        assert_eq!(write(&gateway, &early).0, 401, "of another issuer");
        let issuer = Issuer::start(address, algorithm, 60);
        let token = issuer.token("agent", "metrics");
        until("the issuer is known", || {
            (write(&gateway, &token).0 == 204).then_some(())
        });
        assert_eq!(
            write(&gateway, &issuer.token("agent", "other")).0,
            401,
            "audience"
        );
        assert_eq!(
            write(&gateway, &issuer.token("stranger", "metrics")).0,
            403,
            "role"
        );
        let changed = format!("{}x", &token[..token.len() - 4]);
        until_refused(&gateway, &changed);
    }
}

/// Waits until a token is refused that no key of the issuer has signed. Before, the gateway asks
/// for the keys, which it does once in a while, and says so.
#[track_caller]
fn until_refused(gateway: &Metrifold, token: &str) {
    until("the token is refused", || match write(gateway, token) {
        (401, _) => Some(()),
        answer => {
            assert_eq!(answer, (503, true));
            None
        }
    });
}

#[test]
#[ignore = "needs the issuer that tests/peers/build installs: run `make test`"]
fn an_issuer_that_is_away_costs_no_sender_its_samples_and_its_new_keys_are_followed() {
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let issuer = Issuer::start(address, "RS256", 60);
    let first = issuer.token("agent", "metrics");
    drop(issuer);
    let gateway = gateway(address, &endpoint);
    assert_eq!(write(&gateway, &first), (503, true), "never reached");
    assert_eq!(endpoint.count(), 0);

    let issuer = Issuer::start(address, "RS256", 60);
    let second = issuer.token("agent", "metrics");
    until("the issuer is known", || {
        (write(&gateway, &second).0 == 204).then_some(())
    });
    until_refused(&gateway, &first);
    drop(issuer);
    assert_eq!(
        write(&gateway, &second).0,
        204,
        "the issuer is away, its keys stay"
    );

    let issuer = Issuer::start(address, "ES256", 2);
    until("the new key is known", || {
        let (status, again) = write(&gateway, &issuer.token("agent", "metrics"));
        assert!(status == 204 || (status == 503 && again), "{status}");
        (status == 204).then_some(())
    });
    until_refused(&gateway, &second);
    let short = issuer.token("agent", "metrics");
    assert_eq!(write(&gateway, &short).0, 204);
    until("the token expires", || {
        (write(&gateway, &short).0 == 401).then_some(())
    });
}

#[test]
#[ignore = "needs the issuer that tests/peers/build installs: run `make test`"]
fn a_browser_logs_in_at_a_real_issuer_and_its_session_is_renewed() {
    const QUERY: &str = "/of/acme/api/v1/query?query=up";
    let address = free_address();
    let issuer = Issuer::start(address, "ES256", 2);
    let store = Endpoint::new(|_| Reply::new(200).body(r#"{"status":"success"}"#));
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "gateway-secret\n").unwrap();
    let gateway = Metrifold::start(&format!(
        "[tenants.acme.oidc]\nissuer = \"http://{address}\"\nclient_id = \"gateway\"\n\
         [tenants.acme.oidc.login]\nexternal_url = \"https://gateway.example\"\n\
         client_secret_file = {secret:?}\n\
         [roles.r]\ntenants = [\"acme\"]\npermissions = [\"read\"]\n\
         [role_bindings.r]\nroles = [\"r\"]\nsubjects = [{{ name = \"people\", kind = \"group\" }}]\n\
         [sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/of/{{tenant}}\"\n\
         access = \"tenants\"\nlogin = true\n\
         [sinks.store]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{}\"\n",
        store.url()
    ));
    let mut browser = Browser::new(gateway.ingest, "https://gateway.example");
    expect(&browser.log_in(QUERY), 200);
    let mut other = browser.cookies.clone();
    // The ID token is valid for two seconds, and each renewal rotates the refresh token.
    let started = std::time::Instant::now();
    until("the session has outlasted several tokens", || {
        expect(&browser.ask("GET", QUERY, &[]), 200);
        (started.elapsed().as_secs() > 7).then_some(())
    });
    let out = browser.open("/oidc/acme/logout");
    assert!(
        browser
            .path(&out)
            .starts_with(&format!("http://{address}/session/end?"))
    );
    std::mem::swap(&mut browser.cookies, &mut other);
    expect(&browser.ask("GET", QUERY, &[]), 401);
    drop(issuer);
}
