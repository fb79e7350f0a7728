//! What a pool goes by: its keys, compiled.

use std::sync::Arc;

use http::HeaderValue;

use metrifold_base::{BuildError, Problems};
use metrifold_discovery::TargetRules;
use metrifold_exposition::{Accept, Format, Options, Protocol};
use metrifold_expr::relabel::{Program, RuleConfig, Validation};

use crate::in_flight::InFlight;
use crate::keys::{Fallback, ScrapeKeys};

/// What a pool goes by.
pub struct Settings {
    pub(crate) keys: ScrapeKeys,
    pub(crate) job: String,
    pub(crate) rules: TargetRules,
    /// None without rules over series.
    pub(crate) metric_rules: Option<Program>,
    pub(crate) accept: HeaderValue,
    pub(crate) fallback: Option<Format>,
    pub(crate) options: Options,
    pub(crate) in_flight: InFlight,
}

impl Settings {
    /// Compiles keys that are valid. The source's name is the job's unless there is another one.
    ///
    /// # Errors
    ///
    /// Fails when rules are not valid.
    pub fn new(keys: &ScrapeKeys, id: &str) -> Result<Self, BuildError> {
        let utf8 = Validation::Utf8;
        let rules = compile(&keys.target_relabel, utf8, "relabel")?;
        let validation = keys.metric_name_validation_scheme;
        let metric_rules = compile(&keys.metric_relabel, validation, "metric_relabel")?;
        let protocols: Vec<Protocol> = match &*keys.scrape_protocols {
            [] if keys.scrape_native_histograms => Protocol::NATIVE.into(),
            [] => Protocol::DEFAULT.into(),
            given => given.iter().map(|protocol| (*protocol).into()).collect(),
        };
        let accept = Accept {
            protocols: &protocols,
            escaping: keys.metric_name_escaping_scheme.into(),
        };
        let accept = HeaderValue::try_from(accept.value())
            .map_err(|error| BuildError::new("scrape_protocols", error))?;
        Ok(Self {
            job: keys.job.clone().unwrap_or_else(|| id.to_owned()),
            rules: TargetRules::new(rules),
            metric_rules: (!keys.metric_relabel.is_empty()).then_some(metric_rules),
            accept,
            fallback: match keys.fallback_scrape_protocol {
                Fallback::None => None,
                Fallback::PrometheusProto => Some(Format::Protobuf),
                Fallback::OpenMetrics => Some(Format::OpenMetrics),
                Fallback::Text => Some(Format::Text),
            },
            options: Options {
                native_histograms: keys.scrape_native_histograms,
                classic_histograms: keys.scrape_classic_histograms,
                histogram_buckets: keys.native_histogram_bucket_limit,
                ..Options::default()
            },
            in_flight: InFlight::new(keys.max_in_flight_bytes.bytes()),
            keys: keys.clone(),
        })
    }

    /// The keys.
    pub fn keys(&self) -> &ScrapeKeys {
        &self.keys
    }
}

fn compile(
    rules: &[RuleConfig],
    validation: Validation,
    path: &str,
) -> Result<Program, BuildError> {
    let mut problems = Problems::new(true);
    let program = Program::compile(rules, validation, path, &mut problems);
    program.ok_or_else(|| {
        let reasons = problems.into_list().into_iter();
        let reasons: Vec<_> = reasons.map(|problem| problem.message).collect();
        BuildError::new(path, reasons.join("; "))
    })
}

/// Shared by all scrapers of a pool.
pub(crate) type SharedSettings = Arc<Settings>;
