//! A panic in a component's task ends only that task: the component is built anew and goes on.
//!
//! No configuration makes a component panic, so that each runs in the test's own process, wrapped
//! in a component that panics on demand. The wrapped component is dropped wherever it waits, as if
//! it had panicked there.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use metrifold_access::Gate;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown};
use metrifold_codec::remote_write::CompanionBounds;
use metrifold_engine::component::{
    BuildContext, BuildSink, BuildSource, Buildable, MetricsSink, Resource, SinkConfig, SinkPort,
    SourceConfig, SourcePort,
};
use metrifold_engine::config::{Config, parse_str};
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::planes::metrics::{Form, Transform};
use metrifold_engine::planes::{Edge, Plane, Sink, Source};
use metrifold_engine::topology::{Built, Running};
use metrifold_http::Listeners;
use metrifold_model::Kind;
use metrifold_queue::QueueConfig;
use metrifold_targets::Directory;
use metrifold_telemetry::Telemetry;
use metrifold_testing::{PATIENCE, free_address, until_so};

use crate::each;
use crate::recipes::{Arrives, Recipe};
use crate::rig::{Feeder, Place, metric_of};

#[test]
fn a_panic_ends_its_task_alone_and_it_goes_on() {
    each(|recipe| {
        if recipe.kind == Kind::Transform {
            return Err("it has no task: the stage guards its calls, as the engine's tests show");
        }
        let inside = Inside::start(recipe);
        inside.until_taken(1);
        for times in 1..=2 {
            inside.order.notify_one();
            until_so("it is built anew", || {
                inside.subject("component_restarts_total") == f64::from(times)
                    && inside.subject("component_up") == 1.0
            });
            inside.until_taken(1 + i64::from(times));
        }
        inside.stop();
        Ok(())
    });
}

/// The component running in this process.
struct Inside {
    runtime: Runtime,
    running: Running,
    feeder: Feeder,
    place: Place,
    recipe: &'static Recipe,
    order: Arc<Notify>,
}

impl Inside {
    fn start(recipe: &'static Recipe) -> Self {
        let place = Place::new();
        let ingest = free_address();
        let text = place.config(recipe, &(recipe.keys)(&place), "");
        let text = text.replace("INGEST", &ingest.to_string());
        let loaded = parse_str("test.toml", &text, &|_: &str| None);
        let mut config = loaded.map_err(|found| format!("{found:?}")).unwrap().config;
        let order = Arc::new(Notify::new());
        breakable(&mut config, recipe.kind, &order);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let built = Built::build(
            Arc::new(config),
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
            feeder: Feeder::new(ingest, &place, recipe),
            runtime,
            running,
            place,
            recipe,
            order,
        }
    }

    /// Feeds the unit of this number until it is accepted, as a retrying sender does.
    fn until_taken(&self, number: i64) {
        until_so("it is taken", || self.feeder.feed(number));
        until_so("it has arrived", || self.has_arrived(number));
    }

    fn has_arrived(&self, number: i64) -> bool {
        let mut recipe = Recipe { ..*self.recipe };
        if recipe.arrives == Arrives::Printed {
            // Printed output would be mixed with that of the test.
            recipe.arrives = Arrives::Nowhere;
        }
        self.place.has(&recipe, number, |name| self.subject(name))
    }

    fn subject(&self, name: &str) -> f64 {
        let page = self.running.telemetry().render();
        metric_of(&page, &format!("metrifold_{name}"), "subject")
    }

