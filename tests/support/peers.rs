//! Real peers as child processes, questions to them, and a target for them to scrape.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::http::{self as client, encode};
use super::process::{Process, free_port};

/// How long one program may take to hold what another does, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(200);

pub type Labels = BTreeMap<String, String>;

/// Raw samples by series: milliseconds and value.
pub type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;

/// What a query API says of series, as JSON.
pub type Described = BTreeMap<Labels, Value>;

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// A Prometheus server.
pub struct Prometheus {
    pub process: Process,
    pub url: String,
    port: u16,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with a configuration, in which `SELF` is its own address. It can receive remote
    /// write.
    pub async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = config.replace("SELF", &format!("127.0.0.1:{port}"));
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let mut prometheus = Self {
            process: Self::launch(port, folder.path()),
            url: format!("http://127.0.0.1:{port}"),
            port,
            folder,
        };
        prometheus.ready().await;
        prometheus
    }

    fn launch(port: u16, folder: &Path) -> Process {
        let arguments = [
            "--config.file=prometheus.yml".to_owned(),
            "--storage.tsdb.path=data".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=native-histograms,exemplar-storage".to_owned(),
            "--log.level=warn".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        Process::start("prometheus", &arguments, folder)
    }

    async fn ready(&mut self) {
        self.process.ready(&format!("{}/-/ready", self.url)).await;
    }

    /// Starts it again, on the same port and with what it had stored.
    pub async fn start_again(&mut self) {
        self.process = Self::launch(self.port, self.folder.path());
        self.ready().await;
    }

    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url)
    }

    async fn ask(&self, question: &str) -> Vec<Value> {
        let reply = client::get(&format!("{}/api/v1/{question}", self.url)).await;
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
    pub async fn value(&self, expression: &str, time: f64) -> Option<f64> {
        let result = self
            .ask(&format!("query?query={}&time={time}", encode(expression)))
            .await;
        let [one] = &result[..] else { return None };
        one["value"][1].as_str()?.parse().ok()
    }

    /// The raw samples of the series of `selector` in the `seconds` until `end`. Stale markers are
    /// not among them.
    pub async fn samples(&self, selector: &str, seconds: u32, end: f64) -> Samples {
        let expression = format!("{selector}[{seconds}s]");
        self.matrix(&format!("query?query={}&time={end}", encode(&expression)))
            .await
    }

    /// The native histograms of the series of `selector`, as the query API describes them.
    pub async fn histograms(&self, selector: &str, seconds: u32, end: f64) -> Described {
        let expression = encode(&format!("{selector}[{seconds}s]"));
        let mut answer = self
            .ask(&format!("query?query={expression}&time={end}"))
            .await;
        let series = answer
            .iter_mut()
            .map(|one| (labels(&one["metric"]), one["histograms"].take()));
        series
            .filter(|(_, histograms)| !histograms.is_null())
            .collect()
    }

    /// The exemplars of the series of `selector`, as the query API describes them.
    pub async fn exemplars(&self, selector: &str, start: f64, end: f64) -> Described {
        let selector = encode(selector);
        let question = format!("query_exemplars?query={selector}&start={start}&end={end}");
        let mut answer = self.ask(&question).await;
        let series = answer.iter_mut();
        series
            .map(|one| (labels(&one["seriesLabels"]), one["exemplars"].take()))
            .collect()
    }

    /// What an expression yields in each quarter of a second: where the series are and where not.
    pub async fn course(&self, expression: &str, start: f64, end: f64) -> Samples {
        let expression = encode(expression);
        self.matrix(&format!(
            "query_range?query={expression}&start={start}&end={end}&step=0.25"
        ))
        .await
    }

    async fn matrix(&self, question: &str) -> Samples {
        let series = |one: &Value| {
            // A series of histograms has no values.
            let values = one["values"].as_array()?.iter().map(|pair| {
                let time = pair[0].as_f64().unwrap();
                let value = pair[1].as_str().unwrap().parse().unwrap();
                ((time * 1000.0).round() as i64, value)
            });
            Some((labels(&one["metric"]), values.collect()))
        };
        self.ask(question).await.iter().filter_map(series).collect()
    }
}

