//! Ways to a target's page: TLS, proxies, credentials, encodings, names.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrifold_testing::{Authority, Endpoint, Metrifold, Reply, Seen, until, until_so};

use crate::scrape::{OFTEN, last_value};

/// A scraping process with these targets and keys, and the far end of its sink.
fn start(targets: &[String], keys: &str) -> (Metrifold, Endpoint) {
    let sink = Endpoint::healthy();
    let child = Metrifold::start(&format!(
        "[sources.s]\ntype = \"scrape\"\n{OFTEN}\ntargets = {targets:?}\n{keys}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\n",
        sink.url()
    ));
    (child, sink)
}

fn until_last(sink: &Endpoint, name: &str, value: f64) {
    until_so(name, || last_value(sink, name) == Some(value));
}

#[test]
fn a_target_behind_tls_is_asked_by_who_trusts_it_and_shows_its_certificate() {
    let (own, clients) = (Authority::new(), Authority::new());
    let tls = own.server(Some(&clients.ca()));
    let target = Endpoint::tls(tls, |_| Reply::new(200).body("a 1\n"));
    let (certificate, key) = clients.issue("scraper");
    let targets = [target.address().to_string()];
    let known = format!(
        "cert_file = {certificate:?}, key_file = {key:?}, ca_file = {:?}",
        own.ca()
    );
    for (tls, value) in [
        (known.as_str(), 1.0),
        (&format!("ca_file = {:?}", own.ca()), 0.0),
        (
            &format!("cert_file = {certificate:?}, key_file = {key:?}"),
            0.0,
        ),
        (&format!("{known}, server_name = \"other.example\""), 0.0),
    ] {
        let keys = format!("scheme = \"https\"\ntls = {{ {tls} }}");
        let (child, sink) = start(&targets, &keys);
        until_last(&sink, "up", value);
        let shown = child.get("/api/v1/targets").json();
        let url = &shown["data"]["activeTargets"][0]["scrapeUrl"];
        assert_eq!(*url, format!("https://{}/metrics", target.address()));
    }
}

#[test]
fn a_target_behind_a_proxy_is_asked_through_it_and_never_sees_its_password() {
    let proxy = Endpoint::new(|seen| match seen.header("proxy-authorization") {
        // "me:hush"
        Some("Basic bWU6aHVzaA==") => Reply::new(200).body("a 1\n"),
        _ => Reply::new(407),
    });
    let address = "target.example:9100".to_owned();
    let own = "basic_auth = { username = \"u\", password = \"p\" }";
    let by = format!("proxy_url = \"{}\"\n{own}", proxy.url_of(""));
    let password = "proxy_basic_auth = { username = \"me\", password = \"hush\" }";
    let (_child, sink) = start(std::slice::from_ref(&address), &format!("{by}\n{password}"));
    until_last(&sink, "a", 1.0);
    let asked = proxy.seen()[0].clone();
    assert_eq!(asked.path, format!("http://{address}/metrics"));
    assert_eq!(asked.header("authorization"), Some("Basic dTpw"));
    // Without the password the proxy refuses, and its answer is that of no target.
    let (_child, sink) = start(&[address], &by);
    until_last(&sink, "up", 0.0);
    assert_eq!(last_value(&sink, "a"), None);
}

#[test]
fn a_job_with_oauth2_gets_another_token_when_one_is_refused() {
    let issued = AtomicUsize::new(0);
    let tokens = Endpoint::new(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst);
        let token = format!("{{\"access_token\":\"token-{number}\",\"expires_in\":3600}}");
        let reply = Reply::new(200).header("content-type", "application/json");
        reply.body(token)
    });
    let target = Endpoint::new(|seen| match seen.header("authorization") {
        Some("Bearer token-0") if seen.order == 0 => Reply::new(200).body("a 1\n"),
        Some("Bearer token-1") => Reply::new(200).body("a 2\n"),
        _ => Reply::new(401),
    });
    let keys = format!(
        "oauth2 = {{ client_id = \"me\", client_secret = \"hush\", token_url = \"{}\" }}",
        tokens.url()
    );
    let (_child, sink) = start(&[target.address().to_string()], &keys);
    until_last(&sink, "a", 2.0);
    assert_eq!(tokens.count(), 2);
    // One page came, then one request was refused.
    let seen = sink.seen();
    let ups = seen
        .iter()
        .flat_map(Seen::series)
        .filter(|it| it.name() == "up");
    let ups: Vec<_> = ups.map(|it| f64::from_bits(it.samples[0].bits)).collect();
    assert_eq!(ups[..3], [1.0, 0.0, 1.0]);
}

