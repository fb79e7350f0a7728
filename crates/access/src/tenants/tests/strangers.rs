//! What callers who are not authenticated learn and cost, and who sees their credentials.

use std::sync::Mutex;

use metrifold_http::Refusal;

use super::*;
use crate::testing::Asked;

/// Decides on a write with these headers that names `tenant`.
pub(super) async fn refused(
    tenants: &Tenants,
    tenant: Option<&str>,
    headers: &[(&str, &str)],
) -> Refusal {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let param = tenant.map(|tenant| ("tenant".into(), tenant.into()));
    let params: Vec<(Box<str>, Box<str>)> = param.into_iter().collect();
    let head = Head {
        method: &HttpMethod::POST,
        uri: &Uri::from_static("/"),
        headers: &map,
        params: &params,
        peer: ([127, 0, 0, 1], 1).into(),
        certificate: None,
        presented: &[],
    };
    let decided = tenants.decide(&Shown::of(head), Permission::Write).await;
    decided.unwrap_err()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A fake Kubernetes API server that knows the tokens that begin with its name, and remembers all
/// tokens that it was shown.
struct Server {
    url: String,
    state: Arc<Mutex<(bool, Vec<String>)>>,
}

impl Server {
    fn new(name: &'static str) -> Self {
        let state: Arc<Mutex<(bool, Vec<String>)>> = Arc::default();
        let shared = Arc::clone(&state);
        let answer = move |asked: &Asked| {
            let (down, shown) = &mut *shared.lock().unwrap();
            let review: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
            let token = review["spec"]["token"].as_str().unwrap();
            shown.push(token.to_owned());
            let status = serde_json::json!({ "status": {
                "authenticated": token.starts_with(name), "user": { "username": name },
            }});
            match down {
                true => (503, String::new()),
                false => (201, status.to_string()),
            }
        };
        Self {
            url: serve(answer),
            state,
        }
    }

    fn is_down(&self, down: bool) {
        self.state.lock().unwrap().0 = down;
    }

    fn shown(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().1)
    }

    /// A tenant whose service accounts this server knows.
    fn tenant(&self, name: &str) -> String {
        let url = &self.url;
        format!(
            "[tenants.{name}]\nkubernetes = {{ api_server = \"{url}\", token_file = \"FOLDER/own-token\" }}\n"
        )
    }
}

#[tokio::test]
async fn a_service_account_is_shown_to_the_api_server_of_its_tenant_only() {
    let [first, second] = ["acme", "zeta"].map(Server::new);
    let files = Files::new();
    files.write("own-token", "own");
    let config = [first.tenant("acme"), second.tenant("zeta")].concat();
    let tenants = files.tenants(&config).unwrap();
    let asking = async |tenant: Option<&'static str>, token: &str| {
        let value = format!("Bearer {token}");
        let asked = Ask {
            path: tenant,
            headers: vec![("authorization", value.as_str())],
            ..Ask::default()
        };
        ask(&tenants, Permission::Write, &asked).await
    };
    let seen = || (first.shown(), second.shown());
    let only = |token: &str| (Vec::<String>::new(), vec![token.to_owned()]);
    let nobody = (Vec::new(), Vec::new());

    assert_eq!(asking(None, "zeta-1").await, Err(401));
    assert_eq!(seen(), nobody, "the request names no tenant");
    assert_eq!(asking(Some("none"), "zeta-2").await, Err(401));
    assert_eq!(seen(), nobody, "there is no such tenant");
    assert_eq!(asking(Some("zeta"), "x").await, Err(401));
    assert_eq!(seen(), only("x"), "its tenant's server refuses it");
    second.is_down(true);
    assert_eq!(asking(Some("zeta"), "zeta-3").await, Err(503));
    assert_eq!(seen(), only("zeta-3"), "its tenant's server is down");
    second.is_down(false);
    assert_eq!(
        asking(Some("zeta"), "zeta-3").await,
        Ok("zeta zeta".to_owned())
    );
    let value = "Bearer zeta-4";
    let told = refused(&tenants, None, &[("authorization", value)]).await;
    let told = told.rejection.reason;
    assert!(told.contains("name its tenant in the path"), "{told}");

    // Tenants that share a server need not be named.
    let config = [first.tenant("acme"), first.tenant("beta")].concat();
    let tenants = files.tenants(&config).unwrap();
    let asked = Ask {
        headers: vec![("authorization", "Bearer acme-5")],
        ..Ask::default()
    };
    let found = ask(&tenants, Permission::Read, &asked).await;
    assert_eq!(found, Ok("acme|beta acme".to_owned()));
}

