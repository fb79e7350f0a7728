//! Remote write 1.0 and 2.0 through the binary, to an endpoint that records every byte.
//!
//! Covered are bodies and headers that pass unchanged, all four conversions with and without
//! transforms, the answers to the sender, the fallback from 2.0 to 1.0, and the cases of the
//! Prometheus project's compliance suite for receivers that can be observed from outside.

use metrifold_testing::messages::{BucketSpan, Count, Histogram, v1, v2};
use metrifold_testing::series::{
    self, STALE, Series, TYPE_1, TYPE_2, counts, from_v1, from_v2, same, to_v1, to_v2,
};
use metrifold_testing::{Answer, Endpoint, Manner, Metrifold, Seen, request};

const WRITE: &str = "/api/v1/write";
const DISCARDED: &str = "metrifold_component_discarded_samples_total";

/// A timestamp that no receiver finds too old.
const T: i64 = 1_790_000_000_000;

/// A Metrifold with one source, optional transforms and one sink, and the sink's endpoint.
struct Pipe {
    metrifold: Metrifold,
    endpoint: Endpoint,
}

/// Transforms between source and sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// None.
    Straight,
    /// A tenant from a header, which the sink sends as a header; labels are not read.
    TenantHeader,
    /// A tenant written into a label, and relabelling that drops a family and a label.
    Clean,
}

impl Pipe {
    fn new(way: Way, protocol: &str, manner: Manner) -> Self {
        let endpoint = Endpoint::speaking(manner);
        let label = if way == Way::Clean {
            "label = \"tenant_id\""
        } else {
            ""
        };
        let transforms = format!(
            r#"
            [transforms.tenant]
            type = "tenant"
            inputs = ["ingest"]
            from = [{{ header = "X-Tenant" }}]
            {label}

            [transforms.clean]
            type = "relabel"
            inputs = ["tenant"]
            rules = [
                {{ source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" }},
                {{ regex = "noise", action = "labeldrop" }},
            ]
            "#
        );
        let (transforms, input) = match way {
            Way::Straight => ("", "ingest"),
            Way::TenantHeader => (
                transforms.split("[transforms.clean]").next().unwrap(),
                "tenant",
            ),
            Way::Clean => (&transforms[..], "clean"),
        };
        let tenant_header = if way == Way::Straight {
            ""
        } else {
            "tenant_header = \"X-Scope-OrgID\""
        };
        let url = endpoint.url_of(WRITE);
        let patience = match manner {
            Manner::OnlyV1 | Manner::Swallowing if protocol == "2.0" => {
                "acknowledge_timeout = \"500ms\""
            }
            _ => "",
        };
        let metrifold = Metrifold::start(&format!(
            r#"
            [sources.ingest]
            type = "remote_write"
            address = "INGEST"
            {patience}
            {transforms}
            [sinks.out]
            type = "remote_write"
            inputs = ["{input}"]
            endpoint = "{url}"
            protocol = "{protocol}"
            {tenant_header}
            "#
        ));
        Self {
            metrifold,
            endpoint,
        }
    }

    /// Sends a request with exactly these headers.
    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request("POST", self.metrifold.ingest, WRITE, headers, body).unwrap()
    }

    /// Checks that the sink's counters balance: nothing waits, so that everything received is
    /// delivered or lost.
    fn check_ledger(&self) {
        let sink = [("component_id", "out")];
        let received = self
            .metrifold
            .metric("metrifold_component_received_samples_total", &sink);
        let sent = self
            .metrifold
            .metric("metrifold_component_sent_samples_total", &sink);
        let lost = self.metrifold.metric(DISCARDED, &sink);
        assert!(received > 0.0);
        assert_eq!(
            received,
            sent + lost,
            "received = {sent} sent + {lost} lost"
        );
    }

    fn post_v1(&self, message: &v1::WriteRequest) -> Answer {
        self.post(
            &sender_headers(TYPE_1, "0.1.0"),
            &series::compressed(message),
        )
    }

    fn post_v2(&self, message: &v2::Request) -> Answer {
        self.post(
            &sender_headers(TYPE_2, "2.0.0"),
            &series::compressed(message),
        )
    }
}

/// The headers that Prometheus sends, and the tenant's.
fn sender_headers<'a>(content_type: &'a str, version: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("content-type", content_type),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", version),
        ("user-agent", "Prometheus/3.14.0"),
        ("x-tenant", "team-a"),
    ]
}

/// Series with everything that both versions can hold. Labels are sorted.
fn common() -> Vec<Series> {
    vec![
        Series::named("http_requests_total")
            .sample(1.0, T)
            .sample(2.5, T + 1000)
            .stale(T + 2000)
            .exemplar(&[("trace_id", "abc"), ("user", "ünï")], 0.25, T + 5)
            .exemplar(&[], 0.5, T + 6)
            .metadata(1, "Requests.\nAll of them, \"quoted\" and \\.", ""),
        Series::named("odd_values")
            .sample(f64::NAN, T)
            .sample(f64::INFINITY, T + 1)
            .sample(f64::NEG_INFINITY, T + 2)
            .sample(-1e-300, T + 3)
            .sample(f64::MIN_POSITIVE / 2.0, T + 4)
            .sample(1e308, T + 5)
            .sample(0.1 + 0.2, T + 6),
        Series::of(&[
            ("__name__", "http.server.Dauer µ"),
            ("a b", " leading and trailing "),
            ("dotted.name", "multi\nline\ttab"),
            ("noise", "away with it"),
            ("ключ", "値 🙂"),
        ])
        .sample(7.0, T),
        Series::named("latency_seconds")
            .histogram(series::integer_histogram(T))
            .histogram(series::stale_histogram(T + 1000))
            .exemplar(&[("trace_id", "def")], 0.75, T)
            .metadata(3, "Latency.", "seconds"),
        Series::named("latency:rate5m").histogram(series::float_histogram(T)),
        Series::of(&[("__name__", "go_gc_duration_seconds"), ("quantile", "0.5")]).sample(3.0, T),
    ]
}

