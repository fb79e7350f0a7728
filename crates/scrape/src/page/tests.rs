use std::sync::Arc;

use bytes::Bytes;

use metrifold_codec::remote_write::messages::{Count, Histogram, ZeroCount, v2};
use metrifold_discovery::{Labels, Target};
use metrifold_exposition::Format;

use crate::keys::ScrapeKeys;
use crate::particulars::Plain;
use crate::target;

use super::*;

/// Time of the scrapes, and time until which the series may have samples.
const AT: Times = Times {
    timestamp: 100_000,
    sampled_until: 50_000,
    exemplars_until: i64::MIN,
};

/// What becomes of a page: its series, or the failure, with the counts.
fn taken(keys: &str, format: Format, text: &str, known: &mut Known) -> Result<Taken, Failed> {
    taken_at(AT, keys, format, text, known)
}

fn taken_at(
    times: Times,
    keys: &str,
    format: Format,
    text: &str,
    known: &mut Known,
) -> Result<Taken, Failed> {
    let keys: ScrapeKeys = toml::from_str(keys).unwrap();
    let settings = Arc::new(Settings::new(&keys, "source").unwrap());
    let found: Target = Arc::new([("__address__", "a:1")].into_iter().collect::<Labels>());
    let target = target::make(&settings, &Plain, &[found], 0)
        .pop()
        .unwrap()
        .1;
    let page = Page {
        text: Bytes::from(text.to_owned()),
        format,
        content_type: None,
        turn: None,
        share: None,
    };
    let state = RandomState::default();
    take(&settings, &target.unwrap(), &page, times, known, &state)
        .map_err(|(error, counts)| (error.cause, counts.scraped, counts.kept))
}

type Failed = (Cause, usize, usize);

fn text(keys: &str, page: &str) -> Result<Taken, Failed> {
    taken(keys, Format::Text, page, &mut Known::default())
}

/// The samples of each series, as values and times.
fn samples(taken: &Taken) -> Vec<(String, Vec<(f64, i64)>)> {
    let name = Name::new(NAME);
    let Content::Read(arena, _) = &taken.content else {
        panic!("the first page of a target cannot repeat another one");
    };
    let series = arena.iter().map(|series| {
        let name = String::from_utf8_lossy(series.get(&name).unwrap()).into_owned();
        (name, series.samples().collect())
    });
    series.collect()
}

const DROP_B: &str =
    "metric_relabel = [{ source_labels = ['__name__'], regex = 'b', action = 'drop' }]";

#[test]
fn a_failed_page_counts_what_came_before_the_fault() {
    for (keys, page, failed) in [
        (DROP_B, "a 1\nb 2\nc 3\nnone\nd 5\n", (Cause::Page, 3, 2)),
        (
            "sample_limit = 2",
            "a 1\nb 2\nc 3\n",
            (Cause::Samples, 3, 3),
        ),
        (
            "label_limit = 3",
            "a 1\nb{x=\"1\"} 2\nc 3\n",
            (Cause::Labels, 2, 1),
        ),
        // The first fault is reported, whatever its kind.
        (
            "label_limit = 3",
            "a 1\nb{x=\"1\"} 2\nnone\n",
            (Cause::Labels, 2, 1),
        ),
        (
            "label_limit = 3",
            "a 1\nnone\nb{x=\"1\"} 2\n",
            (Cause::Page, 1, 1),
        ),
        ("sample_limit = 1", "a 1\nb 2\nnone\n", (Cause::Page, 2, 2)),
    ] {
        assert_eq!(text(keys, page).unwrap_err(), failed, "{keys} {page:?}");
    }
}

#[test]
fn an_empty_page_is_valid_in_every_format() {
    for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
        let taken = taken("", format, "", &mut Known::default()).unwrap();
        assert_eq!(taken.counts.scraped, 0);
    }
    let blank = taken("", Format::OpenMetrics, "\n", &mut Known::default());
    assert_eq!(blank.unwrap_err(), (Cause::Page, 0, 0));
}

#[test]
fn duplicates_do_not_count_towards_the_limit_and_samples_of_the_future_do() {
    let good = text("sample_limit = 2", "a 1\na 2\nb 3\na 4\n").unwrap();
    assert_eq!((good.counts.scraped, good.counts.kept), (4, 4));
    assert_eq!(good.counts.duplicates, 2);
    assert_eq!(
        samples(&good),
        [
            ("a".to_owned(), vec![(1.0, 100_000)]),
            ("b".to_owned(), vec![(3.0, 100_000)]),
        ]
    );
    let page = "a 1\nb 2 700001\nc 3 700000\n";
    let good = text("sample_limit = 3", page).unwrap();
    assert_eq!((good.counts.kept, good.counts.ahead), (3, 1));
    let names: Vec<_> = samples(&good).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "c"]);
    let failed = text("sample_limit = 2", page).unwrap_err();
    assert_eq!(failed, (Cause::Samples, 3, 3));
}

