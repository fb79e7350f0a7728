//! Providers of targets and their publishers: built, started, changed and stopped with the graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::{BuildError, ShutdownTrigger};
use metrifold_discovery::{Handles, Provider, ProviderConfig, ProviderContext, Slot, SlotOptions};
use metrifold_http::Listeners;
use metrifold_targets::{PublishConfig, Published, Publisher};
use metrifold_telemetry::State;

use crate::config::{Config, ProviderTable};

use super::build::{BuildErrors, Workshop, guarded};
use super::supervise::{self, Rebuild, Run, Subject, Supervised, Task};

/// The running providers and publishers.
#[derive(Default)]
pub(super) struct Discovery {
    providers: BTreeMap<Arc<str>, Running<Slot>>,
    publishers: BTreeMap<Arc<str>, Running<Published>>,
}

struct Running<T> {
    known: Arc<T>,
    /// Dropping the task ends it: neither a provider nor a publisher has work to finish.
    _task: Task<()>,
    _stop: ShutdownTrigger,
}

/// The running providers and publishers that new ones are built beside.
#[derive(Default)]
pub(super) struct PresentDiscovery {
    slots: BTreeMap<Arc<str>, Arc<Slot>>,
    published: BTreeMap<Arc<str>, Arc<Published>>,
}

/// The built providers and publishers.
pub(super) struct NextDiscovery {
    /// Handles to all providers.
    pub(super) handles: Handles,
    /// New and changed providers.
    providers: BTreeMap<Arc<str>, Box<dyn Provider>>,
    /// All published lists, kept ones included.
    published: BTreeMap<Arc<str>, Arc<Published>>,
    /// New and changed publishers.
    publishers: BTreeMap<Arc<str>, Publisher>,
}

impl Workshop {
    /// The services that a provider is built with.
    fn provider(&self, name: &Arc<str>) -> ProviderContext {
        ProviderContext {
            name: name.clone(),
            shared: self.directory.shared().clone(),
            telemetry: self.telemetry.clone(),
            changes: true,
        }
    }

    /// Builds the new and changed providers and publishers.
    pub(super) fn discovery(
        &self,
        config: &Config,
        old: Option<&Config>,
        present: PresentDiscovery,
        errors: &mut BuildErrors,
    ) -> NextDiscovery {
        let same = |name: &str| old.is_some_and(|old| old.tables.same(&config.tables, name));
        let mut slots = BTreeMap::new();
        let mut providers = BTreeMap::new();
        for (name, table) in config.tables.providers() {
            let name: Arc<str> = name.into();
            let full = format!("discovery.{name}");
            if let Some(slot) = present.slots.get(&name) {
                slots.insert(name.clone(), slot.clone());
                if same(&full) {
                    continue;
                }
            }
            let cx = self.provider(&name);
            match guarded(|| table.config.build(&cx)) {
                Ok(provider) => {
                    let slot = || Slot::new(name.clone(), options(config, table), &self.telemetry);
                    slots.entry(name.clone()).or_insert_with(slot);
                    providers.insert(name, provider);
                }
                Err(error) => errors.push((full.into(), error)),
            }
        }
        let handles = Handles::new(slots);
        let mut published = BTreeMap::new();
        let mut publishers = BTreeMap::new();
        for (name, table) in config.tables.named::<PublishConfig>() {
            let name: Arc<str> = name.into();
            let full = format!("publish.{name}");
            if let Some(known) = present.published.get(&name).filter(|_| same(&full)) {
                published.insert(name, known.clone());
                continue;
            }
            let built = guarded(|| {
                let known = table.published(&name, &self.telemetry)?;
                let targets = handles.targets(&known.discovery)?;
                let publisher = Publisher::build(&known, targets, &self.listeners, &self.access)?;
                Ok((known, publisher))
            });
            match built {
                Ok((known, publisher)) => {
                    published.insert(name.clone(), known);
                    publishers.insert(name, publisher);
                }
                Err(error) => errors.push((full.into(), error)),
            }
        }
        NextDiscovery {
            handles,
            providers,
            published,
            publishers,
        }
    }
}

/// Settings of a provider's slot.
fn options(config: &Config, table: &ProviderTable) -> SlotOptions {
    SlotOptions {
        type_name: table.type_name.clone(),
        question: table.config.question(),
        limits: table.config.limits(),
        on_empty: table.config.on_empty(),
        folder: config.data_dir.as_ref().map(|it| it.join("discovery")),
    }
}

impl Discovery {
    /// A snapshot of the running part for the next build.
    pub(super) fn present(&self) -> PresentDiscovery {
        let providers = self.providers.iter();
        let publishers = self.publishers.iter();
        PresentDiscovery {
            slots: providers
                .map(|(name, it)| (name.clone(), it.known.clone()))
                .collect(),
            published: publishers
                .map(|(name, it)| (name.clone(), it.known.clone()))
                .collect(),
        }
    }

