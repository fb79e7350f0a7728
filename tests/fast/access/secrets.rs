//! Credentials of callers, and those with which Metrifold asks issuers and API servers, are shown nowhere.

use std::fs;

use serde_json::json;

use metrifold_testing::issuer::{CLIENT, OpenIdIssuer, SECRET};
use metrifold_testing::{
    Answer, Browser, Endpoint, Metrifold, Reply, Seen, Sender, base64, expect, until, up,
};

const GATEWAY: &str = "https://gateway.example";
const QUERY: &str = "/of/web/api/v1/query?query=up";

/// A token, and its hash.
const TOKEN: &str = "bearer-t0ken-of-bear";
const HASH: &str = "1b6451035685758b7c6f471902e9a0141b032313f723b5812b838f0ee84d9a8a";

/// A password, and its hash.
const PASSWORD: &str = "passw0rd-of-word";
const CRYPTED: &str = "$2b$04$2cgbtqUQVfUO9ygync.sEu9Ym96juDGevrJTZmWtnLZ1Fua6MIRBq";

/// The token that authenticates to the API server.
const OWN: &str = "own-t0ken-for-the-server";

/// Number of ways in which peers answer in turn.
const WAYS: usize = 4;

/// Pages of the admin address.
const PAGES: [&str; 6] = [
    "/",
    "/metrics",
    "/api/v1/topology",
    "/api/v1/ledger",
    "/api/v1/dead-letters",
    "/api/v1/tenants/bear/usage",
];

/// A server that answers rightly (`good`), that no, and nonsense, and echoes what it was asked.
fn echoing(good: serde_json::Value, status: u16) -> Endpoint {
    Endpoint::new(move |seen: &Seen| {
        let echo = format!("{:?} {}", seen.headers, String::from_utf8_lossy(&seen.body));
        match seen.order % WAYS {
            0 => Reply::new(status).body(good.to_string()),
            1 => Reply::new(status).body(
                json!({ "result": &echo, "status": { "authenticated": false, "error": &echo } })
                    .to_string(),
            ),
            2 => Reply::new(500).body(echo),
            _ => Reply::new(status).body(echo),
        }
    })
}

/// Secrets, and texts in which they must not occur.
#[derive(Default)]
struct Search {
    secrets: Vec<String>,
    texts: Vec<(String, String)>,
}

impl Search {
    fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
        self.secrets.push(base64(secret));
    }

    /// Adds an answer without the headers that are for the browser only.
    fn answer(&mut self, what: &str, answer: &Answer) {
        let headers = answer.headers.iter();
        let headers = headers.filter(|(name, _)| !["set-cookie", "location"].contains(&&**name));
        let headers: Vec<_> = headers.collect();
        let text = format!("{headers:?} {}", answer.text());
        self.texts.push((what.to_owned(), text));
    }

    #[track_caller]
    fn finds_nothing(&self) {
        for (what, text) in &self.texts {
            for secret in &self.secrets {
                let shown = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(shown, None, "{what} shows {secret}");
            }
        }
    }
}

