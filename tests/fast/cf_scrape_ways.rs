//! Ways to an instance of Cloud Foundry: certificates, credentials of services, headers.

use metrifold_testing::{Authority, Endpoint, Manner, Metrifold, Reply, Seen, until_so};

use crate::cf_scrape::{config, foundation, last, live, pairs};

#[test]
fn an_instance_behind_tls_is_shown_the_certificate_of_its_authenticator() {
    let foundation = foundation();
    let (servers, clients) = (Authority::new(), Authority::new());
    let router = Endpoint::tls(servers.server(Some(&clients.ca())), |_| {
        Reply::new(200).body("a 1\n")
    });
    let (cert, key) = clients.issue("scraper");
    let select = "authenticator = \"mine\"";
    let known = format!("ca_file = {:?}", servers.ca());
    for (tls, up) in [
        (
            format!("{known}, cert_file = {cert:?}, key_file = {key:?}"),
            1.0,
        ),
        (known, 0.0),
    ] {
        let sink = Endpoint::speaking(Manner::Honest);
        let source = format!("[sources.apps.authenticators.mine]\ntls = {{ {tls} }}\n");
        let text = config(&foundation, &sink, select, &source);
        let plain = format!("router_port = {}", foundation.router.address().port());
        let ours = format!("router_port = {}", router.address().port());
        let text = text.replace("protocol = \"http\"", "protocol = \"https\"");
        let _child = Metrifold::start(&text.replace(&plain, &ours));
        until_so("both have been scraped", || {
            let ups = last(&sink, "up");
            ups.len() == 2 && ups.iter().all(|(_, bits)| f64::from_bits(*bits) == up)
        });
    }
    let seen = router.seen();
    assert!(
        seen.iter()
            .all(|it| it.header("x-cf-app-instance").is_some())
    );
}

#[test]
fn credentials_of_a_service_bound_to_this_process_are_sent() {
    let foundation = foundation();
    let sink = Endpoint::speaking(Manner::Honest);
    let source = "[sources.apps.authenticators.mine]\nservice = \"login\"\n";
    let text = config(&foundation, &sink, "authenticator = \"mine\"", source);
    let services =
        r#"{"user-provided":[{"name":"login","credentials":{"username":"u","password":"p"}}]}"#;
    let _child = Metrifold::start_after(&format!("export VCAP_SERVICES='{services}'"), &text);
    until_so("both are scraped", || live(&sink) == pairs(&[0, 1]));
    let seen = foundation.router.seen();
    let shown = |it: &Seen| it.header("authorization") == Some("Basic dTpw");
    assert!(!seen.is_empty() && seen.iter().all(shown));
}

#[test]
fn the_header_is_the_one_that_the_key_names() {
    let app_header = "x-cf-app-instance";
    let process_header = "x-cf-process-instance";
    for (key, sent, other) in [
        ("process", process_header, app_header),
        ("app", app_header, process_header),
    ] {
        let foundation = foundation();
        let app = foundation.state().apps[0].guid.clone();
        // With `auto`, two processes of a type would be told apart by the header of processes.
        let new = foundation.state().deploy(&app, "web", 1);
        let sink = Endpoint::speaking(Manner::Honest);
        let source = format!("instance_header = {key:?}");
        let _child = Metrifold::start(&config(&foundation, &sink, "", &source));
        until_so("all three are scraped", || last(&sink, "up").len() == 3);
        let guid = if key == "app" { &app } else { &new };
        let asked = format!("{guid}:0");
        let seen = foundation.router.seen();
        assert!(
            seen.iter().any(|it| it.header(sent) == Some(&asked)),
            "{key}"
        );
        assert!(seen.iter().all(|it| it.header(other).is_none()), "{key}");
    }
}
