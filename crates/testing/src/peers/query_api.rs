//! Queries to the API of a Prometheus or a Thanos.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Described, Samples, labels};
use crate::{encode, get};

/// Address of a query API.
#[derive(Clone, Copy, Debug)]
pub struct QueryApi {
    pub address: SocketAddr,
}

impl QueryApi {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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

    /// Value of an expression at a time; `None` unless there is exactly one.
    #[track_caller]
    pub fn value(&self, expression: &str, time: f64) -> Option<f64> {
        let result = self.ask(&format!("query?query={}&time={time}", encode(expression)));
        let [one] = &result[..] else { return None };
        one["value"][1].as_str()?.parse().ok()
    }

    /// Raw samples of the series of `selector` in the `seconds` until `end`, without stale markers.
    #[track_caller]
    pub fn samples(&self, selector: &str, seconds: u32, end: f64) -> Samples {
        let expression = format!("{selector}[{seconds}s]");
        self.matrix(&format!("query?query={}&time={end}", encode(&expression)))
    }

    /// Native histograms of the series of `selector`, as the API describes them.
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

    /// Exemplars of the series of `selector`, as the API describes them.
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

    /// Values of an expression every quarter of a second, which shows where series have gaps.
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
            // A series of histograms has no float values.
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
