//! Limits of tenants, as a transform and under `[tenants.NAME]`: refusals, series left out, answers
//! to senders, counts; and deduplication of replicas.

use std::fs;

use metrifold_testing::{
    Answer, Endpoint, Manner, Metrifold, Reply, Sender, Series, body, body_v2, expect, until,
};

/// `count` series with one sample each.
fn numbered(count: usize) -> Vec<Series> {
    let one = |number: usize| {
        let labels = [("__name__", "up"), ("n", &*number.to_string())];
        Series::of(&labels).sample(1.0, 1)
    };
    (0..count).map(one).collect()
}

/// A source, `tenant` with a header, one more transform, and a sink to an endpoint.
fn config(kind: &str, keys: &str, endpoint: &Endpoint) -> String {
    let endpoint = endpoint.url();
    format!(
        "[api]\naddress = \"API\"\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{{ header = \"X-Scope-OrgID\" }}]\n\
         [sinks.store]\ntype = \"remote_write\"\ninputs = [\"subject\"]\nendpoint = \"{endpoint}\"\n\
         [transforms.subject]\ntype = \"{kind}\"\ninputs = [\"tenant\"]\n{keys}\n"
    )
}

fn send(gateway: &Metrifold, tenant: &str, series: &[Series]) -> Answer {
    let headers = [("x-scope-orgid", tenant)];
    Sender::new(gateway.ingest).post("/api/v1/write", &headers, &body(series))
}

fn send_v2(gateway: &Metrifold, tenant: &str, series: &[Series]) -> Answer {
    let headers = [
        ("x-scope-orgid", tenant),
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        ),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ];
    Sender::new(gateway.ingest).post("/api/v1/write", &headers, &body_v2(series))
}

/// Number of series that the endpoint has received.
fn arrived(endpoint: &Endpoint) -> usize {
    endpoint.seen().iter().map(|seen| seen.series().len()).sum()
}

fn dropped(gateway: &Metrifold, component: &str, reason: &str) -> f64 {
    let labels = [("component_id", component), ("reason", reason)];
    gateway.metric("metrifold_component_discarded_samples_total", &labels)
}

#[test]
fn series_beyond_the_active_ones_are_left_out_and_their_sender_hears_how_many() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let keys = "max_active_series = 10\n[transforms.subject.tenants.big]\nmax_active_series = 1000";
    let gateway = Metrifold::start(&config("limit", keys, &endpoint));
    expect(&send(&gateway, "acme", &numbered(10)), 204);
    let answer = send(&gateway, "acme", &numbered(14));
    expect(&answer, 400);
    let text = answer.text();
    assert!(
        text.contains("4 series are more than the 10 that may be active (first: \"up\")"),
        "{text}"
    );
    let answer = send_v2(&gateway, "acme", &numbered(14));
    expect(&answer, 400);
    assert_eq!(answer.written(), Some([10, 0, 0]));
    expect(&send(&gateway, "acme", &numbered(10)), 204);
    expect(&send(&gateway, "big", &numbered(14)), 204);
    assert_eq!(arrived(&endpoint), 4 * 10 + 14);
    assert_eq!(dropped(&gateway, "subject", "limit_active_series"), 8.0);
    let over = [("component_id", "subject"), ("limit", "active_series")];
    assert_eq!(
        gateway.metric("metrifold_component_over_limit_total", &over),
        8.0
    );
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    let active = &usage["limit"]["subject"]["active_series"];
    assert_eq!(
        (&active["used"], &active["left"]),
        (&10.into(), &0.into()),
        "{usage}"
    );
}

#[test]
fn a_request_of_which_nothing_is_left_is_answered_and_nothing_is_sent() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let keys = "max_label_value_bytes = \"1B\"";
    let gateway = Metrifold::start(&config("limit", keys, &endpoint));
    let answer = send_v2(&gateway, "acme", &numbered(3));
    expect(&answer, 400);
    assert_eq!(answer.written(), Some([0, 0, 0]));
    assert_eq!(endpoint.count(), 0);
}

