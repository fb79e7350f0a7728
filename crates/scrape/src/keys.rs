//! The keys of everything that scrapes. Their names are Prometheus' own.

use std::collections::BTreeMap;
use std::path::Path;

use metrifold_base::{OneOrMany, Period, Problems, Size, keys, words};
use metrifold_exposition::{Escaping, Protocol};
use metrifold_expr::relabel::{Program, RuleConfig, Validation};
use metrifold_http::ClientKeys;

use crate::shard::ShardKeys;

words! {
    /// How a target is spoken to unless its label `__scheme__` says otherwise.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Scheme {
        /// In plain text.
        Http = "http",
        /// Over TLS.
        Https = "https",
    }
}

words! {
    /// A format that is asked for, under the name that Prometheus gives it.
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
    /// In which format an answer is read that does not say which one it has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fallback {
        /// In none: the scrape has failed, as in Prometheus.
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
    /// How targets are asked to write names beyond the classic characters.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum NameEscaping {
        /// As they are.
        AllowUtf8 = "allow-utf-8",
        /// With underscores.
        Underscores = "underscores",
        /// With `_dot_` for dots.
        Dots = "dots",
        /// With the codes of characters.
        Values = "values",
    }
}

keys! {
    /// What is configured of everything that scrapes; where targets come from is its owner's.
    #[derive(Clone, Debug)]
    pub struct ScrapeKeys {
        /// Label `job` of all targets that have none; the source's name by default.
        pub job: Option<String> = unset("node"),
        /// How often a target is scraped, unless its label `__scrape_interval__` says otherwise; from 100ms to 1d. When within the interval is decided by a hash of the target, so that scrapes are spread.
        pub scrape_interval: Period = default("1m"),
        /// Longest time for a scrape, redirects and body included, unless the label `__scrape_timeout__` says otherwise; at most the interval. By default 10s, or the interval if that is shorter.
        pub scrape_timeout: Option<Period> = unset("10s"),
        /// Path of the page, unless the label `__metrics_path__` says otherwise.
        pub metrics_path: String = default("/metrics"),
        /// `http` or `https`, unless the label `__scheme__` says otherwise.
        pub scheme: Scheme = default("http"),
        /// Parameters of the URL. The label `__param_NAME` replaces the first value of one.
        pub params: BTreeMap<String, OneOrMany<String>> = unset({ module = "http_2xx" }),
        client: ClientKeys = include,
        /// Whether redirects are followed, at most 10. Credentials go to the target itself and never to another host, port or scheme.
        pub follow_redirects: bool = default(true),
        /// Whether targets may compress their pages, with zstd or gzip.
        pub enable_compression: bool = default(true),
        /// Formats that are asked for, by preference: `PrometheusProto`, `OpenMetricsText1.0.0`, `OpenMetricsText0.0.1`, `PrometheusText1.0.0`, `PrometheusText0.0.4`. By default the texts in this order, after `PrometheusProto` with `scrape_native_histograms`.
        pub scrape_protocols: Vec<ScrapeProtocol> = unset(["PrometheusText0.0.4"]),
        /// Format in which an answer is read whose Content-Type is missing or names no format; with `none` such a scrape fails, as in Prometheus.
        pub fallback_scrape_protocol: Fallback = default("PrometheusText0.0.4"),
        /// Whether native histograms are read as such. They need `PrometheusProto`.
        pub scrape_native_histograms: bool = default(false),
        /// Whether the classic series of a histogram are read as well if it has native buckets.
        pub scrape_classic_histograms: bool = default(false),
        /// Which names are valid: `utf8` (all that are not empty) or `legacy` (letters, digits, underscores, and colons in metrics). A page with another one fails.
        pub metric_name_validation_scheme: Validation = default("utf8"),
        /// How targets are asked to write names beyond the classic characters: `allow-utf-8`, `underscores`, `dots` or `values`.
        pub metric_name_escaping_scheme: NameEscaping = default("allow-utf-8"),
        /// Whether a label of a page stands above the target's label of the same name. Otherwise it is renamed to `exported_NAME`.
        pub honor_labels: bool = default(false),
        /// Whether timestamps on pages are taken. Otherwise every sample has the time of its scrape.
        pub honor_timestamps: bool = default(true),
        /// Whether series with timestamps of their own get staleness markers, too, when they are gone.
        pub track_timestamps_staleness: bool = default(false),
        /// Rules over the labels of targets, `__address__` and those that begin with `__meta_` among them, before targets are scraped.
        #[name = "relabel"]
        pub target_relabel: Vec<RuleConfig> = unset([{ source_labels = ["__meta_env"], regex = "prod", action = "keep" }]),
        /// Rules over the series of pages. The series that report on a scrape itself, such as `up`, are not subject to them.
        pub metric_relabel: Vec<RuleConfig> = unset([{ source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" }]),
        /// Whether `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` are reported with each scrape.
        pub extra_scrape_metrics: bool = default(false),
        /// How often the metadata of a target's families is sent, if it does not change; it goes out with the scrape in which it has changed.
        pub metadata_interval: Period = default("10m"),
        /// Largest page, uncompressed; a larger one fails. At most 1GiB.
        pub body_size_limit: Size = default("64MiB"),
        /// Most samples of a page after `metric_relabel`; with more the scrape fails. 0 sets no limit but that of `body_size_limit`.
        pub sample_limit: usize = default(0),
        /// Most labels of a series after `metric_relabel`; with more the scrape fails. 0 sets no limit but 1000 on the page.
        pub label_limit: usize = default(0),
        /// Most bytes of a label's name after `metric_relabel`; with more the scrape fails. 0 sets no limit.
        pub label_name_length_limit: usize = default(0),
        /// Most bytes of a label's value after `metric_relabel`; with more the scrape fails. 0 sets no limit.
        pub label_value_length_limit: usize = default(0),
        /// Most buckets of a native histogram; one with more gets a coarser schema until it has no more, and the scrape fails if that cannot be. 0 sets no limit.
        pub native_histogram_bucket_limit: usize = default(0),
        /// Most targets after `relabel`. With more, none of this source is scraped until there are fewer: every one counts as failed and says why. 0 sets no limit.
        pub target_limit: usize = default(0),
        /// Most targets that rules drop, or that cannot be scraped, of which labels and reason are kept to be shown. All of them are counted.
        pub keep_dropped_targets: usize = default(1000),
        /// Most bytes of pages that are read at the same time, compressed; a scrape beyond it fails. At least `body_size_limit`.
        pub max_in_flight_bytes: Size = default("256MiB"),
        /// Which part of the targets is scraped here, for several instances that share the work.
        pub shard: Option<ShardKeys> = optional,
    }
}

/// The longest interval: a day.
const INTERVAL_MAX: Period = Period::secs(86_400);
/// The longest time for a scrape unless another one is configured.
const TIMEOUT: Period = Period::secs(10);
/// The shortest interval.
pub(crate) const INTERVAL_MIN: Period = Period::millis(100);
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
    /// How it connects.
    pub fn client(&self) -> &ClientKeys {
        &self.client
    }

    /// The longest time for a scrape.
    pub(crate) fn timeout(&self) -> Period {
        let timeout = self.scrape_timeout;
        timeout.unwrap_or_else(|| TIMEOUT.min(self.scrape_interval))
    }

    /// The files that they name.
    pub fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports what is wrong with them, at their keys.
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
                problems.at(format!("scrape_protocols[{at}]"), "is there already");
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
        let validation = Validation::Utf8;
        Program::compile(&self.target_relabel, validation, "relabel", problems);
        let validation = self.metric_name_validation_scheme;
        Program::compile(&self.metric_relabel, validation, "metric_relabel", problems);
        if !(Size(1)..=BODY_MAX).contains(&self.body_size_limit) {
            problems.at("body_size_limit", "must be from 1B to 1GiB");
        }
        if self.max_in_flight_bytes < self.body_size_limit {
            let problem = problems.at("max_in_flight_bytes", "must be at least body_size_limit");
            problem.help("otherwise a page that is allowed could never be read");
        }
        if let Some(shard) = &self.shard {
            shard.validate(problems);
        }
    }
}