    /// Switches to the built providers and publishers, and ends those that the configuration does
    /// not have. Cannot fail.
    pub(super) fn commit(&mut self, next: NextDiscovery, config: &Config, workshop: &Workshop) {
        let NextDiscovery {
            handles,
            mut providers,
            published,
            mut publishers,
        } = next;
        self.providers
            .retain(|name, _| handles.get(name).is_some() && !providers.contains_key(name));
        for (name, table) in config.tables.providers() {
            let (Some(slot), Some(provider)) = (handles.get(name), providers.remove(name)) else {
                continue;
            };
            let options = options(config, table);
            let running = start_provider(
                slot,
                provider,
                table.config.clone(),
                options,
                workshop.provider(&Arc::from(name)),
                &workshop.listeners,
            );
            self.providers.insert(name.into(), running);
        }
        // A publisher takes over its predecessor's path before the predecessor ends.
        for (name, known) in &published {
            if let Some(publisher) = publishers.remove(name) {
                let running = start_publisher(known, publisher, &handles, workshop);
                self.publishers.insert(name.clone(), running);
            }
        }
        self.publishers
            .retain(|name, _| published.contains_key(name));
        workshop.directory.set(handles, published);
    }

    /// Ends all providers and publishers.
    pub(super) async fn stop(&mut self) {
        self.publishers.clear();
        let providers = std::mem::take(&mut self.providers).into_values();
        let slots: Vec<_> = providers.map(|provider| provider.known.clone()).collect();
        // An error means that the runtime shuts down.
        let _ = tokio::task::spawn_blocking(move || {
            for slot in slots {
                slot.flush();
            }
        })
        .await;
    }
}

fn start_provider(
    slot: &Arc<Slot>,
    provider: Box<dyn Provider>,
    config: Arc<dyn ProviderConfig>,
    options: SlotOptions,
    cx: ProviderContext,
    listeners: &Listeners,
) -> Running<Slot> {
    let run = |slot: &Arc<Slot>, provider, options: &SlotOptions| -> Run {
        let feed = slot.take_over(options.clone());
        Box::new(move || Box::pin(metrifold_discovery::run(provider, feed)))
    };
    let first = run(slot, provider, &options);
    let rebuild: Rebuild = {
        let slot = slot.clone();
        Box::new(move || Ok(run(&slot, config.build(&cx)?, &options)))
    };
    let subject = Box::new(Supervisee(slot.clone()));
    start(slot, slot.name(), subject, first, rebuild, listeners)
}

fn start_publisher(
    known: &Arc<Published>,
    publisher: Publisher,
    handles: &Handles,
    workshop: &Workshop,
) -> Running<Published> {
    let run = |publisher: Publisher| -> Run { Box::new(move || publisher.run()) };
    let rebuild: Rebuild = {
        let (known, handles) = (known.clone(), handles.clone());
        let (listeners, access) = (workshop.listeners.clone(), workshop.access.clone());
        Box::new(move || -> Result<Run, BuildError> {
            let targets = handles.targets(&known.discovery)?;
            let publisher = Publisher::build(&known, targets, &listeners, &access)?;
            Ok(run(publisher))
        })
    };
    let subject = Box::new(Supervisee(known.clone()));
    let listeners = &workshop.listeners;
    start(
        known,
        &known.name,
        subject,
        run(publisher),
        rebuild,
        listeners,
    )
}

fn start<T>(
    known: &Arc<T>,
    name: &Arc<str>,
    subject: Box<dyn Subject>,
    first: Run,
    rebuild: Rebuild,
    listeners: &Listeners,
) -> Running<T> {
    let (stop, stopped) = ShutdownTrigger::new();
    let task = supervise::spawn(Supervised {
        id: name.clone(),
        subject,
        first: Some(first),
        rebuild,
        listeners: listeners.clone(),
        shutdown: stopped,
    });
    Running {
        known: known.clone(),
        _task: task,
        _stop: stop,
    }
}

/// A provider or a publisher under supervision.
struct Supervisee<T>(Arc<T>);

impl Subject for Supervisee<Slot> {
    fn kind(&self) -> &'static str {
        "discovery"
    }

    fn set(&self, state: State) {
        self.0.set_state(state);
    }

    fn failed(&self, _kind: &'static str, reason: &str) {
        self.0.died(reason);
    }
}

impl Subject for Supervisee<Published> {
    fn kind(&self) -> &'static str {
        "publish"
    }

    fn set(&self, state: State) {
        self.0.set_state(state);
    }

    fn failed(&self, _kind: &'static str, reason: &str) {
        self.0.died(reason);
    }
}
