//! Settings of a pool: its keys, compiled.

use std::sync::Arc;

use http::HeaderValue;

use metrifold_base::{BuildError, Problems};
use metrifold_exposition::{Accept, Format, Options, Protocol};
use metrifold_expr::relabel::{Program, RuleConfig, Validation};
use metrifold_targets::TargetRules;

use crate::in_flight::InFlight;
use crate::keys::{Fallback, ScrapeKeys, StartTimestamps};

/// Settings of a pool.
pub struct Settings {
    pub(crate) keys: ScrapeKeys,
    pub(crate) job: String,
    pub(crate) rules: TargetRules,
    /// `None` without rules over series.
    pub(crate) metric_rules: Option<Program>,
    pub(crate) accept: HeaderValue,
    pub(crate) fallback: Option<Format>,
    pub(crate) options: Options,
    pub(crate) in_flight: Arc<InFlight>,
}

impl Settings {
    /// Compiles valid keys. The job is the source's name unless configured.
    ///
    /// # Errors
    ///
    /// Fails when rules are not valid.
    pub fn new(keys: &ScrapeKeys, id: &str) -> Result<Self, BuildError> {
        let utf8 = Validation::Utf8;
        let rules = compile(&keys.target_relabel, utf8, "relabel")?;
        let validation = keys.metric_name_validation_scheme;
        let metric_rules = compile(&keys.metric_relabel, validation, "metric_relabel")?;
        let start_timestamps = keys.start_timestamps != StartTimestamps::Ignore;
        let protocols: Vec<Protocol> = match &*keys.scrape_protocols {
            // Only protobuf has native histograms, and has start timestamps beside the samples.
            [] if keys.scrape_native_histograms || start_timestamps => Protocol::NATIVE.into(),
            [] => Protocol::DEFAULT.into(),
            given => given.iter().map(|protocol| (*protocol).into()).collect(),
        };
        let accept = Accept {
            protocols: &protocols,
            escaping: keys.escaping().into(),
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
                custom_histograms: keys.convert_classic_histograms_to_nhcb,
                start_timestamps,
                histogram_buckets: keys.native_histogram_bucket_limit,
                histogram_schema: finest_schema(keys.native_histogram_min_bucket_factor),
                ..Options::default()
            },
            in_flight: Arc::new(InFlight::new(keys.max_in_flight_bytes.bytes())),
            keys: keys.clone(),
        })
    }

    /// The keys that the settings were compiled from.
    pub fn keys(&self) -> &ScrapeKeys {
        &self.keys
    }
}

/// The finest schema whose buckets grow by at least this factor: those of schema n grow by 2^(2^-n).
/// Prometheus picks it in the same way.
fn finest_schema(factor: f64) -> i32 {
    if factor <= 1.0 {
        return 8;
    }
    // A cast saturates: an infinite factor asks for the coarsest.
    ((-factor.log2().log2()).floor() as i32).clamp(-4, 8)
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

/// Settings shared by all scrapers of a pool.
pub(crate) type SharedSettings = Arc<Settings>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_asked_for_names_that_are_valid() {
        for (keys, escaping) in [
            ("", "allow-utf-8"),
            ("metric_name_validation_scheme = 'legacy'", "underscores"),
            (
                "metric_name_validation_scheme = 'legacy'\nmetric_name_escaping_scheme = 'values'",
                "values",
            ),
        ] {
            let keys: ScrapeKeys = toml::from_str(keys).unwrap();
            let accept = Settings::new(&keys, "source").unwrap().accept;
            let escaping = format!("escaping={escaping};");
            assert!(accept.to_str().unwrap().contains(&escaping), "{accept:?}");
        }
        let keys =
            "metric_name_validation_scheme = 'legacy'\nmetric_name_escaping_scheme = 'allow-utf-8'";
        let keys: ScrapeKeys = toml::from_str(keys).unwrap();
        let mut problems = Problems::new(true);
        keys.validate(&mut problems);
        let problems = problems.into_list();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "metric_name_escaping_scheme");
    }

    #[test]
    fn the_finest_schema_has_buckets_that_grow_by_the_factor() {
        for (factor, schema) in [
            (0.0, 8),
            (1.0, 8),
            (1.0027, 8),
            (1.01, 6),
            (1.1, 2),
            (1.5, 0),
            (2.0, 0),
            (3.9, -1),
            (4.0, -1),
            (4.1, -2),
            (65536.0, -4),
            (1e9, -4),
            (f64::INFINITY, -4),
        ] {
            assert_eq!(finest_schema(factor), schema, "{factor}");
        }
    }
}
