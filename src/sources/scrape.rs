//! Scrapes targets as Prometheus does.
//!
//! Delivery: a scrape is a batch, sent without waiting for an acknowledgement. A batch that finds
//! no room in the queue of a required sink waits until the target's next scrape is due; then it is
//! dropped and counted as discarded with the reason `queue_full`. Batches of one target stay in
//! order. Limits: the size of pages, of all pages together, samples, labels, targets, and time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown, keys};
use metrifold_discovery::{LabelsBuilder, Target};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Output};
use metrifold_model::Kind;
use metrifold_scrape::{Inlet, Plain, Pool, ScrapeKeys, Settings};

keys! {
    /// Configuration of the `scrape` source.
    #[derive(Clone, Debug)]
    pub struct ScrapeConfig {
        /// Name of the provider of targets, one under `[discovery.NAME]`.
        discovery: Option<String> = unset("instances"),
        /// Static targets, `host:port`.
        targets: Vec<String> = suggested(["localhost:9100"]),
        /// Labels to add to the static targets.
        labels: BTreeMap<String, String> = unset({ env = "prod" }),
        keys: ScrapeKeys = include,
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "scrape",
        summary: "Scrapes targets as Prometheus does.",
        keys: ScrapeConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "scrape")]
impl SourceConfig for ScrapeConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.keys.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.keys.validate(problems);
        if self.discovery.is_none() && self.targets.is_empty() {
            let problem = problems.at("", "it has no targets");
            problem.help("add targets = [\"host:port\"], or discovery = \"NAME\"");
        }
        for (at, target) in self.targets.iter().enumerate() {
            if target.is_empty() || target.contains(['/', ' ']) {
                let problem = problems.at(format!("targets[{at}]"), "is not an address");
                problem.help("write host:port; the path of the page is metrics_path");
            }
        }
        for name in self.labels.keys() {
            if name.is_empty() {
                problems.at("labels", "a label has no name");
            }
        }
    }
}

impl ScrapeConfig {
    /// The targets in the configuration itself.
    fn fixed(&self) -> Vec<Target> {
        let target = |address: &String| {
            let mut labels = LabelsBuilder::default();
            for (name, value) in &self.labels {
                labels.push(name, value);
            }
            labels.push("__address__", address);
            Arc::new(labels.build())
        };
        self.targets.iter().map(target).collect()
    }
}

impl BuildSource<Metrics> for ScrapeConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        let settings = Arc::new(Settings::new(&self.keys, &cx.id)?);
        let mut inlets = vec![Inlet::Fixed(self.fixed())];
        if let Some(name) = &self.discovery {
            inlets.push(Inlet::Discovered(cx.discovery.targets(name)?));
        }
        let pool = Pool::build(settings, Arc::new(Plain), inlets, cx)?;
        Ok(Box::new(Scrape(pool)))
    }
}

struct Scrape(Pool);

impl Source<Metrics> for Scrape {
    fn run(self: Box<Self>, out: Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(self.0.run(out, shutdown))
    }
}
