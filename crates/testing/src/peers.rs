//! Real peers as child processes, queries to them, and targets for them to scrape.
//!
//! `make test` installs the programs from Debian, and `make live` builds the others.

mod api_server;
mod caddy;
mod chromium;
mod difference;
mod histogram_page;
mod issuer;
mod keycloak;
mod opa;
mod prometheus;
mod query_api;
mod target;
mod thanos;
mod versity;
mod victoria;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

pub use api_server::ApiServer;
pub use caddy::Caddy;
pub use chromium::log_in_and_out;
pub use difference::until_same;
pub use histogram_page::{histogram_page, started_histogram_page};
pub use issuer::Issuer;
pub use keycloak::Keycloak;
pub use opa::opa;
pub use prometheus::Prometheus;
pub use query_api::QueryApi;
pub use target::{NodeExporter, OPENMETRICS, PROTOBUF, TEXT, Target};
pub use thanos::{Thanos, ThanosRule};
pub use versity::Versity;
pub use victoria::{Victoria, vmagent};

pub type Labels = BTreeMap<String, String>;

/// Raw samples by series: milliseconds and value.
pub type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;

/// Series as a query API describes them in JSON.
pub type Described = BTreeMap<Labels, Value>;

/// Path of a program that `tests/peers/build` has built.
#[track_caller]
fn built(program: &str) -> PathBuf {
    let folder = std::env::var_os("METRIFOLD_PEERS")
        .expect("METRIFOLD_PEERS names the folder that tests/peers/build prints: run `make live`");
    PathBuf::from(folder).join(program)
}

/// Command of promtool, which checks rules.
#[track_caller]
pub fn promtool() -> Command {
    Command::new(built("promtool"))
}

/// Command of mimirtool, which reads and writes the rules of rulers.
#[track_caller]
pub fn mimirtool() -> Command {
    Command::new(built("mimirtool"))
}

/// Command of schemathesis, which tests an API against its OpenAPI document.
#[track_caller]
pub fn schemathesis() -> Command {
    Command::new(built("schemathesis").join("bin/schemathesis"))
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

fn labels(metric: &Value) -> Labels {
    let pair = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().into());
    metric.as_object().unwrap().iter().map(pair).collect()
}
