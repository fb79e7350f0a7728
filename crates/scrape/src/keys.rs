//! The keys of everything that scrapes. Their names are Prometheus' own.

use std::collections::BTreeMap;
use std::path::Path;

use metrifold_base::{OneOrMany, Period, Problems, Size, keys, words};
use metrifold_exposition::{Escaping, Protocol};
use metrifold_expr::relabel::{Program, RuleConfig, Validation};
use metrifold_http::ClientKeys;

use crate::shard::ShardKeys;

words! {
    /// Protocol for scrapes, unless the target's label `__scheme__` overrides it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Scheme {
        /// In plain text.
        Http = "http",
        /// Over TLS.
        Https = "https",
    }
}

words! {
    /// Format in the `Accept` header, under Prometheus' name for it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ScrapeProtocol {
        /// Delimited protobuf.
        PrometheusProto = "PrometheusProto",
        /// OpenMetrics 1.0.0.
        OpenMetricsText1_0_0 = "OpenMetricsText1.0.0",
        /// OpenMetrics 0.0.1.
        OpenMetricsText0_0_1 = "OpenMetricsText0.0.1",
        /// Text 1.0.0.
        PrometheusText1_0_0 = "PrometheusText1.0.0",
        /// Text 0.0.4.
        PrometheusText0_0_4 = "PrometheusText0.0.4",
    }
}

words! {
    /// Format of answers whose Content-Type is missing or unknown.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fallback {
        /// No format: the scrape fails, as in Prometheus.
        None = "none",
        /// As protobuf.
        PrometheusProto = "PrometheusProto",
        /// As OpenMetrics.
        OpenMetrics = "OpenMetricsText1.0.0",
        /// As text.
        Text = "PrometheusText0.0.4",
    }
}

words! {
    /// Escaping of names with characters outside the classic set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum NameEscaping {
        /// No escaping.
        AllowUtf8 = "allow-utf-8",
        /// Each such character becomes an underscore.
        Underscores = "underscores",
        /// A dot becomes `_dot_`.
        Dots = "dots",
        /// Each such character becomes its code.
        Values = "values",
    }
}

words! {
    /// Use of start timestamps.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum StartTimestamps {
        /// None: `_created` is a series like any other.
        Ignore = "ignore",
        /// A sample of 0 at the start of a series that began after the previous scrape.
        ZeroSample = "zero_sample",
        /// Sent with each sample, by remote write 2.0.
        Send = "send",
    }
}