#[test]
fn a_series_may_be_repeated_with_timestamps_and_ends_once() {
    let keys = "track_timestamps_staleness = true";
    let mut known = Known::default();
    let page = "a 1 1000\na 2 2000\nb 1\n";
    let first = taken(keys, Format::Text, page, &mut known).unwrap();
    assert_eq!((first.counts.duplicates, first.difference.added), (0, 2));
    known.update(first.difference);
    let mut ended = 0;
    known.end(|_| ended += 1);
    assert_eq!(ended, 2);
}

const COUNTER: &str = "# TYPE c counter\nc_total{x=\"1\"} 5\nc_created{x=\"1\"} 60\n\
                       c_total{x=\"2\"} 6\nc_created{x=\"2\"} 40\n# EOF\n";

fn counter(keys: &str) -> Taken {
    taken(keys, Format::OpenMetrics, COUNTER, &mut Known::default()).unwrap()
}

#[test]
fn start_timestamps_are_ignored_made_zeros_or_sent() {
    let all = counter("");
    assert_eq!(all.counts.scraped, 4);
    assert!(samples(&all).iter().all(|(_, samples)| samples.len() == 1));

    let zeros = counter("start_timestamps = 'zero_sample'");
    assert_eq!((zeros.counts.scraped, zeros.counts.kept), (2, 2));
    let samples_of = |taken: &Taken| -> Vec<_> {
        samples(taken)
            .into_iter()
            .map(|(_, samples)| samples)
            .collect()
    };
    // The other one may have had samples since it started.
    assert_eq!(
        samples_of(&zeros),
        [vec![(0.0, 60_000), (5.0, 100_000)], vec![(6.0, 100_000)]]
    );

    let sent = counter("start_timestamps = 'send'");
    assert_eq!(samples_of(&sent), [[(5.0, 100_000)], [(6.0, 100_000)]]);
    let request = request(&sent);
    let starts = request
        .timeseries
        .iter()
        .map(|it| it.samples[0].start_timestamp);
    assert_eq!(starts.collect::<Vec<_>>(), [60_000, 40_000]);
}

/// The request of 2.0 with a page's series.
fn request(taken: &Taken) -> v2::Request {
    let Content::Read(arena, _) = &taken.content else {
        panic!("the first page of a target cannot repeat another one");
    };
    let batch = metrifold_codec::remote_write::encode_v2(arena);
    let request = snap::raw::Decoder::new().decompress_vec(&batch).unwrap();
    prost::Message::decode(&*request).unwrap()
}

#[test]
fn exemplars_of_a_native_histogram_are_sent_once_and_in_the_order_of_their_times() {
    let page = "# TYPE h histogram\n\
                h_bucket{le=\"1.0\"} 1 # {id=\"b\"} 0.5 5\n\
                h_bucket{le=\"2.0\"} 2 # {id=\"a\"} 1.5 3\n\
                h_bucket{le=\"+Inf\"} 3 # {id=\"c\"} 7.5 7\n\
                h_count 3\nh_sum 9.5\n\
                # TYPE c counter\nc_total 1 # {id=\"d\"} 1 2\n# EOF\n";
    for (until, expected) in [
        (i64::MIN, &[3000, 5000, 7000][..]),
        (5000, &[7000]),
        (7000, &[]),
    ] {
        let times = Times {
            exemplars_until: until,
            ..AT
        };
        let keys = "convert_classic_histograms_to_nhcb = true";
        let mut known = Known::default();
        let taken = taken_at(times, keys, Format::OpenMetrics, page, &mut known).unwrap();
        assert_eq!(taken.exemplars_until, 7000);
        let request = request(&taken);
        let times = |histograms: bool| -> Vec<i64> {
            let series = request.timeseries.iter();
            let series = series.filter(|it| it.histograms.is_empty() != histograms);
            let exemplars = series.flat_map(|it| &it.exemplars);
            exemplars.map(|it| it.timestamp).collect()
        };
        assert_eq!(times(true), expected);
        // The one of a counter is sent with each page: receivers know it by its time.
        assert_eq!(times(false), [2000]);
    }
}

#[test]
fn a_zero_histogram_has_the_form_of_the_one_that_follows() {
    // 3 observations, schema 2, a width of the zero bucket.
    let like = [
        8, 3, 32, 4, 41, 0, 0, 0, 0, 0, 0, 240, 63, 48, 2, 90, 2, 16, 1, 98, 1, 2,
    ];
    let mut zero = Vec::new();
    put_zero_histogram(&like, 7, &mut zero);
    let zero = <Histogram as prost::Message>::decode(&*zero).unwrap();
    let expected = Histogram {
        count: Some(Count::Int(0)),
        schema: 2,
        zero_threshold: 1.0,
        zero_count: Some(ZeroCount::Int(0)),
        reset_hint: 1,
        timestamp: 7,
        ..Histogram::default()
    };
    assert_eq!(zero, expected);
}