#[test]
fn what_is_left_out_is_told_too_when_requests_are_answered_as_received() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let config = config("limit", "max_active_series = 2", &endpoint);
    let config = config.replace(
        "address = \"INGEST\"\n",
        "address = \"INGEST\"\nacknowledge = \"received\"\n",
    );
    let gateway = Metrifold::start(&config);
    expect(&send(&gateway, "acme", &numbered(3)), 400);
    until("two series have arrived", || {
        (arrived(&endpoint) == 2).then_some(())
    });
}

#[test]
fn a_tenant_over_its_rate_is_refused_whole_and_costs_no_other() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let keys =
        "samples_per_second = 1\nsamples_burst = 10\nstatus = \"503\"\nmax_series_per_request = 50";
    let gateway = Metrifold::start(&config("limit", keys, &endpoint));
    expect(&send(&gateway, "acme", &numbered(40)), 204);
    let refused = send_v2(&gateway, "acme", &numbered(1));
    expect(&refused, 503);
    let pause: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((20..=31).contains(&pause), "{pause}");
    assert_eq!(refused.written(), Some([0, 0, 0]));
    expect(&send(&gateway, "zeta", &numbered(10)), 204);
    expect(&send(&gateway, "huge", &numbered(51)), 413);
    assert_eq!(arrived(&endpoint), 50);
}

#[test]
fn limits_in_a_file_are_followed_and_what_is_active_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits.yaml");
    fs::write(&path, "tenants:\n  acme:\n    max_active_series: 2\n").unwrap();
    let endpoint = Endpoint::speaking(Manner::Honest);
    let keys = format!("max_active_series = 1\ntenants_file = {path:?}");
    let gateway = Metrifold::start(&config("limit", &keys, &endpoint));
    expect(&send(&gateway, "acme", &numbered(2)), 204);
    expect(&send(&gateway, "acme", &numbered(3)), 400);
    fs::write(&path, "tenants:\n  acme:\n    max_active_series: 3\n").unwrap();
    until("three series may be active", || {
        (send(&gateway, "acme", &numbered(3)).status == 204).then_some(())
    });
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    assert_eq!(
        usage["limit"]["subject"]["active_series"]["used"], 3,
        "{usage}"
    );
    expect(&send(&gateway, "acme", &numbered(4)), 400);
}

#[test]
fn soft_limits_are_counted_and_warned_of_and_let_everything_in() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let keys = "soft = true\nmax_active_series = 1\nsamples_per_second = 1";
    let gateway = Metrifold::start(&config("limit", keys, &endpoint));
    for _ in 0..3 {
        expect(&send(&gateway, "acme", &numbered(5)), 204);
    }
    assert_eq!(arrived(&endpoint), 15);
    assert_eq!(dropped(&gateway, "subject", "limit_active_series"), 0.0);
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    let over = &usage["limit"]["subject"]["over"];
    assert_eq!(
        (&over["active_series"], &over["samples"]),
        (&12.into(), &2.into()),
        "{usage}"
    );
    gateway.until_logged("over a limit");
}

/// A series of a replica.
fn of(cluster: &str, replica: &str) -> Series {
    let labels = [
        ("__name__", "up"),
        ("__replica__", replica),
        ("cluster", cluster),
    ];
    Series::of(&labels).sample(1.0, 1)
}

