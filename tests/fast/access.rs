//! Tenants through the program: authentication, and no spelling of a request that leads from one
//! tenant to another.

mod corpus;
mod login;
mod mtls;
mod proxy;
mod revoked;
mod secrets;
mod trouble;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use metrifold_engine::config::parse_str;
use metrifold_testing::{
    Answer, Endpoint, Metrifold, Reply, Sender, Series, body, edits, expect, request, until, up,
};

/// `printf %s acme-token | sha256sum`, and that of `zeta-token`.
const ACME: &str = "28daa606f54b368209e11244fd3d5612b41212e822258df22e55afe06a7bdae1";
const ZETA: &str = "bdf259d105404fdbfdc68ef534a311e75da3fee61c814d99e2890a766f285ac7";

const AS_ACME: (&str, &str) = ("authorization", "Bearer acme-token");
const AS_ZETA: (&str, &str) = ("authorization", "Bearer zeta-token");

/// Token files of two tenants.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, hash) in [("acme", ACME), ("zeta", ZETA)] {
        let line = format!("sha256:{hash} {name}-agent agents\n");
        fs::write(folder.path().join(format!("{name}.tokens")), line).unwrap();
    }
    folder
}

/// Two tenants whose ids differ from their names.
fn tenants(folder: &Path) -> String {
    let folder = folder.display();
    ["acme", "zeta"]
        .map(|name| {
            format!(
                "[tenants.{name}]\nid = \"id-{name}\"\n\
                 bearer = {{ tokens_file = \"{folder}/{name}.tokens\" }}\n"
            )
        })
        .concat()
}

/// A source of remote write for tenants, with a sink to an endpoint.
fn writing(folder: &Path, endpoint: &Endpoint, more: &str) -> String {
    let tenants = tenants(folder);
    let endpoint = endpoint.url();
    format!(
        "{tenants}{more}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         path = \"/of/{{tenant}}/write\"\naccess = \"tenants\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nlabel = \"tenant_id\"\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"tenant\"]\nendpoint = \"{endpoint}\"\n"
    )
}

fn post(gateway: &Metrifold, path: &str, headers: &[(&str, &str)]) -> Answer {
    Sender::new(gateway.ingest).post(path, headers, &up(1))
}

/// The body of a write of `count` series.
fn numbered(count: usize) -> Vec<u8> {
    let one = |number: usize| {
        let labels = [("__name__", "up"), ("n", &*number.to_string())];
        Series::of(&labels).sample(1.0, 1)
    };
    body(&(0..count).map(one).collect::<Vec<_>>())
}

#[track_caller]
fn expect_refusal(answer: &Answer, status: u16, error_type: &str) {
    expect(answer, status);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["status"], "error");
    assert_eq!(answer.json()["errorType"], error_type);
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
}

#[test]
fn a_sender_writes_to_its_tenant_and_to_no_other() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, ""));
    expect(&post(&gateway, "/of/acme/write", &[AS_ACME]), 204);
    let seen = endpoint.only();
    assert_eq!(seen.header("thanos-tenant"), Some("id-acme"));
    assert_eq!(seen.series()[0].get("tenant_id"), Some("id-acme"));
    assert_eq!(seen.header("authorization"), None);
    expect(&post(&gateway, "/of/id-zeta/write", &[AS_ZETA]), 204);

    let named = |name| [AS_ACME, ("x-scope-orgid", name)];
    expect_refusal(
        &post(&gateway, "/of/zeta/write", &[AS_ACME]),
        403,
        "forbidden",
    );
    expect_refusal(
        &post(&gateway, "/of/acme/write", &named("zeta")),
        403,
        "forbidden",
    );
    expect_refusal(
        &post(&gateway, "/of/none/write", &[AS_ACME]),
        404,
        "not_found",
    );
    expect_refusal(&post(&gateway, "/of/none/write", &[]), 401, "unauthorized");
    expect_refusal(&post(&gateway, "/of/acme/write", &[]), 401, "unauthorized");
    let wrong = ("authorization", "Bearer wrong");
    expect_refusal(
        &post(&gateway, "/of/acme/write", &[wrong]),
        401,
        "unauthorized",
    );
    assert_eq!(endpoint.count(), 2);
}

#[test]
fn what_tenants_send_past_the_transform_that_confines_them_is_warned_of() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let confined = writing(folder.path(), &endpoint, "").replace("INGEST", "127.0.0.1:1");
    let past = confined.replace("inputs = [\"tenant\"]", "inputs = [\"tenant\", \"ingest\"]");
    let open = confined.replace("access = \"tenants\"", "");
    for (text, expected) in [(&confined, 0), (&past, 1), (&open, 0)] {
        let loaded = parse_str("test.toml", text, &|_: &str| None).unwrap();
        let messages = loaded.warnings.iter().map(|it| it.message.as_str());
        let about = messages.filter(|it| it.contains("nothing keeps one tenant from the data"));
        assert_eq!(about.count(), expected, "{text}");
    }
}

