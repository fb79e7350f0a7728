use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::AUTHORIZATION;

use metrifold_base::BoxFuture;
use metrifold_model::{Caller, Identity, Proof};

use tokio::time::sleep;

use super::credentials::PAUSES;
use crate::access::{Access, Admission, Head};
use crate::testing::{Authority, local};
use crate::{Handler, Listeners, Request, Response, answer, body};

use serde::Deserialize;

use super::*;

/// A token endpoint that issues a new token per request, each valid for `life` seconds.
struct Endpoint {
    life: &'static str,
    wants_body: bool,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
}

/// Admits everybody, with the received `Authorization` as the caller's identity.
struct Shows;

impl Access for Shows {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        let shown = head.headers.get(AUTHORIZATION);
        let identity = shown.map(|shown| {
            Arc::new(Identity {
                tenants: Arc::default(),
                subject: Some(shown.to_str().unwrap().into()),
                groups: Arc::default(),
                proof: Proof::Password,
            })
        });
        Box::pin(std::future::ready(Ok(Caller {
            identity,
            certificate: None,
        })))
    }
}

impl Handler for Endpoint {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            // Credentials are removed before the handler runs.
            assert_eq!(request.headers.get(AUTHORIZATION), None);
            let header = request.caller.subject().map(str::to_owned);
            let form = body::read(request.body, None, 1024, Duration::from_secs(30)).await;
            let form = String::from_utf8(form.unwrap().to_vec()).unwrap();
            assert!(form.starts_with("grant_type=client_credentials&scope=a+b&audience=metrics"));
            assert!(form.contains("&tenant=x%26y"), "{form}");
            let good = match (self.wants_body, header) {
                (true, None) => form.contains("client_id=me+too&client_secret=top+s%3Acret"),
                (false, Some(header)) => basic("me%20too:top%20s%3Acret").unwrap() == header,
                _ => false,
            };
            if !good {
                self.refused.fetch_add(1, Ordering::SeqCst);
                let error = r#"{"error":"invalid_client","error_description":"no: top s:cret"}"#;
                return answer::text(StatusCode::UNAUTHORIZED, error);
            }
            let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if self.failing.load(Ordering::SeqCst) > 0 {
                return answer::text(StatusCode::BAD_GATEWAY, "<html>");
            }
            let life = self.life;
            let token = format!(
                r#"{{"access_token":"token{asked}","token_type":"bearer","expires_in":{life}}}"#
            );
            answer::text(StatusCode::OK, &token)
        })
    }
}

struct Setup {
    credentials: Credentials,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    failing: Arc<AtomicUsize>,
    _serving: (crate::Listeners, crate::Route, crate::Serving),
}

fn setup(life: &'static str, wants_body: bool, secret: &str) -> Setup {
    let [asked, refused, failing]: [Arc<AtomicUsize>; 3] = Default::default();
    let endpoint = Endpoint {
        life,
        wants_body,
        asked: Arc::clone(&asked),
        refused: Arc::clone(&refused),
        failing: Arc::clone(&failing),
    };
    let listeners = Listeners::new();
    let route = listeners.route(&local("/token"), "test").unwrap();
    let attached = route.serve(Arc::new(Shows), Arc::new(endpoint));
    listeners.start();
    let serving = (listeners, route, attached);
    let oauth2 = OAuth2 {
        client_id: "me too".to_owned(),
        client_secret: Some(Secret::new(secret)),
        client_secret_file: None,
        token_url: format!("http://{}/token", serving.1.local_addr())
            .parse()
            .unwrap(),
        scopes: vec!["a".to_owned(), "b".to_owned()],
        audience: Some("metrics".to_owned()),
        endpoint_params: BTreeMap::from([("tenant".to_owned(), Secret::new("x&y"))]),
        proxy: ProxyKeys::default(),
        tls: ClientTls::default(),
    };
    Setup {
        credentials: Credentials::build(None, None, Some(&oauth2)).unwrap(),
        asked,
        refused,
        failing,
        _serving: serving,
    }
}

async fn header_of(credentials: &Credentials) -> String {
    let header = credentials.header().await.unwrap().unwrap();
    assert!(header.is_sensitive());
    header.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_asked_for_once_however_many_wait() {
    let setup = setup("3600", false, "top s:cret");
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let credentials = setup.credentials.clone();
            tokio::spawn(async move { header_of(&credentials).await })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "Bearer token1");
    }
    assert_eq!(setup.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let setup = setup("\"3600\"", false, "top s:cret");
    let old = setup.credentials.header().await.unwrap().unwrap();
    setup.credentials.refused(&old);
    assert_eq!(header_of(&setup.credentials).await, "Bearer token2");
    // A late answer to a request with the old token.
    setup.credentials.refused(&old);
    assert_eq!(header_of(&setup.credentials).await, "Bearer token2");
}