#[test]
fn of_two_senders_one_is_listened_to_until_it_is_silent() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let gateway = Metrifold::start(&config("dedupe", "failover_timeout = \"1s\"", &endpoint));
    expect(&send(&gateway, "acme", &[of("eu", "a")]), 204);
    let answer = send_v2(&gateway, "acme", &[of("eu", "b")]);
    expect(&answer, 202);
    assert_eq!(answer.written(), Some([1, 0, 0]));
    // Other tenants and other clusters have elections of their own.
    expect(&send(&gateway, "zeta", &[of("eu", "b")]), 204);
    expect(&send(&gateway, "acme", &[of("us", "b")]), 204);
    expect(
        &send(&gateway, "acme", &[of("eu", "a"), of("us", "b")]),
        204,
    );
    expect(
        &send(&gateway, "acme", &[of("eu", "b"), of("us", "b")]),
        202,
    );
    let labels: Vec<_> = endpoint
        .seen()
        .iter()
        .flat_map(|seen| seen.series().to_vec())
        .collect();
    assert_eq!(labels.len(), 6);
    assert!(
        labels
            .iter()
            .all(|series| series.get("__replica__").is_none())
    );
    assert_eq!(dropped(&gateway, "subject", "duplicate"), 2.0);
    let usage = gateway.get("/api/v1/tenants/acme/usage").json();
    assert_eq!(usage["dedupe"]["subject"][0]["replica"], "a", "{usage}");
    // The first sender is silent from here on.
    until("the other one is elected", || {
        (send(&gateway, "acme", &[of("eu", "b")]).status == 204).then_some(())
    });
    expect(&send(&gateway, "acme", &[of("eu", "a")]), 202);
}

#[test]
fn limits_behind_a_deduplication_count_one_replica_and_those_in_front_of_it_both() {
    for (order, active, samples_over) in [(["dedupe", "limit"], 3, 0), (["limit", "dedupe"], 6, 1)]
    {
        let endpoint = Endpoint::speaking(Manner::Honest);
        let [first, last] = order;
        let limits =
            "max_active_series = 100\nsamples_per_second = 1\nsamples_burst = 7\nsoft = true\n";
        let keys = |kind: &str| if kind == "limit" { limits } else { "" };
        let gateway = Metrifold::start(&format!(
            "{}[transforms.front]\ntype = \"{first}\"\ninputs = [\"tenant\"]\n{}",
            config(last, keys(last), &endpoint)
                .replace("inputs = [\"tenant\"]", "inputs = [\"front\"]"),
            keys(first),
        ));
        let of_replica = |replica: &str| {
            let series = (0..3).map(|number: usize| {
                let number = number.to_string();
                let labels = [
                    ("__name__", "up"),
                    ("__replica__", replica),
                    ("cluster", "eu"),
                    ("n", &number),
                ];
                Series::of(&labels).sample(1.0, 1)
            });
            series.collect::<Vec<_>>()
        };
        for _ in 0..2 {
            expect(&send(&gateway, "acme", &of_replica("a")), 204);
            expect(&send(&gateway, "acme", &of_replica("b")), 202);
        }
        let place = if first == "limit" { "front" } else { "subject" };
        let usage = gateway.get("/api/v1/tenants/acme/usage").json();
        let limit = &usage["limit"][place];
        assert_eq!(limit["active_series"]["used"], active, "{order:?} {usage}");
        let over = limit["over"]["samples"].as_u64().unwrap();
        assert_eq!(over.min(1), samples_over, "{order:?} {usage}");
        assert_eq!(arrived(&endpoint), 6);
    }
}

#[test]
fn what_goes_wrong_outranks_what_is_left_out_as_a_duplicate() {
    let endpoint = Endpoint::new(|_| Reply::new(503));
    let gateway = Metrifold::start(&config("dedupe", "max_clusters = 1", &endpoint).replace(
        "address = \"INGEST\"\n",
        "address = \"INGEST\"\nacknowledge_timeout = \"200ms\"\n",
    ));
    expect(&send(&gateway, "acme", &[of("eu", "a")]), 503);
    expect(
        &send(&gateway, "acme", &[of("eu", "a"), of("eu", "b")]),
        503,
    );
    expect(&send(&gateway, "acme", &[of("eu", "b")]), 202);
    let refused = send(&gateway, "acme", &[of("us", "a")]);
    expect(&refused, 400);
    assert!(
        refused.text().contains("max_clusters = 1"),
        "{}",
        refused.text()
    );
}