#[test]
fn roles_and_tokens_are_followed_while_requests_go_on() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let roles = "[roles.writer]\ntenants = [\"acme\"]\npermissions = [\"write\"]\n\
                 [role_bindings.agents]\nroles = [\"writer\"]\n\
                 subjects = [{ name = \"agents\", kind = \"group\" }]\n";
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, roles));
    let mut sender = Sender::new(gateway.ingest);
    let mut post = |path: &str, headers: &[(&str, &str)]| sender.post(path, headers, &up(1)).status;
    assert_eq!(post("/of/acme/write", &[AS_ACME]), 204);
    assert_eq!(post("/of/zeta/write", &[AS_ZETA]), 403, "no role");
    // The token is revoked by a change of its file; the connection stays open.
    fs::write(
        folder.path().join("acme.tokens"),
        format!("sha256:{ZETA}\n"),
    )
    .unwrap();
    until("the token is good no more", || {
        (post("/of/acme/write", &[AS_ACME]) == 401).then_some(())
    });
    assert_eq!(
        post("/of/acme/write", &[AS_ZETA]),
        403,
        "of nobody in particular"
    );
}

#[test]
fn a_tenant_that_cannot_be_read_changes_nothing_and_is_named() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, ""));
    fs::write(folder.path().join("zeta.tokens"), "zeta-token\n").unwrap();
    let answer = request("POST", gateway.api, "/-/reload", &[], b"").unwrap();
    expect(&answer, 422);
    let said = answer.text();
    assert!(
        said.contains("tenants.zeta") && said.contains("line 1"),
        "{said}"
    );
    assert!(!said.contains("zeta-token"), "{said}");
    expect(&post(&gateway, "/of/zeta/write", &[AS_ZETA]), 204);
}

#[test]
fn the_admin_address_is_for_those_who_administer() {
    let folder = files();
    let endpoint = Endpoint::new(|_| Reply::new(204));
    let more = "[roles.operator]\ntenants = [\"acme\"]\npermissions = [\"admin\"]\n\
                [role_bindings.operators]\nroles = [\"operator\"]\n\
                subjects = [{ name = \"acme-agent\" }]\n";
    let config = writing(folder.path(), &endpoint, more);
    let config = format!("{config}[api]\naddress = \"API\"\naccess = \"tenants\"\n");
    let gateway = Metrifold::start(&config);
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        request(method, gateway.api, path, headers, b"")
            .unwrap()
            .status
    };
    for (method, path) in [
        ("GET", "/api/v1/topology"),
        ("POST", "/-/reload"),
        ("GET", "/"),
    ] {
        assert_eq!(ask(method, path, &[]), 401, "{path}");
        assert_eq!(ask(method, path, &[AS_ZETA]), 403, "{path}");
        assert_eq!(ask(method, path, &[AS_ACME]), 200, "{path}");
        let foreign = [AS_ACME, ("origin", "http://evil.example")];
        assert_eq!(
            ask(method, path, &foreign),
            if method == "GET" { 200 } else { 403 }
        );
    }
    for probe in ["/-/healthy", "/-/ready", "/metrics"] {
        assert_eq!(ask("GET", probe, &[]), 200, "{probe}");
    }
}

#[test]
fn a_tenant_over_its_limit_is_told_when_to_come_again_and_costs_no_other() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let more = "[api]\naddress = \"API\"\n[tenants.acme.limits]\nrequests_per_second = 1\nrequests_burst = 3\n";
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, more));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = post(&gateway, "/of/acme/write", &[AS_ACME]);
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
        }
        statuses.push(answer.status);
        expect(&post(&gateway, "/of/zeta/write", &[AS_ZETA]), 204);
    }
    assert_eq!(statuses[..3], [204, 204, 204]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    let over = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(usage["over"]["requests"], over, "{usage}");
    assert_eq!(usage["let_in"], 20 - over, "{usage}");
    let none = request("GET", gateway.api, "/api/v1/tenants/none/usage", &[], b"").unwrap();
    expect(&none, 404);
}