/// Tenants `t1`, `t2` and so on, each with a file of its own in which `prometheus` has the password
/// `password-1` and so on; and `only`, whose only user is `solo`.
fn with_passwords(files: &Files, count: usize) -> Tenants {
    let mut config = String::new();
    let users = (1..=count).map(|number| (format!("t{number}"), "prometheus", number));
    for (tenant, user, number) in users.chain([("only".to_owned(), "solo", 0)]) {
        let hash = bcrypt::hash(format!("password-{number}"), 4).unwrap();
        let text = format!("basic_auth_users:\n  {user}: {hash}\n");
        files.write(&format!("{tenant}.yml"), &text);
        config += &format!(
            "[tenants.{tenant}]\nbasic = {{ web_config_file = \"FOLDER/{tenant}.yml\" }}\n"
        );
    }
    files.tenants(&config).unwrap()
}

#[tokio::test]
async fn one_request_has_few_passwords_checked_and_always_one() {
    const MANY: usize = 5;
    let files = Files::new();
    for (count, tenant, user, password, expected, checks) in [
        // A request that names a tenant is checked against that tenant's file.
        (
            MANY,
            Some("t2"),
            "prometheus",
            "password-2",
            Ok("t2 prometheus"),
            1,
        ),
        (MANY, Some("t2"), "prometheus", "password-1", Err(401), 1),
        (MANY, Some("t2"), "nobody", "password-1", Err(401), 1),
        (MANY, Some("none"), "prometheus", "password-1", Err(401), 1),
        // One that names none, against few.
        (MANY, None, "prometheus", "password-1", Err(401), 1),
        (MANY, None, "nobody", "password-1", Err(401), 1),
        (MANY, None, "solo", "password-0", Ok("only solo"), 1),
        (MANY, None, "solo", "wrong", Err(401), 1),
        (4, None, "prometheus", "password-4", Ok("t4 prometheus"), 4),
    ] {
        let tenants = with_passwords(&files, count);
        let value = basic(user, password);
        let asked = Ask {
            path: tenant,
            headers: vec![("authorization", value.as_str())],
            ..Ask::default()
        };
        let what = format!("{tenant:?} {user} {password}");
        let found = ask(&tenants, Permission::Write, &asked).await;
        assert_eq!(found, expected.map(str::to_owned), "{what}");
        let methods = tenants.ways.iter().filter_map(|way| match &*way.method {
            Method::Basic(users) => Some(&**users),
            _ => None,
        });
        let checked = methods.chain(&tenants.decoy);
        let checked = checked.filter(|it| it.has_checked(user, password)).count();
        assert_eq!(checked, checks, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_pending_checks_delay_one_request_for_a_bounded_time() {
    let tenants = with_passwords(&Files::new(), 4);
    for way in &tenants.ways {
        if let Method::Basic(users) = &*way.method {
            users.is_busy();
        }
    }
    let value = basic("prometheus", "password-4");
    let started = Instant::now();
    let refusal = refused(&tenants, None, &[("authorization", &value)]).await;
    assert_eq!(refusal.answer().status(), 503);
    let waited = started.elapsed().as_secs();
    assert!(waited <= 15, "waited {waited} s");
}

#[tokio::test]
async fn nobody_learns_which_tenants_there_are_without_valid_credentials() {
    let server = Server::new("zeta");
    let files = Files::new();
    files.write("own-token", "own");
    // The issuer is up, but has signed none of the tokens.
    let issuer = issuer::Fake::new(&[&issuer::Signer::new("x", jsonwebtoken::Algorithm::ES256)]);
    let config = format!(
        "{TENANTS}{}[tenants.test]\noidc = {{ issuer = \"{}\", audience = \"a\" }}\n",
        server.tenant("kube"),
        issuer.url
    );
    let tenants = files.tenants(&config).unwrap();
    let right = basic("prometheus", "pass:word");
    let wrong = basic("prometheus", "wrong");
    let elsewhere = URL_SAFE_NO_PAD.encode("{\"iss\":\"http://127.0.0.1:1\"}");
    let elsewhere = format!("Bearer e30.{elsewhere}.AAAA");
    let own = URL_SAFE_NO_PAD.encode(format!("{{\"iss\":\"{}\"}}", issuer.url));
    let own = format!("Bearer e30.{own}.AAAA");
    for (authorization, except) in [
        ("", ""),
        ("Bearer", ""),
        ("Digest x", ""),
        ("Bearer x", ""),
        (elsewhere.as_str(), ""),
        (own.as_str(), ""),
        (wrong.as_str(), ""),
        (right.as_str(), "acme"),
    ] {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &[][..]
        } else {
            &headers
        };
        let mut answers = Vec::new();
        for name in ["acme", "id-a", "zeta", "beta", "test", "kube", "nobody"] {
            if except.is_empty() || !["acme", "id-a"].contains(&name) {
                let refusal = refused(&tenants, Some(name), headers).await;
                answers.push(format!("{refusal:?}"));
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{authorization}: {answers:?}");
        assert!(answers[0].contains("Unauthenticated"), "{answers:?}");
    }
}
