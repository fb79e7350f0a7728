//! The output of `convert` is a valid configuration, and files of the Observatorium API are read as they
//! are.

use std::fs;

use metrifold_testing::issuer::{CLIENT, OpenIdIssuer, SECRET};
use metrifold_testing::{Browser, Endpoint, Metrifold, Reply, Sender, cli, expect, run, up};

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

/// Files of the Observatorium API, and what is converted from them.
struct Rig(tempfile::TempDir);

impl Rig {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Converts, and checks that the configuration is valid once its variables are set and that no secret
    /// is in it. Returns the configuration and what was told.
    fn convert(&self, args: &[&str]) -> (String, String) {
        let all = [&["convert", "observatorium"], args].concat();
        let output = run(&mut cli(&all));
        let text = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(
            !text.contains("planted") && !told.contains("planted"),
            "{text}"
        );
        let path = self.file("metrifold.toml", &text);
        let mut validate = cli(&["validate", "--no-environment", "-c", &path]);
        for reference in text.split("${").skip(1) {
            let (name, _) = reference.split_once('}').unwrap();
            assert!(
                told.contains(&format!("set the variable {name} to ")),
                "{told}"
            );
            validate.env(name, "set-by-its-user");
        }
        let output = run(&mut validate);
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{wrong}\n{text}");
        (text, told)
    }
}

