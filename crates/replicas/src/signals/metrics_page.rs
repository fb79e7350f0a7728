//! The relevant metrics on the page of a Prometheus, read line by line.

use super::Signals;

/// Seconds beyond which a time means "no sample": an empty database reports the largest or smallest
/// integer of milliseconds.
const NEVER: f64 = 1e14;

/// The metrics that were found on a page.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetricsPage {
    started: Option<f64>,
    version: Option<String>,
    lowest: Option<f64>,
    head_min: Option<f64>,
    head_max: Option<f64>,
    appended: Option<f64>,
    /// Samples ingested, under the name of Prometheus 1.
    ingested: Option<f64>,
}

impl MetricsPage {
    /// Reads a whole page. Other metrics and malformed lines are skipped.
    pub(crate) fn read(page: &str) -> Self {
        let mut found = Self::default();
        for line in page.lines() {
            found.line(line);
        }
        found
    }

    fn line(&mut self, line: &str) {
        let interesting = line.starts_with("prometheus_") || line.starts_with("process_start");
        if !interesting {
            return;
        }
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            // Label values of these metrics contain no brace.
            Some(rest) => rest.split_once('}').unwrap_or(("", "")),
            None => ("", rest),
        };
        let Some(Ok(value)) = value.split_whitespace().next().map(str::parse::<f64>) else {
            return;
        };
        match name {
            "process_start_time_seconds" => self.started = Some(value),
            "prometheus_build_info" => self.version = label(labels, "version"),
            "prometheus_tsdb_lowest_timestamp" => {
                self.lowest.get_or_insert(value / 1000.0);
            }
            "prometheus_tsdb_lowest_timestamp_seconds" => self.lowest = Some(value),
            "prometheus_tsdb_head_min_time" => {
                self.head_min.get_or_insert(value / 1000.0);
            }
            "prometheus_tsdb_head_min_time_seconds" => self.head_min = Some(value),
            "prometheus_tsdb_head_max_time" => {
                self.head_max.get_or_insert(value / 1000.0);
            }
            "prometheus_tsdb_head_max_time_seconds" => self.head_max = Some(value),
            // One series per type of sample since Prometheus 2.40.
            "prometheus_tsdb_head_samples_appended_total" => {
                *self.appended.get_or_insert(0.0) += value;
            }
            "prometheus_local_storage_ingested_samples_total" => self.ingested = Some(value),
            _ => {}
        }
    }

    /// The signals on the page.
    pub(crate) fn signals(self) -> Signals {
        let time = |secs: f64| (secs.abs() < NEVER).then_some((secs * 1000.0) as i64);
        let oldest = self.lowest.or(self.head_min).and_then(time);
        let newest = self.head_max.and_then(time).filter(|newest| *newest > 0);
        Signals {
            started: self.started,
            version: self.version,
            // Without a newest sample, the oldest is meaningless.
            oldest: oldest.filter(|_| newest.is_some()),
            newest,
            samples: self.appended.or(self.ingested),
            ..Signals::default()
        }
    }

    /// Start of the head, in milliseconds since the epoch.
    pub(crate) fn head_start(&self) -> Option<i64> {
        let secs = self.head_min.filter(|secs| secs.abs() < NEVER)?;
        Some((secs * 1000.0) as i64)
    }
}

fn label(labels: &str, name: &str) -> Option<String> {
    labels.split(',').find_map(|pair| {
        let (known, value) = pair.split_once('=')?;
        (known.trim() == name).then(|| value.trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read_from_pages_old_and_new() {
        let page = "# HELP x y\n\
            process_start_time_seconds 1.7e+09\n\
            prometheus_build_info{branch=\"HEAD\",version=\"3.6.0\",goversion=\"go1\"} 1\n\
            prometheus_tsdb_lowest_timestamp -1\n\
            prometheus_tsdb_lowest_timestamp_seconds 1.6999e+09\n\
            prometheus_tsdb_head_min_time_seconds 1.69999e+09\n\
            prometheus_tsdb_head_max_time_seconds 1.70001e+09\n\
            prometheus_tsdb_head_samples_appended_total{type=\"float\"} 100\n\
            prometheus_tsdb_head_samples_appended_total{type=\"histogram\"} 20\n\
            prometheus_tsdb_head_max_time_seconds_other 5\nprometheus_broken{ 1\nprometheus_x\n";
        let page = MetricsPage::read(page);
        assert_eq!(page.head_start(), Some(1_699_990_000_000));
        let signals = page.signals();
        assert_eq!(signals.started, Some(1.7e9));
        assert_eq!(signals.version.as_deref(), Some("3.6.0"));
        assert_eq!(signals.oldest, Some(1_699_900_000_000));
        assert_eq!(signals.newest, Some(1_700_010_000_000));
        assert_eq!(signals.samples, Some(120.0));
        let old = "prometheus_local_storage_ingested_samples_total 7\n";
        assert_eq!(MetricsPage::read(old).signals().samples, Some(7.0));
    }

    #[test]
    fn an_empty_database_has_no_history() {
        let page = "prometheus_tsdb_lowest_timestamp_seconds 9.223372036854775e+15\n\
            prometheus_tsdb_head_max_time_seconds -9.223372036854775e+15\n\
            prometheus_tsdb_head_samples_appended_total 0\n";
        let signals = MetricsPage::read(page).signals();
        assert_eq!((signals.oldest, signals.newest), (None, None));
        assert_eq!(signals.samples, Some(0.0));
        let page =
            "prometheus_tsdb_lowest_timestamp_seconds 0\nprometheus_tsdb_head_max_time_seconds 0\n";
        assert_eq!(MetricsPage::read(page).signals().oldest, None);
    }

    #[test]
    fn any_other_page_says_nothing() {
        for page in ["", "<html>\n", "up 1\n", "prometheus_"] {
            assert_eq!(MetricsPage::read(page).signals(), Signals::default());
        }
    }
}
