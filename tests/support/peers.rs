//! Real peers as child processes, questions to them, and a target for them to scrape.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::http::{self as client, encode};
use super::process::{Process, free_port};

pub type Labels = BTreeMap<String, String>;

/// Raw samples by series: milliseconds and value.
pub type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
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
        let mut answer = reply.json();
        match answer["data"]["result"].take() {
            Value::Array(result) => result,
            other => panic!("{question}: {other}"),
        }
    }

    /// The value of an expression at a time; none if there is not exactly one.
    pub async fn value(&self, expression: &str, time: f64) -> Option<f64> {
        let result = self.ask(&format!("query?query={}&time={time}", encode(expression))).await;
        let [one] = &result[..] else { return None };
        one["value"][1].as_str()?.parse().ok()
    }

    /// The raw samples of the series of `selector` in the `seconds` until `end`. Stale markers are
    /// not among them.
    pub async fn samples(&self, selector: &str, seconds: u32, end: f64) -> Samples {
        let expression = format!("{selector}[{seconds}s]");
        self.matrix(&format!("query?query={}&time={end}", encode(&expression))).await
    }

    /// What an expression yields in each quarter of a second: where the series are and where not.
    pub async fn course(&self, expression: &str, start: f64, end: f64) -> Samples {
        let expression = encode(expression);
        self.matrix(&format!("query_range?query={expression}&start={start}&end={end}&step=0.25"))
            .await
    }

    async fn matrix(&self, question: &str) -> Samples {
        let series = |one: &Value| {
            let values = one["values"].as_array().unwrap().iter().map(|pair| {
                let time = pair[0].as_f64().unwrap();
                let value = pair[1].as_str().unwrap().parse().unwrap();
                ((time * 1000.0).round() as i64, value)
            });
            (labels(&one["metric"]), values.collect())
        };
        self.ask(question).await.iter().map(series).collect()
    }
}

fn labels(metric: &Value) -> Labels {
    let pair = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().into());
    metric.as_object().unwrap().iter().map(pair).collect()
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
        let url = format!("{}/api/v1/export?match[]={}&end={end}", self.url, encode(selector));
        let reply = client::get(&url).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        for line in reply.text().lines() {
            // What is no finite number is no JSON, either.
            let (head, values) = line.split_once("\"values\":").unwrap();
            let values = values.replace("NaN", "null").replace("+Inf", "\"inf\"").replace("-Inf", "\"-inf\"");
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
                samples.entry(labels.clone()).or_default().push((time, value));
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
        for collector in ["cpu", "loadavg", "meminfo", "netdev", "stat", "time", "uname", "vmstat"] {
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
    arguments.extend(write_urls.iter().map(|url| format!("-remoteWrite.url={url}")));
    let mut process = Process::start("vmagent", &arguments, folder);
    process.ready(&format!("http://{address}/health")).await;
    process
}

/// A target whose page the test decides. `test_served_total` counts its scrapes.
pub struct Target {
    pub address: SocketAddr,
    page: Arc<Mutex<(u64, String)>>,
    server: JoinHandle<()>,
}

impl Target {
    pub async fn start(page: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new((0, page.to_owned())));
        let served = page.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = served.clone();
                let service = service_fn(move |_| {
                    let mut page = served.lock().unwrap_or_else(PoisonError::into_inner);
                    page.0 += 1;
                    let text = format!("{}test_served_total {}\n", page.1, page.0);
                    let response = Response::new(Full::new(Bytes::from(text)));
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let stream = TokioIo::new(stream);
                connections.spawn(http1::Builder::new().serve_connection(stream, service));
            }
        });
        Self {
            address,
            page,
            server,
        }
    }

    /// How often it has been scraped.
    pub fn scrapes(&self) -> u64 {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn change(&self, page: &str) {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).1 = page.to_owned();
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