#[test]
fn the_observatorium_api_becomes_a_configuration_that_is_valid() {
    let rig = Rig::new();
    let (tenants, rbac) = (
        rig.file("tenants.yaml", TENANTS),
        rig.file("rbac.yaml", RBAC),
    );
    for (number, additional) in [SHIPPED, PROPOSED].into_iter().enumerate() {
        let additional = rig.file("additional.yaml", additional);
        let (text, told) = rig.convert(&[
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
        ]);
        assert_eq!(told.contains("VM_PASSWORD"), number == 0, "{told}");
        for expected in [
            "client_auth = \"tenants\"",
            "/api/metrics/v1/{tenant}/api/v1/receive",
            "http://receive:19291/api/v1/receive",
            "admin@example.com",
            "external_url = \"https://x\"",
            "client_secret = \"${ACME_CLIENT_SECRET}\"",
            "login = true",
            "scopes = [\"openid\", \"profile\", \"email\", \"groups\"]",
            "min_version = \"1.3\"",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}

#[test]
fn callers_without_roles_stay_without_permissions() {
    let rig = Rig::new();
    let tenants = rig.file(
        "tenants.yaml",
        TENANTS.split("- name: zeta").next().unwrap(),
    );
    let write = ["--metrics.write.endpoint", "http://receive:19291"];
    for (rbac, expected) in [
        ("roles: []\nroleBindings: []\n", "[roles.nothing]"),
        ("{}", "[roles.nothing]"),
        (
            "roles: []\nroleBindings: [{name: b, roles: [none], subjects: [{name: u, kind: user}]}]\n",
            "[roles.nothing]",
        ),
    ] {
        let rbac = rig.file("rbac.yaml", rbac);
        let args = ["--tenants.config", &tenants, "--rbac.config", &rbac];
        let (text, _) = rig.convert(&[&args[..], &write].concat());
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("permissions = []"), "{text}");
    }
    let args = ["--tenants.config", &tenants];
    let (text, told) = rig.convert(&[&args[..], &write].concat());
    assert!(!text.contains("[roles"), "{text}");
    assert!(told.contains("without --rbac.config every"), "{told}");
}

#[test]
fn what_observatorium_accepts_and_tables_do_not_is_left_out_or_renamed() {
    let rig = Rig::new();
    let tenants = rig.file(
        "tenants.yaml",
        TENANTS.split("- name: zeta").next().unwrap(),
    );
    let rbac = "\
roles:
- { name: 'acme:rw', resources: [metrics], tenants: [acme, gone], permissions: [read] }
- { name: acme.rw, resources: [metrics], tenants: [acme], permissions: [write] }
roleBindings:
- { name: b, roles: ['acme:rw', acme.rw, absent], subjects: [{ name: u, kind: user }] }
";
    let rbac = rig.file("rbac.yaml", rbac);
    let additional = "\
- { name: write, url: 'http://planted-user:planted-secret@a.example/write' }
- { name: a b, url: 'http://a.example/write' }
- { name: a_b, url: 'http://planted-user:planted-secret@a.example/write', http_client_config: { bearer_token: planted-secret } }
- name: a-b
  url: https://a.example/write
  http_client_config:
    proxy_url: http://planted-user:planted-secret@proxy.example:3128
    tls_config: { ca: planted-ca, key: planted-key, cert: planted-cert, min_version: TLS12 }
    oauth2:
      client_id: c
      client_secret: planted-secret
      token_url: https://login.example/token
      endpoint_params: { password: planted-secret }
      tls_config: { ca_file: /etc/ca.pem }
    http_headers: { X-Secret: { values: [planted-secret] } }
    follow_redirects: true
";
    let additional = rig.file("additional.yaml", additional);
    let (text, told) = rig.convert(&[
        "--tenants.config",
        &tenants,
        "--rbac.config",
        &rbac,
        "--metrics.write.endpoint",
        "http://planted-user:planted-secret@receive:19291",
        "--metrics.additional.write.endpoint.config",
        &additional,
    ]);
    for expected in [
        "[roles.acme-rw]",
        "[roles.acme-rw-2]",
        "roles = [\"acme-rw\", \"acme-rw-2\"]",
        "[sinks.write-2]",
        "[sinks.a-b]",
        "[sinks.a-b-2]",
        "key_file = \"/etc/metrifold/a-b-2.key\"",
        "endpoint = \"http://a.example/write\"",
        "endpoint = \"http://receive:19291/api/v1/receive\"",
        "password = \"${THANOS_RECEIVER_PASSWORD}\"",
        "password = \"${A_B_2_PROXY_PASSWORD}\"",
        "${A_B_CREDENTIALS}",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    for expected in [
        "there is no tenant \"gone\"",
        "there is no role \"absent\"",
        "the endpoint \"a b\" is called a-b",
        "tls_config.min_version of a-b-2 is not converted",
        "http_headers of a-b-2 is not converted",
        "the user in the url of a_b is not converted",
    ] {
        assert!(told.contains(expected), "{expected} in\n{told}");
    }
    assert!(!told.contains("A_B_USERNAME"), "nothing uses it: {told}");
}

#[test]
fn certificates_in_the_proposed_file_are_left_out_and_files_kept() {
    let rig = Rig::new();
    let additional = "endpints:\n- name: a\n  url: https://a.example/write\n  tlsConfig:\n    ca: |\n      -----BEGIN CERTIFICATE-----\n      planted-ca\n      -----END CERTIFICATE-----\n    cert: /etc/a.crt\n    key: /etc/a.key\n";
    let additional = rig.file("additional.yaml", additional);
    let (text, told) = rig.convert(&["--metrics.additional.write.endpoint.config", &additional]);
    let table: toml::Table = text.parse().unwrap();
    let tls = &table["sinks"]["a"]["tls"];
    assert_eq!(tls["ca_file"].as_str(), Some("/etc/metrifold/a.ca"));
    assert_eq!(tls["cert_file"].as_str(), Some("/etc/a.crt"));
    assert_eq!(tls["key_file"].as_str(), Some("/etc/a.key"));
    let note = "write the ca in tls_config of a to /etc/metrifold/a.ca";
    assert!(told.contains(note), "{told}");
}

#[test]
fn rules_and_tls_towards_the_stores_are_converted_and_other_flags_are_told() {
    let rig = Rig::new();
    let tenants = rig.file(
        "tenants.yaml",
        TENANTS.split("- name: zeta").next().unwrap(),
    );
    let rbac = rig.file("rbac.yaml", RBAC);
    let (text, told) = rig.convert(&[
        "--tenants.config",
        &tenants,
        "--rbac.config",
        &rbac,
        "--metrics.rules.endpoint=https://rules:8080/",
        "--metrics.read.endpoint=https://query:9090",
        "--metrics.write.endpoint=http://receive:19291",
        "--metrics.tls.ca-file=/etc/ca.pem",
        "--metrics.tls.cert-file=/etc/client.crt",
        "--metrics.tls.key-file=/etc/client.key",
        "--metrics.tls.watch-certs",
        "--tls.server.cert-file=/etc/tls.crt",
        "--tls.server.key-file=/etc/tls.key",
        "--tls.min-version=VersionTLS12",
        "--log.level=warn",
        "--logs.read.endpoint=http://loki:3100",
    ]);
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(
        table["sinks"]["ruler"]["type"].as_str(),
        Some("rules_directory")
    );
    let rules = &table["sources"]["rules"];
    assert_eq!(rules["type"].as_str(), Some("rules_api"));
    assert_eq!(rules["path"].as_str(), Some("/api/metrics/v1/{tenant}"));
    assert_eq!(rules["access"].as_str(), Some("tenants"));
    let backend = &rules["backend"];
    assert_eq!(
        backend["url"].as_str(),
        Some("https://rules:8080/api/v1/rules")
    );
    let ids = backend["tenants"].as_array().unwrap();
    assert_eq!(
        ids[0].as_str(),
        Some("1610b0c3-c509-4592-a256-a1871353dbfa")
    );
    let query = &table["sinks"]["thanos-query"];
    for tls in [&backend["tls"], &query["tls"]] {
        assert_eq!(tls["ca_file"].as_str(), Some("/etc/ca.pem"));
        assert_eq!(tls["key_file"].as_str(), Some("/etc/client.key"));
    }
    assert!(table["sinks"]["thanos-receiver"].get("tls").is_none());
    let listener = &table["listeners"]["public"]["tls"];
    assert_eq!(listener["min_version"].as_str(), Some("1.2"));
    let inputs = table["transforms"]["tenant"]["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 3);
    for expected in [
        "--log.level is not converted",
        "--logs.read.endpoint is not converted: only metrics are served",
        "--metrics.tls.watch-certs is not converted",
        "rules backend keeps rules as tenants write them",
        "role \"rw\": there is no tenant \"zeta\"",
    ] {
        assert!(told.contains(expected), "{expected} in\n{told}");
    }
    // Rules alone are enough.
    let (text, _) = rig.convert(&["--metrics.rules.endpoint", "http://rules:8080"]);
    assert!(
        text.contains("rules_api") && !text.contains("access"),
        "{text}"
    );
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

#[test]
fn one_tenant_that_cannot_be_used_does_not_keep_others_from_writing() {
    let rig = Rig::new();
    // Of `zeta`, the certificate is not there.
    let tenants = TENANTS.replace("https://login.example", "http://127.0.0.1:1");
    let tenants = rig.file("tenants.yaml", &tenants);
    // `printf %s token | sha256sum`
    let hash = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";
    let tokens = rig.file("beta.tokens", &format!("sha256:{hash} agent\n"));
    let endpoint = Endpoint::healthy();
    let gateway = Metrifold::start(&format!(
        "[access]\ntenants_file = {tenants:?}\n[tenants.beta]\nbearer = {{ tokens_file = {tokens:?} }}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\naccess = \"tenants\"\n\
         path = \"/of/{{tenant}}\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n",
        endpoint.url(),
    ));
    let write = |tenant: &str| {
        let headers = [("authorization", "Bearer token")];
        Sender::new(gateway.ingest).post(&format!("/of/{tenant}"), &headers, &up(1))
    };
    assert_eq!(write("beta").status, 204);
    let aside = write("zeta");
    assert_eq!(aside.status, 503);
    assert!(aside.header("retry-after").is_some());
    assert_eq!(write("none").status, 404);
    let logged = gateway.log();
    assert!(
        logged.contains("warning: access: tenant \"zeta\" of tenants_file cannot be used"),
        "{logged}"
    );
    let line = logged.lines().find(|line| line.contains("ERROR"));
    assert!(line.is_some_and(|line| line.contains("zeta")), "{logged}");
}

#[test]
fn a_browser_logs_in_to_a_tenant_of_the_file() {
    let rig = Rig::new();
    let issuer = OpenIdIssuer::start("jane", 300);
    let store = Endpoint::new(|_| Reply::new(200).body(r#"{"status":"success"}"#));
    let tenants = format!(
        "tenants:\n- name: acme\n  id: id-acme\n  oidc:\n    clientID: {CLIENT}\n    clientSecret: {SECRET}\n    \
         issuerURL: {}\n    redirectURL: https://gateway.example/oidc/acme/callback\n",
        issuer.url()
    );
    let tenants = rig.file("tenants.yaml", &tenants);
    let gateway = Metrifold::start(&format!(
        "[access]\ntenants_file = {tenants:?}\n\
         [sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/of/{{tenant}}\"\n\
         access = \"tenants\"\nlogin = true\n\
         [sinks.store]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{}\"\n",
        store.url(),
    ));
    let mut browser = Browser::new(gateway.ingest, "https://gateway.example");
    let page = browser.log_in("/of/acme/api/v1/query?query=up");
    expect(&page, 200);
    assert!(!gateway.log().contains(SECRET));
}
