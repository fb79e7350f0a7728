//! A Prometheus server and questions to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Described, Samples, labels};
use crate::{Process, encode, free_address, get};

/// A Prometheus server.
pub struct Prometheus {
    pub process: Process,
    pub address: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with a configuration, in which `SELF` is its own address. It can receive remote
    /// write.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = config.replace("SELF", &address.to_string());
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let mut prometheus = Self {
            process: Self::launch(address, folder.path()),
            address,
            folder,
        };
        prometheus.process.until_ready(address, "/-/ready");
        prometheus
    }

    #[track_caller]
    fn launch(address: SocketAddr, folder: &Path) -> Process {
        Process::spawn(
            Command::new("prometheus")
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg("--web.enable-remote-write-receiver")
                .arg("--enable-feature=native-histograms,exemplar-storage")
                .arg("--log.level=warn")
                .arg(format!("--web.listen-address={address}"))
                .current_dir(folder)
                .stdout(Stdio::null()),
        )
    }

    /// Starts it again, at the same address and with what it had stored.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Self::launch(self.address, self.folder.path());
        self.process.until_ready(self.address, "/-/ready");
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url())
    }

    #[track_caller]
    fn ask(&self, question: &str) -> Vec<Value> {
        let reply = get(&format!("{}/api/v1/{question}", self.url()));
        assert_eq!(reply.status, 200, "{question}: {}", reply.text());
        let mut data = reply.json()["data"].take();
        let result = if data.is_array() {
            data
        } else {
            data["result"].take()
        };
        match result {
            Value::Array(result) => result,
            other => panic!("{question}: {other}"),
        }
    }

    /// The value of an expression at a time; none if there is not exactly one.
    #[track_caller]
    pub fn value(&self, expression: &str, time: f64) -> Option<f64> {
        let result = self.ask(&format!("query?query={}&time={time}", encode(expression)));
        let [one] = &result[..] else { return None };
        one["value"][1].as_str()?.parse().ok()
    }

    /// The raw samples of the series of `selector` in the `seconds` until `end`. Stale markers are
    /// not among them.
    #[track_caller]
    pub fn samples(&self, selector: &str, seconds: u32, end: f64) -> Samples {
        let expression = format!("{selector}[{seconds}s]");
        self.matrix(&format!("query?query={}&time={end}", encode(&expression)))
    }

    /// The native histograms of the series of `selector`, as the query API describes them.
    #[track_caller]
    pub fn histograms(&self, selector: &str, seconds: u32, end: f64) -> Described {
        let expression = encode(&format!("{selector}[{seconds}s]"));
        let mut answer = self.ask(&format!("query?query={expression}&time={end}"));
        let series = answer
            .iter_mut()
            .map(|one| (labels(&one["metric"]), one["histograms"].take()));
        series
            .filter(|(_, histograms)| !histograms.is_null())
            .collect()
    }

    /// The exemplars of the series of `selector`, as the query API describes them.
    #[track_caller]
    pub fn exemplars(&self, selector: &str, start: f64, end: f64) -> Described {
        let selector = encode(selector);
        let question = format!("query_exemplars?query={selector}&start={start}&end={end}");
        let mut answer = self.ask(&question);
        let series = answer.iter_mut();
        series
            .map(|one| (labels(&one["seriesLabels"]), one["exemplars"].take()))
            .collect()
    }

    /// What an expression yields in each quarter of a second: where the series are and where not.
    #[track_caller]
    pub fn course(&self, expression: &str, start: f64, end: f64) -> Samples {
        let expression = encode(expression);
        self.matrix(&format!(
            "query_range?query={expression}&start={start}&end={end}&step=0.25"
        ))
    }

    #[track_caller]
    fn matrix(&self, question: &str) -> Samples {
        let series = |one: &Value| {
            // A series of histograms has no values.
            let values = one["values"].as_array()?.iter().map(|pair| {
                let time = pair[0].as_f64().unwrap();
                let value = pair[1].as_str().unwrap().parse().unwrap();
                ((time * 1000.0).round() as i64, value)
            });
            Some((labels(&one["metric"]), values.collect()))
        };
        self.ask(question).iter().filter_map(series).collect()
    }
}
