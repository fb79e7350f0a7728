//! Headers of an authenticating proxy, which is known by the name in its certificate.

use std::sync::Arc;

use rustls::ClientConfig;

use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, up};

/// A tenant that trusts the header of `proxy`, and a listener with these keys.
fn start(authority: &Authority, listener: &str, endpoint: &Endpoint) -> Metrifold {
    let (cert, key) = authority.issue("server");
    Metrifold::start(&format!(
        "[tenants.acme]\ntrusted_header = {{ user = \"X-User\", certificates = [\"proxy\"] }}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         tls = {{ cert_file = {cert:?}, key_file = {key:?}, {listener} }}\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url(),
    ))
}

/// The status of a write that names a user; none if the connection is refused.
fn send(gateway: &Metrifold, tls: &Arc<ClientConfig>, headers: &[(&str, &str)]) -> Option<u16> {
    let mut sender = Sender::tls(gateway.ingest, tls);
    let answer = sender.try_post("/api/v1/write", headers, &up(1));
    Some(answer.ok()?.status)
}

const USER: (&str, &str) = ("x-user", "agent");

#[test]
fn the_header_of_a_proxy_counts_only_with_its_verified_certificate() {
    let (authority, other, endpoint) = (Authority::new(), Authority::new(), Endpoint::healthy());
    let keys = format!(
        "client_ca_file = {:?}, client_auth = \"optional\"",
        authority.ca()
    );
    let gateway = start(&authority, &keys, &endpoint);
    let of = |identity| authority.client(identity);
    let proxy = of(Some(authority.issue("proxy")));
    assert_eq!(send(&gateway, &proxy, &[USER]), Some(204));
    assert_eq!(endpoint.only().header("thanos-tenant"), Some("acme"));
    // Its own requests, of nobody in particular, and a header twice.
    assert_eq!(send(&gateway, &proxy, &[]), Some(401));
    assert_eq!(send(&gateway, &proxy, &[USER, USER]), Some(401));
    for stranger in [
        None,
        Some(authority.issue("prox")),
        Some(authority.issue("proxy.example")),
    ] {
        assert_eq!(send(&gateway, &of(stranger), &[USER]), Some(401));
    }
    let forged = of(Some(other.issue("proxy")));
    assert_eq!(send(&gateway, &forged, &[USER]), None);
    assert_eq!(
        endpoint.take().len(),
        0,
        "nothing of the others has arrived"
    );
}

#[test]
fn a_listener_that_leaves_certificates_to_the_tenants_knows_no_proxy_by_its_name() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let gateway = start(&authority, "client_auth = \"tenants\"", &endpoint);
    for issuer in [&authority, &Authority::new()] {
        let proxy = authority.client(Some(issuer.issue("proxy")));
        assert_eq!(send(&gateway, &proxy, &[USER]), Some(401));
    }
    assert_eq!(endpoint.count(), 0);
}