/// Series with what only 2.0 can hold, beside the common ones.
fn with_extras() -> Vec<Series> {
    let mut series = common();
    series.extend([
        Series::named("jobs_total")
            .started_sample(1.0, T, T - 60_000)
            .started_sample(2.0, T + 1000, T - 60_000)
            .metadata(1, "Jobs.", "jobs"),
        Series::named("drafts_total")
            .sample(4.0, T)
            .created(T - 90_000),
        Series::named("started_histogram").histogram(Histogram {
            start_timestamp: T - 30_000,
            ..series::integer_histogram(T)
        }),
        Series::named("custom_buckets")
            .histogram(series::custom_histogram(T))
            .metadata(3, "Own buckets.", ""),
        Series::named("info_like")
            .sample(1.0, T)
            .metadata(6, "", ""),
    ]);
    series
}

/// The series after the transforms of `Way::Clean`.
fn cleaned(series: Vec<Series>) -> Vec<Series> {
    let kept = series
        .into_iter()
        .filter(|s| !s.name().starts_with("go_gc_"));
    kept.map(|s| s.without("noise").label("tenant_id", "team-a"))
        .collect()
}

/// The part of the series that 1.0 can hold.
fn narrowed(series: Vec<Series>) -> Vec<Series> {
    use prost::Message;
    let narrow = |mut series: Series| {
        series.created = 0;
        series
            .samples
            .iter_mut()
            .for_each(|sample| sample.start = 0);
        let histograms = std::mem::take(&mut series.histograms);
        for encoded in histograms {
            let mut histogram = Histogram::decode(&encoded[..]).unwrap();
            histogram.start_timestamp = 0;
            if histogram.schema != -53 {
                series = series.histogram(histogram);
            }
        }
        series
    };
    let empty =
        |s: &Series| s.samples.is_empty() && s.histograms.is_empty() && s.exemplars.is_empty();
    series
        .into_iter()
        .map(narrow)
        .filter(|s| !empty(s))
        .collect()
}

#[test]
fn a_body_that_nobody_looks_into_leaves_byte_for_byte() {
    for way in [Way::Straight, Way::TenantHeader] {
        let pipe = Pipe::new(way, "auto", Manner::Honest);

        // Unsorted labels and unknown fields stay as they are.
        let mut message = to_v1(&common());
        message.timeseries[0].labels.reverse();
        let mut raw = prost::Message::encode_to_vec(&message);
        raw.extend_from_slice(&[0x92, 0x3f, 0x03, b'n', b'e', b'w']); // field 1010
        let body = series::peculiar_body(&raw);
        let reply = pipe.post(&sender_headers(TYPE_1, "0.1.0"), &body);
        assert_eq!(reply.status, 204, "{}", reply.text());
        let captured = pipe.endpoint.only();
        assert_eq!(captured.header("content-type"), Some(TYPE_1));
        assert!(captured.body == body, "1.0 was changed");

        let raw = prost::Message::encode_to_vec(&to_v2(&with_extras()));
        let body = series::peculiar_body(&raw);
        let reply = pipe.post(&sender_headers(TYPE_2, "2.0.0"), &body);
        assert_eq!(reply.status, 204, "{}", reply.text());
        let captured = pipe.endpoint.only();
        assert!(captured.is_v2());
        assert!(captured.body == body, "2.0 was changed");
    }
}

#[test]
fn the_endpoint_gets_the_protocols_headers_and_none_of_the_senders() {
    let pipe = Pipe::new(Way::TenantHeader, "auto", Manner::Honest);
    let strangers = [
        ("authorization", "Bearer topsecret"),
        ("proxy-authorization", "Basic dG9wc2VjcmV0"),
        ("cookie", "session=topsecret"),
        ("x-api-key", "topsecret"),
        ("x-scope-orgid", "team-b"),
        ("x-forwarded-for", "10.1.2.3"),
        ("te", "trailers"),
    ];
    for (content_type, version, body) in [
        (TYPE_1, "0.1.0", series::compressed(&to_v1(&common()))),
        (TYPE_2, "2.0.0", series::compressed(&to_v2(&common()))),
    ] {
        let headers = [&sender_headers(content_type, version)[..], &strangers[..]].concat();
        let reply = pipe.post(&headers, &body);
        assert_eq!(reply.status, 204, "{}", reply.text());
        let captured = pipe.endpoint.only();
        assert_eq!(captured.path, "/api/v1/write");
        let host = pipe.endpoint.url();
        let host = host.split('/').nth(2).unwrap();
        let length = body.len().to_string();
        let expected = [
            ("content-encoding", "snappy"),
            ("content-length", length.as_str()),
            ("content-type", content_type),
            ("host", host),
            (
                "user-agent",
                concat!("metrifold/", env!("CARGO_PKG_VERSION")),
            ),
            ("x-prometheus-remote-write-version", version),
            ("x-scope-orgid", "team-a"),
        ];
        assert_eq!(header_list(&captured), expected);
    }
}

