//! A scraper that panics is started again, and the series that it knew still end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;

use metrifold_access::Gate;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown};
use metrifold_discovery::{Labels, Target};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::config::parse_str;
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Output};
use metrifold_engine::topology::Built;
use metrifold_http::Listeners;
use metrifold_model::Kind;
use metrifold_scrape::{Gauges, Inlet, Own, Particulars, Pool, Settings};
use metrifold_targets::Directory;
use metrifold_telemetry::Telemetry;
use metrifold_testing::series::STALE;
use metrifold_testing::{Endpoint, Reply, Seen, until_so};

use crate::components::FOR_TESTS;

/// Whether the next scrape panics.
static PANICS: AtomicBool = AtomicBool::new(false);

/// A source that scrapes one target, with gauges that panic when the test says so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragile {
    target: String,
}

inventory::submit! {
    ComponentInfo { kind: Kind::Source, name: "fragile_scrape", summary: FOR_TESTS, keys: &[] }
}

#[typetag::deserialize(name = "fragile_scrape")]
impl SourceConfig for Fragile {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn validate(&self, _: &mut Problems) {}
}

impl BuildSource<Metrics> for Fragile {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        let keys = toml::from_str("scrape_interval = \"200ms\"").unwrap();
        let settings = Arc::new(Settings::new(&keys, &cx.id)?);
        let labels: Labels = [("__address__", self.target.as_str())]
            .into_iter()
            .collect();
        let inlets = vec![Inlet::Fixed(vec![Arc::new(labels)])];
        let pool = Pool::build(settings, Arc::new(Fragility), inlets, cx)?;
        Ok(Box::new(Scraping(pool)))
    }
}

struct Scraping(Pool);

impl Source<Metrics> for Scraping {
    fn run(self: Box<Self>, out: Output, stop: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(self.0.run(out, stop))
    }
}

#[derive(Debug)]
struct Fragility;

impl Particulars for Fragility {
    fn of(&self, _: &Target, _: usize) -> Result<Own, String> {
        Ok(Own {
            gauges: Some(Arc::new(Self)),
            ..Own::default()
        })
    }
}

impl Gauges for Fragility {
    fn values(&self) -> Vec<(&'static str, f64)> {
        assert!(!PANICS.swap(false, Ordering::AcqRel), "the test says so");
        Vec::new()
    }
}

/// Whether the last sample of a series is a staleness marker. `None` without one.
fn ended(sink: &Endpoint, name: &str) -> Option<bool> {
    let seen = sink.seen();
    let mut all = seen.iter().flat_map(Seen::series);
    let last = all.rfind(|series| series.name() == name)?;
    Some(last.samples.last()?.bits == STALE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_a_panicked_scraper_knew_still_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let target = Endpoint::new(move |_| {
        let number = counted.fetch_add(1, Ordering::AcqRel);
        // The scrape with the first page without `b` is the one that panics.
        let text = match number {
            0..3 => "a 1\nb 1\n",
            3 => {
                PANICS.store(true, Ordering::Release);
                "a 1\n"
            }
            _ => "a 1\n",
        };
        Reply::new(200).body(text)
    });
    let sink = Endpoint::healthy();
    let text = format!(
        "[sources.fragile]\ntype = \"fragile_scrape\"\ntarget = \"{}\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"fragile\"]\nendpoint = \"{}\"\n",
        target.address(),
        sink.url()
    );
    let none = |_: &str| None;
    let config = parse_str("test.toml", &text, &none).unwrap().config;
    let built = Built::build(
        Arc::new(config),
        Telemetry::new(),
        Listeners::new(),
        Stores::new(None),
        Directory::new(),
        Gate::new(),
    );
    let running = built.map_err(|errors| format!("{errors:?}")).unwrap();
    let running = running.start();
    tokio::task::block_in_place(|| {
        until_so("the scrape after the panic", || {
            asked.load(Ordering::Acquire) >= 6
        });
        until_so("the series has ended", || ended(&sink, "b") == Some(true));
    });
    assert_eq!(ended(&sink, "a"), Some(false));
    let page = running.telemetry().render();
    assert!(page.contains("error_type=\"panicked\""), "{page}");
    assert_eq!(running.stop(Duration::from_secs(10)).await, []);
}
