//! Start timestamps of OpenMetrics: the values of `_created`, which stands behind the other series of
//! its metric. They are found by a look ahead over the family.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use metrifold_codec::MetricType;

use crate::cursor::Cursor;
use crate::labels::LabelSet;
use crate::number;

use super::{read_labels, word};

const SUFFIX: &str = "_created";

/// Start timestamps of the metrics of a family.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Name of the family.
    family: String,
    /// Type of the family, if its metrics have start timestamps.
    kind: Option<MetricType>,
    looked: bool,
    /// Start timestamps in milliseconds, by the hash of the labels that the series of a metric share.
    by_metric: HashMap<u64, i64>,
    labels: LabelSet,
}

/// Result of looking up the start timestamp of a series.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The series itself holds a start timestamp.
    IsStart,
    /// The start timestamp of the series, if it has one.
    Start(Option<i64>),
}

impl Starts {
    /// Begins a family.
    pub(super) fn begin(&mut self, family: &str, kind: MetricType) {
        use MetricType::{Counter, Histogram, Summary};
        self.family.clear();
        self.family.push_str(family);
        self.kind = [Counter, Histogram, Summary]
            .contains(&kind)
            .then_some(kind);
        self.looked = false;
        self.by_metric.clear();
    }

    /// Reads the start timestamps of the family whose first series is at the cursor. Faults are left
    /// to the reader of the page.
    pub(super) fn look_ahead(&mut self, cursor: &Cursor<'_>) {
        let Some(kind) = self.kind.filter(|_| !self.looked) else {
            return;
        };
        self.looked = true;
        let mut ahead = cursor.clone();
        let mut labels = std::mem::take(&mut self.labels);
        while ahead.peek().is_some_and(|byte| byte != b'#') {
            ahead.start = ahead.at;
            if read_labels(&mut ahead, kind, &mut labels).is_err() {
                break;
            }
            let stem = name(&labels, ahead.page).strip_suffix(SUFFIX);
            if stem == Some(self.family.as_str())
                && let Some(seconds) = word(&mut ahead).and_then(number::value)
            {
                let key = self.key(&labels, ahead.page);
                // As in Go: a number that is none, or too large, becomes some integer.
                self.by_metric.insert(key, (seconds * 1000.0) as i64);
            }
            ahead.skip_line();
            ahead.at += 1;
        }
        self.labels = labels;
    }

    /// The start timestamp of a series.
    pub(super) fn of(&self, labels: &LabelSet, page: &str) -> Found {
        let name = name(labels, page);
        if self.kind.is_none() {
            return Found::Start(None);
        }
        // As in Prometheus, whatever family it belongs to.
        if name.ends_with(SUFFIX) {
            return Found::IsStart;
        }
        if self.by_metric.is_empty() || !name.starts_with(&self.family) {
            return Found::Start(None);
        }
        let start = self.by_metric.get(&self.key(labels, page)).copied();
        Found::Start(start.filter(|start| *start != 0))
    }

    /// Hash of the labels that the series of a metric share: all but the name, and `le` or
    /// `quantile`.
    fn key(&self, labels: &LabelSet, page: &str) -> u64 {
        let apart = match self.kind {
            Some(MetricType::Histogram) => "le",
            Some(MetricType::Summary) => "quantile",
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        let shared = labels.iter(page).skip(1);
        for label in shared.filter(|(name, _)| *name != apart) {
            label.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Name of the series with these labels.
fn name<'a>(labels: &'a LabelSet, page: &'a str) -> &'a str {
    labels.iter(page).next().map_or("", |(_, name)| name)
}