#[test]
fn limits_of_a_tenant_are_followed_and_what_it_has_used_stays_used() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let with = |series: usize, more: &str| {
        let limits = format!(
            "[api]\naddress = \"API\"\n\
             [tenants.acme.limits]\nmax_active_series = {series}\n{more}\n"
        );
        writing(folder.path(), &endpoint, &limits)
    };
    let gateway = edits::unwatched(&with(2, ""));
    let mut sender = Sender::new(gateway.ingest);
    let mut send = |path: &str, tenant, count| {
        let answer = sender.post(path, &[tenant], &numbered(count));
        answer.status
    };
    let usage = || gateway.get("/api/v1/tenants/acme/usage").json();
    assert_eq!(send("/of/acme/write", AS_ACME, 2), 204);
    assert_eq!(send("/of/acme/write", AS_ACME, 3), 400);
    for (limits, count, status) in [
        (with(3, ""), 3, 204),
        (with(3, ""), 4, 400),
        // Lower than what is active: that goes on, and nothing is added.
        (with(1, ""), 3, 204),
        (with(1, ""), 4, 400),
        (with(9, "max_series_per_request = 3"), 4, 413),
        (with(9, "max_series_per_request = 4"), 4, 204),
    ] {
        edits::edit(&gateway, &limits);
        expect(&edits::post(&gateway), 200);
        assert_eq!(send("/of/acme/write", AS_ACME, count), status, "{limits}");
        assert_eq!(send("/of/zeta/write", AS_ZETA, 9), 204);
    }
    assert_eq!(usage()["active_series"]["used"], 4, "{}", usage());
    // The rate goes on where it was: a reload gives nobody a new burst.
    let limits = with(9, "samples_per_second = 1\nsamples_burst = 10");
    edits::edit(&gateway, &limits);
    expect(&edits::post(&gateway), 200);
    let statuses = [(); 3].map(|()| send("/of/acme/write", AS_ACME, 9));
    assert_eq!(statuses, [204, 204, 429]);
    let other = limits.replace("max_active_series = 9", "max_active_series = 8");
    edits::edit(&gateway, &other);
    expect(&edits::post(&gateway), 200);
    assert_eq!(send("/of/acme/write", AS_ACME, 5), 429);
    edits::edit(&gateway, &with(9, ""));
    expect(&edits::post(&gateway), 200);
    assert_eq!(send("/of/acme/write", AS_ACME, 5), 204);
}

/// Head of a write of `acme` without the length of its body.
const CHUNKED: &str = "POST /of/acme/write HTTP/1.1\r\nhost: x\r\nauthorization: Bearer acme-token\r\n\
    content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n\
    x-prometheus-remote-write-version: 0.1.0\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let head = format!("{:x}\r\n", bytes.len());
    [head.as_bytes(), bytes, b"\r\n"].concat()
}

#[test]
fn bodies_without_their_length_count_as_they_arrive() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let more = "[api]\naddress = \"API\"\n[tenants.acme.limits]\nbytes_per_second = \"1B\"\n\
                bytes_burst = \"200B\"\n[access.limits]\nbytes_per_second = \"1MiB\"\n";
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, more));
    let whole = numbered(200);
    assert!(whole.len() > 400);
    let left = || gateway.get("/api/v1/tenants/acme/usage").json()["bytes"]["left"].as_u64();

    // While one body arrives, another one uses up the rate.
    let mut slow = Sender::new(gateway.ingest);
    let begun = [CHUNKED.as_bytes(), &chunk(&whole[..100])].concat();
    slow.send(&begun).unwrap();
    until("its first bytes are counted", || {
        left().filter(|left| *left < 150)
    });
    let mut sender = Sender::new(gateway.ingest);
    expect(&sender.post("/of/acme/write", &[AS_ACME], &whole), 204);
    slow.send(&chunk(&whole[100..])).unwrap();
    let refused = slow.read().unwrap();
    expect_refusal(&refused, 429, "unavailable");
    assert!(refused.header("retry-after").is_some());

    // Nothing is left for further bodies, of known length or not.
    let next = [CHUNKED.as_bytes(), &chunk(&whole), &chunk(b"")].concat();
    expect(&Sender::request(gateway.ingest, &next).unwrap(), 429);
    expect(&sender.post("/of/acme/write", &[AS_ACME], &whole), 429);
    assert_eq!(
        endpoint.count(),
        1,
        "of the refused bodies, nothing is stored"
    );
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    assert_eq!(usage["over"]["bytes"], 3, "{usage}");
}

