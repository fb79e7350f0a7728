//! Shows the latest value of every series on a page that Prometheus can scrape.
//!
//! Delivery: a batch is delivered once its values are on the page. A series leaves the page with
//! its stale marker, or when it has not been written for `expiry`. Limits: `max_series`; further
//! series are dropped and counted. Native histograms cannot be shown in the text format and are
//! counted as dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, MissedTickBehavior, interval};

use metrifold_base::keys::Keys;
use metrifold_base::{Address, BoxFuture, BuildError, Period, Problems, RunError, Shutdown, keys};
use metrifold_codec::remote_write::STALE;
use metrifold_codec::{Arena, text};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Input, Metrics};
use metrifold_http::{Everybody, Handler, Listen, Request, Response, Route};
use metrifold_model::ledger::Reason;
use metrifold_model::{Kind, Outcome};
use metrifold_telemetry::ComponentMetrics;

keys! {
    /// Configuration of the `prometheus_exporter` sink.
    #[derive(Clone, Debug)]
    pub struct PrometheusExporterConfig {
        /// Address of the page. It may be shared with sources and other sinks, on another path.
        address: Address = required("127.0.0.1:9598"),
        /// Path of the page.
        path: String = default("/metrics"),
        /// How long a series stays that is not written any more.
        expiry: Period = default("5m"),
        /// Most series on the page; further ones are dropped and counted as `too_many_series`.
        max_series: usize = default(100000),
        /// Whether samples carry their timestamps.
        timestamps: bool = default(false),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "prometheus_exporter",
        summary: "Shows the latest value of every series on a page to scrape.",
        keys: PrometheusExporterConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "prometheus_exporter")]
impl SinkConfig for PrometheusExporterConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Route(self.listen())]
    }

    fn validate(&self, problems: &mut Problems) {
        self.listen().validate(problems);
        if self.expiry.0.is_zero() {
            problems.at("expiry", "must be longer than 0s");
        }
        if self.max_series == 0 {
            problems.at("max_series", "must be at least 1");
        }
    }
}

impl MetricsSink for PrometheusExporterConfig {
    fn form(&self) -> Form {
        Form::Decoded
    }
}

impl BuildSink<Metrics> for PrometheusExporterConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        let route = cx.listeners.route(&self.listen(), &cx.id)?;
        let page = Page {
            series: Mutex::default(),
            expiry: self.expiry.0,
            max_series: self.max_series,
            timestamps: self.timestamps,
            metrics: cx.metrics.clone(),
        };
        Ok(Box::new(PrometheusExporter {
            route,
            page: Arc::new(page),
        }))
    }
}

impl PrometheusExporterConfig {
    fn listen(&self) -> Listen {
        Listen::new(self.address.0, self.path.clone())
    }
}

struct PrometheusExporter {
    route: Route,
    page: Arc<Page>,
}

struct Page {
    series: Mutex<BTreeMap<SeriesKey, Entry>>,
    expiry: Duration,
    max_series: usize,
    timestamps: bool,
    metrics: ComponentMetrics,
}

/// The metric's name, and the whole series as it is written on the page: the name comes first so
/// that a metric's series stay together.
type SeriesKey = (Box<[u8]>, Box<[u8]>);

struct Entry {
    value: f64,
    timestamp: i64,
    written: Instant,
}

impl Sink<Metrics> for PrometheusExporter {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        let serving = self.route.serve(Arc::new(Everybody), self.page.clone());
        Box::pin(async move {
            let _serving = serving;
            let mut sweep = interval(self.page.expiry.min(Duration::from_secs(10)));
            sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let delivery = tokio::select! {
                    delivery = input.recv() => delivery,
                    _ = sweep.tick() => {
                        self.page.sweep();
                        continue;
                    }
                };
                let Some(mut delivery) = delivery else {
                    return Ok(());
                };
                match delivery.batch.arena() {
                    Ok(arena) => self.page.write(arena),
                    Err(error) => {
                        delivery.count_lost(Reason::Invalid, None);
                        delivery.finish(Outcome::rejected(error.to_string()));
                        continue;
                    }
                }
                delivery.delivered();
            }
        })
    }
}

impl Page {
    fn series(&self) -> MutexGuard<'_, BTreeMap<SeriesKey, Entry>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, arena: &Arena) {
        let now = Instant::now();
        let (mut too_many, mut histograms) = (0, 0);
        let mut page = self.series();
        for series in arena.iter() {
            histograms += series.histograms().count() as u64;
            let Some((value, timestamp)) = series.samples().max_by_key(|&(_, time)| time) else {
                continue;
            };
            let mut text = Vec::new();
            text::put_series(&mut text, series.labels());
            let name = text.split(|&b| b == b'{').next().unwrap_or_default();
            let key = (name.into(), text.into_boxed_slice());
            if value.to_bits() == STALE {
                page.remove(&key);
                continue;
            }
            if page.len() >= self.max_series && !page.contains_key(&key) {
                too_many += 1;
                continue;
            }
            let entry = page.entry(key).or_insert(Entry {
                value,
                timestamp,
                written: now,
            });
            if timestamp >= entry.timestamp {
                *entry = Entry {
                    value,
                    timestamp,
                    written: now,
                };
            }
        }
        drop(page);
        self.metrics.discarded_samples("too_many_series", too_many);
        self.metrics
            .discarded_samples("native_histogram", histograms);
    }

    fn sweep(&self) {
        let expiry = self.expiry;
        self.series()
            .retain(|_, entry| entry.written.elapsed() < expiry);
    }

    fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for ((_, series), entry) in self.series().iter() {
            if entry.written.elapsed() >= self.expiry {
                continue;
            }
            out.extend_from_slice(series);
            out.push(b' ');
            text::put_value(&mut out, entry.value);
            if self.timestamps {
                out.extend_from_slice(format!(" {}", entry.timestamp).as_bytes());
            }
            out.push(b'\n');
        }
        out
    }
}

impl Handler for Page {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let mut response = Response::new(self.render().into());
            response.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        })
    }

    fn answers_half_closed(&self) -> bool {
        true
    }
}