/// `a 1`, compressed.
const GZIP: [u8; 24] = [
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 84, 48, 228, 2, 0, 54, 231, 27, 188, 4, 0, 0, 0,
];
const ZSTD: [u8; 17] = [
    40, 181, 47, 253, 4, 88, 33, 0, 0, 97, 32, 49, 10, 145, 114, 196, 53,
];

#[test]
fn pages_come_compressed_and_a_broken_or_unasked_encoding_fails_the_scrape() {
    for (encoding, body, up) in [
        ("gzip", &GZIP[..], 1.0),
        ("GZIP", &GZIP, 1.0),
        ("zstd", &ZSTD, 1.0),
        ("identity", b"a 1\n", 1.0),
        ("gzip", &GZIP[..20], 0.0),
        ("zstd", &ZSTD[..15], 0.0),
        ("zstd", &GZIP, 0.0),
        ("br", b"a 1\n", 0.0),
    ] {
        let target = Endpoint::new(move |_| {
            let reply = Reply::new(200).header("content-encoding", encoding);
            reply.body(body)
        });
        let (_child, sink) = start(&[target.address().to_string()], "");
        until_last(&sink, "up", up);
        assert_eq!(last_value(&sink, "a").is_some(), up == 1.0, "{encoding}");
    }
}

#[test]
fn names_are_escaped_by_the_target_as_it_is_asked() {
    for (scheme, name) in [
        ("allow-utf-8", "a.b"),
        ("underscores", "a_b"),
        ("dots", "a_dot_b"),
        ("values", "U__a_2e_b"),
    ] {
        // As client_golang does: the first format of the list, with the escaping that it names.
        let target = Endpoint::new(|seen| {
            let accept = seen.header("accept").unwrap();
            let first = accept.split(',').next().unwrap();
            let escaping = first.split("escaping=").nth(1).unwrap();
            let line = match escaping.split(';').next().unwrap() {
                "allow-utf-8" => "{\"a.b\"} 1\n# EOF\n",
                "underscores" => "a_b 1\n# EOF\n",
                "dots" => "a_dot_b 1\n# EOF\n",
                "values" => "U__a_2e_b 1\n# EOF\n",
                other => panic!("{other}"),
            };
            let kind = first.split(";q=").next().unwrap();
            Reply::new(200).header("content-type", kind).body(line)
        });
        let keys = format!("metric_name_escaping_scheme = \"{scheme}\"");
        let (_child, sink) = start(&[target.address().to_string()], &keys);
        until_last(&sink, name, 1.0);
    }
}

#[test]
fn thousands_of_targets_are_shown_found_and_filtered() {
    let target = Endpoint::new(|_| Reply::new(200).body("a 1\n"));
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("targets.json");
    let group = |number: usize| {
        let labels = format!("{{\"__metrics_path__\":\"/{number}\",\"number\":\"n{number}\"}}");
        format!(
            "{{\"targets\":[\"{}\"],\"labels\":{labels}}}",
            target.address()
        )
    };
    let groups: Vec<_> = (0..3000).map(group).collect();
    std::fs::write(&list, format!("[{}]", groups.join(","))).unwrap();
    let sink = Endpoint::healthy();
    let child = Metrifold::start(&format!(
        "[discovery.d]\ntype = \"file\"\nfiles = [{list:?}]\n\
         [sources.s]\ntype = \"scrape\"\nscrape_interval = \"1h\"\ndiscovery = \"d\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\n",
        sink.url()
    ));
    let get = |query: &str| child.get(&format!("/api/v1/targets{query}")).json()["data"].clone();
    let all = until("all targets", || {
        let data = get("?state=active");
        (data["matched"] == 3000).then_some(data)
    });
    let shown = all["activeTargets"].as_array().unwrap();
    assert_eq!(shown.len(), 3000, "as Prometheus answers, whole");
    let found = get("?state=active&search=n1234&limit=10");
    assert_eq!(found["matched"], 1);
    assert_eq!(found["activeTargets"][0]["labels"]["number"], "n1234");
    let first = get("?state=active&limit=50");
    assert_eq!(first["activeTargets"].as_array().unwrap().len(), 50);
    assert_eq!(first["matched"], 3000);
}
