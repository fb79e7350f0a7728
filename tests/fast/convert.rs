//! The output of `convert` is a valid configuration.

use std::fs;

use metrifold_testing::{cli, run};

const TENANTS: &str = "\
tenants:
- name: acme
  id: 1610b0c3-c509-4592-a256-a1871353dbfa
  oidc:
    clientID: metrics
    clientSecret: planted-secret
    issuerURL: https://login.example/dex
    redirectURL: https://x/oidc/acme/callback
    usernameClaim: email
    groupClaim: groups
- name: zeta
  id: 93df8d10-1c3a-4a05-b2d5-4fbf3c3a0d3c
  authenticator:
    type: mtls
    config: { caPath: /etc/zeta.pem }
";

const RBAC: &str = "\
roles:
- name: rw
  resources: [metrics]
  tenants: [acme, zeta]
  permissions: [read, write]
roleBindings:
- name: people
  roles: [rw]
  subjects:
  - { name: admin@example.com, kind: user }
";

const SHIPPED: &str = "\
- name: vm
  url: https://vm.example/api/v1/write
  http_client_config:
    basic_auth: { username: u, password: planted-secret }
    tls_config: { ca_file: /etc/vm.pem, insecure_skip_verify: false }
- name: plain
  url: http://plain.example/write
";

const PROPOSED: &str = "\
endpints:
- name: secured
  url: https://xyz:8443/secured_write
  tlsConfig: { ca: /etc/ca.pem, cert: /etc/tls.crt, key: /etc/tls.key }
- name: open
  url: http://abc:8080/write
";

#[test]
fn the_observatorium_api_becomes_a_configuration_that_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (tenants, rbac) = (file("tenants.yaml", TENANTS), file("rbac.yaml", RBAC));
    for (number, additional) in [SHIPPED, PROPOSED].into_iter().enumerate() {
        let additional = file("additional.yaml", additional);
        let output = run(&mut cli(&[
            "convert",
            "observatorium",
            "--tenants.config",
            &tenants,
            "--rbac.config",
            &rbac,
            "--tls.server.cert-file",
            "/etc/tls.crt",
            "--tls.server.key-file",
            "/etc/tls.key",
            "--metrics.write.endpoint",
            "http://receive:19291",
            "--metrics.read.endpoint",
            "http://query:9090/",
            "--metrics.additional.write.endpoint.config",
            &additional,
        ]));
        let (text, told) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(!text.contains("planted-secret") && !told.contains("planted-secret"));
        assert_eq!(told.contains("VM_PASSWORD"), number == 0, "{told}");
        let path = file("metrifold.toml", &text);
        // The user sets the variables that the configuration refers to.
        let mut validate = cli(&["validate", "--no-environment", "-c", &path]);
        let output = run(validate.env("VM_PASSWORD", "set-by-its-user"));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}\n{text}");
        for expected in [
            "client_auth = \"tenants\"",
            "/api/metrics/v1/{tenant}/api/v1/receive",
            "http://receive:19291/api/v1/receive",
            "admin@example.com",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}

#[test]
fn what_cannot_be_converted_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants.yaml");
    let tenant = TENANTS.replacen(
        "  oidc:",
        "  opa: { query: data.x.allow, paths: [/x.rego] }\n  oidc:",
        1,
    );
    fs::write(&path, tenant).unwrap();
    let path = path.display().to_string();
    let mut command = cli(&["convert", "observatorium", "--tenants.config", &path]);
    let output = run(&mut command);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("\"acme\"") && told.contains("opa"), "{told}");
    assert!(!told.contains("planted-secret"), "{told}");
}