fn header_list(captured: &Seen) -> Vec<(&str, &str)> {
    let headers = captured.headers.iter();
    let mut list: Vec<(&str, &str)> = headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    list.sort_unstable();
    list
}

#[test]
fn version_1_stays_what_it_is_with_transforms_on_the_way() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let reply = pipe.post_v1(&to_v1(&common()));
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert!(!reply.speaks_of_written(), "{:?}", reply.headers);
    let captured = pipe.endpoint.only();
    same("1.0", &from_v1(&captured.v1()), &cleaned(common()));
    // Metadata without series stays as well.
    assert_eq!(captured.v1().metadata, to_v1(&common()).metadata);
}

#[test]
fn version_2_stays_what_it_is_with_transforms_on_the_way() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let reply = pipe.post_v2(&to_v2(&with_extras()));
    assert_eq!(reply.status, 204, "{}", reply.text());
    // Series that relabelling drops count as written.
    assert_eq!(reply.written(), Some(counts(&with_extras())));
    let captured = pipe.endpoint.only();
    same("2.0", &from_v2(&captured.v2()), &cleaned(with_extras()));
    let symbols = captured.v2().symbols;
    assert!(
        !symbols
            .iter()
            .any(|s| s.contains("go_gc_") || s.contains("noise")),
        "{symbols:?}"
    );
}

#[test]
fn version_1_becomes_2_without_a_loss() {
    for (way, expected) in [(Way::Straight, common()), (Way::Clean, cleaned(common()))] {
        let pipe = Pipe::new(way, "2.0", Manner::Honest);
        let reply = pipe.post_v1(&to_v1(&common()));
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert!(!reply.speaks_of_written(), "{:?}", reply.headers);
        let captured = pipe.endpoint.only();
        assert_eq!(
            captured.header("x-prometheus-remote-write-version"),
            Some("2.0.0")
        );
        same("1.0 to 2.0", &from_v2(&captured.v2()), &expected);
    }
}

#[test]
fn version_2_becomes_1_with_all_that_1_can_hold() {
    let expected = narrowed(with_extras());
    for (way, expected) in [
        (Way::Straight, expected.clone()),
        (Way::Clean, cleaned(expected)),
    ] {
        let pipe = Pipe::new(way, "1.0", Manner::Honest);
        let reply = pipe.post_v2(&to_v2(&with_extras()));
        without_custom_buckets(&reply, "1.0");
        let captured = pipe.endpoint.only();
        assert_eq!(
            captured.header("x-prometheus-remote-write-version"),
            Some("0.1.0")
        );
        same("2.0 to 1.0", &from_v1(&captured.v1()), &expected);
        // 1.0 cannot hold histograms with custom buckets: they are counted as lost.
        let labels = [
            ("component_id", "out"),
            ("reason", "not_in_remote_write_1.0"),
        ];
        let lost = pipe.metrifold.metric(DISCARDED, &labels);
        assert_eq!(lost, 1.0);
        pipe.check_ledger();
    }
}

/// Checks the answer to the sender of [`with_extras`] if the endpoint gets 1.0: one histogram is
/// not written.
#[track_caller]
fn without_custom_buckets(reply: &Answer, what: impl std::fmt::Debug) {
    assert_eq!(reply.status, 400, "{what:?}: {}", reply.text());
    let said = "no place for histograms with custom buckets";
    assert!(reply.text().contains(said), "{what:?}: {}", reply.text());
    let [samples, histograms, exemplars] = counts(&with_extras());
    let written = Some([samples, histograms - 1, exemplars]);
    assert_eq!(reply.written(), written, "{what:?}");
}

#[test]
fn a_1_0_series_of_samples_and_histograms_becomes_two_in_2_0() {
    let pipe = Pipe::new(Way::Straight, "2.0", Manner::Honest);
    let mixed = Series::named("mixed")
        .sample(1.0, T)
        .histogram(series::integer_histogram(T + 1))
        .exemplar(&[("trace_id", "a")], 1.0, T);
    let reply = pipe.post_v1(&to_v1(&[mixed]));
    assert_eq!(reply.status, 204, "{}", reply.text());
    let expected = [
        Series::named("mixed")
            .sample(1.0, T)
            .exemplar(&[("trace_id", "a")], 1.0, T),
        Series::named("mixed").histogram(series::integer_histogram(T + 1)),
    ];
    same("mixed", &from_v2(&pipe.endpoint.only().v2()), &expected);
}

#[test]
fn what_2_0_has_no_place_for_does_not_reach_its_endpoint() {
    let pipe = Pipe::new(Way::Straight, "2.0", Manner::Honest);
    let series = Series::named("with_data")
        .sample(1.0, T)
        .metadata(2, "Help.", "");
    let reply = pipe.post_v1(&to_v1(&[Series::named("without_data"), series.clone()]));
    assert_eq!(reply.status, 204, "{}", reply.text());
    same(
        "data",
        &from_v2(&pipe.endpoint.only().v2()),
        std::slice::from_ref(&series),
    );

    // Prometheus sends metadata of 1.0 in separate requests.
    let mut metadata = to_v1(&[series]);
    metadata.timeseries.clear();
    let reply = pipe.post_v1(&metadata);
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(pipe.endpoint.take().len(), 0);
    pipe.check_ledger();
}