keys! {
    /// Keys of all scraping components; the targets are keys of the component itself.
    #[derive(Clone, Debug)]
    pub struct ScrapeKeys {
        /// Value of the label `job` of targets that have none; by default, the name of the source.
        pub job: Option<String> = unset("node"),
        /// How frequently targets are scraped, from 100ms to 1d, unless the label `__scrape_interval__` overrides it. Scrapes are spread over the interval by a hash of the target.
        pub scrape_interval: Period = default("1m"),
        /// Maximum time for a scrape, including redirects and the body, unless the label `__scrape_timeout__` overrides it. It must not exceed the scrape interval. By default 10s, or the interval if that is shorter.
        pub scrape_timeout: Option<Period> = unset("10s"),
        /// HTTP path to scrape, unless the label `__metrics_path__` overrides it.
        pub metrics_path: String = default("/metrics"),
        /// Protocol for scrapes: `http` or `https`, unless the label `__scheme__` overrides it.
        pub scheme: Scheme = default("http"),
        /// HTTP URL parameters. A label `__param_NAME` overrides the first value of a parameter.
        pub params: BTreeMap<String, OneOrMany<String>> = unset({ module = "http_2xx" }),
        client: ClientKeys = include,
        /// Follow HTTP redirects, at most 10. Credentials are sent only to the host, port and scheme of the target.
        pub follow_redirects: bool = default(true),
        /// Request compressed answers (zstd or gzip).
        pub enable_compression: bool = default(true),
        /// Formats to request, in order of preference: `PrometheusProto`, `OpenMetricsText1.0.0`, `OpenMetricsText0.0.1`, `PrometheusText1.0.0`, `PrometheusText0.0.4`. By default, the text formats in this order, preceded by `PrometheusProto` if `scrape_native_histograms` is set or `start_timestamps` is not `ignore`.
        pub scrape_protocols: Vec<ScrapeProtocol> = unset(["PrometheusText0.0.4"]),
        /// Format of answers whose Content-Type is missing or unknown. With `none`, such scrapes fail, as in Prometheus.
        pub fallback_scrape_protocol: Fallback = default("PrometheusText0.0.4"),
        /// Ingest native histograms, unless the label `__scrape_native_histograms__` overrides it. Requires `PrometheusProto`.
        pub scrape_native_histograms: bool = default(false),
        /// Ingest the classic series of a histogram in addition to its native form, unless the label `__always_scrape_classic_histograms__` overrides it.
        pub scrape_classic_histograms: bool = default(false),
        /// Convert classic histograms to native ones with custom buckets (NHCB), unless the label `__convert_classic_histograms_to_nhcb__` overrides it. Their classic series stay with `scrape_classic_histograms`. Only sinks that use remote write 2.0 send such histograms.
        pub convert_classic_histograms_to_nhcb: bool = default(false),
        /// Use of the start timestamps of counters, histograms and summaries (`start_timestamp` in protobuf, `_created` in OpenMetrics): `ignore` (as Prometheus does by default; `_created` is a series like any other), `zero_sample` (a sample of 0 at the start of a series that began since the previous scrape, as with Prometheus' feature `created-timestamp-zero-ingestion`) or `send` (sent with each sample to sinks that use remote write 2.0, as with `st-storage`).
        pub start_timestamps: StartTimestamps = default("ignore"),
        /// Valid names: `utf8` (all that are not empty) or `legacy` (letters, digits, underscores, and colons in metric names). A page with an invalid name fails.
        pub metric_name_validation_scheme: Validation = default("utf8"),
        /// Escaping that targets are requested to apply to names with characters outside the classic set: `allow-utf-8` (none), `underscores`, `dots` or `values`. By default `allow-utf-8`; with legacy names, which exclude that, `underscores`.
        pub metric_name_escaping_scheme: Option<NameEscaping> = unset("underscores"),
        /// Resolve conflicts between labels of the page and labels of the target in favor of the page. Otherwise, the page's label is renamed to `exported_NAME`.
        pub honor_labels: bool = default(false),
        /// Use the timestamps of the page. Otherwise, samples get the time of the scrape.
        pub honor_timestamps: bool = default(true),
        /// Write staleness markers also for series with explicit timestamps.
        pub track_timestamps_staleness: bool = default(false),
        /// Relabel rules for targets, before they are scraped. The rules see `__address__` and the labels that begin with `__meta_`.
        #[name = "relabel"]
        pub target_relabel: Vec<RuleConfig> = unset([{ source_labels = ["__meta_env"], regex = "prod", action = "keep" }]),
        /// Relabel rules for scraped series. They do not apply to the series that report on the scrape itself, such as `up`.
        pub metric_relabel: Vec<RuleConfig> = unset([{ source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" }]),
        /// Report `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` with each scrape.
        pub extra_scrape_metrics: bool = default(false),
        /// Interval at which unchanged metadata of metric families is sent again. Changed metadata is sent with the scrape that finds the change.
        pub metadata_interval: Period = default("10m"),
        /// Maximum size of a page, uncompressed, up to 1GiB. A scrape with a larger page fails.
        pub body_size_limit: Size = default("64MiB"),
        /// Maximum number of samples per scrape after `metric_relabel`. A scrape with more fails. 0 means no limit besides `body_size_limit`.
        pub sample_limit: usize = default(0),
        /// Maximum number of labels per series after `metric_relabel`. A scrape with more fails. 0 means no limit besides 1000 labels on the page.
        pub label_limit: usize = default(0),
        /// Maximum length of label names in bytes, after `metric_relabel`. A scrape that exceeds it fails. 0 means no limit.
        pub label_name_length_limit: usize = default(0),
        /// Maximum length of label values in bytes, after `metric_relabel`. A scrape that exceeds it fails. 0 means no limit.
        pub label_value_length_limit: usize = default(0),
        /// Maximum number of buckets of a native histogram. The resolution of a histogram with more is reduced; if that is not enough, the scrape fails. 0 means no limit.
        pub native_histogram_bucket_limit: usize = default(0),
        /// Minimum factor between neighbouring buckets of a native histogram. The resolution of a histogram with narrower buckets is reduced. 0 keeps every resolution; so do factors up to 1.0027, the smallest that exists.
        pub native_histogram_min_bucket_factor: f64 = default(0.0),
        /// Maximum number of targets after `relabel`. With more, no target of this source is scraped: all are marked as failed, with the reason. 0 means no limit.
        pub target_limit: usize = default(0),
        /// Maximum number of dropped targets, including those that cannot be scraped, whose labels and drop reason are kept for display. Targets beyond it are only counted.
        pub keep_dropped_targets: usize = default(1000),
        /// How long the series of a scrape wait for those of other targets, up to 10s and to a quarter of the time until the target's next scrape is due. Those that come together leave in one batch, so that sinks send fewer and larger requests. 0s gives each scrape a batch of its own.
        pub batch_wait: Period = default("500ms"),
        /// Number of series from which on a batch no longer waits, nor from 4MiB on.
        pub batch_series: usize = default(10000),
        /// Maximum size of all pages that are being read at the same time, compressed; at least `body_size_limit`. A scrape that exceeds it fails.
        pub max_in_flight_bytes: Size = default("256MiB"),
        /// Part of the targets that this process scrapes, if several processes divide them.
        pub shard: Option<ShardKeys> = optional,
    }
}

/// Longest scrape interval: a day.
const INTERVAL_MAX: Period = Period::secs(86_400);
/// Default of `scrape_timeout`, unless the interval is shorter.
const TIMEOUT: Period = Period::secs(10);
/// Shortest scrape interval.
pub(crate) const INTERVAL_MIN: Period = Period::millis(100);
const WAIT_MAX: Period = Period::secs(10);
const BODY_MAX: Size = Size::mib(1024);

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl From<ScrapeProtocol> for Protocol {
    fn from(protocol: ScrapeProtocol) -> Self {
        match protocol {
            ScrapeProtocol::PrometheusProto => Self::PrometheusProto,
            ScrapeProtocol::OpenMetricsText1_0_0 => Self::OpenMetricsText1_0_0,
            ScrapeProtocol::OpenMetricsText0_0_1 => Self::OpenMetricsText0_0_1,
            ScrapeProtocol::PrometheusText1_0_0 => Self::PrometheusText1_0_0,
            ScrapeProtocol::PrometheusText0_0_4 => Self::PrometheusText0_0_4,
        }
    }
}

impl From<NameEscaping> for Escaping {
    fn from(escaping: NameEscaping) -> Self {
        match escaping {
            NameEscaping::AllowUtf8 => Self::AllowUtf8,
            NameEscaping::Underscores => Self::Underscores,
            NameEscaping::Dots => Self::Dots,
            NameEscaping::Values => Self::Values,
        }
    }
}

impl ScrapeKeys {
    /// Keys of the HTTP client.
    pub fn client(&self) -> &ClientKeys {
        &self.client
    }

    /// Longest time for a scrape: the configured timeout, or its default.
    pub(crate) fn timeout(&self) -> Period {
        let timeout = self.scrape_timeout;
        timeout.unwrap_or_else(|| TIMEOUT.min(self.scrape_interval))
    }

    /// Escaping that targets are requested to apply to names: the configured one, or one that makes
    /// valid names.
    pub(crate) fn escaping(&self) -> NameEscaping {
        let default = match self.metric_name_validation_scheme {
            Validation::Utf8 => NameEscaping::AllowUtf8,
            Validation::Legacy => NameEscaping::Underscores,
        };
        self.metric_name_escaping_scheme.unwrap_or(default)
    }

    /// The files that the keys name.
    pub fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports invalid values and combinations, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.scrape_interval) {
            problems.at("scrape_interval", "must be from 100ms to 1d");
        }
        if self.timeout().0.is_zero() {
            problems.at("scrape_timeout", "must be longer than 0s");
        } else if self.timeout() > self.scrape_interval {
            let problem = problems.at("scrape_timeout", "is longer than scrape_interval");
            problem.help("a scrape has to end before the next one is due");
        }
        if self.job.as_deref() == Some("") {
            problems.at("job", "must not be empty");
        }
        for (at, protocol) in self.scrape_protocols.iter().enumerate() {
            if self.scrape_protocols[..at].contains(protocol) {
                problems.at(format!("scrape_protocols[{at}]"), "is listed twice");
            }
        }
        let proto = ScrapeProtocol::PrometheusProto;
        let asks = self.scrape_protocols.is_empty() || self.scrape_protocols.contains(&proto);
        if self.scrape_native_histograms && !asks {
            let problem = problems.at(
                "scrape_native_histograms",
                "needs PrometheusProto among scrape_protocols",
            );
            problem.help("no other format has native histograms");
        }
        let legacy = self.metric_name_validation_scheme == Validation::Legacy;
        if legacy && self.escaping() == NameEscaping::AllowUtf8 {
            let problem = problems.at(
                "metric_name_escaping_scheme",
                "is allow-utf-8, and only legacy names are valid",
            );
            problem.help("with underscores, dots or values, targets escape other names");
        }
        let validation = Validation::Utf8;
        Program::compile(&self.target_relabel, validation, "relabel", problems);
        let validation = self.metric_name_validation_scheme;
        Program::compile(&self.metric_relabel, validation, "metric_relabel", problems);
        if !(Size(1)..=BODY_MAX).contains(&self.body_size_limit) {
            problems.at("body_size_limit", "must be from 1B to 1GiB");
        }
        if self.batch_wait > WAIT_MAX {
            problems.at("batch_wait", "must be at most 10s");
        }
        if self.max_in_flight_bytes < self.body_size_limit {
            let problem = problems.at("max_in_flight_bytes", "must be at least body_size_limit");
            problem.help("otherwise a page of the allowed size could never be read");
        }
        if !(0.0..).contains(&self.native_histogram_min_bucket_factor) {
            let problem = problems.at(
                "native_histogram_min_bucket_factor",
                "must be 0 or a factor such as 1.1",
            );
            problem.help(
                "it is the least factor by which buckets grow; the coarsest schema has 65536",
            );
        }
        if let Some(shard) = &self.shard {
            shard.validate(problems);
        }
    }
}
