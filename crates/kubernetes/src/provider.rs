//! The provider: follows the objects of its role, and reports changed targets.
//!
//! Each object with targets is a source of its own, as in Prometheus, so that a change of one
//! object does not touch the others. Each watch is a source without targets, which fails while the
//! watch is broken. The targets of a namespace are reported once everything that they depend on has
//! been listed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError};
use metrifold_discovery::{
    Failure, Feed, Limits, OnEmpty, Provider, ProviderConfig, ProviderContext, ProviderInfo, Reason,
};

use crate::config::KubernetesConfig;
use crate::connect::Cluster;
use crate::kind::Kind;
use crate::objects::{
    EndpointSlice, Endpoints, Ingress, Job, Namespace, Node, Object, Pod, ReplicaSet, Service,
};
use crate::roles::Maker;
use crate::transport::Health;
use crate::watch::{Change, Watch};
use crate::world::{World, is_in};

/// Capacity of the channel of changes; when it is full, watches wait.
const WAITING: usize = 256;

/// Least time between two reports; a single change is reported at once.
const APART: Duration = Duration::from_millis(100);

/// Interval of reports while nothing changes.
const STILL: Duration = Duration::from_secs(15);

/// Number of changed objects from which targets are built on a blocking thread.
const MANY: usize = 100;

inventory::submit! {
    ProviderInfo {
        name: "kubernetes",
        summary: "endpoints, pods, services, nodes or ingresses of a Kubernetes cluster, as Prometheus' kubernetes_sd_configs",
        keys: KubernetesConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "kubernetes")]
impl ProviderConfig for KubernetesConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // An object that is gone, or has no targets any more, is a valid answer.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        self.asks()
    }

    fn files(&self) -> Vec<&Path> {
        KubernetesConfig::files(self)
    }

    fn validate(&self, problems: &mut Problems) {
        self.check(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let cluster = self.connect.cluster()?;
        let namespaces = cluster.namespaces(&self.namespaces, self.own_namespace)?;
        Ok(Box::new(Kubernetes {
            config: self.clone(),
            cluster,
            namespaces,
        }))
    }
}

/// A followed cluster.
struct Kubernetes {
    config: KubernetesConfig,
    cluster: Cluster,
    /// Empty: all namespaces.
    namespaces: Vec<String>,
}

/// One watch: of a kind, in one namespace or in all.
struct Place {
    kind: Kind,
    namespace: Option<String>,
    /// Name of the watch as a source.
    source: Arc<str>,
    health: Health,
    /// Whether the watch has listed all its objects once.
    listed: bool,
    /// Error of the watch; None while it works.
    failure: Option<Failure>,
    /// Whether the error has changed since it was reported.
    news: bool,
}

impl Place {
    fn new(kind: Kind, namespace: Option<String>) -> Self {
        let role = kind.role();
        let source = match &namespace {
            Some(namespace) => format!("watch of {role} in {namespace}"),
            None => format!("watch of {role}"),
        };
        Self {
            kind,
            namespace,
            source: source.into(),
            health: Health::default(),
            listed: false,
            failure: None,
            news: false,
        }
    }

    /// Records the state of the watch.
    fn note(&mut self, failure: Option<Failure>) {
        self.failure = failure;
        self.news = true;
    }
}

impl Provider for Kubernetes {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let (tell, changes) = mpsc::channel(WAITING);
            let places = self.places();
            let max_bytes = feed.limits().answer_bytes;
            let mut watches = JoinSet::new();
            for (at, place) in places.iter().enumerate() {
                self.follow(at, place, max_bytes, tell.clone(), &mut watches);
            }
            drop(tell);
            Follower {
                role: self.config.role.kind(),
                max_objects: self.config.max_objects,
                world: Some(World::new(Maker::new(&self.config))),
                places,
                restored: true,
                feed,
            }
            .run(changes)
            .await
        })
    }
}

