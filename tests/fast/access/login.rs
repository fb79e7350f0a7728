//! Login with a browser: redirects, renewal of sessions, and refusals.

use std::fs;

use metrifold_testing::issuer::{CLIENT, OpenIdIssuer, SECRET};
use metrifold_testing::{Browser, Endpoint, Metrifold, Reply, expect, request, until};
use tempfile::TempDir;

const GATEWAY: &str = "https://gateway.example";
const QUERY: &str = "/of/acme/api/v1/query?query=up";

/// A gateway with two tenants that log in at an issuer, in front of a store.
struct Rig {
    issuer: OpenIdIssuer,
    store: Endpoint,
    gateway: Metrifold,
    config: String,
    _folder: TempDir,
}

impl Rig {
    fn start(seconds: u64) -> Self {
        let issuer = OpenIdIssuer::start("jane", seconds);
        let store = Endpoint::new(|_| Reply::new(200).body(r#"{"status":"success"}"#));
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let tenant = |name: &str, more: &str| {
            format!(
                "[tenants.{name}.oidc]\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\n{more}\n\
                 [tenants.{name}.oidc.login]\nexternal_url = \"{GATEWAY}\"\n\
                 client_secret_file = {secret:?}\nafter_logout_url = \"{GATEWAY}/bye\"\n",
                issuer.url()
            )
        };
        let config = format!(
            "{}{}\
             [roles.reader]\ntenants = [\"acme\", \"zeta\"]\npermissions = [\"read\"]\n\
             [role_bindings.readers]\nroles = [\"reader\"]\nsubjects = [{{ name = \"jane\" }}]\n\
             [sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/of/{{tenant}}\"\n\
             access = \"tenants\"\nlogin = true\n\
             [sinks.store]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{}\"\n",
            tenant("acme", ""),
            tenant("zeta", "groups_claim = \"roles\""),
            store.url(),
        );
        let gateway = Metrifold::start(&config);
        Self {
            issuer,
            store,
            gateway,
            config,
            _folder: folder,
        }
    }

    fn browser(&self) -> Browser {
        Browser::new(self.gateway.ingest, GATEWAY)
    }
}

#[test]
fn a_browser_is_sent_to_its_issuer_and_back_and_reads_and_logs_out() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    expect(&browser.log_in(QUERY), 200);
    for attributes in &browser.attributes {
        for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(attributes.contains(part), "{attributes}");
        }
    }
    let names: Vec<_> = browser.cookies.keys().cloned().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(
        names[0].starts_with("__Host-metrifold-session-"),
        "{names:?}"
    );
    let seen = rig.store.only();
    assert_eq!(
        seen.header("cookie"),
        None,
        "sessions are for nobody behind the gateway"
    );
    // Scripts of the same origin may read too.
    let own = [("sec-fetch-site", "same-origin")];
    expect(
        &browser.ask("POST", "/of/acme/api/v1/query?query=up", &own),
        200,
    );

    let kept = browser.cookies.clone();
    let out = browser.open("/oidc/acme/logout");
    expect(&out, 303);
    let place = out.header("location").unwrap();
    // The issuer learns whose session to end, and where the browser goes from there.
    assert!(
        place.contains("/logout?client_id=gateway&id_token_hint=ey"),
        "{place}"
    );
    let after = "&post_logout_redirect_uri=https%3A%2F%2Fgateway.example%2Fbye";
    assert!(place.ends_with(after), "{place}");
    assert!(browser.cookies.is_empty());
    browser.cookies = kept;
    let again = browser.ask("GET", QUERY, &[]);
    expect(&again, 401);
}

#[test]
fn only_browsers_that_open_a_page_are_sent_away() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    let answer = browser.ask("GET", QUERY, &[("accept", "application/json")]);
    expect(&answer, 401);
    assert!(answer.header("www-authenticate").is_some());
    expect(&browser.ask("POST", QUERY, &[("accept", "text/html")]), 401);
    expect(&browser.open("/of/nobody/api/v1/query?query=up"), 401);
    expect(&browser.open("/oidc/nobody/login"), 404);
    expect(&browser.open("/oidc/acme/other"), 404);
}