#[test]
fn a_batch_of_which_nothing_is_left_is_acknowledged() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let gone = [Series::named("go_gc_cycles")
        .sample(1.0, T)
        .exemplar(&[("t", "1")], 1.0, T)];
    let reply = pipe.post_v2(&to_v2(&gone));
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(reply.written(), Some([1, 0, 1]));
    assert_eq!(pipe.post_v1(&to_v1(&gone)).status, 204);
    assert_eq!(pipe.endpoint.take().len(), 0);
}

#[test]
fn what_an_endpoint_says_that_it_did_not_store_counts_as_lost() {
    let pipe = Pipe::new(Way::Straight, "auto", Manner::Picky);
    let sent = [
        Series::named("liked").sample(1.0, T).sample(2.0, T + 1),
        Series::named("not_liked").sample(3.0, T),
        Series::named("not_liked_either").histogram(series::integer_histogram(T)),
    ];
    let reply = pipe.post_v2(&to_v2(&sent));
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().contains("only the first series is liked"),
        "{}",
        reply.text()
    );
    let out = ("component_id", "out");
    let stored = pipe
        .metrifold
        .metric("metrifold_component_sent_samples_total", &[out]);
    assert_eq!(stored, 2.0);
    let lost = pipe
        .metrifold
        .metric(DISCARDED, &[out, ("reason", "partial")]);
    assert_eq!(lost, 2.0);
    pipe.check_ledger();
}

#[test]
fn metadata_of_a_family_reaches_all_its_series_and_comes_back_once() {
    // Family names as in OpenMetrics' text format.
    let metadata = |kind: i32, family: &str| v1::MetricMetadata {
        r#type: kind,
        metric_family_name: family.into(),
        help: format!("Help of {family}."),
        unit: String::new(),
    };
    let families = [
        metadata(1, "hits"),
        metadata(1, "plain_total"),
        metadata(2, "heat"),
        metadata(3, "size"),
        metadata(5, "wait"),
        metadata(6, "build"),
    ];
    let members = [
        ("hits_total", 0),
        ("plain_total", 1),
        ("heat", 2),
        ("size_bucket", 3),
        ("size_sum", 3),
        ("size_count", 3),
        ("wait", 4),
        ("wait_sum", 4),
        ("wait_count", 4),
        ("build_info", 5),
    ];
    let series: Vec<Series> = members
        .iter()
        .map(|(name, _)| Series::named(name).sample(1.0, T))
        .collect();
    let mut message = to_v1(&series);
    message.metadata = families.to_vec();
    let strangers = Series::named("heat_total").sample(1.0, T);
    message
        .timeseries
        .extend(to_v1(std::slice::from_ref(&strangers)).timeseries);

    let pipe = Pipe::new(Way::Straight, "2.0", Manner::Honest);
    assert_eq!(pipe.post_v1(&message).status, 204);
    let with_metadata = members.iter().map(|&(name, family)| {
        let family = &families[family];
        Series::named(name)
            .sample(1.0, T)
            .metadata(family.r#type, &family.help, "")
    });
    let with_metadata: Vec<Series> = with_metadata.chain([strangers]).collect();
    same(
        "metadata",
        &from_v2(&pipe.endpoint.only().v2()),
        &with_metadata,
    );

    let pipe = Pipe::new(Way::Straight, "1.0", Manner::Honest);
    assert_eq!(pipe.post_v2(&to_v2(&with_metadata)).status, 204);
    let back = pipe.endpoint.only().v1().metadata;
    let names: Vec<&str> = back.iter().map(|m| m.metric_family_name.as_str()).collect();
    // 2.0 does not tell the suffix of a counter or an info from its family, so that the whole name
    // is used.
    let expected = [
        "build_info",
        "heat",
        "hits_total",
        "plain_total",
        "size",
        "wait",
    ];
    assert_eq!(names, expected);
}

#[test]
fn an_invalid_series_costs_itself_alone_and_the_sender_learns_why() {
    let series = |name: &str| {
        Series::named(name)
            .sample(1.0, T)
            .exemplar(&[("t", "1")], 1.0, T)
    };
    let valid = [series("a"), series("b"), series("d")];
    let nameless = Series::of(&[("job", "nameless-job")])
        .sample(1.0, T)
        .sample(2.0, T + 1);
    let sent = [
        valid[0].clone(),
        valid[1].clone(),
        nameless,
        valid[2].clone(),
    ];

    for way in [Way::Straight, Way::Clean] {
        let expected = if way == Way::Clean {
            cleaned(valid.to_vec())
        } else {
            valid.to_vec()
        };
        let pipe = Pipe::new(way, "auto", Manner::Honest);
        let reply = pipe.post_v2(&to_v2(&sent));
        assert_eq!(reply.status, 400);
        assert_eq!(reply.written(), Some([3, 0, 3]));
        for part in ["1 invalid series", "missing_metric_name", "nameless-job"] {
            assert!(reply.text().contains(part), "{}", reply.text());
        }
        same(
            "valid part",
            &from_v2(&pipe.endpoint.only().v2()),
            &expected,
        );
        let labels = [
            ("component_id", "ingest"),
            ("reason", "missing_metric_name"),
        ];
        let lost = pipe.metrifold.metric(DISCARDED, &labels);
        assert_eq!(lost, 2.0);
    }

    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let reply = pipe.post_v1(&to_v1(&sent));
    assert_eq!(reply.status, 400);
    assert!(!reply.speaks_of_written(), "{:?}", reply.headers);
    assert!(
        reply.text().contains("missing_metric_name"),
        "{}",
        reply.text()
    );
    same(
        "valid part",
        &from_v1(&pipe.endpoint.only().v1()),
        &cleaned(valid.to_vec()),
    );
}

#[test]
fn an_endpoint_that_does_not_take_2_0_gets_1_0_from_then_on() {
    for manner in [Manner::OnlyV1, Manner::Swallowing] {
        let pipe = Pipe::new(Way::Straight, "auto", manner);
        let sent = with_extras();
        let reply = pipe.post_v2(&to_v2(&sent));
        without_custom_buckets(&reply, manner);
        let tried = pipe.endpoint.take();
        let versions: Vec<bool> = tried.iter().map(Seen::is_v2).collect();
        assert_eq!(versions, [true, false], "{manner:?}");
        assert_eq!(tried[1].header("content-type"), Some(TYPE_1));
        assert_eq!(
            tried[1].header("x-prometheus-remote-write-version"),
            Some("0.1.0")
        );
        same(
            "fallback",
            &from_v1(&tried[1].v1()),
            &narrowed(sent.clone()),
        );

        let reply = pipe.post_v2(&to_v2(&sent));
        without_custom_buckets(&reply, manner);
        same(
            "after fallback",
            &from_v1(&pipe.endpoint.only().v1()),
            &narrowed(sent),
        );

        // Both batches lost a histogram in 1.0, the first of them on its second attempt only.
        let labels = [
            ("component_id", "out"),
            ("reason", "not_in_remote_write_1.0"),
        ];
        let lost = pipe.metrifold.metric(DISCARDED, &labels);
        assert_eq!(lost, 2.0, "{manner:?}");
        pipe.check_ledger();
    }
}

#[test]
fn what_an_endpoint_swallows_is_never_acknowledged() {
    // With 2.0 as the only protocol there is no fallback.
    for manner in [Manner::OnlyV1, Manner::Swallowing] {
        let pipe = Pipe::new(Way::Straight, "2.0", manner);
        let reply = pipe.post_v2(&to_v2(&common()));
        assert_eq!(reply.status, 503, "{manner:?}: {}", reply.text());
        let tried = pipe.endpoint.take();
        assert!(!tried.is_empty(), "{manner:?}");
        assert!(tried.iter().all(Seen::is_v2), "{manner:?}");
    }
}

#[test]
fn a_refusal_reaches_the_sender_with_its_reason() {
    let pipe = Pipe::new(Way::Straight, "auto", Manner::Refusing);
    let reply = pipe.post_v1(&to_v1(&common()));
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().contains("this endpoint refuses everything"),
        "{}",
        reply.text()
    );
    assert!(!reply.speaks_of_written(), "{:?}", reply.headers);
    let reply = pipe.post_v2(&to_v2(&common()));
    assert_eq!(reply.status, 400);
    assert_eq!(reply.written(), Some([0, 0, 0]));
}