fn labels(metric: &Value) -> Labels {
    let pair = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().into());
    metric.as_object().unwrap().iter().map(pair).collect()
}

/// The first difference between two sets of samples. Values may differ by `tolerance`, relatively.
fn difference(found: &Samples, expected: &Samples, tolerance: f64) -> Option<String> {
    for labels in expected.keys() {
        if !found.contains_key(labels) {
            return Some(format!("{labels:?} is missing"));
        }
    }
    for (labels, found) in found {
        let Some(expected) = expected.get(labels) else {
            return Some(format!("{labels:?} came from nowhere"));
        };
        let times = |values: &[(i64, f64)]| values.iter().map(|v| v.0).collect::<Vec<_>>();
        if times(found) != times(expected) {
            return Some(format!(
                "{labels:?} has\n{found:?}\ninstead of\n{expected:?}"
            ));
        }
        let same = |found: f64, expected: f64| {
            found.to_bits() == expected.to_bits()
                || (found.is_nan() && expected.is_nan())
                || (found - expected).abs() <= tolerance * expected.abs()
                || (tolerance > 0.0 && found.abs().max(expected.abs()) < 1e-300)
        };
        if let Some((f, e)) = found.iter().zip(expected).find(|(f, e)| !same(f.1, e.1)) {
            return Some(format!("{labels:?} has {f:?} instead of {e:?}"));
        }
    }
    None
}

/// Waits until a set of samples is what it has to be.
pub async fn until_same(
    what: &str,
    tolerance: f64,
    mut look: impl AsyncFnMut() -> (Samples, Samples),
) -> Samples {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, expected) = look().await;
        let Some(difference) = difference(&found, &expected, tolerance) else {
            return found;
        };
        assert!(Instant::now() < deadline, "{what}: {difference}");
        sleep(LOOK).await;
    }
}

/// A VictoriaMetrics server.
pub struct Victoria {
    _process: Process,
    pub url: String,
    _folder: TempDir,
}

impl Victoria {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let arguments = [
            "-storageDataPath=data".to_owned(),
            "-retentionPeriod=1d".to_owned(),
            "-memory.allowedBytes=128MB".to_owned(),
            "-loggerLevel=WARN".to_owned(),
            format!("-httpListenAddr={address}"),
        ];
        let mut process = Process::start("victoria-metrics", &arguments, folder.path());
        let url = format!("http://{address}");
        process.ready(&format!("{url}/health")).await;
        Self {
            _process: process,
            url,
            _folder: folder,
        }
    }

    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url)
    }

    /// The raw samples of the series of `selector` until `end`, and the times of stale markers.
    /// It keeps no other NaNs.
    pub async fn samples(&self, selector: &str, end: f64) -> (Samples, BTreeMap<Labels, Vec<i64>>) {
        let (mut samples, mut markers) = (Samples::new(), BTreeMap::<_, Vec<i64>>::new());
        client::get(&format!("{}/internal/force_flush", self.url)).await;
        let url = format!(
            "{}/api/v1/export?match[]={}&end={end}",
            self.url,
            encode(selector)
        );
        let reply = client::get(&url).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        for line in reply.text().lines() {
            // What is no finite number is no JSON, either.
            let (head, values) = line.split_once("\"values\":").unwrap();
            let values = values
                .replace("NaN", "null")
                .replace("+Inf", "\"inf\"")
                .replace("-Inf", "\"-inf\"");
            let line = format!("{head}\"values\":{values}");
            let series: Value = serde_json::from_str(&line).unwrap();
            let labels = labels(&series["metric"]);
            let values = series["values"].as_array().unwrap();
            let times = series["timestamps"].as_array().unwrap();
            for (value, time) in values.iter().zip(times) {
                let time = time.as_i64().unwrap();
                let value = match value {
                    Value::Null => {
                        markers.entry(labels.clone()).or_default().push(time);
                        continue;
                    }
                    Value::String(infinity) => infinity.parse().unwrap(),
                    number => number.as_f64().unwrap(),
                };
                samples
                    .entry(labels.clone())
                    .or_default()
                    .push((time, value));
            }
        }
        (samples, markers)
    }
}

