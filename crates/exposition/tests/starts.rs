//! Start timestamps: which samples have which, by Prometheus' rules.

use prost::Message;

use metrifold_exposition::{Family, Format, Options, Receiver, Sample, read};

/// Each sample as its series, without the label names, and its start timestamp.
#[derive(Default)]
struct Starts(Vec<(String, Option<i64>)>);

impl Receiver for Starts {
    fn family(&mut self, _: Family<'_>) {}

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        let values: Vec<_> = sample.labels().map(|(_, value)| value).collect();
        self.0.push((values.join(" "), sample.start));
        Ok(())
    }
}

fn starts(page: &[u8], format: Format, wanted: bool) -> Vec<(String, Option<i64>)> {
    let options = Options {
        native_histograms: true,
        classic_histograms: true,
        start_timestamps: wanted,
        ..Options::default()
    };
    let mut starts = Starts::default();
    read(page, format, &options, &mut starts).unwrap();
    starts.0
}

fn openmetrics(page: &str) -> Vec<(String, Option<i64>)> {
    starts(page.as_bytes(), Format::OpenMetrics, true)
}

fn series<const N: usize>(expected: [(&str, Option<i64>); N]) -> Vec<(String, Option<i64>)> {
    expected
        .map(|(series, start)| (series.to_owned(), start))
        .into()
}

#[test]
fn created_is_the_start_of_its_metric_and_no_series() {
    let page = "# TYPE c counter\n# HELP c What it counts.\n\
                c_total{a=\"1\"} 1 # {id=\"_created\"} 1\nc_created{a=\"1\"} 1.5\n\
                c_total{a=\"2\"} 2\nc_created{a=\"2\"} 2e3\nc_total{a=\"3\"} 3\n\
                # TYPE h histogram\n\
                h_bucket{a=\"1\",le=\"1\"} 1\nh_bucket{a=\"1\",le=\"+Inf\"} 1\nh_count{a=\"1\"} 1\n\
                h_sum{a=\"1\"} 1\nh_created{a=\"1\"} 4\n\
                # TYPE s summary\n\
                s{quantile=\"0.5\"} 1\ns_count 1\ns_sum 1\ns_created 5\n\
                # TYPE g gauge\ng 1\ng_created 6\n# EOF\n";
    assert_eq!(
        openmetrics(page),
        series([
            ("c_total 1", Some(1500)),
            ("c_total 2", Some(2_000_000)),
            ("c_total 3", None),
            ("h_bucket 1 1.0", Some(4000)),
            ("h_bucket 1 +Inf", Some(4000)),
            ("h_count 1", Some(4000)),
            ("h_sum 1", Some(4000)),
            ("s 0.5", Some(5000)),
            ("s_count", Some(5000)),
            ("s_sum", Some(5000)),
            ("g", None),
            ("g_created", None),
        ])
    );
    let all = starts(page.as_bytes(), Format::OpenMetrics, false);
    assert_eq!(all.len(), 16);
    assert!(all.iter().all(|(_, start)| start.is_none()));
}

#[test]
fn a_start_is_found_behind_other_metrics_of_its_family_and_not_beyond_it() {
    let page = "# TYPE c counter\nc_total{a=\"1\"} 1\nc_total{a=\"2\"} 2\nc_created{a=\"2\"} 2\n\
                c_created{a=\"1\"} 1\n# TYPE d counter\nd_total 1\n# TYPE e counter\n\
                e_total 1\nd_created 9\n# EOF\n";
    let found = openmetrics(page);
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].1, Some(1000));
    assert_eq!(found[1].1, Some(2000));
    assert_eq!((found[2].0.as_str(), found[2].1), ("d_total", None));
    assert_eq!((found[3].0.as_str(), found[3].1), ("e_total", None));
}

#[test]
fn names_in_quotes_have_starts_as_well() {
    let page =
        "# TYPE \"a.b\" counter\n{\"a.b_total\",x=\"1\"} 1\n{\"a.b_created\",x=\"1\"} 3\n# EOF\n";
    assert_eq!(openmetrics(page), series([("a.b_total 1", Some(3000))]));
}

#[test]
fn a_page_with_a_fault_behind_a_family_is_refused_as_ever() {
    for page in [
        "# TYPE c counter\nc_total 1\nc_created x\n# EOF\n",
        "# TYPE c counter\nc_total 1\nc_created{ 1\n# EOF\n",
        "# TYPE c counter\nc_total 1\nc_created 1",
    ] {
        for start_timestamps in [false, true] {
            let options = Options {
                start_timestamps,
                ..Options::default()
            };
            let read = read(
                page.as_bytes(),
                Format::OpenMetrics,
                &options,
                &mut Starts::default(),
            );
            assert!(read.is_err(), "{page:?}");
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(message, optional, tag = "4")]
    start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, optional, tag = "15")]
    start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanoseconds: i32,
}

#[test]
fn protobuf_has_the_start_of_a_metric_in_its_message() {
    let start = Some(Timestamp {
        seconds: 3,
        nanoseconds: 250_000_000,
    });
    let family = |name: &str, kind, metric: Vec<Metric>| {
        let family = MetricFamily {
            name: name.to_owned(),
            kind,
            metric,
        };
        family.encode_length_delimited_to_vec()
    };
    let counter = |start| Metric {
        counter: Some(Counter { value: 1.0, start }),
        ..Metric::default()
    };
    let summary = Metric {
        summary: Some(Summary { count: 1, start }),
        ..Metric::default()
    };
    let histogram = Metric {
        histogram: Some(Histogram {
            count: 1,
            zero_threshold: 0.5,
            zero_count: 1,
            start,
        }),
        ..Metric::default()
    };
    let page = [
        family("c", 0, vec![counter(start), counter(None)]),
        family("s", 2, vec![summary]),
        family("h", 4, vec![histogram]),
    ]
    .concat();
    let start = Some(3250);
    assert_eq!(
        starts(&page, Format::Protobuf, true),
        series([
            ("c", start),
            ("c", None),
            ("s_count", start),
            ("s_sum", start),
            ("h", start)
        ])
    );
    let ignored = starts(&page, Format::Protobuf, false);
    assert!(ignored.iter().all(|(_, start)| start.is_none()));
}