#[test]
fn every_refusal_of_a_2_0_request_says_that_nothing_was_written() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let sound = series::compressed(&to_v2(&common()));
    let cut = &sound[..sound.len() - 1];
    let nonsense = series::peculiar_body(&[0xff; 64]);
    // Declares 4 GiB less a byte.
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    for (encoding, body, status) in [
        ("gzip", &*sound, 415),
        ("snappy", cut, 400),
        ("snappy", &nonsense, 400),
        ("snappy", b"", 400),
        ("snappy", &huge, 413),
    ] {
        for (media_type, written) in [(TYPE_2, Some([0, 0, 0])), (TYPE_1, None)] {
            let headers = [("content-type", media_type), ("content-encoding", encoding)];
            let reply = pipe.post(&headers, body);
            assert_eq!(reply.status, status, "{encoding} {media_type} {body:?}");
            let spoken = reply.speaks_of_written().then(|| reply.written());
            assert_eq!(spoken.flatten(), written, "{media_type} {}", reply.text());
        }
    }
    let unknown = "application/x-protobuf;proto=other.Message";
    let reply = pipe.post(&[("content-type", unknown)], &sound);
    assert_eq!(reply.status, 415);
    assert!(!reply.speaks_of_written(), "{:?}", reply.headers);
}

#[test]
fn a_damaged_body_is_refused_by_whoever_looks_first() {
    let headers = sender_headers(TYPE_1, "0.1.0");
    let damaged = series::compressed(&to_v1(&common()));
    let damaged = damaged[..damaged.len() - 1].to_vec();
    let nonsense = series::peculiar_body(&[0xff; 64]);

    let pipe = Pipe::new(Way::Straight, "auto", Manner::Honest);
    let reply = pipe.post(&headers, &damaged);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("body is damaged"), "{}", reply.text());
    assert_eq!(pipe.endpoint.take().len(), 1);

    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    for body in [damaged, nonsense] {
        assert_eq!(pipe.post(&headers, &body).status, 400);
        assert_eq!(pipe.endpoint.take().len(), 0);
    }
}

/// A case of the compliance suite: series, and the reason why they are invalid, if they are.
struct Case {
    name: &'static str,
    sent: Vec<Series>,
    invalid: Option<&'static str>,
}

