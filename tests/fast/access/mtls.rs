//! Certificates of tenants on one listener, which knows none of their authorities.

use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, up};

#[test]
fn whose_a_certificate_is_is_for_the_tenants_to_say() {
    let (acme, zeta, nobody) = (Authority::new(), Authority::new(), Authority::new());
    let endpoint = Endpoint::healthy();
    let (cert, key) = nobody.issue("server");
    let tenant = |name: &str, authority: &Authority| {
        let ca = authority.ca();
        format!(
            "[tenants.{name}]\nmtls = {{ ca_file = \"{}\", subject = \"common_name\" }}\n",
            ca.display()
        )
    };
    let gateway = Metrifold::start(&format!(
        "{}{}[roles.w]\ntenants = [\"acme\", \"zeta\"]\npermissions = [\"write\"]\n\
         [role_bindings.w]\nroles = [\"w\"]\nsubjects = [{{ name = \"agent\" }}]\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         tls = {{ cert_file = \"{}\", key_file = \"{}\", client_auth = \"tenants\" }}\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        tenant("acme", &acme),
        tenant("zeta", &zeta),
        cert.display(),
        key.display(),
        endpoint.url(),
    ));
    // The server's authority is trusted; what is shown is of another.
    let send = |identity, headers: &[(&str, &str)]| {
        let tls = nobody.client(identity);
        let mut sender = Sender::tls(gateway.ingest, &tls);
        sender.post("/api/v1/write", headers, &up(1)).status
    };
    let named = |name| [("thanos-tenant", name)];
    assert_eq!(send(Some(acme.issue("agent")), &[]), 204);
    assert_eq!(send(Some(zeta.issue("agent")), &named("zeta")), 204);
    let tenants: Vec<_> = endpoint
        .take()
        .iter()
        .map(|seen| seen.header("thanos-tenant").unwrap().to_owned())
        .collect();
    assert_eq!(tenants, ["acme", "zeta"]);
    for (identity, headers, status) in [
        (None, None, 401),
        (Some(nobody.issue("agent")), None, 401),
        (Some(acme.issue("other")), None, 403),
        (Some(acme.issue("agent")), Some("zeta"), 403),
    ] {
        let headers = headers.map(|name| ("thanos-tenant", name));
        assert_eq!(send(identity, headers.as_slice()), status, "{headers:?}");
    }
    assert_eq!(endpoint.count(), 2, "nothing of the others has arrived");
}
