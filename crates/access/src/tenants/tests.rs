use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method as HttpMethod, Uri};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use metrifold_http::Refusal;
use metrifold_http::access::Head;

use super::*;
use crate::config::TenantConfig;
use crate::digest;
use crate::shown::Shown;
use crate::testing::serve;

/// A temporary folder with the files of tenants.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.tokens("acme.tokens", &[("acme-token", "agent", "agents")]);
        files.tokens(
            "zeta.tokens",
            &[("zeta-token", "", ""), ("both-token", "", "")],
        );
        files.tokens(
            "beta.tokens",
            &[("beta-token", "", ""), ("both-token", "", "")],
        );
        let hash = bcrypt::hash("pass:word", 4).unwrap();
        files.write(
            "web.yml",
            &format!("basic_auth_users:\n  prometheus: {hash}\n"),
        );
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn tokens(&self, name: &str, tokens: &[(&str, &str, &str)]) {
        let line = |(token, user, groups): &(&str, &str, &str)| {
            let digest = digest::plain(token.as_bytes());
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{hex} {user} {groups}\n")
        };
        self.write(name, &tokens.iter().map(line).collect::<String>());
    }

    /// Builds tenants from a configuration, in which `FOLDER` stands for this folder.
    fn tenants(&self, text: &str) -> Result<Tenants, Errors> {
        self.tenants_after(text, None)
    }

    fn tenants_after(&self, text: &str, before: Option<&Tenants>) -> Result<Tenants, Errors> {
        let text = text.replace("FOLDER", self.0.path().to_str().unwrap());
        let table: toml::Table = text.parse().unwrap();
        fn each<T: serde::de::DeserializeOwned>(
            table: &toml::Table,
            name: &str,
        ) -> Vec<(String, T)> {
            let named = table.get(name).and_then(toml::Value::as_table);
            let named = named.into_iter().flatten();
            named
                .map(|(name, value)| (name.clone(), value.clone().try_into().unwrap()))
                .collect()
        }
        let tenants = each::<TenantConfig>(&table, "tenants");
        let roles = each::<RoleConfig>(&table, "roles");
        let bindings = each::<BindingConfig>(&table, "role_bindings");
        let access = table.get("access").cloned();
        let settings = Settings {
            access: access.map_or_else(AccessConfig::default, |it| it.try_into().unwrap()),
            tenants: tenants
                .iter()
                .map(|(name, config)| TenantSettings::of(name, config, None))
                .collect(),
            roles: roles.iter().map(|(name, it)| (name.as_str(), it)).collect(),
            bindings: bindings
                .iter()
                .map(|(name, it)| (name.as_str(), it))
                .collect(),
        };
        Tenants::build(&settings, before)
    }
}

const TENANTS: &str = r#"
[tenants.acme]
id = "id-a"
bearer = { tokens_file = "FOLDER/acme.tokens" }
basic = { web_config_file = "FOLDER/web.yml" }
[tenants.zeta]
bearer = { tokens_file = "FOLDER/zeta.tokens" }
[tenants.beta]
bearer = { tokens_file = "FOLDER/beta.tokens" }
trusted_header = { user = "X-User", groups = "X-Groups", addresses = ["10.0.0.0/24"] }
"#;

#[derive(Clone, Default)]
struct Ask<'a> {
    path: Option<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
    peer: Option<SocketAddr>,
}

/// Sends a request. Returns the tenants and the name of the admitted caller, or the status.
async fn ask(tenants: &Tenants, permission: Permission, ask: &Ask<'_>) -> Result<String, u16> {
    match decide(tenants, Duration::from_secs(15), permission, ask).await {
        Ok(caller) => {
            let names: Vec<_> = caller.tenants().iter().map(|it| &*it.tenant).collect();
            Ok(format!(
                "{} {}",
                names.join("|"),
                caller.subject().unwrap_or("-")
            ))
        }
        Err(refusal) => {
            let answer = refusal.answer();
            let status = answer.status().as_u16();
            let challenged = answer
                .headers()
                .contains_key(http::header::WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401, "{refusal:?}");
            Err(status)
        }
    }
}