    fn stop(self) {
        let left = self.runtime.block_on(self.running.stop(PATIENCE));
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Wraps `subject` in a component that panics on demand.
fn breakable(config: &mut Config, kind: Kind, order: &Arc<Notify>) {
    let order = order.clone();
    match kind {
        Kind::Source => {
            let subject = config.sources.get_mut("subject").unwrap();
            let inner = subject.config.clone();
            subject.config = Arc::new(Breakable { inner, order });
        }
        Kind::Sink => {
            let subject = config.sinks.get_mut("subject").unwrap();
            let inner = subject.config.clone();
            subject.config = Arc::new(Breakable { inner, order });
        }
        Kind::Transform => unreachable!("it has no task"),
    }
}

/// A component, or the configuration of one, that panics on demand.
#[derive(Debug)]
struct Breakable<T> {
    inner: T,
    order: Arc<Notify>,
}

/// Runs the component until the order to panic comes.
async fn until_ordered(
    run: BoxFuture<Result<(), RunError>>,
    order: Arc<Notify>,
) -> Result<(), RunError> {
    tokio::select! {
        biased;
        () = order.notified() => panic!("as ordered"),
        ended = run => ended,
    }
}

impl<P: Plane> Source<P> for Breakable<Box<dyn Source<P>>> {
    fn run(self: Box<Self>, out: P::Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(until_ordered(self.inner.run(out, shutdown), self.order))
    }
}

impl<P: Plane> Sink<P> for Breakable<Box<dyn Sink<P>>> {
    fn run(
        self: Box<Self>,
        input: <P::Edge as Edge>::Input,
        shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(until_ordered(self.inner.run(input, shutdown), self.order))
    }
}

impl SourceConfig for Breakable<Arc<dyn SourceConfig>> {
    /// Never read from a file.
    fn typetag_deserialize(&self) {}

    fn port(&self) -> SourcePort<'_> {
        match self.inner.port() {
            SourcePort::Metrics(_) => SourcePort::Metrics(self),
            SourcePort::Queries(_) => SourcePort::Queries(self),
            SourcePort::Rules(_) => SourcePort::Rules(self),
        }
    }

    fn resources(&self) -> Vec<Resource> {
        self.inner.resources()
    }

    fn files(&self) -> Vec<&Path> {
        self.inner.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.inner.validate(problems);
    }
}

impl<P: Buildable> BuildSource<P> for Breakable<Arc<dyn SourceConfig>> {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<P>>, BuildError> {
        let inner = P::source(self.inner.port()).unwrap().build(cx)?;
        let order = self.order.clone();
        Ok(Box::new(Breakable { inner, order }))
    }
}

impl SinkConfig for Breakable<Arc<dyn SinkConfig>> {
    /// Never read from a file.
    fn typetag_deserialize(&self) {}

    fn port(&self) -> SinkPort<'_> {
        match self.inner.port() {
            SinkPort::Metrics(_) => SinkPort::Metrics(self),
            SinkPort::Queries(_) => SinkPort::Queries(self),
            SinkPort::Rules(_) => SinkPort::Rules(self),
        }
    }

    fn resources(&self) -> Vec<Resource> {
        self.inner.resources()
    }

    fn files(&self) -> Vec<&Path> {
        self.inner.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.inner.validate(problems);
    }
}

impl<P: Buildable> BuildSink<P> for Breakable<Arc<dyn SinkConfig>> {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<P>>, BuildError> {
        let inner = P::sink(self.inner.port()).unwrap().build(cx)?;
        let order = self.order.clone();
        Ok(Box::new(Breakable { inner, order }))
    }
}

impl Breakable<Arc<dyn SinkConfig>> {
    fn metrics(&self) -> &dyn MetricsSink {
        self.inner.metrics().unwrap()
    }
}

impl MetricsSink for Breakable<Arc<dyn SinkConfig>> {
    fn required(&self) -> bool {
        self.metrics().required()
    }

    fn queue(&self) -> QueueConfig {
        self.metrics().queue()
    }

    fn form(&self) -> Form {
        self.metrics().form()
    }

    fn checks_series(&self) -> bool {
        self.metrics().checks_series()
    }

    fn companions(&self) -> CompanionBounds {
        self.metrics().companions()
    }

    fn before(&self, cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        self.metrics().before(cx)
    }
}