impl Kubernetes {
    /// All watches of the provider.
    fn places(&self) -> Vec<Place> {
        let mut kinds = vec![self.config.role.kind()];
        kinds.extend(self.config.joined());
        let mut places = Vec::new();
        for kind in kinds {
            match self.namespaces.is_empty() || !kind.is_namespaced() {
                true => places.push(Place::new(kind, None)),
                false => {
                    let namespaces = self.namespaces.iter().cloned();
                    places.extend(namespaces.map(|it| Place::new(kind, Some(it))));
                }
            }
        }
        places
    }

    fn follow(
        &self,
        at: usize,
        place: &Place,
        max_bytes: usize,
        tell: mpsc::Sender<(usize, Change<Object>)>,
        watches: &mut JoinSet<()>,
    ) {
        let health = place.health.clone();
        let client = self.cluster.client(health.clone(), max_bytes);
        let selectors = self.config.selectors(place.kind);
        let (timeout, max_objects) = (self.config.watch_timeout, self.config.max_objects);
        macro_rules! follow {
            ($kind:ty, $api:expr) => {{
                let watch = Watch::<$kind> {
                    api: $api,
                    selectors,
                    timeout,
                    max_objects,
                    health,
                };
                watches.spawn(watch.follow(at, tell));
            }};
        }
        macro_rules! namespaced {
            ($kind:ty) => {
                match &place.namespace {
                    Some(namespace) => follow!($kind, Api::namespaced(client, namespace)),
                    None => follow!($kind, Api::all(client)),
                }
            };
        }
        match place.kind {
            Kind::EndpointSlice => namespaced!(EndpointSlice),
            Kind::Endpoints => namespaced!(Endpoints),
            Kind::Pod => namespaced!(Pod),
            Kind::Service => namespaced!(Service),
            Kind::Ingress => namespaced!(Ingress),
            Kind::ReplicaSet => namespaced!(ReplicaSet),
            Kind::Job => namespaced!(Job),
            Kind::Node => follow!(Node, Api::all(client)),
            Kind::Namespace => follow!(Namespace, Api::all(client)),
        }
    }
}

/// Applies the changes of all watches.
struct Follower {
    role: Kind,
    max_objects: usize,
    /// None while a blocking thread builds targets.
    world: Option<World>,
    places: Vec<Place>,
    /// Whether the feed may have restored sources of another query.
    restored: bool,
    feed: Feed,
}

impl Follower {
    async fn run(
        mut self,
        mut changes: mpsc::Receiver<(usize, Change<Object>)>,
    ) -> Result<(), RunError> {
        let mut still = interval(STILL);
        still.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        let mut some = Vec::new();
        loop {
            tokio::select! {
                _ = still.tick() => {
                    if self.is_well() && self.feed.is_content() {
                        self.feed.same();
                    }
                    continue;
                }
                heard = changes.recv_many(&mut some, WAITING) => if heard == 0 {
                    return Err(RunError("all watches have ended".to_owned()));
                },
            }
            // Simultaneous changes are reported together.
            tokio::time::sleep_until(told + APART).await;
            while let Ok(change) = changes.try_recv() {
                some.push(change);
                if some.len() >= WAITING {
                    break;
                }
            }
            self.take(&mut some).await?;
            told = Instant::now();
        }
    }

    fn is_well(&self) -> bool {
        self.places
            .iter()
            .all(|it| it.listed && it.failure.is_none())
    }

    /// Namespaces that have not been listed completely; an item is None for all namespaces.
    fn unlisted(&self) -> Vec<Option<String>> {
        let unlisted = self.places.iter().filter(|it| !it.listed);
        unlisted.map(|it| it.namespace.clone()).collect()
    }