/// Sends a request that is decided within a time.
async fn decide(
    tenants: &Tenants,
    within: Duration,
    permission: Permission,
    ask: &Ask<'_>,
) -> Result<Caller, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in &ask.headers {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let param = ask.path.map(|tenant| ("tenant".into(), tenant.into()));
    let params: Vec<(Box<str>, Box<str>)> = param.into_iter().collect();
    let head = Head {
        method: &HttpMethod::GET,
        uri: &Uri::from_static("/"),
        headers: &headers,
        params: &params,
        peer: ask.peer.unwrap_or(([127, 0, 0, 1], 1).into()),
        certificate: None,
        presented: &[],
    };
    let deadline = Instant::now() + within;
    tenants
        .decide_by(deadline, &Shown::of(head), permission)
        .await
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

#[tokio::test]
async fn the_tenant_that_is_named_must_be_the_one_that_is_proven() {
    let tenants = Files::new().tenants(TENANTS).unwrap();
    let basic = format!("Basic {}", STANDARD.encode("prometheus:pass:word"));
    let wrong = format!("Basic {}", STANDARD.encode("prometheus:pass"));
    let nobody = format!("Basic {}", STANDARD.encode("nobody:pass:word"));
    let (basic, wrong, nobody) = (basic.as_str(), wrong.as_str(), nobody.as_str());
    for (path, header, authorization, expected) in [
        (Some("acme"), None, "Bearer acme-token", Ok("id-a agent")),
        (Some("id-a"), None, "bearer acme-token", Ok("id-a agent")),
        (None, None, "Bearer acme-token", Ok("id-a agent")),
        (None, Some("acme"), "Bearer acme-token", Ok("id-a agent")),
        (
            Some("acme"),
            Some("acme"),
            "Bearer acme-token",
            Ok("id-a agent"),
        ),
        (Some("acme"), None, basic, Ok("id-a prometheus")),
        (None, None, basic, Ok("id-a prometheus")),
        (Some("zeta"), None, "Bearer both-token", Ok("zeta -")),
        // Name and id of one tenant differ, and contradict each other.
        (Some("acme"), Some("id-a"), "Bearer acme-token", Err(403)),
        (Some("acme"), Some("zeta"), "Bearer acme-token", Err(403)),
        (Some("zeta"), None, "Bearer acme-token", Err(403)),
        // Another tenant's password is not checked.
        (Some("zeta"), None, basic, Err(401)),
        (Some("nowhere"), None, "Bearer acme-token", Err(404)),
        (Some("acme"), None, "Bearer other", Err(401)),
        (Some("nowhere"), None, "Bearer other", Err(401)),
        (Some("acme"), None, wrong, Err(401)),
        (Some("acme"), None, nobody, Err(401)),
        (Some("acme"), None, "Bearer", Err(401)),
        (Some("acme"), None, "Digest x", Err(401)),
        (Some("acme"), None, "", Err(401)),
        (Some("nowhere"), None, "", Err(401)),
        (Some("a/b"), None, "Bearer acme-token", Err(400)),
        (Some(".."), None, "Bearer acme-token", Err(400)),
        (Some(".."), None, basic, Err(400)),
        // Only authenticated callers learn what is wrong with the names.
        (Some("a/b"), None, "", Err(401)),
        (Some("a/b"), None, "Bearer other", Err(401)),
        (Some("a/b"), None, wrong, Err(401)),
        (Some("acme"), Some("zeta"), "", Err(401)),
        (Some("acme"), Some("zeta"), "Bearer other", Err(401)),
    ] {
        let mut headers = Vec::new();
        headers.extend(header.map(|name| ("X-Scope-OrgID", name)));
        if !authorization.is_empty() {
            headers.push(("authorization", authorization));
        }
        let asked = Ask {
            path,
            headers,
            peer: None,
        };
        let answered = ask(&tenants, Permission::Write, &asked).await;
        let expected = expected.map(str::to_owned);
        assert_eq!(answered, expected, "{path:?} {header:?} {authorization}");
    }
}

#[tokio::test]
async fn a_caller_of_several_tenants_reads_all_and_writes_to_one() {
    let tenants = Files::new().tenants(TENANTS).unwrap();
    let (name, token) = bearer("both-token");
    let of = |header: Option<&'static str>| Ask {
        headers: [(name, token.as_str())]
            .into_iter()
            .chain(header.map(|it| ("THANOS-TENANT", it)))
            .collect(),
        ..Ask::default()
    };
    for (permission, header, expected) in [
        (Permission::Read, None, Ok("beta|zeta -")),
        (Permission::Read, Some("zeta|beta"), Ok("beta|zeta -")),
        (Permission::Read, Some("zeta"), Ok("zeta -")),
        (Permission::Read, Some("zeta|acme"), Err(403)),
        (Permission::Write, None, Err(400)),
        (Permission::Write, Some("zeta|beta"), Err(400)),
        (Permission::Rules, None, Err(400)),
        (Permission::Write, Some("beta"), Ok("beta -")),
        (Permission::Admin, None, Err(403)),
    ] {
        let answered = ask(&tenants, permission, &of(header)).await;
        assert_eq!(
            answered,
            expected.map(str::to_owned),
            "{permission:?} {header:?}"
        );
    }
}