#[test]
fn whoever_did_not_leave_from_here_does_not_come_back() {
    let rig = Rig::start(300);
    let mut jane = rig.browser();
    let back = jane.at_issuer("/oidc/acme/login");
    // An attacker's browser opens Jane's callback URL.
    let mut eve = rig.browser();
    expect(&eve.open(&back), 403);
    eve.at_issuer("/oidc/acme/login");
    expect(&eve.open(&back), 403);
    expect(&jane.open(&back.replace("state=", "state=x")), 403);
    expect(&jane.open(&back.replace("/acme/", "/zeta/")), 403);
    let elsewhere = back.replace("iss=http", "iss=https");
    expect(&jane.open(&elsewhere), 403);
    expect(&jane.open("/oidc/acme/callback?code=x"), 400);
    for other in ["", "&iss=https://evil.example&iss=https://evil.example"] {
        let back = jane.at_issuer("/oidc/acme/login");
        let (rest, _) = back.split_once("&iss=").unwrap();
        expect(&jane.open(&format!("{rest}{other}")), 403);
    }
    assert!(jane.cookies.is_empty(), "the attempt is over");
    expect(&jane.open(&back), 403);
    let back = jane.at_issuer("/oidc/acme/login");
    let returned = jane.open(&back);
    assert_eq!(jane.path(&returned), "/");
    // Code and callback URL are valid once.
    expect(&jane.open(&back), 403);
    assert_eq!(rig.store.count(), 0);
}

#[test]
fn nobody_is_led_to_another_server() {
    let rig = Rig::start(300);
    for place in [
        "https://evil.example/",
        "//evil.example",
        "/%5Cevil.example",
    ] {
        let mut browser = rig.browser();
        let back = browser.at_issuer(&format!("/oidc/acme/login?return={place}"));
        let returned = browser.open(&back);
        assert_eq!(browser.path(&returned), "/", "{place}");
    }
}

#[test]
fn a_browser_that_opens_many_pages_keeps_a_few_attempts_and_completes_the_last() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    for _ in 0..20 {
        expect(
            &browser.open(&format!("/oidc/acme/login?return={QUERY}")),
            303,
        );
    }
    assert_eq!(browser.cookies.len(), 8);
    expect(&browser.log_in(QUERY), 200);
}

#[test]
fn a_token_of_another_login_is_refused() {
    let rig = Rig::start(300);
    rig.issuer.confuses_nonces();
    let mut browser = rig.browser();
    let back = browser.at_issuer("/oidc/acme/login");
    expect(&browser.open(&back), 403);
    assert!(browser.cookies.is_empty(), "the attempt is over");
}

#[test]
fn a_session_is_of_its_tenant_and_of_nobody_who_changes_it() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    expect(&browser.log_in(QUERY), 200);
    let other = browser.ask("GET", "/of/zeta/api/v1/query?query=up", &[]);
    expect(&other, 403);
    let (name, value) = browser.cookies.pop_first().unwrap();
    for changed in [format!("{value}A"), value[1..].to_owned(), String::new()] {
        browser.cookies.insert(name.clone(), changed);
        expect(&browser.ask("GET", QUERY, &[]), 401);
    }
    browser.cookies.insert(name, value);
    // A user without a role logs in.
    rig.issuer.logs_in("stranger");
    let mut stranger = rig.browser();
    expect(&stranger.log_in(QUERY), 403);
}

