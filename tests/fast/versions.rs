//! Conversions between the versions of remote write: exemplars and metadata that arrive apart from
//! their series, references of 2.0, counts of written samples, and the choice of a version per
//! endpoint.

use std::sync::atomic::{AtomicBool, Ordering};

use metrifold_testing::config::{self, ingest};
use metrifold_testing::messages::{v1, v2};
use metrifold_testing::series::{self, Series, TYPE_2, same, to_v1, to_v2};
use metrifold_testing::{
    Endpoint, Manner, Metrifold, Reply, Seen, Sender, expect, free_address, get, until_so,
};

/// A timestamp that no receiver finds too old.
const T: i64 = 1_790_000_000_000;

const V2: &str = "protocol = \"2.0\"";

/// A remote-write sink `out` of `ingest`, with further keys.
fn pipe(endpoint: &Endpoint, keys: &str) -> Metrifold {
    Metrifold::start(&(ingest("") + &config::sink("out", "ingest", &endpoint.url(), keys)))
}

fn one(name: &str) -> Series {
    Series::named(name).sample(1.0, T)
}

/// A series with an exemplar and no sample, as Prometheus sends it.
fn lone(name: &str, id: &str) -> Series {
    Series::named(name).exemplar(&[("trace_id", id)], 0.5, T)
}

fn post_v1(child: &Metrifold, series: &[Series]) -> metrifold_testing::Answer {
    Sender::new(child.ingest).write(&series::body(series))
}

fn post_v2(child: &Metrifold, series: &[Series]) -> metrifold_testing::Answer {
    Sender::new(child.ingest).write_v2(&series::body_v2(series))
}

fn lost_exemplars(child: &Metrifold, reason: &str) -> f64 {
    let labels = [("component_id", "out"), ("reason", reason)];
    child.metric("metrifold_component_discarded_exemplars_total", &labels)
}

#[test]
fn exemplars_of_1_0_reach_an_endpoint_of_2_0_with_their_series() {
    // As Prometheus sends 1.0: the samples of a scrape, followed by each exemplar in a series of
    // its own.
    let names: Vec<String> = (0..100).map(|n| format!("requests_{n}_total")).collect();
    let samples = names.iter().map(|name| one(name));
    let exemplars = names.iter().map(|name| lone(name, name));
    let sent: Vec<Series> = samples.chain(exemplars).collect();
    let joined = names
        .iter()
        .map(|name| one(name).exemplar(&[("trace_id", name)], 0.5, T));
    let joined: Vec<Series> = joined.collect();

    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let child = pipe(&endpoint, V2);
    expect(&post_v1(&child, &sent), 204);
    same("1.0", &endpoint.only().checked(), &joined);
    let reply = post_v2(&child, &sent);
    expect(&reply, 204);
    assert_eq!(reply.written(), Some([100, 0, 100]));
    same("2.0", &endpoint.only().checked(), &joined);
}

#[test]
fn exemplars_without_samples_wait_for_them_and_start_no_storm() {
    // A queue of Prometheus that starts up sends the exemplars of its segment first. Passed on
    // alone, each of them would be refused, and isolated by halving.
    let names: Vec<String> = (0..100).map(|n| format!("requests_{n}_total")).collect();
    let exemplars: Vec<Series> = names.iter().map(|name| lone(name, name)).collect();
    let samples: Vec<Series> = names.iter().map(|name| one(name)).collect();
    for is_v2 in [false, true] {
        let endpoint = Endpoint::speaking(Manner::Prometheus);
        let child = pipe(&endpoint, V2);
        let post = |series: &[Series]| match is_v2 {
            true => post_v2(&child, series),
            false => post_v1(&child, series),
        };
        let reply = post(&exemplars);
        expect(&reply, 204);
        assert_eq!(reply.written(), is_v2.then_some([0, 0, 100]));
        assert_eq!(endpoint.count(), 0, "there is nothing to send yet");
        expect(&post(&samples), 204);
        let seen = endpoint.only();
        let arrived = seen.series().iter().map(|series| series.exemplars.len());
        assert_eq!(arrived.sum::<usize>(), 100);
        expect(&post(&samples), 204);
        same("once", &endpoint.only().checked(), &samples);
        assert_eq!(lost_exemplars(&child, "without_sample"), 0.0);
    }
}