#[tokio::test]
async fn a_header_counts_only_from_the_proxy_that_is_trusted() {
    let tenants = Files::new().tenants(TENANTS).unwrap();
    let user = ("X-User", "jane");
    for (peer, headers, expected) in [
        ([10, 0, 0, 7], vec![user], Ok("beta jane")),
        ([10, 0, 1, 7], vec![user], Err(401)),
        ([10, 0, 0, 7], vec![user, user], Err(401)),
        ([10, 0, 0, 7], vec![("X-User", "")], Err(401)),
        (
            [10, 0, 0, 7],
            vec![user, ("X-Groups", "a,b")],
            Ok("beta jane"),
        ),
        (
            [10, 0, 0, 7],
            vec![user, ("X-Groups", "admins"), ("X-Groups", "a")],
            Err(401),
        ),
        ([10, 0, 0, 7], vec![], Err(401)),
    ] {
        let asked = Ask {
            path: Some("beta"),
            headers,
            peer: Some((peer, 1).into()),
        };
        let answered = ask(&tenants, Permission::Read, &asked).await;
        assert_eq!(answered, expected.map(str::to_owned), "{peer:?}");
    }
    let hidden: Vec<_> = tenants
        .hidden()
        .iter()
        .map(|name| name.to_string())
        .collect();
    assert_eq!(
        hidden,
        ["thanos-tenant", "x-groups", "x-scope-orgid", "x-user"]
    );
}