#[test]
fn pages_of_other_origins_ask_nothing_in_anybodys_name() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    expect(&browser.log_in(QUERY), 200);
    for (method, headers, status) in [
        ("GET", &[("sec-fetch-site", "cross-site")][..], 403),
        (
            "GET",
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
            ],
            200,
        ),
        ("POST", &[("sec-fetch-site", "same-site")], 403),
        ("POST", &[("origin", "https://evil.example")], 403),
        ("POST", &[("origin", "https://gateway.example")], 200),
        ("POST", &[], 403),
    ] {
        let answer = browser.ask(method, QUERY, headers);
        assert_eq!(
            answer.status,
            status,
            "{method} {headers:?}: {}",
            answer.text()
        );
    }
    // Not even an image, which browsers without fetch metadata load without an `Origin`.
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[],
        &[("referer", "https://evil.example/")],
    ] {
        let answer = browser.ask("GET", "/oidc/acme/logout", headers);
        assert_eq!(answer.status, 403, "{headers:?}: {}", answer.text());
        expect(&browser.ask("GET", QUERY, &[]), 200);
    }
    let own = [("referer", "https://gateway.example/of/acme")];
    expect(&browser.ask("GET", "/oidc/acme/logout", &own), 303);
    expect(&browser.ask("GET", QUERY, &[]), 401);
}

#[test]
fn a_session_is_renewed_as_long_as_its_issuer_says_so() {
    let rig = Rig::start(1);
    let mut browser = rig.browser();
    expect(&browser.log_in(QUERY), 200);
    until("the session has been renewed twice", || {
        expect(&browser.ask("GET", QUERY, &[]), 200);
        (rig.issuer.refreshed() >= 2).then_some(())
    });
    rig.issuer.is_down(true);
    until("nobody can tell", || {
        let answer = browser.ask("GET", QUERY, &[]);
        match answer.status {
            200 => None,
            status => {
                assert_eq!(status, 503, "{}", answer.text());
                assert!(answer.header("retry-after").is_some());
                // A browser may be anybody's, who is not to learn addresses.
                let url = rig.issuer.url();
                assert!(!answer.text().contains(&url), "{}", answer.text());
                Some(())
            }
        }
    });
    rig.issuer.is_down(false);
    until("the issuer is asked again", || {
        (browser.ask("GET", QUERY, &[]).status == 200).then_some(())
    });
    rig.issuer.withdraws();
    until("the session is over", || {
        let status = browser.ask("GET", QUERY, &[]).status;
        assert!(matches!(status, 200 | 401), "{status}");
        (status == 401).then_some(())
    });
    expect(&browser.log_in(QUERY), 200);
}

#[test]
fn sessions_outlast_a_reload_and_end_with_what_they_were_made_by() {
    let rig = Rig::start(300);
    let mut browser = rig.browser();
    expect(&browser.log_in(QUERY), 200);
    let reload = |config: &str| {
        let config = rig.gateway.complete(config);
        fs::write(rig.gateway.folder().join("metrifold.toml"), config).unwrap();
        expect(
            &request("POST", rig.gateway.api, "/-/reload", &[], b"").unwrap(),
            200,
        );
    };
    let more = rig.config.replace(
        "[roles.reader]",
        "[tenants.more]\ntrusted_header = { user = \"x-user\", addresses = [\"127.0.0.1\"] }\n[roles.reader]",
    );
    reload(&more);
    expect(&browser.ask("GET", QUERY, &[]), 200);
    let audience = "groups_claim = \"roles\"\nclock_skew = \"10s\"";
    let other = more.replace("groups_claim = \"roles\"", audience);
    reload(&other);
    expect(&browser.ask("GET", QUERY, &[]), 200);
    // A changed `oidc` table makes a new method with new sealing keys, which ends its sessions.
    let changed = more.replacen(
        "[tenants.acme.oidc]\n",
        "[tenants.acme.oidc]\nclock_skew = \"10s\"\n",
        1,
    );
    reload(&changed);
    expect(&browser.ask("GET", QUERY, &[]), 401);
    expect(&browser.log_in(QUERY), 200);
}
