//! Client certificates of tenants at a listener that has none of their authorities itself.

use std::fs;

use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, expect, request, until, up};

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
    // The client trusts the server's authority, but its certificate is from another one.
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

#[test]
fn files_of_observatorium_and_the_authorities_that_they_name_are_followed() {
    let (server, acme, other) = (Authority::new(), Authority::new(), Authority::new());
    let endpoint = Endpoint::healthy();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let replace = |name: &str, text: &str| {
        fs::write(file("next"), text).unwrap();
        fs::rename(file("next"), file(name)).unwrap();
    };
    let trust = |authority: &Authority| {
        replace("ca.crt", &fs::read_to_string(authority.ca()).unwrap());
    };
    let tenants = |names: &[&str]| {
        let ca = file("ca.crt");
        let one = |name| {
            let ca = ca.display();
            format!("- name: {name}\n  id: id-{name}\n  mTLS:\n    caPath: {ca}\n")
        };
        let all: String = names.iter().map(one).collect();
        replace("tenants.yaml", &format!("tenants:\n{all}"));
    };
    let rbac = |tenants: &str, permissions: &str| {
        let text = format!(
            "roles:\n- name: rw\n  resources: [metrics]\n  tenants: [{tenants}]\n  \
             permissions: [{permissions}]\nroleBindings:\n- name: b\n  roles: [rw]\n  \
             subjects:\n  - name: localhost\n    kind: user\n"
        );
        replace("rbac.yaml", &text);
    };
    trust(&acme);
    tenants(&["acme"]);
    rbac("acme", "read, write");
    let (cert, key) = server.issue("server");
    let gateway = Metrifold::start(&format!(
        "[api]\naddress = \"API\"\n[access]\ntenants_file = {:?}\nrbac_file = {:?}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         tls = {{ cert_file = {cert:?}, key_file = {key:?}, client_auth = \"tenants\" }}\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = {:?}\n",
        file("tenants.yaml"),
        file("rbac.yaml"),
        endpoint.url(),
    ));
    let identities = [acme.issue("agent"), other.issue("agent")];
    let [ours, theirs] = identities.map(|identity| server.client(Some(identity)));
    let send = |tls, tenant| {
        let mut sender = Sender::tls(gateway.ingest, tls);
        let headers = [("thanos-tenant", tenant)];
        sender.post("/api/v1/write", &headers, &up(1)).status
    };
    let answers = |tls, tenant, status| {
        until(&format!("{tenant} gets {status}"), || {
            (send(tls, tenant) == status).then_some(())
        });
    };
    assert_eq!(send(&ours, "acme"), 204);
    assert_eq!(endpoint.only().header("thanos-tenant"), Some("id-acme"));
    assert_eq!(send(&ours, "zeta"), 404);
    assert_eq!(send(&theirs, "acme"), 401);

    rbac("acme", "read");
    answers(&ours, "acme", 403);
    tenants(&["acme", "zeta"]);
    rbac("acme, zeta", "write");
    answers(&ours, "zeta", 204);

    // One tenant that cannot be used is refused with all others, and is named.
    tenants(&["acme", "zeta", "not a name"]);
    let answer = request("POST", gateway.api, "/-/reload", &[], b"").unwrap();
    expect(&answer, 422);
    assert!(answer.text().contains("not a name"), "{}", answer.text());
    assert_eq!(send(&ours, "zeta"), 204);

    tenants(&["acme"]);
    answers(&ours, "zeta", 404);
    rbac("acme", "write");
    trust(&other);
    answers(&ours, "acme", 401);
    answers(&theirs, "acme", 204);
}