#[tokio::test]
async fn headers_that_select_tenants_at_stores_are_never_forwarded() {
    let text = format!("[access]\nheaders = [\"X-Tenant\"]\n{TENANTS}");
    let tenants = Files::new().tenants(&text).unwrap();
    let hidden = tenants.hidden();
    for name in ["x-tenant", "x-scope-orgid", "thanos-tenant"] {
        assert!(hidden.iter().any(|hidden| hidden == name), "{name}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing_with_what_a_browser_adds() {
    let tenants = Files::new().tenants(TENANTS).unwrap();
    let basic = format!("Basic {}", STANDARD.encode("prometheus:pass:word"));
    let (basic, user) = (("authorization", basic.as_str()), ("X-User", "jane"));
    let token = ("authorization", "Bearer acme-token");
    let evil = ("origin", "https://evil.example");
    let [host, own] = [("host", "own.example"), ("origin", "https://own.example")];
    let site = |site| ("sec-fetch-site", site);
    use Permission::{Read, Rules, Write};
    for (proof, permission, more, allowed) in [
        (basic, Rules, None, true),
        (basic, Rules, Some(own), true),
        (basic, Rules, Some(site("same-origin")), true),
        (basic, Rules, Some(evil), false),
        (basic, Write, Some(site("cross-site")), false),
        (basic, Read, Some(evil), true),
        (user, Rules, Some(evil), false),
        (user, Rules, None, true),
        // A page that knows the token need not go through a browser of somebody else.
        (token, Rules, Some(evil), true),
    ] {
        let headers = [proof, host].into_iter().chain(more).collect();
        let asked = Ask {
            path: Some(if proof == user { "beta" } else { "acme" }),
            headers,
            peer: Some(([10, 0, 0, 7], 1).into()),
        };
        let answered = ask(&tenants, permission, &asked).await;
        assert_eq!(
            answered.is_ok(),
            allowed,
            "{proof:?} {permission:?} {more:?}"
        );
        assert!(allowed || answered == Err(403));
    }
}

#[tokio::test]
async fn a_caller_of_several_tenants_is_not_given_a_part_of_them_while_an_agent_is_dead() {
    let allows = serve(|_| (200, "{\"result\":true}".to_owned()));
    let fails = serve(|_| (500, String::new()));
    let text = format!(
        "[tenants.zeta]\nbearer = {{ tokens_file = \"FOLDER/zeta.tokens\" }}\nopa = {{ url = \"{allows}/\" }}\n\
         [tenants.beta]\nbearer = {{ tokens_file = \"FOLDER/beta.tokens\" }}\nopa = {{ url = \"{fails}/\" }}\n"
    );
    let tenants = Files::new().tenants(&text).unwrap();
    let (name, token) = bearer("both-token");
    let mut both = Ask {
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    // A read would return the data of one tenant alone, and a write would go to that one.
    for permission in [Permission::Read, Permission::Write] {
        assert_eq!(ask(&tenants, permission, &both).await, Err(503));
    }
    both.path = Some("zeta");
    assert!(ask(&tenants, Permission::Read, &both).await.is_ok());
}

#[tokio::test]
async fn the_agents_of_many_tenants_are_asked_concurrently_and_within_one_deadline() {
    let pause = Duration::from_millis(300);
    let agent = || {
        serve(move |_| {
            std::thread::sleep(pause);
            (200, "{\"result\":true}".to_owned())
        })
    };
    let text: String = (0..8)
        .map(|number| {
            format!(
                "[tenants.t{number}]\nbearer = {{ tokens_file = \"FOLDER/zeta.tokens\" }}\nopa = {{ url = \"{}/\" }}\n",
                agent()
            )
        })
        .collect();
    let tenants = Files::new().tenants(&text).unwrap();
    let names: Vec<String> = (0..8).map(|number| format!("t{number}")).collect();
    let names = names.join("|");
    let (name, token) = bearer("zeta-token");
    let named = [(name, token.as_str()), ("x-scope-orgid", names.as_str())];
    for headers in [&named[..], &named[..1]] {
        let asked = Ask {
            headers: headers.to_vec(),
            ..Ask::default()
        };
        let (began, within) = (Instant::now(), Duration::from_millis(50));
        let late = decide(&tenants, within, Permission::Read, &asked).await;
        let no = late.unwrap_err().rejection;
        assert_eq!(no.kind, metrifold_model::RejectionKind::Unavailable);
        assert!(no.reason.contains("in time"), "{}", no.reason);
        assert!(began.elapsed() < pause, "{:?}", began.elapsed());
    }
    let all = Ask {
        headers: named.to_vec(),
        ..Ask::default()
    };
    let began = Instant::now();
    let caller = ask(&tenants, Permission::Read, &all).await.unwrap();
    assert_eq!(caller, format!("{names} -"));
    assert!(began.elapsed() < 6 * pause, "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_caller_learns_where_issuers_and_agents_are() {
    let fails = serve(|_| (500, String::new()));
    let text = format!(
        "[tenants.acme]\nbearer = {{ tokens_file = \"FOLDER/acme.tokens\" }}\nopa = {{ url = \"{fails}/\" }}\n\
         oidc = {{ issuer = \"http://127.0.0.1:1\", client_id = \"c\" }}\n"
    );
    let tenants = Files::new().tenants(&text).unwrap();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let forged = format!(
        "{}.{}.AAAA",
        part(r#"{"alg":"RS256"}"#),
        part(r#"{"iss":"http://127.0.0.1:1"}"#)
    );
    for token in [forged.as_str(), "acme-token"] {
        let (name, token) = bearer(token);
        for path in [Some("acme"), Some("nobody"), None] {
            let asked = Ask {
                path,
                headers: vec![(name, token.as_str())],
                ..Ask::default()
            };
            let within = Duration::from_secs(15);
            let answered = decide(&tenants, within, Permission::Read, &asked).await;
            let no = answered.unwrap_err().rejection;
            assert!(!no.reason.contains("127.0.0.1"), "{path:?} {}", no.reason);
        }
    }
    let trouble = tenants.trouble();
    let told = &trouble.issuers[0].error;
    assert!(told.contains("127.0.0.1:1"), "operators learn it: {told}");
}

#[tokio::test]
async fn a_policy_about_a_tenant_does_not_make_its_callers_administrators() {
    let allows = serve(|_| (200, "{\"result\":true}".to_owned()));
    let text = format!(
        "[tenants.acme]\nbearer = {{ tokens_file = \"FOLDER/acme.tokens\" }}\nopa = {{ url = \"{allows}/\" }}\n"
    );
    let tenants = Files::new().tenants(&text).unwrap();
    let (name, token) = bearer("acme-token");
    let agent = Ask {
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    assert!(ask(&tenants, Permission::Rules, &agent).await.is_ok());
    assert_eq!(ask(&tenants, Permission::Admin, &agent).await, Err(403));
}

#[tokio::test]
async fn a_file_of_roles_that_is_emptied_grants_nothing() {
    let files = Files::new();
    files.write("rbac.yaml", "roles: []\nroleBindings: []\n");
    let text = format!("[access]\nrbac_file = \"FOLDER/rbac.yaml\"\n{TENANTS}");
    let tenants = files.tenants(&text).unwrap();
    let (name, token) = bearer("acme-token");
    let agent = Ask {
        path: Some("acme"),
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    assert_eq!(ask(&tenants, Permission::Read, &agent).await, Err(403));
}

#[tokio::test]
async fn known_tokens_are_not_shown_to_the_api_server_of_another_tenant() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = serve(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let status = "{\"status\":{\"authenticated\":false}}";
        (201, status.to_owned())
    });
    let files = Files::new();
    files.write("own-token", "own");
    let text = format!(
        "[tenants.acme]\nbearer = {{ tokens_file = \"FOLDER/acme.tokens\" }}\n\
         [tenants.other]\noidc = {{ issuer = \"http://127.0.0.1:1\", audience = \"a\" }}\n\
         [tenants.zeta]\nkubernetes = {{ api_server = \"{server}\", token_file = \"FOLDER/own-token\" }}\n"
    );
    let tenants = files.tenants(&text).unwrap();
    let claims = URL_SAFE_NO_PAD.encode("{\"iss\":\"http://127.0.0.1:1\"}");
    let issued = format!("e30.{claims}.AAAA");
    for (token, status, times) in [
        ("acme-token", 403, 0),
        (issued.as_str(), 401, 0),
        ("unknown", 401, 1),
    ] {
        let (name, token) = bearer(token);
        let asking = Ask {
            path: Some("zeta"),
            headers: vec![(name, token.as_str())],
            ..Ask::default()
        };
        let answered = ask(&tenants, Permission::Write, &asking).await;
        assert_eq!(answered, Err(status), "{token}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{token}");
    }
}

/// A certificate authority in PEM, and a chain with a certificate that it signed.
fn authority(name: &str) -> (String, Vec<CertificateDer<'static>>) {
    let [own, key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&own).unwrap().pem();
    let leaf = CertificateParams::new(["agent.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, own)).unwrap();
    (pem, vec![leaf.der().clone()])
}

#[tokio::test]
async fn a_certificate_is_verified_only_by_tenants_whose_authority_may_have_signed_it() {
    let files = Files::new();
    let mut text = String::new();
    let chains = ["acme", "zeta", "nobody"].map(|name| {
        let (pem, chain) = authority(name);
        if name != "nobody" {
            files.write(&format!("{name}.crt"), &pem);
            text += &format!("[tenants.{name}]\nmtls = {{ ca_file = \"FOLDER/{name}.crt\" }}\n");
        }
        chain
    });
    let tenants = files.tenants(&text).unwrap();
    for (chain, expected) in chains.iter().zip([Some("acme"), Some("zeta"), None]) {
        let (headers, uri) = (HeaderMap::new(), Uri::from_static("/"));
        let head = Head {
            method: &HttpMethod::POST,
            uri: &uri,
            headers: &headers,
            params: &[],
            peer: ([127, 0, 0, 1], 1).into(),
            certificate: None,
            presented: chain,
        };
        let ways = tenants.index.ways(&Shown::of(head)).count();
        assert_eq!(ways, usize::from(expected.is_some()));
        let decided = tenants.decide(&Shown::of(head), Permission::Write).await;
        let caller = decided.ok();
        assert_eq!(
            caller.as_ref().and_then(|it| it.tenant()).map(|it| &**it),
            expected
        );
    }
}

#[tokio::test]
async fn roles_say_what_may_be_done_where() {
    let roles = r#"
[roles.writer]
tenants = ["acme"]
permissions = ["write"]
[roles.admin]
tenants = ["*"]
permissions = ["admin"]
[role_bindings.agents]
roles = ["writer"]
subjects = [{ name = "agents", kind = "group" }]
[role_bindings.operators]
roles = ["admin"]
subjects = [{ name = "prometheus" }]
"#;
    let tenants = Files::new().tenants(&format!("{TENANTS}{roles}")).unwrap();
    let (name, token) = bearer("acme-token");
    let agent = Ask {
        path: Some("acme"),
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    let basic = format!("Basic {}", STANDARD.encode("prometheus:pass:word"));
    let operator = Ask {
        headers: vec![("authorization", basic.as_str())],
        ..Ask::default()
    };
    assert!(ask(&tenants, Permission::Write, &agent).await.is_ok());
    assert_eq!(ask(&tenants, Permission::Read, &agent).await, Err(403));
    assert_eq!(ask(&tenants, Permission::Admin, &agent).await, Err(403));
    assert!(ask(&tenants, Permission::Admin, &operator).await.is_ok());
    assert_eq!(ask(&tenants, Permission::Write, &operator).await, Err(403));
}

#[tokio::test]
async fn what_contradicts_itself_is_an_error_of_the_table_that_says_it() {
    let files = Files::new();
    for (more, table, said) in [
        (
            "[tenants.omega]\nid = \"acme\"\ntrusted_header = { user = \"a\" }",
            "tenants.omega",
            "acme",
        ),
        (
            "[tenants.omega]\nbearer = { tokens_file = \"FOLDER/none\" }",
            "tenants.omega",
            "cannot read",
        ),
        (
            "[roles.x]\ntenants = [\"none\"]\npermissions = []",
            "roles.x",
            "none",
        ),
        (
            "[role_bindings.x]\nroles = [\"none\"]\nsubjects = []",
            "role_bindings.x",
            "none",
        ),
        (
            "[access]\ntenants_file = \"FOLDER/web.yml\"",
            "access",
            "key `basic_auth_users` is unknown",
        ),
    ] {
        let errors = files.tenants(&format!("{TENANTS}{more}")).err().unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].0, table);
        assert!(errors[0].1.to_string().contains(said), "{errors:?}");
    }
}

#[tokio::test]
async fn what_is_the_same_after_a_change_keeps_what_it_has_found_out() {
    let files = Files::new();
    let before = files.tenants(TENANTS).unwrap();
    files.tokens("zeta.tokens", &[("new-token", "", "")]);
    let after = files.tenants_after(TENANTS, Some(&before)).unwrap();
    let kept = after.ways.iter().filter(|way| {
        let mut before = before.ways.iter();
        before.any(|other| Arc::ptr_eq(&other.method, &way.method))
    });
    assert_eq!((kept.count(), after.ways.len()), (4, 5));
    for (token, expected) in [
        ("zeta-token", Err(401)),
        ("new-token", Ok("zeta -".to_owned())),
    ] {
        let (name, token) = bearer(token);
        let asked = Ask {
            path: Some("zeta"),
            headers: vec![(name, token.as_str())],
            ..Ask::default()
        };
        assert_eq!(
            ask(&after, Permission::Read, &asked).await,
            expected,
            "{token}"
        );
    }
}

#[tokio::test]
async fn files_of_observatorium_give_the_same_tenants_and_roles() {
    let files = Files::new();
    files.write(
        "tenants.yaml",
        "tenants:\n- name: test\n  id: 1610b0c3\n  oidc:\n    clientID: c\n    clientSecret: s3cret\n    \
         issuerURL: http://127.0.0.1:1/dex\n    redirectURL: http://x\n    usernameClaim: email\n",
    );
    files.write(
        "rbac.yaml",
        "roles:\n- name: rw\n  resources: [metrics, logs]\n  tenants: [acme]\n  permissions: [read, write]\n\
         roleBindings:\n- name: b\n  roles: [rw]\n  subjects:\n  - {name: agents, kind: group}\n",
    );
    let text =
        "[access]\ntenants_file = \"FOLDER/tenants.yaml\"\nrbac_file = \"FOLDER/rbac.yaml\"\n";
    let tenants = files.tenants(&format!("{text}{TENANTS}")).unwrap();
    assert_eq!(tenants.len(), 4);
    assert!(tenants.by_name.contains_key("1610b0c3"));
    let (name, token) = bearer("acme-token");
    let agent = Ask {
        path: Some("acme"),
        headers: vec![(name, token.as_str())],
        ..Ask::default()
    };
    for permission in [Permission::Read, Permission::Write, Permission::Rules] {
        assert!(
            ask(&tenants, permission, &agent).await.is_ok(),
            "{permission:?}"
        );
    }
    assert_eq!(ask(&tenants, Permission::Admin, &agent).await, Err(403));

    files.write(
        "tenants.yaml",
        "tenants:\n- name: test\n  id: x\n  openshift: {}\n  mTLS: {caPath: /x}\n",
    );
    let tenants = files.tenants(text).unwrap();
    assert!(tenants.is_empty());
    assert!(tenants.aside.contains("test") && tenants.aside.contains("x"));
}

mod issuer;
mod strangers;
