//! Tokens of a real issuer: npm's oidc-provider, which is away at the start, comes, is killed and comes
//! again with other keys.
//!
//! `make live` installs it (`tests/peers`) and runs these tests, which are ignored otherwise.

use std::net::SocketAddr;

use metrifold_testing::peers::Issuer;
use metrifold_testing::{Endpoint, Metrifold, Sender, free_address, until, up};

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

/// The status of a write with a token, and whether it says when to come again.
fn write(gateway: &Metrifold, token: &str) -> (u16, bool) {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str())];
    let answer = Sender::new(gateway.ingest).post("/api/v1/write", &headers, &up(1));
    (answer.status, answer.header("retry-after").is_some())
}

#[test]
#[ignore = "needs the issuer that tests/peers/build installs: run `make live`"]
fn tokens_of_every_kind_of_signature_are_good_and_none_but_those_for_us() {
    for algorithm in ["RS256", "PS256", "ES256"] {
        let (address, endpoint) = (free_address(), Endpoint::healthy());
        let gateway = gateway(address, &endpoint);
        // Nothing is known of the issuer, and a token of it cannot be told from any other.
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
        assert_eq!(write(&gateway, &changed).0, 401, "signature");
    }
}

#[test]
#[ignore = "needs the issuer that tests/peers/build installs: run `make live`"]
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
    assert_eq!(write(&gateway, &first).0, 401, "signed by a key that went");
    drop(issuer);
    assert_eq!(
        write(&gateway, &second).0,
        204,
        "the issuer is away, its keys stay"
    );

    let issuer = Issuer::start(address, "ES256", 2);
    let third = issuer.token("agent", "metrics");
    until("the new key is known", || {
        let (status, again) = write(&gateway, &third);
        // It may be over before it is good: then there is another.
        match status {
            204 => Some(()),
            401 => {
                let next = issuer.token("agent", "metrics");
                (write(&gateway, &next).0 == 204).then_some(())
            }
            _ => {
                assert!(status == 503 && again, "{status}");
                None
            }
        }
    });
    assert_eq!(write(&gateway, &second).0, 401, "the old key is withdrawn");
    let short = issuer.token("agent", "metrics");
    assert_eq!(write(&gateway, &short).0, 204);
    until("the token expires", || {
        (write(&gateway, &short).0 == 401).then_some(())
    });
}