fn case(name: &'static str, sent: impl Into<Vec<Series>>) -> Case {
    Case {
        name,
        sent: sent.into(),
        invalid: None,
    }
}

impl Case {
    fn invalid(mut self, reason: &'static str) -> Self {
        self.invalid = Some(reason);
        self
    }
}

fn compliance_cases() -> Vec<Case> {
    let mut cases = Vec::new();

    // SingleMetric: values times labels.
    let values = [
        ("one", 1.0),
        ("stale", f64::from_bits(STALE)),
        ("nan", f64::NAN),
        ("inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
    ];
    let labels: [&[(&str, &str)]; 5] = [
        &[("__name__", "simple")],
        &[
            ("__name__", "multiple"),
            ("a", "1"),
            ("b", "2"),
            ("job", "test"),
        ],
        &[("__name__", "newlines"), ("text", "one\ntwo\n")],
        &[("__name__", "with.dots"), ("label.dotted", "a.b")],
        &[("__name__", "with spaces"), ("a label", "a b c")],
    ];
    for (name, value) in values {
        for labels in labels {
            cases.push(case(name, [Series::of(labels).sample(value, T)]));
        }
        let nameless = Series::of(&[("job", "test")]).sample(value, T);
        cases.push(case(name, [nameless]).invalid("missing_metric_name"));
        let empty = Series::of(&[("__name__", ""), ("job", "test")]).sample(value, T);
        cases.push(case(name, [empty]).invalid("missing_metric_name"));
    }

    // Counters and histograms with start timestamps, of the draft and of today.
    cases.extend([
        case(
            "counter created",
            [Series::named("c_total").sample(1.0, T).created(T - 1)],
        ),
        case(
            "counter started",
            [Series::named("c_total").started_sample(1.0, T, T - 1)],
        ),
        case(
            "start of zero",
            [Series::named("c_total").started_sample(1.0, T, 0)],
        ),
        case(
            "histogram created",
            [Series::named("h")
                .histogram(series::integer_histogram(T))
                .created(T - 1)],
        ),
        case(
            "exemplar and created",
            [Series::named("c_total")
                .sample(1.0, T)
                .created(T - 1)
                .exemplar(&[("trace_id", "1")], 1.0, T)],
        ),
    ]);

    // Histograms.
    let positive = Histogram {
        negative_spans: Vec::new(),
        negative_deltas: Vec::new(),
        ..series::integer_histogram(T)
    };
    let negative = Histogram {
        positive_spans: Vec::new(),
        positive_deltas: Vec::new(),
        ..series::integer_histogram(T)
    };
    let minimal = Histogram {
        count: Some(Count::Int(0)),
        timestamp: T,
        ..Histogram::default()
    };
    // The endpoint judges it: the content of histograms is not checked.
    let bad_count = Histogram {
        count: Some(Count::Int(1_000_000)),
        ..series::integer_histogram(T)
    };
    let long = Histogram {
        positive_spans: vec![BucketSpan {
            offset: 0,
            length: 160,
        }],
        positive_deltas: (0..160)
            .map(|n| if n % 2 == 0 { 1 << 40 } else { -(1 << 40) })
            .collect(),
        ..series::integer_histogram(T)
    };
    for (name, histogram) in [
        ("histogram basic", series::integer_histogram(T)),
        ("histogram float", series::float_histogram(T)),
        ("histogram custom_buckets", series::custom_histogram(T)),
        ("histogram positive_only", positive),
        ("histogram negative_only", negative),
        ("histogram minimal", minimal),
        ("histogram empty", Histogram::default()),
        ("histogram bad_count", bad_count),
        ("histogram stale", series::stale_histogram(T)),
        ("histogram with many buckets", long),
    ] {
        let series = Series::named("h").histogram(histogram);
        let exemplar = series.clone().exemplar(&[("trace_id", "1")], 1.0, T);
        let metadata = series.clone().metadata(3, "A histogram.", "seconds");
        let both = exemplar.clone().metadata(3, "A histogram.", "seconds");
        cases.extend([series, exemplar, metadata, both].map(|series| case(name, [series])));
    }
    cases.push(case(
        "multiple histograms",
        [
            Series::named("h1")
                .histogram(series::integer_histogram(T))
                .histogram(series::integer_histogram(T + 1)),
            Series::named("h2").histogram(series::float_histogram(T)),
            Series::named("h3").histogram(series::custom_histogram(T)),
        ],
    ));

    // Exemplars.
    let exemplars: [&[(&str, &str)]; 8] = [
        &[("trace_id", "0123456789abcdef")],
        &[("span_id", "01234567"), ("trace_id", "0123456789abcdef")],
        &[("request", "42")],
        &[("a", "1"), ("b", "2"), ("c", "3")],
        &[],
        &[("special", "!\"§$%&/()=?\\\n")],
        &[("unicode", "追跡🔎"), ("ключ", "значение")],
        &[("empty", "")],
    ];
    for labels in exemplars {
        for value in [1.0, 0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let series = Series::named("e_total")
                .sample(1.0, T)
                .exemplar(labels, value, T);
            cases.push(case("exemplar", [series]));
        }
    }
    for timestamp in [0, 1, T - 3_600_000, T + 3_600_000, -1] {
        let series = Series::named("e_total").sample(1.0, T);
        let series = series.exemplar(&[("trace_id", "1")], 1.0, timestamp);
        cases.push(case("exemplar timestamp", [series]));
    }
    let many = (0..50).fold(Series::named("e_total").sample(1.0, T), |series, n| {
        series.exemplar(
            &[("trace_id", &n.to_string())],
            f64::from(n),
            T + i64::from(n),
        )
    });
    cases.push(case("multiple exemplars", [many]));
    let exemplar = |series: Series| series.exemplar(&[("trace_id", "1")], 1.0, T);
    cases.extend([
        case(
            "exemplar_with_valid_name",
            [exemplar(Series::named("e").sample(1.0, T))],
        ),
        case(
            "exemplar_without_name_label",
            [exemplar(Series::of(&[("a", "b")]).sample(1.0, T))],
        )
        .invalid("missing_metric_name"),
        case(
            "exemplar_with_empty_name",
            [exemplar(
                Series::of(&[("__name__", ""), ("a", "b")]).sample(1.0, T),
            )],
        )
        .invalid("missing_metric_name"),
        case("exemplars_without_data", [exemplar(Series::named("e"))]),
    ]);

    // Metadata.
    for kind in 0..=7 {
        let gauge = Series::named("m").sample(1.0, T);
        for (help, unit) in [
            ("A metric.", "bytes"),
            ("", ""),
            ("\"q\" \\ \n ü", "µs"),
            ("A metric.", ""),
        ] {
            cases.push(case("metadata", [gauge.clone().metadata(kind, help, unit)]));
        }
    }
    let metadata = |series: Series| series.metadata(2, "Help.", "");
    cases.extend([
        case(
            "metadata_with_valid_name",
            [metadata(Series::named("m").sample(1.0, T))],
        ),
        case(
            "metadata_without_name_label",
            [metadata(Series::of(&[("a", "b")]).sample(1.0, T))],
        )
        .invalid("missing_metric_name"),
        case(
            "metadata_with_empty_name",
            [metadata(
                Series::of(&[("__name__", ""), ("a", "b")]).sample(1.0, T),
            )],
        )
        .invalid("missing_metric_name"),
        case("metadata_without_data", [metadata(Series::named("m"))]).invalid("no_samples"),
        case("no data at all", [Series::named("m")]).invalid("no_samples"),
    ]);

    // Invalid labels.
    let sample = |labels: &[(&str, &str)]| [Series::of(labels).sample(1.0, T)];
    cases.extend([
        case(
            "duplicate label",
            sample(&[("__name__", "d"), ("a", "1"), ("a", "2")]),
        )
        .invalid("duplicate_label"),
        case(
            "equal duplicate label",
            sample(&[("__name__", "d"), ("a", "1"), ("a", "1")]),
        )
        .invalid("duplicate_label"),
        case("empty label name", sample(&[("__name__", "d"), ("", "1")]))
            .invalid("empty_label_name"),
        case("no labels", sample(&[])).invalid("missing_metric_name"),
    ]);

    // Many series, and everything in one request.
    let series = |n: i64| {
        let value = n.to_string();
        let series = Series::of(&[("__name__", "many"), ("n", &value)]);
        (0..20).fold(series, |series, i| {
            series.sample((n * i) as f64, T + i * 1000)
        })
    };
    cases.push(case(
        "many samples",
        (0..500).map(series).collect::<Vec<_>>(),
    ));
    let series = |n: i64| {
        let value = n.to_string();
        Series::of(&[("__name__", "many"), ("n", &value)])
            .histogram(series::integer_histogram(T + n))
    };
    cases.push(case(
        "many histograms",
        (0..200).map(series).collect::<Vec<_>>(),
    ));
    cases.push(case(
        "mixed timestamps",
        [
            Series::named("past").sample(1.0, 0),
            Series::named("negative").sample(1.0, -1),
            Series::named("future").sample(1.0, 4_102_444_800_000),
            Series::named("disorder")
                .sample(1.0, T)
                .sample(2.0, T - 1000),
        ],
    ));
    cases.push(case("everything", with_extras()));
    cases
}

#[test]
fn the_compliance_suites_cases_come_out_as_they_went_in() {
    for way in [Way::Straight, Way::Clean] {
        let pipe = Pipe::new(way, "auto", Manner::Honest);
        for Case {
            name,
            sent,
            invalid,
        } in compliance_cases()
        {
            let reply = pipe.post_v2(&to_v2(&sent));
            if let Some(reason) = invalid {
                assert_eq!(reply.status, 400, "{name}: {sent:?}");
                assert_eq!(reply.written(), Some([0, 0, 0]), "{name}");
                assert!(reply.text().contains(reason), "{name}: {}", reply.text());
                assert_eq!(pipe.endpoint.take().len(), 0, "{name}");
                continue;
            }
            assert_eq!(reply.status, 204, "{name}: {}", reply.text());
            assert_eq!(reply.written(), Some(counts(&sent)), "{name}");
            if counts(&sent)[..2] == [0, 0] {
                // Exemplars without samples wait for a sample of their series.
                assert_eq!(pipe.endpoint.take().len(), 0, "{name}");
                continue;
            }
            let expected = if way == Way::Clean {
                cleaned(sent)
            } else {
                sent
            };
            same(name, &from_v2(&pipe.endpoint.only().v2()), &expected);
        }
    }
}

#[test]
fn the_compliance_suites_cases_hold_for_1_0_as_far_as_it_can_say_them() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    for Case {
        name,
        sent,
        invalid,
    } in compliance_cases()
    {
        // 1.0 allows series without samples, and has no custom buckets.
        let sayable = narrowed(sent.clone()) == sent;
        if invalid == Some("no_samples") {
            assert_eq!(pipe.post_v1(&to_v1(&sent)).status, 204, "{name}");
            pipe.endpoint.take();
            continue;
        }
        if !sayable {
            continue;
        }
        let reply = pipe.post_v1(&to_v1(&sent));
        assert!(!reply.speaks_of_written(), "{name}");
        if let Some(reason) = invalid {
            assert_eq!(reply.status, 400, "{name}: {sent:?}");
            assert!(reply.text().contains(reason), "{name}: {}", reply.text());
            let arrived: Vec<Series> = pipe
                .endpoint
                .take()
                .iter()
                .flat_map(Seen::checked)
                .collect();
            assert_eq!(arrived, [], "{name}");
            continue;
        }
        assert_eq!(reply.status, 204, "{name}: {}", reply.text());
        same(name, &from_v1(&pipe.endpoint.only().v1()), &cleaned(sent));
    }
}