#[tokio::test]
async fn an_endpoint_that_refuses_all_tokens_has_no_token_asked_for_each_time() {
    let setup = setup("3600", false, "top s:cret");
    for _ in 0..100 {
        let shown = setup.credentials.header().await.unwrap().unwrap();
        setup.credentials.refused(&shown);
    }
    // The first one, and one renewal in ten seconds.
    assert_eq!(setup.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let setup = setup("0", false, "top s:cret");
    assert_eq!(header_of(&setup.credentials).await, "Bearer token1");
    assert_eq!(header_of(&setup.credentials).await, "Bearer token2");
}

#[tokio::test]
async fn an_endpoint_that_wants_the_secret_in_the_body_gets_it_there() {
    let setup = setup("0", true, "top s:cret");
    assert_eq!(header_of(&setup.credentials).await, "Bearer token1");
    assert_eq!(header_of(&setup.credentials).await, "Bearer token2");
}

#[tokio::test]
async fn a_token_endpoint_that_fails_is_named_without_secrets() {
    let setup = setup("3600", false, "top s:cret");
    setup.failing.store(1, Ordering::SeqCst);
    let error = setup.credentials.header().await.unwrap_err().to_string();
    assert!(error.ends_with("/token answered 502"), "{error}");
    setup.failing.store(0, Ordering::SeqCst);
    // Until the pause is over, the error is the same.
    assert_eq!(
        setup.credentials.header().await.unwrap_err().to_string(),
        error
    );
    sleep(PAUSES.0).await;
    assert_eq!(header_of(&setup.credentials).await, "Bearer token2");
}

#[tokio::test]
async fn a_client_that_is_refused_is_not_sent_with_each_request() {
    let setup = setup("3600", false, "top");
    for _ in 0..100 {
        setup.credentials.header().await.unwrap_err();
    }
    // Once with the secret in a header, and once with it in the body.
    assert_eq!(setup.refused.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_wrong_secret_is_explained_and_not_shown() {
    let setup = setup("3600", false, "top");
    // The answer repeats another known secret.
    let _ours = Secret::new("top s:cret");
    let error = setup.credentials.header().await.unwrap_err().to_string();
    assert!(
        error.ends_with("/token answered 401: invalid_client: no: ***"),
        "{error}"
    );
    assert_eq!(
        format!("{:?}", setup.credentials),
        "Credentials(\"oauth2\")"
    );
}

#[tokio::test]
async fn user_token_and_file_make_a_header() {
    assert_eq!(
        Credentials::build(None, None, None).unwrap().header().await,
        Ok(None)
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "first\n").unwrap();
    let user = BasicAuth {
        username: "u".to_owned(),
        password: None,
        password_file: Some(file.clone()),
    };
    let credentials = Credentials::build(Some(&user), None, None).unwrap();
    assert_eq!(header_of(&credentials).await, basic("u:first").unwrap());
    std::fs::write(&file, "second\n").unwrap();
    let old = credentials.header().await.unwrap().unwrap();
    credentials.refused(&old);
    assert_eq!(header_of(&credentials).await, basic("u:second").unwrap());
    let token = Authorization {
        scheme: "Token".to_owned(),
        credentials: Some(Secret::new("t0ken")),
        credentials_file: None,
    };
    let credentials = Credentials::build(None, Some(&token), None).unwrap();
    assert_eq!(header_of(&credentials).await, "Token t0ken");
    assert!(Credentials::build(Some(&user), Some(&token), None).is_err());
    std::fs::write(&file, "\n").unwrap();
    let error = Credentials::build(Some(&user), None, None).unwrap_err();
    assert!(error.to_string().ends_with("secret is empty"), "{error}");
}

/// All kinds of credentials, with at least one mistake each.
#[derive(Debug, Deserialize)]
struct Table {
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    oauth2: Option<OAuth2>,
}

fn problems_of(text: &str, prefix: &str) -> Vec<String> {
    let table: Table = toml::from_str(text).unwrap();
    assert!(!format!("{table:?}").contains("topsecret"));
    let mut problems = Problems::new(true);
    let Table {
        basic_auth,
        authorization,
        oauth2,
    } = &table;
    validate(
        prefix,
        basic_auth.as_ref(),
        authorization.as_ref(),
        oauth2.as_ref(),
        &mut problems,
    );
    let list = problems.into_list().into_iter();
    list.map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect()
}

#[test]
fn sound_credentials_have_no_problems() {
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    for text in [
        "basic_auth = { username = \"u\", password = \"topsecret\" }".to_owned(),
        "authorization = { credentials = \"topsecret\" }".to_owned(),
        format!(
            "oauth2 = {{ client_id = \"i\", client_secret = \"topsecret\", token_url = \"https://x/token\", \
             endpoint_params = {{ password = \"topsecret\" }}, tls = {{ ca_file = {ca:?} }} }}"
        ),
    ] {
        assert_eq!(problems_of(&text, ""), [""; 0], "{text}");
    }
}

#[test]
fn every_problem_is_found_at_its_key_and_a_contradiction_once() {
    let text = "
        basic_auth = { username = \"a:b\" }
        authorization = { type = \"basic\", credentials = \"topsecret\", credentials_file = \"/x\" }
        [oauth2]
        client_id = \"\"
        client_secret_file = \"/nowhere/secret\"
        token_url = \"https://x/token\"
        endpoint_params = { scope = \"topsecret\" }
        tls = { cert_file = \"/nowhere/crt\" }
    ";
    let paths: Vec<String> = problems_of(text, "read")
        .iter()
        .map(|problem| problem.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        paths,
        [
            "read.oauth2",
            "read.basic_auth.username",
            "read.basic_auth",
            "read.authorization.type",
            "read.authorization.credentials_file",
            "read.oauth2.client_id",
            "read.oauth2.client_secret_file",
            "read.oauth2.endpoint_params.scope",
            "read.oauth2.tls.cert_file",
            "read.oauth2.tls.cert_file",
        ]
    );
    let problem = &problems_of(text, "")[0];
    assert_eq!(
        problem,
        "oauth2: cannot be set together with basic_auth, authorization"
    );
    let odd = "authorization = { credentials = \"topsecret\\nInjected: yes\" }";
    assert_eq!(
        problems_of(odd, ""),
        ["authorization.credentials: it contains a line break or a control character"]
    );
}

#[test]
fn an_unknown_key_is_refused() {
    let text = "authorization = { credential = \"topsecret\" }";
    assert!(toml::from_str::<Table>(text).is_err());
}
