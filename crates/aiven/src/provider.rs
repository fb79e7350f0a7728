//! The provider: observes its projects periodically, and has each observation reconciled.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError};
use metrifold_discovery::{
    Feed, Limits, OnEmpty, Provider, ProviderConfig, ProviderContext, ProviderInfo,
};

use crate::accounts::{Access, Account, Accounts};
use crate::api::Api;
use crate::config::{AivenConfig, Integrate};
use crate::lease::{FileLease, Lease};
use crate::meters::AivenMeters;
use crate::observe::Observer;
use crate::plan::Memory;
use crate::reconcile::Reconciler;
use crate::record::Record;
use crate::resolve::Resolver;

/// Shortest pause before a refresh that was requested.
const NUDGED: Duration = Duration::from_secs(2);

inventory::submit! {
    ProviderInfo {
        name: "aiven",
        summary: "nodes of Aiven's services, which get the Prometheus integration if wanted",
        keys: AivenConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "aiven")]
impl ProviderConfig for AivenConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // The provider itself distinguishes unreadable from empty.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        format!(
            "{} {:?}",
            self.api.uri(),
            (
                (
                    &self.projects,
                    &self.service_types,
                    &self.tags,
                    &self.tag_labels
                ),
                (&self.endpoint_name, &self.endpoint_id.0),
                (self.route, self.standbys, self.port),
            )
        )
    }

    fn files(&self) -> Vec<&Path> {
        self.read_files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.check(problems);
    }

    fn build(&self, cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let config = Arc::new(self.clone());
        let api = Arc::new(Api::new(self)?);
        let account = cx.shared.get::<Accounts>().account(&cx.name);
        let meters = Arc::new(AivenMeters::new(&cx.telemetry, &cx.name));
        let resolver = Resolver::new(self);
        let resolver = resolver.map_err(|error| BuildError::new("dns_servers", error))?;
        let (lease, record) = self.lease(&account)?;
        Ok(Box::new(Aiven {
            interval: self.refresh_interval.0,
            observer: Observer {
                config: config.clone(),
                api: api.clone(),
                resolver: Arc::new(resolver),
                account: account.clone(),
                meters: meters.clone(),
                seldom: HashMap::new(),
                access: Access::default(),
            },
            reconciler: Reconciler {
                integrate: match cx.changes {
                    true => self.integrate,
                    false => Integrate::Off,
                },
                record,
                config,
                api,
                account,
                meters,
                lease,
                memory: Memory::default(),
                term: None,
                refused: HashMap::new(),
            },
        }))
    }
}

/// The lease among replicas; None for a single process.
type Deciding = Option<Box<dyn Lease>>;

impl AivenConfig {
    /// Creates the lease, and the record of requested and made integrations that belongs to it.
    fn lease(&self, account: &Arc<Account>) -> Result<(Deciding, Record), BuildError> {
        if let Some(path) = &self.lease_path {
            let lease = Box::new(FileLease::new(path.clone()));
            return Ok((Some(lease), Record::beside(path)));
        }
        #[cfg(feature = "kubernetes")]
        if let Some(keys) = &self.kubernetes_lease {
            let lease = crate::cluster::ClusterLease::build(keys)?;
            return Ok((Some(Box::new(lease.hold())), Record::Lease(lease)));
        }
        Ok((None, Record::Process(account.clone())))
    }
}

struct Aiven {
    interval: Duration,
    observer: Observer,
    reconciler: Reconciler,
}

impl Provider for Aiven {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let Self {
                interval,
                mut observer,
                reconciler,
            } = *self;
            let (observed, latest) = watch::channel(None);
            let observing = async move {
                loop {
                    let started = Instant::now();
                    let observation = observer.observe(&feed).await?;
                    observed.send_replace(Some(Arc::new(observation)));
                    tokio::select! {
                        () = tokio::time::sleep_until(started + interval) => {}
                        () = async {
                            tokio::time::sleep(NUDGED).await;
                            feed.nudged().await;
                        } => {}
                    }
                }
            };
            // Concurrent, so that a slow change delays no target.
            tokio::select! {
                ended = observing => ended,
                ended = reconciler.run(latest) => ended,
            }
        })
    }
}