#[test]
fn labels_in_disorder_are_sorted_and_empty_ones_are_no_labels() {
    let pipe = Pipe::new(Way::Clean, "auto", Manner::Honest);
    let sent = [
        Series::of(&[
            ("zone", "z"),
            ("job", "j"),
            ("__name__", "a"),
            ("B", "upper"),
        ])
        .sample(1.0, T),
        Series::of(&[("__name__", "b"), ("empty", ""), ("job", "j")]).sample(1.0, T),
    ];
    let expected = [
        Series::of(&[
            ("B", "upper"),
            ("__name__", "a"),
            ("job", "j"),
            ("tenant_id", "team-a"),
            ("zone", "z"),
        ])
        .sample(1.0, T),
        Series::of(&[("__name__", "b"), ("job", "j"), ("tenant_id", "team-a")]).sample(1.0, T),
    ];
    assert_eq!(pipe.post_v1(&to_v1(&sent)).status, 204);
    same("labels", &pipe.endpoint.only().checked(), &expected);
    assert_eq!(pipe.post_v2(&to_v2(&sent)).status, 204);
    same("labels", &pipe.endpoint.only().checked(), &expected);
}

#[test]
fn requests_that_are_not_remote_write_are_refused_as_the_specification_says() {
    let pipe = Pipe::new(Way::Straight, "auto", Manner::Honest);
    let one = series::compressed(&to_v1(&common()));
    let two = series::compressed(&to_v2(&common()));
    let raw = prost::Message::encode_to_vec(&to_v2(&common()));
    let mut framed = Vec::new();
    let mut writer = snap::write::FrameEncoder::new(&mut framed);
    std::io::Write::write_all(&mut writer, &raw).unwrap();
    drop(writer);
    let not_a_message = series::peculiar_body(&[0xff; 64]);
    let odd_refs = v2::Request {
        symbols: vec!["".into(), "__name__".into(), "a".into()],
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2, 1],
            samples: vec![v2::Sample {
                value: 1.0,
                timestamp: T,
                start_timestamp: 0,
            }],
            ..v2::TimeSeries::default()
        }],
    };
    let mut far_refs = odd_refs.clone();
    far_refs.timeseries[0].labels_refs = vec![1, 3];
    let mut first_symbol = to_v2(&common());
    first_symbol.symbols[0] = "not empty".into();

    let protobuf_2 = &[("content-type", TYPE_2), ("content-encoding", "snappy")];
    let f = |status: u16, headers: &[(&str, &str)], body: &[u8]| {
        let reply = pipe.post(headers, body);
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.text());
        assert_eq!(
            pipe.endpoint.take().len(),
            usize::from(status == 204),
            "{headers:?}"
        );
        assert!(
            status == 204 || !reply.body.is_empty(),
            "{headers:?} got no reason"
        );
    };
    for other in [
        "application/json",
        "image/png",
        "application/x-protobuf;proto=some.Message",
    ] {
        f(
            415,
            &[("content-type", other), ("content-encoding", "snappy")],
            &two,
        );
    }
    for other in ["gzip", "deflate", "zstd"] {
        f(
            415,
            &[("content-type", TYPE_2), ("content-encoding", other)],
            &two,
        );
    }
    f(204, protobuf_2, &two);
    f(
        204,
        &[("content-type", TYPE_1), ("content-encoding", "snappy")],
        &one,
    );
    // Taken for 1.0 and snappy, as Prometheus does.
    f(204, &[], &one);
    let spaced = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
    f(
        204,
        &[("content-type", spaced), ("content-encoding", "snappy")],
        &two,
    );
    f(400, protobuf_2, &raw);
    f(400, protobuf_2, &framed);
    f(400, protobuf_2, &two[..two.len() - 1]);
    f(400, protobuf_2, b"I am not a snappy body at all");
    f(400, protobuf_2, b"");
    f(400, protobuf_2, &not_a_message);
    f(400, protobuf_2, &series::compressed(&odd_refs));
    f(400, protobuf_2, &series::compressed(&far_refs));
    f(400, protobuf_2, &series::compressed(&first_symbol));

    let send = |method, path: &str| request(method, pipe.metrifold.ingest, path, protobuf_2, &two);
    for method in ["GET", "PUT", "DELETE"] {
        let reply = send(method, WRITE).unwrap();
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
    let reply = send("POST", &format!("{WRITE}/other")).unwrap();
    assert_eq!(reply.status, 404);
}
