//! Real peers as child processes, questions to them, and targets for them to scrape.
//!
//! `make test` installs the programs.

mod difference;
mod histogram_page;
mod prometheus;
mod target;
mod victoria;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

pub use difference::until_same;
pub use histogram_page::histogram_page;
pub use prometheus::Prometheus;
pub use target::{NodeExporter, OPENMETRICS, PROTOBUF, TEXT, Target};
pub use victoria::{Victoria, vmagent};

pub type Labels = BTreeMap<String, String>;

/// Raw samples by series: milliseconds and value.
pub type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;

/// What a query API says of series, as JSON.
pub type Described = BTreeMap<Labels, Value>;

/// Seconds since the epoch.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

fn labels(metric: &Value) -> Labels {
    let pair = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().into());
    metric.as_object().unwrap().iter().map(pair).collect()
}
