//! Bounds of scraping: resolution of native histograms, dropped targets that are kept, and the format
//! of pages that do not name theirs.

use prost::Message;

use metrifold_testing::messages::Histogram;
use metrifold_testing::peers::{PROTOBUF, histogram_page};
use metrifold_testing::{Endpoint, Metrifold, Reply, Seen, until, until_so};

use crate::scrape::{config, last_value, pipe, targets};

/// Schema of the histogram that arrives, of 3 on the page. `None` if the scrape fails.
fn schema(keys: &str) -> Option<i32> {
    // Buckets 0, 1 and 6, and a negative one.
    let target = Endpoint::new(|_| {
        Reply::new(200)
            .header("content-type", PROTOBUF)
            .body(histogram_page("h", 7))
    });
    let keys = format!("scrape_native_histograms = true\n{keys}");
    let (_child, sink) = pipe(&target, &keys);
    until("a scrape", || {
        let up = last_value(&sink, "up")?;
        let seen = sink.seen();
        let mut series = seen.iter().flat_map(Seen::series);
        let found = series.find(|series| !series.histograms.is_empty());
        let found = found.map(|it| Histogram::decode(&*it.histograms[0]).unwrap().schema);
        // The report leaves with the histogram, or alone.
        assert_eq!(up == 1.0, found.is_some(), "{keys}");
        Some(found)
    })
}

#[test]
fn native_histograms_with_too_many_or_too_narrow_buckets_are_made_coarser() {
    for (keys, expected) in [
        ("", Some(3)),
        ("native_histogram_bucket_limit = 4", Some(3)),
        // Buckets 1 and 6 of schema 3 share one of schema 0.
        ("native_histogram_bucket_limit = 3", Some(0)),
        // Buckets on both sides of 1, and negative ones, share none.
        ("native_histogram_bucket_limit = 2", None),
        ("native_histogram_min_bucket_factor = 1.09", Some(3)),
        ("native_histogram_min_bucket_factor = 1.1", Some(2)),
        ("native_histogram_min_bucket_factor = 1.5", Some(0)),
    ] {
        assert_eq!(schema(keys), expected, "{keys}");
    }
}

#[test]
fn a_page_that_does_not_name_its_format_is_taken_as_the_key_says() {
    let openmetrics = "# TYPE a counter\na_total 1\n# EOF\n";
    let proto = histogram_page("h", 1);
    for (content_type, body, fallback, up) in [
        (None, "a 1\n".as_bytes(), "PrometheusText0.0.4", 1.0),
        (Some("text/html"), b"a 1\n", "PrometheusText0.0.4", 1.0),
        (None, b"a 1\n", "none", 0.0),
        (Some("text/html"), b"a 1\n", "none", 0.0),
        // A page that says what it is needs no fallback.
        (Some("text/plain"), b"a 1\n", "none", 1.0),
        (None, openmetrics.as_bytes(), "OpenMetricsText1.0.0", 1.0),
        (None, b"a 1\n", "OpenMetricsText1.0.0", 0.0),
        (None, &proto, "PrometheusProto", 1.0),
        (None, &proto, "PrometheusText0.0.4", 0.0),
    ] {
        let body = body.to_vec();
        let target = Endpoint::new(move |_| {
            let reply = Reply::new(200).body(body.clone());
            match content_type {
                Some(content_type) => reply.header("content-type", content_type),
                None => reply,
            }
        });
        let (_child, sink) = pipe(&target, &format!("fallback_scrape_protocol = {fallback:?}"));
        let found = until("a scrape", || last_value(&sink, "up"));
        assert_eq!(found, up, "{content_type:?} {fallback}");
    }
}

#[test]
fn dropped_targets_beyond_the_limit_are_counted_and_always_the_same_are_shown() {
    let keys = "targets = [\"c:1\", \"a:1\", \"b:1\"]\nkeep_dropped_targets = 2\n\
                relabel = [{ action = \"drop\", regex = \".*\" }]";
    let child = Metrifold::start(&config(keys, &Endpoint::healthy()));
    until_so("three are dropped", || {
        targets(&child, "")["droppedTargetCounts"]["s"] == 3
    });
    let found = targets(&child, "?state=dropped");
    let shown = found["droppedTargets"].as_array().unwrap().iter();
    let shown: Vec<_> = shown
        .map(|it| it["discoveredLabels"]["__address__"].clone())
        .collect();
    assert_eq!(shown, ["a:1", "b:1"]);
}