#[test]
fn no_credentials_of_tenants_are_shown_whether_right_or_wrong_or_echoed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let tokens = file("bear.tokens", &format!("sha256:{HASH} bear-agent\n"));
    let users = format!("basic_auth_users:\n  agent: {CRYPTED}\n");
    let users = file("word.yaml", &users);
    let own = file("own", OWN);
    let secret = file("client", SECRET);
    let issuer = OpenIdIssuer::start("jane", 1);
    let reviewed = json!({ "status": { "authenticated": true, "user": { "username": "agent" } } });
    let (server, agent) = (
        echoing(reviewed, 201),
        echoing(json!({ "result": true }), 200),
    );
    let store = Endpoint::new(|_| Reply::new(200).body(r#"{"status":"success"}"#));
    let gateway = Metrifold::start_with(
        &format!(
            "[api]\naddress = \"API\"\n\
             [tenants.bear]\nbearer = {{ tokens_file = {tokens:?} }}\n\
             opa = {{ url = \"{}/allow\", cache = \"0s\" }}\n\
             [tenants.word]\nbasic = {{ web_config_file = {users:?} }}\n\
             [tenants.kube]\nkubernetes = {{ api_server = \"{}\", token_file = {own:?} }}\n\
             [tenants.web.oidc]\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\n\
             [tenants.web.oidc.login]\nexternal_url = \"{GATEWAY}\"\nclient_secret_file = {secret:?}\n\
             [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
             path = \"/to/{{tenant}}\"\naccess = \"tenants\"\n\
             [sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/of/{{tenant}}\"\n\
             access = \"tenants\"\nlogin = true\n\
             [sinks.nowhere]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n\
             [sinks.store]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{}\"\n",
            format_args!("http://{}", agent.address()),
            format_args!("http://{}", server.address()),
            issuer.url(),
            store.url(),
        ),
        &["--log-level", "trace", "--no-watch"],
    );
    let mut search = Search::default();
    for secret in [TOKEN, PASSWORD, OWN, SECRET, "client+s3cret"] {
        search.secret(secret);
    }
    search.secret(&format!("{CLIENT}:client+s3cret"));

    // Tokens and passwords.
    let mut sender = Sender::new(gateway.ingest);
    let mut statuses = Vec::new();
    for number in 0..2 * WAYS {
        let [account, wrong] = ["acc0unt", "wr0ng"].map(|kind| format!("{kind}-t0ken-{number}"));
        let [basic, mistaken] = [PASSWORD, &wrong].map(|it| base64(&format!("agent:{it}")));
        for (tenant, scheme, credentials) in [
            ("bear", "Bearer", TOKEN),
            ("bear", "Bearer", &wrong),
            ("word", "Basic", &basic),
            ("word", "Basic", &mistaken),
            ("kube", "Bearer", &account),
            ("kube", "Bearer", &wrong),
            ("none", "Bearer", &wrong),
            ("none", "Digest", &wrong),
        ] {
            let value = format!("{scheme} {credentials}");
            let headers = [("authorization", value.as_str())];
            let answer = sender.post(&format!("/to/{tenant}"), &headers, &up(1));
            search.answer(&format!("a write to {tenant}"), &answer);
            statuses.push((tenant, answer.status));
        }
        for secret in [&account, &wrong, &basic, &mistaken] {
            search.secret(secret);
        }
    }
    for (tenant, status) in [
        ("bear", 204),
        ("bear", 403),
        ("bear", 503),
        ("bear", 401),
        ("word", 204),
        ("word", 401),
        ("kube", 204),
        ("kube", 401),
        ("kube", 503),
    ] {
        assert!(statuses.contains(&(tenant, status)), "{statuses:?}");
    }

    // Sessions, of which each is renewed.
    let mut browsers = Vec::new();
    for _ in 0..WAYS {
        let mut browser = Browser::new(gateway.ingest, GATEWAY);
        search.answer("a page after the login", &browser.log_in(QUERY));
        for cookie in browser.cookies.values() {
            search.secret(cookie);
        }
        browsers.push(browser);
    }
    for browser in &mut browsers {
        let before = issuer.refreshed();
        until("the session is renewed", || {
            expect(&browser.ask("GET", QUERY, &[]), 200);
            (issuer.refreshed() > before).then_some(())
        });
    }
    for number in 0..=issuer.issued() {
        search.secret(&format!("code-{number}x"));
        search.secret(&format!("refresh-{number}x"));
    }

    // An issuer that repeats what it was told.
    issuer.echoes();
    for browser in &mut browsers {
        until("the session is over", || {
            let answer = browser.ask("GET", QUERY, &[]);
            search.answer("a page of a session", &answer);
            (answer.status == 401).then_some(())
        });
        let back = browser.at_issuer("/oidc/web/login");
        let (_, query) = back.split_once('?').unwrap();
        for pair in query.split('&').filter(|pair| !pair.starts_with("iss=")) {
            search.secret(pair.split_once('=').unwrap().1);
        }
        for cookie in browser.cookies.values() {
            search.secret(cookie);
        }
        let refused = browser.open(&back);
        expect(&refused, 403);
        let text = refused.text();
        assert!(
            text.contains("the issuer refuses the code: ") && text.contains("***"),
            "{text}"
        );
        search.answer("a login that is refused", &refused);
    }
    for page in PAGES {
        search.answer(page, &gateway.get(page));
    }
    search.texts.push(("the log".to_owned(), gateway.log()));
    search.finds_nothing();
}
