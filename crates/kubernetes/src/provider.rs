//! The provider: follows what its role asks for, and tells what has changed.
//!
//! Each object that has targets is a source of its own, as in Prometheus, so that a change of one costs
//! no look at the others. Each watch is a source without targets, which fails while nothing is heard of
//! it. The targets of a namespace are told once everything has been listed that they are made of.

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

/// Changes that wait to be taken in: more have the watches wait.
const WAITING: usize = 256;

/// The time between two times that something is told: a change that comes alone is told at once.
const APART: Duration = Duration::from_millis(100);

/// How often it is told that nothing has changed.
const STILL: Duration = Duration::from_secs(15);

/// From so many objects on, their targets are made where it keeps nobody waiting.
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
        // That an object is gone, or has no target any more, is an answer.
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

/// A cluster that is followed.
struct Kubernetes {
    config: KubernetesConfig,
    cluster: Cluster,
    /// None: all of them.
    namespaces: Vec<String>,
}

/// One watch: a kind, in a namespace or in all.
struct Place {
    kind: Kind,
    namespace: Option<String>,
    /// What it is called among the sources.
    source: Arc<str>,
    /// Whether everything has been listed once.
    listed: bool,
    /// Why nothing is heard of it.
    failure: Option<Failure>,
    /// Whether that is other than what was told.
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
            listed: false,
            failure: None,
            news: false,
        }
    }

    /// Notes that it is heard, or why not.
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
    /// Everything that is watched.
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
        let health = Health::default();
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

/// What takes in the changes of all watches.
struct Follower {
    role: Kind,
    max_objects: usize,
    /// Elsewhere while many targets are made.
    world: Option<World>,
    places: Vec<Place>,
    /// Whether sources may be known that are of another question.
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
            // What comes together is told together.
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

    /// The namespaces of which something has not been listed yet; none for all of them.
    fn unlisted(&self) -> Vec<Option<String>> {
        let unlisted = self.places.iter().filter(|it| !it.listed);
        unlisted.map(|it| it.namespace.clone()).collect()
    }

    async fn take(&mut self, some: &mut Vec<(usize, Change<Object>)>) -> Result<(), RunError> {
        let mut listed = false;
        let Some(mut world) = self.world.take() else {
            return Err(RunError("what is known of the cluster is lost".to_owned()));
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
                    } else {
                        world.apply(object);
                    }
                }
                Change::Deleted(object) => world.delete(object.kind(), &object.key()),
                Change::Failed(failure) => place.note(Some(failure)),
                Change::Recovered => place.note(None),
            }
        }
        // Before each watch has been heard of, half an answer would pass for a whole one.
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
                // Told once, and not of each object.
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
            // Said again, or taken back, with what is told next.
            let of_role = self.places.iter_mut().find(|place| place.kind == role);
            of_role.into_iter().for_each(|place| place.news = true);
        }
        self.world = Some(world);
        Ok(())
    }

    /// The sources that are known, of a run before or of another question, and are there no more. Of a
    /// namespace that has not been listed, nothing is known.
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

/// Whether everything has been listed that targets of an object are made of.
fn is_ready(unlisted: &[Option<String>], key: &str) -> bool {
    !unlisted
        .iter()
        .any(|namespace| is_in(key, namespace.as_deref()))
}

/// What the source of an object is called, as Prometheus calls it.
fn source(role: Kind, key: &str) -> Arc<str> {
    format!("{}/{key}", role.source()).into()
}
