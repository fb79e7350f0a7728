//! Shows the latest value of every series on a page that Prometheus can scrape.
//!
//! Delivery: a batch is delivered once its values are on the page. A series leaves the page with
//! its stale marker, or when it has not been written for `expiry`. Limits: `max_series`, `max_bytes`; further
//! series are dropped and counted. Native histograms and series without a name, which the text
//! format cannot show, are dropped and counted as well. Names are escaped as the scraper asks; if
//! several series have the same name after that, the first is shown and the others are counted as
//! errors.

mod negotiation;
mod page;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use tokio::time::{Instant, MissedTickBehavior, interval};

use metrifold_base::keys::Keys;
use metrifold_base::{
    Address, BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys,
};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Delivery, Form, Input, Metrics};
use metrifold_http::{Everybody, Handler, Listen, Request, Response, Route};
use metrifold_model::ledger::Reason;
use metrifold_model::{Kind, Outcome, Rejection};
use metrifold_telemetry::ComponentMetrics;

use negotiation::Format;
use page::{Bounds, Page};

keys! {
    /// Configuration of the `prometheus_exporter` sink.
    #[derive(Clone, Debug)]
    pub struct PrometheusExporterConfig {
        /// Address to listen on. It can be shared with sources and other sinks that use other paths.
        address: Address = required("127.0.0.1:9598"),
        /// URL path of the page.
        path: String = default("/metrics"),
        /// Time after its last sample after which a series is removed from the page.
        expiry: Period = default("5m"),
        /// Maximum number of series on the page. Further ones are dropped and counted as `too_many_series`.
        max_series: usize = default(100000),
        /// Maximum size of the names and labels of all series on the page. Further series are dropped and counted as `too_many_series`.
        max_bytes: Size = default("64MiB"),
        /// Expose samples with their timestamps.
        timestamps: bool = default(false),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "prometheus_exporter",
        summary: "Exposes the latest value of each series for scraping.",
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
        if self.max_bytes.0 == 0 {
            problems.at("max_bytes", "must be at least 1B");
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
        let bounds = Bounds {
            series: self.max_series,
            bytes: self.max_bytes.bytes(),
        };
        let page = Page::new(self.expiry.0, bounds, self.timestamps);
        let shared = Shared {
            page: Mutex::new(page),
            metrics: cx.metrics.clone(),
        };
        Ok(Box::new(PrometheusExporter {
            route,
            sweep: self.expiry.0.min(SWEEP),
            shared: Arc::new(shared),
        }))
    }
}

impl PrometheusExporterConfig {
    fn listen(&self) -> Listen {
        Listen::new(self.address.0, self.path.clone())
    }
}

/// Interval at which expired series are removed.
const SWEEP: Duration = Duration::from_secs(10);

struct PrometheusExporter {
    route: Route,
    sweep: Duration,
    shared: Arc<Shared>,
}

/// State that the sink writes and the handler reads.
struct Shared {
    page: Mutex<Page>,
    metrics: ComponentMetrics,
}

impl Sink<Metrics> for PrometheusExporter {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        let serving = self.route.serve(Arc::new(Everybody), self.shared.clone());
        Box::pin(async move {
            let _serving = serving;
            let mut sweep = interval(self.sweep);
            sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let delivery = tokio::select! {
                    delivery = input.recv() => delivery,
                    _ = sweep.tick() => {
                        self.shared.page().sweep(Instant::now());
                        continue;
                    }
                };
                match delivery {
                    Some(delivery) => self.shared.write(delivery),
                    None => return Ok(()),
                }
            }
        })
    }
}

impl Shared {
    /// Ignores poison: no invariant of the page spans a panic.
    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut delivery: Delivery) {
        let bytes = delivery.batch.body_len();
        let (arena, mut counts) = match delivery.batch.arena() {
            Ok(arena) => (arena.clone(), arena.counts()),
            Err(error) => {
                let rejection = Rejection::from(error);
                delivery.count_lost(Reason::of_rejected(rejection.kind), delivery.batch.counts());
                return delivery.finish(rejection.into());
            }
        };
        let left_out = self.page().write(&arena, Instant::now());
        counts.histograms -= left_out.histograms;
        counts.samples -= left_out.too_many + left_out.nameless;
        for (reason, samples) in [
            (Reason::TooManySeries, left_out.too_many),
            (Reason::NativeHistogram, left_out.histograms),
            (Reason::NoMetricName, left_out.nameless),
        ] {
            delivery.count_left_out(reason, samples);
        }
        if counts.all_samples() > 0 || arena.counts().all_samples() == 0 {
            delivery.count_sent(Some(counts), bytes);
        }
        delivery.finish(Outcome::Delivered);
    }
}

impl Handler for Shared {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let format = Format::negotiate(request.headers.get_all(ACCEPT));
            let (text, collisions) = self.page().render(format.escaping, Instant::now());
            if collisions > 0 {
                self.metrics.error(
                    "name_collision",
                    format!(
                        "{collisions} series are not exposed because their names equal those of others when escaped by {}",
                        format.escaping.parameter()
                    ),
                );
            }
            let mut response = Response::new(text.into());
            response
                .headers_mut()
                .insert(CONTENT_TYPE, format.content_type());
            response
        })
    }

    fn answers_half_closed(&self) -> bool {
        true
    }
}