#[test]
fn exemplars_that_have_no_room_to_wait_are_dropped_and_counted() {
    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let child = pipe(
        &endpoint,
        "protocol = \"2.0\"\nconversion = { exemplar_bytes = \"0B\" }",
    );
    let sent = [one("a"), lone("a", "1"), lone("b", "2"), lone("c", "3")];
    expect(&post_v1(&child, &sent), 204);
    let reply = post_v2(&child, &sent);
    expect(&reply, 400);
    assert!(
        reply.text().contains("without a sample"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.written(), Some([1, 0, 1]));
    let arrived = [one("a").exemplar(&[("trace_id", "1")], 0.5, T)];
    for seen in endpoint.take() {
        same("the rest", &seen.checked(), &arrived);
    }
    assert_eq!(lost_exemplars(&child, "without_sample"), 4.0);
}

#[test]
fn an_exemplar_waits_for_its_own_tenant_only() {
    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let tenant = "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
        from = [{ label = \"namespace\" }]\n";
    let keys = format!("{V2}\ntenant_header = \"X-Tenant\"");
    let sink = config::sink("out", "tenant", &endpoint.url(), &keys);
    let child = Metrifold::start(&(ingest("") + tenant + &sink));
    let of = |series: Series, tenant: &str| series.label("namespace", tenant);
    let metadata = of(one("a"), "red").metadata(1, "Secret of red.", "");
    expect(
        &post_v1(&child, &[metadata, of(lone("a", "red"), "red")]),
        204,
    );
    endpoint.take();
    expect(&post_v1(&child, &[of(lone("b", "red"), "red")]), 204);
    expect(
        &post_v1(&child, &[of(one("b"), "blue"), of(one("a"), "blue")]),
        204,
    );
    let seen = endpoint.only();
    assert_eq!(seen.header("x-tenant"), Some("blue"));
    let symbols = seen.v2().symbols;
    assert!(!symbols.iter().any(|s| s.contains("red")), "{symbols:?}");
}

#[test]
fn a_refused_exemplar_costs_neither_its_sample_nor_a_second_request() {
    // As Prometheus answers exemplars that are out of order: the samples are stored.
    let endpoint = Endpoint::new(|seen| {
        let [samples, histograms, _] = series::counts(seen.series());
        let reply = Reply::new(400).body("out of order exemplar");
        reply.counts([samples, histograms, 0])
    });
    let child = pipe(&endpoint, V2);
    let sent: Vec<Series> = (0..50)
        .map(|n| one(&format!("m{n}")).exemplar(&[("trace_id", "1")], 0.5, T))
        .collect();
    // 1.0 cannot express it.
    expect(&post_v1(&child, &sent), 204);
    let reply = post_v2(&child, &sent);
    expect(&reply, 400);
    assert!(reply.text().contains("out of order exemplar"));
    assert_eq!(reply.written(), Some([50, 0, 0]));
    assert_eq!(endpoint.count(), 2);
    assert_eq!(lost_exemplars(&child, "partial"), 100.0);
    let out = [("component_id", "out")];
    let discarded = child.metric("metrifold_component_discarded_samples_total", &out);
    assert_eq!(discarded, 0.0);
}

#[test]
fn exemplars_that_the_far_end_did_not_count_are_not_claimed() {
    let endpoint = Endpoint::new(|seen| {
        let [samples, histograms, _] = series::counts(seen.series());
        Reply::new(204).counts([samples, histograms, 0])
    });
    let child = pipe(&endpoint, "");
    let reply = post_v2(&child, &[one("a").exemplar(&[("trace_id", "1")], 0.5, T)]);
    expect(&reply, 204);
    assert_eq!(reply.written(), Some([1, 0, 0]));
    assert_eq!(lost_exemplars(&child, "partial"), 1.0);
}

#[test]
fn what_1_0_cannot_hold_is_not_claimed_to_be_written() {
    let endpoint = Endpoint::healthy();
    let child = pipe(&endpoint, "protocol = \"1.0\"");
    let custom = |name: &str| Series::named(name).histogram(series::custom_histogram(T));
    let reply = post_v2(&child, &[one("a"), custom("b")]);
    expect(&reply, 400);
    assert_eq!(reply.written(), Some([1, 0, 0]));
    assert_eq!(endpoint.take().len(), 1);
    let reply = post_v2(&child, &[custom("b")]);
    expect(&reply, 400);
    assert_eq!(reply.written(), Some([0, 0, 0]));
    assert_eq!(endpoint.take().len(), 0, "nothing is left of it");
}

#[test]
fn metadata_of_1_0_that_comes_alone_goes_with_its_series_in_2_0() {
    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let child = pipe(&endpoint, V2);
    let mut message = to_v1(&[one("size").metadata(3, "Sizes.", "bytes")]);
    message.timeseries.clear();
    expect(
        &Sender::new(child.ingest).write(&series::compressed(&message)),
        204,
    );
    assert_eq!(endpoint.count(), 0, "2.0 has no place for metadata alone");
    let sent = [one("size_bucket"), one("size_sum"), one("other")];
    let expected = [
        one("size_bucket").metadata(3, "Sizes.", "bytes"),
        one("size_sum").metadata(3, "Sizes.", "bytes"),
        one("other"),
    ];
    for _ in 0..2 {
        expect(&post_v1(&child, &sent), 204);
        same("metadata", &endpoint.only().checked(), &expected);
    }
}

#[test]
fn metadata_that_is_nobodys_is_counted() {
    let endpoint = Endpoint::healthy();
    let tenant = "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\n\
        from = [{ label = \"namespace\" }]\n";
    let sink = config::sink("out", "tenant", &endpoint.url(), "");
    let child = Metrifold::start(&(ingest("") + tenant + &sink));
    let mut message: v1::WriteRequest = to_v1(&[
        one("a").metadata(1, "A.", ""),
        one("b").metadata(1, "B.", ""),
    ]);
    message.timeseries.clear();
    expect(
        &Sender::new(child.ingest).write(&series::compressed(&message)),
        204,
    );
    let labels = [
        ("component_id", "tenant"),
        ("reason", "metadata_without_tenant"),
    ];
    let dropped = child.metric("metrifold_component_discarded_metadata_total", &labels);
    assert_eq!(dropped, 2.0);
}

/// Breaks a reference of a series; `far` is an index beyond the symbols.
type Break = fn(&mut v2::TimeSeries, u32);

#[test]
fn every_reference_of_2_0_is_checked_and_the_sender_learns_which_is_wrong() {
    let breaks: [(&str, Break); 11] = [
        ("labels_refs", |s, far| s.labels_refs[1] = far),
        ("labels_refs", |s, _| s.labels_refs[3] = u32::MAX),
        ("labels_refs", |s, far| s.labels_refs[2] = far),
        ("labels_refs are odd", |s, _| s.labels_refs.truncate(3)),
        ("labels_refs are odd", |s, _| s.labels_refs.truncate(1)),
        ("help_ref 999", |s, _| {
            s.metadata.as_mut().unwrap().help_ref = 999
        }),
        ("help_ref", |s, far| {
            s.metadata.as_mut().unwrap().help_ref = far
        }),
        ("unit_ref", |s, far| {
            s.metadata.as_mut().unwrap().unit_ref = far
        }),
        ("exemplar labels_refs", |s, far| {
            s.exemplars[0].labels_refs[0] = far
        }),
        ("exemplar labels_refs", |s, far| {
            s.exemplars[1].labels_refs[1] = far
        }),
        ("exemplar labels_refs are odd", |s, _| {
            s.exemplars[1].labels_refs.truncate(1)
        }),
    ];
    let endpoint = Endpoint::speaking(Manner::Honest);
    let child = pipe(&endpoint, "");
    let whole = |name: &str| {
        Series::of(&[("__name__", name), ("job", "x")])
            .sample(1.0, T)
            .exemplar(&[("trace_id", "1")], 0.5, T)
            .exemplar(&[("trace_id", "2")], 0.5, T + 1)
            .metadata(3, "Help.", "bytes")
    };
    let message = to_v2(&[whole("a"), whole("broken"), whole("c")]);
    let far = message.symbols.len() as u32;
    for (said, breaks) in breaks {
        let mut broken = message.clone();
        breaks(&mut broken.timeseries[1], far);
        let reply = Sender::new(child.ingest).write_v2(&series::compressed(&broken));
        expect(&reply, 400);
        let text = reply.text();
        assert!(
            text.contains("bad_symbol_ref") && text.contains(said),
            "{said}: {text}"
        );
        assert_eq!(reply.written(), Some([2, 0, 4]), "{said}");
        let arrived = endpoint.only();
        same(said, &arrived.checked(), &[whole("a"), whole("c")]);
    }
}

#[test]
fn every_answer_to_2_0_says_what_was_written() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let child = pipe(&endpoint, "");
    let body = series::body_v2(&[one("a"), one("b")]);
    let mut sender = Sender::new(child.ingest);
    for cut in 0..body.len() {
        let reply = sender.write_v2(&body[..cut]);
        expect(&reply, 400);
        assert_eq!(reply.written(), Some([0, 0, 0]), "{cut}");
    }
    let nonsense = series::peculiar_body(&[0xff; 64]);
    let reply = sender.write_v2(&nonsense);
    expect(&reply, 400);
    assert_eq!(reply.written(), Some([0, 0, 0]));
    assert_eq!(endpoint.count(), 0);
}

#[test]
fn a_page_without_counts_costs_2_0_only_for_a_while() {
    let is_page = AtomicBool::new(true);
    let endpoint = Endpoint::new(
        move |seen: &Seen| match is_page.swap(false, Ordering::SeqCst) {
            // An error page of a proxy.
            true => Reply::new(200).body("<html>"),
            false => Manner::Honest.answer(seen),
        },
    );
    let child = pipe(&endpoint, "conversion = { probe_after = \"50ms\" }");
    expect(&post_v2(&child, &[one("a")]), 204);
    let versions: Vec<bool> = endpoint.take().iter().map(Seen::is_v2).collect();
    assert_eq!(versions, [true, false]);
    until_so("2.0 is tried again", || {
        let reply = post_v2(&child, &[one("a")]);
        assert_eq!(reply.written(), Some([1, 0, 0]));
        endpoint.only().is_v2()
    });
}

#[test]
fn an_endpoint_of_1_0_that_answers_400_to_2_0_gets_1_0() {
    let endpoint = Endpoint::new(|seen| match seen.header("content-type") {
        Some(TYPE_2) => Reply::new(400).body("snappy: corrupt input"),
        _ => Reply::new(204),
    });
    let child = pipe(&endpoint, "");
    for _ in 0..2 {
        let reply = post_v2(&child, &[one("a")]);
        expect(&reply, 204);
        assert_eq!(reply.written(), Some([1, 0, 0]));
    }
    let versions: Vec<bool> = endpoint.take().iter().map(Seen::is_v2).collect();
    assert_eq!(versions, [true, false, false]);
}

#[test]
fn a_page_of_odd_names_is_one_that_its_scraper_can_read() {
    let page = free_address();
    let config = format!(
        "[sinks.page]\ntype = \"prometheus_exporter\"\ninputs = [\"ingest\"]\naddress = \"{page}\"\n"
    );
    let child = Metrifold::start(&(ingest("") + &config));
    let sent = [
        Series::of(&[("__name__", "m"), ("a.b", "1"), ("a_b", "2")]).sample(1.0, T),
        one("http.req"),
        Series::named("http_req").sample(2.0, T),
    ];
    expect(&post_v1(&child, &sent), 204);
    let url = format!("http://{page}/metrics");
    until_so("the page has its series", || !get(&url).text().is_empty());
    assert_eq!(get(&url).text(), "http_req{job=\"j\"} 2");
    let labels = [("component_id", "page"), ("error_type", "name_collision")];
    assert!(child.metric("metrifold_component_errors_total", &labels) > 0.0);
}