#[test]
fn what_a_tenant_sends_is_held_to_its_limits_without_any_transform() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let more = "[api]\naddress = \"API\"\n[access.limits]\nmax_active_series = 3\n\
                [tenants.zeta.limits]\nmax_active_series = 100\nsamples_per_second = 5\n";
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, more));
    let mut sender = Sender::new(gateway.ingest);
    expect(
        &sender.post("/of/acme/write", &[AS_ACME], &numbered(3)),
        204,
    );
    let refused = sender.post("/of/acme/write", &[AS_ACME], &numbered(5));
    expect(&refused, 400);
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("tenant \"acme\": 2 series"),
        "{}",
        refused.text()
    );
    expect(
        &sender.post("/of/zeta/write", &[AS_ZETA], &numbered(50)),
        204,
    );
    let refused = sender.post("/of/zeta/write", &[AS_ZETA], &numbered(1));
    expect(&refused, 429);
    assert!(refused.header("retry-after").is_some());
    let arrived: usize = endpoint.seen().iter().map(|seen| seen.series().len()).sum();
    assert_eq!(arrived, 3 + 3 + 50);
    let left_out = [
        ("component_id", "ingest"),
        ("reason", "limit_active_series"),
    ];
    let left_out = gateway.metric("metrifold_component_discarded_samples_total", &left_out);
    assert_eq!(left_out, 2.0);
    let over = [("limit", "active_series")];
    assert_eq!(
        gateway.metric("metrifold_tenants_over_limit_total", &over),
        2.0
    );
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    assert_eq!(usage["active_series"]["used"], 3, "{usage}");
    // Each batch counts once, refused ones included.
    let received = [("component_id", "ingest")];
    let received = gateway.metric("metrifold_component_received_batches_total", &received);
    assert_eq!(received, 4.0);
}

#[test]
fn a_tenant_sees_its_usage_where_it_comes_and_that_of_no_other() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let more = "[access]\npath_parameter = \"name\"\nlimits = { requests_per_second = 1, requests_burst = 2 }\n";
    let config = writing(folder.path(), &endpoint, more).replace("{tenant}", "{name}");
    let gateway = Metrifold::start(&config);
    let usage = |method: &str, name: &str, caller: &[(&str, &str)]| {
        let path = format!("/api/v1/tenants/{name}/usage");
        request(method, gateway.ingest, &path, caller, b"").unwrap()
    };
    while post(&gateway, "/of/acme/write", &[AS_ACME]).status == 204 {}
    // It does not count as a request, and is answered beyond the limit.
    for name in ["acme", "id-acme"] {
        let answer = usage("GET", name, &[AS_ACME]);
        expect(&answer, 200);
        let shown = answer.json();
        assert!(shown["over"]["requests"].as_u64() >= Some(1), "{shown}");
        assert_eq!(shown["requests"]["per_second"], 1.0, "{shown}");
    }
    assert_eq!(usage("GET", "zeta", &[AS_ZETA]).json()["let_in"], 0);
    expect_refusal(&usage("GET", "zeta", &[AS_ACME]), 403, "forbidden");
    expect_refusal(&usage("GET", "acme%7Czeta", &[AS_ACME]), 403, "forbidden");
    expect_refusal(&usage("GET", "none", &[AS_ACME]), 404, "not_found");
    expect_refusal(&usage("GET", "acme", &[]), 401, "unauthorized");
    expect_refusal(&usage("POST", "acme", &[AS_ACME]), 405, "bad_data");
    // A source without tenants does not serve it, and it goes with the last source of its address.
    edits::edit(&gateway, &config.replace("access = \"tenants\"\n", ""));
    until("the path is gone", || {
        (usage("GET", "acme", &[AS_ACME]).status == 404).then_some(())
    });
}

#[test]
fn own_metrics_do_not_grow_with_the_number_of_tenants() {
    let endpoint = Endpoint::healthy();
    let tenant = |number: usize| {
        format!(
            "[tenants.t{number}]\nlimits = {{ requests_per_second = 1 }}\n\
             trusted_header = {{ user = \"X-User\", addresses = [\"127.0.0.1\"] }}\n"
        )
    };
    let tenants: String = (0..120).map(tenant).collect();
    let folder = files();
    let more = format!("[api]\naddress = \"API\"\n{tenants}");
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, &more));
    let mut sender = Sender::new(gateway.ingest);
    let mut page = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let path = format!("/of/t{number}/write");
            let headers = [("x-user", "agent")];
            assert_eq!(sender.post(&path, &headers, &up(1)).status, 204);
            // Over the limit, unless this took a second.
            sender.post(&path, &headers, &up(1));
        }
        let page = gateway.get("/metrics").text();
        let named = page.lines().filter_map(|line| {
            let (_, name) = line.split_once("tenant=\"")?;
            Some(name.split('"').next()?.to_owned())
        });
        let named: std::collections::BTreeSet<String> = named.collect();
        (page.lines().count(), named.len())
    };
    let (before, _) = page(0..40);
    let (after, named) = page(40..120);
    assert!(after <= before + 10, "{before} lines became {after}");
    assert!((1..=21).contains(&named), "{named} tenants are named");
}