/// A node_exporter with a few of its collectors.
pub struct NodeExporter {
    _process: Process,
    pub address: String,
    _folder: TempDir,
}

impl NodeExporter {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut arguments = vec![
            "--collector.disable-defaults".to_owned(),
            format!("--web.listen-address={address}"),
        ];
        for collector in [
            "cpu", "loadavg", "meminfo", "netdev", "stat", "time", "uname", "vmstat",
        ] {
            arguments.push(format!("--collector.{collector}"));
        }
        let mut process = Process::start("prometheus-node-exporter", &arguments, folder.path());
        process.ready(&format!("http://{address}/metrics")).await;
        Self {
            _process: process,
            address,
            _folder: folder,
        }
    }
}

/// Starts a vmagent that sends to several URLs, in order.
pub async fn vmagent(scrape_config: &str, write_urls: &[String], folder: &Path) -> Process {
    let file = folder.join("scrape.yml");
    std::fs::write(&file, scrape_config).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut arguments = vec![
        format!("-promscrape.config={}", file.display()),
        format!("-httpListenAddr={address}"),
        "-remoteWrite.tmpDataPath=queue".to_owned(),
        "-remoteWrite.queues=1".to_owned(),
        "-loggerLevel=WARN".to_owned(),
    ];
    arguments.extend(
        write_urls
            .iter()
            .map(|url| format!("-remoteWrite.url={url}")),
    );
    let mut process = Process::start("vmagent", &arguments, folder);
    process.ready(&format!("http://{address}/health")).await;
    process
}

/// A target that the test serves.
pub struct Target {
    pub address: SocketAddr,
    scrapes: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

/// The content type of Prometheus's text format.
pub const TEXT: &str = "text/plain; version=0.0.4";
/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus's protobuf format.
pub const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

impl Target {
    /// Serves what `page` makes of the number of the scrape, which starts at 1.
    pub async fn start(
        content_type: &'static str,
        page: impl Fn(u64) -> Bytes + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scrapes = Arc::new(AtomicU64::new(0));
        let (counter, page) = (scrapes.clone(), Arc::new(page));
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (counter, page) = (counter.clone(), page.clone());
                let service = service_fn(move |_| {
                    let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
                    let response = Response::builder().header("content-type", content_type);
                    let response = response.body(Full::new(page(number))).unwrap();
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let stream = TokioIo::new(stream);
                connections.spawn(http1::Builder::new().serve_connection(stream, service));
            }
        });
        Self {
            address,
            scrapes,
            server,
        }
    }

    /// How often it has been scraped.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::Relaxed)
    }

    /// Goes away, with all connections.
    pub fn stop(&self) {
        self.server.abort();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A page of Prometheus's protobuf format with one native histogram, which grows by each scrape.
pub fn histogram_page(name: &str, number: u64) -> Bytes {
    let span = |offset, length| BucketSpan { offset, length };
    let family = MetricFamily {
        name: name.into(),
        kind: 4,
        metric: vec![Metric {
            histogram: Some(Histogram {
                sample_count: 6 * number + 1,
                sample_sum: 0.1 * number as f64,
                schema: 3,
                zero_threshold: 1e-128,
                zero_count: 1,
                negative_span: vec![span(-3, 1)],
                negative_delta: vec![number as i64],
                positive_span: vec![span(0, 2), span(4, 1)],
                // Each bucket says by how much it differs from the one before.
                positive_delta: vec![number as i64, number as i64, 0],
            }),
        }],
    };
    family.encode_length_delimited_to_vec().into()
}

/// A part of `io.prometheus.client`, for [`histogram_page`].
#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}
