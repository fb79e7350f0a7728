//! Discovery of a cluster: labels of targets, changes, and behaviour while the API server fails.

mod asking;
mod found;
mod watching;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use metrifold_base::{Problems, RunError};
use metrifold_discovery::{ProviderConfig, ProviderContext, Slot, SlotOptions, Status};
use metrifold_kubernetes::KubernetesConfig;
use metrifold_telemetry::Telemetry;
use metrifold_testing::Authority;
use metrifold_testing::kubernetes::{
    Expiry, Kubernetes, endpoints, endpointslice, ingress, namespace, node, owned, pod, service,
};

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

type Found = BTreeMap<String, BTreeMap<String, String>>;

impl Running {
    fn new(cluster: &Kubernetes, keys: &str) -> Self {
        Self::by(&format!("api_server = {:?}\n{keys}", cluster.url()), None)
    }

    fn by(keys: &str, folder: Option<&Path>) -> Self {
        let config: KubernetesConfig = toml::from_str(keys).unwrap();
        let mut problems = Problems::new(true);
        config.validate(&mut problems);
        assert_eq!(problems.into_list(), [], "{keys}");
        let options = SlotOptions {
            type_name: "kubernetes".into(),
            question: config.question(),
            limits: config.limits(),
            on_empty: config.on_empty(),
            folder: folder.map(Into::into),
        };
        let provider = config.build(&ProviderContext::alone("k")).unwrap();
        let slot = Slot::new("k".into(), options.clone(), &Telemetry::new());
        let feed = slot.take_over(options);
        let task = tokio::spawn(metrifold_discovery::run(provider, feed));
        Self { slot, task }
    }

    /// Targets by address.
    fn found(&self) -> Found {
        let snapshot = self.slot.snapshot();
        let targets = snapshot.targets().iter().map(|target| {
            let labels = target.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
            (target.address().to_owned(), labels.collect())
        });
        targets.collect()
    }

    async fn until(&self, what: &str, good: impl Fn(&Found, &Status) -> bool) -> Found {
        let mut attempts = self.slot.attempts();
        let waited = timeout(Duration::from_secs(30), async {
            loop {
                attempts.borrow_and_update();
                let found = self.found();
                if good(&found, &self.slot.status()) {
                    return found;
                }
                attempts.changed().await.unwrap();
            }
        });
        let status = || format!("{:?} {:?}", self.found().keys(), self.slot.status());
        waited
            .await
            .unwrap_or_else(|_| panic!("{what}: {}", status()))
    }

    /// Waits until exactly these addresses are found.
    async fn until_at(&self, addresses: &[&str]) -> Found {
        let good = |found: &Found, _: &Status| found.keys().eq(addresses);
        self.until(&format!("{addresses:?}"), good).await
    }
}

const SLICES: &str = "role = \"endpointslice\"\n";

/// A service with two pods in one slice; each pod has a further port.
fn shop() -> Kubernetes {
    let cluster = Kubernetes::new();
    let ports = [("web", 8080), ("admin", 9090)];
    cluster.put("pods", pod("sales", "shop-0", "10.0.0.1", "node-1", &ports));
    cluster.put("pods", pod("sales", "shop-1", "10.0.0.2", "node-1", &ports));
    cluster.put("services", service("sales", "shop", &[("web", 80)]));
    let pods = [("shop-0", "10.0.0.1"), ("shop-1", "10.0.0.2")];
    cluster.put(
        "endpointslices",
        endpointslice("sales", "shop", 0, &pods, &[("web", 8080)]),
    );
    cluster
}

const SHOP: [&str; 4] = [
    "10.0.0.1:8080",
    "10.0.0.1:9090",
    "10.0.0.2:8080",
    "10.0.0.2:9090",
];

fn labels(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let name = match name.starts_with("__address__") || name == "instance" {
            true => name.to_owned(),
            false => format!("__meta_kubernetes_{name}"),
        };
        (name, value.to_owned())
    });
    pairs.collect()
}