    async fn take(&mut self, some: &mut Vec<(usize, Change<Object>)>) -> Result<(), RunError> {
        let mut listed = false;
        let Some(mut world) = self.world.take() else {
            return Err(RunError("the state of the cluster is lost".to_owned()));
        };
        for (at, change) in some.drain(..) {
            let Some(place) = self.places.get_mut(at) else {
                continue;
            };
            match change {
                Change::Listed(objects) => {
                    world.list(place.kind, place.namespace.as_deref(), objects);
                    place.listed = true;
                    listed = true;
                    place.note(None);
                }
                Change::Applied(object) => {
                    if world.count(place.kind) >= self.max_objects && !world.has(&object) {
                        let most = self.max_objects;
                        let text = format!("there are more than {most} objects: see max_objects");
                        place.note(Some(Failure::new(Reason::TooLarge, text)));
                        // Lists are tried until all objects fit: then this one is not missing.
                        place.health.relist();
                    } else {
                        world.apply(object);
                    }
                }
                Change::Deleted(object) => world.delete(object.kind(), &object.key()),
                Change::Failed(failure) => place.note(Some(failure)),
                Change::Recovered => place.note(None),
            }
        }
        // Until each watch has answered once, a partial result would look complete.
        let waits = |place: &Place| !place.listed && place.failure.is_none();
        if self.places.iter().any(waits) {
            self.world = Some(world);
            return Ok(());
        }
        let news = self.places.iter_mut().filter(|place| place.news);
        let news = news.map(|place| {
            place.news = false;
            let answer = place.failure.clone().map_or(Ok(Vec::new()), Err);
            (place.source.clone(), answer)
        });
        let answers: Vec<_> = news.collect();
        let unlisted = self.unlisted();
        let gone = match listed || self.restored {
            true => self.vanished(&world),
            false => Vec::new(),
        };
        let (role, feed) = (self.role, self.feed.clone());
        let of_role = self.places.iter().find(|place| place.kind == role);
        let of_role = of_role.map(|place| place.source.clone());
        let most = feed.limits().targets;
        let tell = move |mut world: World| {
            let mut answers = answers;
            let mut gone = gone;
            let made = world.make(|key| is_ready(&unlisted, key));
            if world.targets() > most {
                // Reported once, not for each object.
                let text = format!(
                    "there are {} targets: max_targets is {most}",
                    world.targets()
                );
                let failure = Failure::new(Reason::TooLarge, text);
                answers.retain(|(source, _)| Some(source) != of_role.as_ref());
                answers.extend(of_role.map(|source| (source, Err(failure))));
                world.put_off(made);
                feed.change(answers, gone);
                return world;
            }
            for (key, targets) in made {
                let source = source(role, &key);
                match targets {
                    Some(targets) => answers.push((source, Ok(targets))),
                    None => gone.push(source),
                }
            }
            if !answers.is_empty() || !gone.is_empty() {
                feed.change(answers, gone);
            }
            world
        };
        let world = match world.dirty() >= MANY {
            false => tell(world),
            true => {
                let told = tokio::task::spawn_blocking(move || tell(world)).await;
                told.map_err(|error| RunError(error.to_string()))?
            }
        };
        if world.targets() > most {
            // Repeated or withdrawn with the next report.
            let of_role = self.places.iter_mut().find(|place| place.kind == role);
            of_role.into_iter().for_each(|place| place.news = true);
        }
        self.world = Some(world);
        Ok(())
    }

    /// Known sources, of a previous run or another query, whose objects no longer exist. Those of a
    /// namespace that has not been listed are not among them.
    fn vanished(&mut self, world: &World) -> Vec<Arc<str>> {
        let all = self.places.iter().all(|it| it.listed);
        if !self.restored {
            return Vec::new();
        }
        self.restored = !all;
        let prefix = format!("{}/", self.role.source());
        let unlisted = self.unlisted();
        let is_gone = |source: &Arc<str>| match source.strip_prefix(&prefix) {
            Some(key) => is_ready(&unlisted, key) && !world.knows(key),
            None => all && !self.places.iter().any(|it| it.source == *source),
        };
        let known = self.feed.sources().into_iter();
        known.filter(is_gone).collect()
    }
}

/// Whether everything that an object's targets depend on has been listed.
fn is_ready(unlisted: &[Option<String>], key: &str) -> bool {
    !unlisted
        .iter()
        .any(|namespace| is_in(key, namespace.as_deref()))
}

/// Source name of an object, as in Prometheus.
fn source(role: Kind, key: &str) -> Arc<str> {
    format!("{}/{key}", role.source()).into()
}
