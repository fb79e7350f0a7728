//! A topology in the test's own process, with reloads.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use metrifold_access::Gate;
use metrifold_engine::config::{Config, parse_str};
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::topology::{Built, Changes, Leftover, Running};
use metrifold_http::Listeners;
use metrifold_targets::Directory;
use metrifold_telemetry::Telemetry;
use metrifold_testing::PATIENCE;

/// A topology on a runtime of its own, which other threads talk to.
pub struct Live {
    pub runtime: Runtime,
    running: Running,
    /// Longest time that replaced and removed components may take to end.
    pub limit: Duration,
}

/// Reads a valid configuration.
#[track_caller]
pub fn config(text: &str) -> Arc<Config> {
    let environment = |_: &str| None;
    let loaded = parse_str("test.toml", text, &environment).unwrap_or_else(|found| {
        let found: Vec<_> = found.iter().map(|found| found.render(false)).collect();
        panic!("{text}\n{}", found.join("\n"))
    });
    Arc::new(loaded.config)
}

impl Live {
    #[track_caller]
    pub fn start(text: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let built = Built::build(
            config(text),
            Telemetry::new(),
            Listeners::new(),
            Stores::new(None),
            Directory::new(),
            Gate::new(),
        );
        let built = built.map_err(|errors| format!("{errors:?}")).unwrap();
        let running = {
            let _inside = runtime.enter();
            built.start()
        };
        Self {
            runtime,
            running,
            limit: PATIENCE,
        }
    }

    /// Reloads with a configuration that can be built.
    #[track_caller]
    pub fn reload(&mut self, text: &str) -> Changes {
        self.try_reload(text).unwrap()
    }

    /// Reloads with a configuration; returns the error if it is refused.
    #[track_caller]
    pub fn try_reload(&mut self, text: &str) -> Result<Changes, String> {
        self.try_apply(config(text))
    }

    /// Reloads with a configuration that was read before.
    pub fn try_apply(&mut self, config: Arc<Config>) -> Result<Changes, String> {
        let reload = self.running.reload(config, self.limit);
        self.runtime.block_on(reload).map_err(|errors| {
            let lines = errors.iter().map(|(id, error)| format!("{id}: {error}\n"));
            lines.collect()
        })
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The metrics page.
    pub fn page(&self) -> String {
        self.running.telemetry().render()
    }

    /// Sum of a metric over all series that have all of these label values.
    pub fn metric(&self, name: &str, values: &[&str]) -> f64 {
        let page = self.page();
        let lines = page.lines().filter(|line| {
            line.split(['{', ' ']).next() == Some(name)
                && values
                    .iter()
                    .all(|value| line.contains(&format!("\"{value}\"")))
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Whether the metrics page has series of a component.
    pub fn shows(&self, id: &str) -> bool {
        self.page().contains(&format!("component_id=\"{id}\""))
    }

    pub fn stop(self) -> Vec<Leftover> {
        self.runtime.block_on(self.running.stop(PATIENCE))
    }
}
