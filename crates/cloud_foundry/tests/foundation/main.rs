//! Targets of a foundation: selection, routes, and what stays when the platform fails.

mod changes;
mod cost;
mod failures;
mod logins;
mod selection;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use metrifold_base::{Problems, RunError};
use metrifold_cloud_foundry::{CloudFoundryConfig, Facts};
use metrifold_discovery::{
    ProviderConfig, ProviderContext, Slot, SlotOptions, Snapshot, Status, Target,
};
use metrifold_telemetry::Telemetry;
use metrifold_testing::CloudFoundry;

/// A running provider.
struct Running {
    slot: Arc<Slot>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const AS_ADMIN: &str = "username = \"admin\"\npassword = \"geheim\"\n";

fn config(foundation: &CloudFoundry, keys: &str) -> CloudFoundryConfig {
    let metadata = match keys.contains("metadata_interval") {
        true => "",
        false => "metadata_interval = \"100ms\"\n",
    };
    let api = foundation.api();
    let text = format!("api = {api:?}\nrefresh_interval = \"150ms\"\n{metadata}{keys}");
    let config: CloudFoundryConfig = toml::from_str(&text).unwrap();
    let mut problems = Problems::new(true);
    config.validate(&mut problems);
    assert_eq!(problems.into_list(), [], "{text}");
    config
}

impl Running {
    fn new(foundation: &CloudFoundry, keys: &str) -> Self {
        Self::in_folder(foundation, keys, None)
    }

    fn in_folder(foundation: &CloudFoundry, keys: &str, folder: Option<&std::path::Path>) -> Self {
        Self::within(&ProviderContext::alone("cf"), foundation, keys, folder)
    }

    /// A provider of a process that may have had others.
    fn within(
        cx: &ProviderContext,
        foundation: &CloudFoundry,
        keys: &str,
        folder: Option<&std::path::Path>,
    ) -> Self {
        let config = config(foundation, keys);
        let options = SlotOptions {
            type_name: "cloud_foundry".into(),
            question: config.question(),
            limits: config.limits(),
            on_empty: config.on_empty(),
            folder: folder.map(Into::into),
        };
        let provider = config.build(cx).unwrap();
        let slot = Slot::new("cf".into(), options.clone(), &Telemetry::new());
        let feed = slot.take_over(options);
        let task = tokio::spawn(metrifold_discovery::run(provider, feed));
        Self { slot, task }
    }

    /// Waits for an attempt that begins after this call.
    async fn next(&self) -> Status {
        let mut attempts = self.slot.attempts();
        let now = *attempts.borrow();
        // The attempt in progress, and one more.
        let further = attempts.wait_for(|it| *it >= now + 2);
        let waited = timeout(Duration::from_secs(30), further).await;
        waited.expect("an attempt").unwrap();
        self.slot.status()
    }

    /// The snapshot after the first attempt.
    async fn first(&self) -> Arc<Snapshot> {
        let mut attempts = self.slot.attempts();
        let first = attempts.wait_for(|it| *it >= 1);
        let waited = timeout(Duration::from_secs(30), first).await;
        waited.expect("an attempt").unwrap();
        self.slot.snapshot()
    }

    async fn targets(&self) -> Vec<Target> {
        self.next().await;
        self.slot.snapshot().targets().to_vec()
    }

    /// The URLs after applications and routes have been read again.
    async fn settled(&self) -> Vec<String> {
        self.next().await;
        self.urls().await
    }

    /// URLs of the targets, each with its instance number.
    async fn urls(&self) -> Vec<String> {
        urls(&self.targets().await)
    }
}

fn urls(targets: &[Target]) -> Vec<String> {
    let mut urls: Vec<String> = targets
        .iter()
        .map(|it| {
            let [scheme, path, number] =
                ["__scheme__", "__metrics_path__", "cf_instance_number"].map(|it2| it.get(it2));
            let (scheme, path) = (scheme.unwrap(), path.unwrap());
            format!("{scheme}://{}{path} {}", it.address(), number.unwrap())
        })
        .collect();
    urls.sort();
    urls
}

fn apps(targets: &[Target]) -> String {
    let mut names: Vec<&str> = targets
        .iter()
        .map(|it| it.get("app_name").unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// Two organizations, three spaces, and applications with routes, labels, annotations and a service.
fn example() -> CloudFoundry {
    let foundation = CloudFoundry::new();
    let mut state = foundation.state();
    let shop = state.push("prod/live/shop", &["shop.example.org"], 2);
    state.app(&shop).label("tier", "front");
    let cart = state.push("prod/live/cart", &["cart.example.org/api"], 1);
    state.app(&cart).annotate("prometheus.io/scrape", "true");
    state
        .app(&cart)
        .annotate("prometheus.io/path", "/actuator/prometheus");
    let books = state.push("prod/batch/Books", &["books.example.org", "b.other.org"], 1);
    state.app(&books).label("tier", "back");
    state.push("test/live/shop", &["shop-test.example.org"], 1);
    let quiet = state.push("test/live/quiet", &["quiet.example.org"], 1);
    state.app(&quiet).annotate("prometheus.io/scrape", "false");
    state.bindings.push(("metrics".to_owned(), books));
    drop(state);
    foundation
}

/// The labels of each target's series.
fn shown(targets: &[Target]) -> Vec<BTreeMap<&str, &str>> {
    let shown = |it: &&str| !it.starts_with("__");
    let each = targets.iter();
    each.map(|it| it.iter().filter(|(name, _)| shown(name)).collect())
        .collect()
}
