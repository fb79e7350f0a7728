//! After any sequence of edits, a running graph behaves like one started fresh from the last valid
//! configuration.
//!
//! The components are the test's own: they record from what they were built and what they received.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown};
use metrifold_codec::remote_write::Limits;
use metrifold_codec::{Batch, Name};
use metrifold_engine::component::{
    BuildContext, BuildSink, BuildSource, BuildTransform, ComponentInfo, MetricsSink, SinkConfig,
    SinkPort, SourceConfig, SourcePort, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{
    Emitter, Form, Input, Metrics, Needs, Output, Plan, Transform,
};
use metrifold_engine::planes::{Sink, Source};
use metrifold_model::{Ack, Kind, Origin, Outcome, Rejection, Until, Version};
use metrifold_testing::{Random, body, one, until_so};

use crate::components::FOR_TESTS;
use crate::in_process::Live;

/// An order to a source: the name of the series to send, and the channel for its outcome.
type Order = (String, oneshot::Sender<Outcome>);

/// Running sources by name; names are unique in this process.
static SOURCES: LazyLock<Mutex<HashMap<String, Sender<Order>>>> = LazyLock::new(Mutex::default);
/// Series received by each sink, by name of the sink: names and paths.
static SINKS: LazyLock<Mutex<HashMap<String, Came>>> = LazyLock::new(Mutex::default);
type Came = Vec<(String, String)>;
/// Number of times that a component was built, by name.
static BUILT: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

/// Configuration of all components of this test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Distinguishes configurations that are otherwise equal.
    #[serde(default)]
    version: usize,
    /// Whether its build fails.
    #[serde(default)]
    broken: bool,
    #[serde(default)]
    required: bool,
    /// Whether it emits to the outputs `even` and `odd`.
    #[serde(default)]
    fork: bool,
}

impl Config {
    /// The mark on series that pass through.
    fn mark(&self, cx: &BuildContext) -> Result<String, BuildError> {
        *BUILT.lock().unwrap().entry(cx.id.to_string()).or_default() += 1;
        if self.broken {
            return Err(BuildError::new("broken", "as configured"));
        }
        Ok(format!("/{}.{}", cx.id, self.version))
    }
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct TestSource(Config);

#[typetag::deserialize(name = "versioned")]
impl SourceConfig for TestSource {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn validate(&self, _: &mut Problems) {}
}

impl BuildSource<Metrics> for TestSource {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        Ok(Box::new(Ordered(cx.id.clone(), self.0.mark(cx)?)))
    }
}

/// Sends a series per order, one after the other.
struct Ordered(Arc<str>, String);

impl Source<Metrics> for Ordered {
    fn run(self: Box<Self>, out: Output, mut stop: Shutdown) -> BoxFuture<Result<(), RunError>> {
        let Self(id, mark) = *self;
        let (orders, mut receiver): (_, Receiver<Order>) = channel(16);
        SOURCES.lock().unwrap().insert(id.to_string(), orders);
        Box::pin(async move {
            loop {
                let order = tokio::select! {
                    order = receiver.recv() => order,
                    () = stop.wait() => return Ok(()),
                };
                // A successor has replaced it in the list, and its shutdown will follow.
                let Some((name, told)) = order else {
                    stop.wait().await;
                    return Ok(());
                };
                let series = [one(&name, 1).label("way", &mark)];
                let origin = Arc::new(Origin::internal(id.clone()));
                let body = body(&series).into();
                let mut batch = Batch::from_body(Version::V1, body, Limits::default(), origin);
                let (ack, mut waiter) = Ack::new(Until::Delivered);
                batch.set_ack(ack);
                out.send(batch, Needs::Nothing).await.unwrap();
                let _ = told.send(waiter.verdict().await);
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct TestTransform(Config);

#[typetag::deserialize(name = "versioned")]
impl TransformConfig for TestTransform {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn outputs(&self) -> Vec<String> {
        match self.0.fork {
            true => vec!["even".into(), "odd".into()],
            false => Vec::new(),
        }
    }

    fn validate(&self, _: &mut Problems) {}
}

impl BuildTransform<Metrics> for TestTransform {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(Marking(self.0.mark(cx)?, self.0.fork)))
    }
}

/// Appends its mark to the path of all series.
#[derive(Debug)]
struct Marking(String, bool);

fn label(series: &metrifold_codec::SeriesRef<'_>, name: &str) -> String {
    let value = series.get(&Name::new(name)).unwrap_or_default();
    String::from_utf8(value.to_vec()).unwrap()
}

impl Transform for Marking {
    fn plan(&self, _batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        Ok(Plan::Split(Box::new(|batch, out| self.apply(batch, out))))
    }
}

impl Marking {
    fn apply(&self, mut batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection> {
        let way = Name::new("way");
        let mut odd = false;
        let edited = batch.edit(|arena| {
            arena.retain(|series| {
                let before = series.get(&way).unwrap_or_default();
                let longer = [before, self.0.as_bytes()].concat();
                series.set(&way, &longer);
                let name = series.get(&Name::new("__name__")).unwrap_or_default();
                odd = name.last().is_some_and(|byte| byte % 2 == 1);
                true
            });
        });
        edited.unwrap();
        match self.1 {
            true => out.emit_to(usize::from(odd), batch),
            false => out.emit(batch),
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct TestSink(Config);

#[typetag::deserialize(name = "versioned")]
impl SinkConfig for TestSink {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn validate(&self, _: &mut Problems) {}
}

impl MetricsSink for TestSink {
    fn required(&self) -> bool {
        self.0.required
    }

    fn form(&self) -> Form {
        Form::Decoded
    }
}

impl BuildSink<Metrics> for TestSink {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        Ok(Box::new(Collecting(cx.id.clone(), self.0.mark(cx)?)))
    }
}

/// Collects the received series, with its mark.
struct Collecting(Arc<str>, String);

impl Sink<Metrics> for Collecting {
    fn run(self: Box<Self>, input: Input, _: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            while let Some(mut delivery) = input.recv().await {
                let arena = delivery.batch.arena().unwrap();
                let came = arena.iter().map(|series| {
                    let way = label(&series, "way") + &self.1;
                    (label(&series, "__name__"), way)
                });
                let came: Vec<_> = came.collect();
                let mut sinks = SINKS.lock().unwrap();
                sinks.entry(self.0.to_string()).or_default().extend(came);
                drop(sinks);
                delivery.delivered();
            }
            Ok(())
        })
    }
}

macro_rules! register {
    ($($kind:ident),*) => {$(
        inventory::submit! {
            ComponentInfo { kind: Kind::$kind, name: "versioned", summary: FOR_TESTS, keys: &[] }
        }
    )*};
}
register!(Source, Transform, Sink);

/// A component of a model, with its inputs by index of component and output.
#[derive(Clone, Debug)]
struct Part {
    kind: Kind,
    /// `@` stands for the suffix that makes names unique.
    id: String,
    version: usize,
    required: bool,
    fork: bool,
    inputs: Vec<(usize, usize)>,
}

/// A graph: sources, then transforms that each read components in front of them, then sinks.
#[derive(Clone, Debug, Default)]
struct Model(Vec<Part>);

impl Model {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(move |part| part.kind == kind)
    }

    fn text(&self, name: &str) -> String {
        let mut text = String::new();
        for part in &self.0 {
            let Part { id, version, .. } = part;
            text += &format!(
                "[{}.{id}]\ntype = \"versioned\"\nversion = {version}\n",
                part.kind.table()
            );
            let mut inputs: Vec<String> = Vec::new();
            for &(at, output) in &part.inputs {
                let from = &self.0[at];
                let input = match from.fork {
                    true => format!("{}.{}", from.id, ["even", "odd"][output]),
                    false => from.id.clone(),
                };
                if !inputs.contains(&input) {
                    inputs.push(input);
                }
            }
            if part.kind != Kind::Source {
                text += &format!("inputs = {inputs:?}\n");
            }
            text += &format!("required = {}\nfork = {}\n", part.required, part.fork);
        }
        text.replace('@', name)
    }

    /// A random part that reads components in front of `at`.
    fn part(random: &mut Random, kind: Kind, n: usize, at: usize) -> Part {
        // A name may have belonged to another kind of component in an earlier graph.
        Part {
            kind,
            id: format!("c@x{n}"),
            version: random.below(3),
            required: kind == Kind::Sink && random.chance(50),
            fork: kind == Kind::Transform && random.chance(30),
            inputs: Self::inputs(random, kind, at),
        }
    }

    fn inputs(random: &mut Random, kind: Kind, at: usize) -> Vec<(usize, usize)> {
        match kind {
            Kind::Source => Vec::new(),
            _ => (0..=random.below(3))
                .map(|_| (random.below(at), random.below(2)))
                .collect(),
        }
    }

    fn free_name(&self, random: &mut Random) -> usize {
        loop {
            let n = random.below(20);
            if self.0.iter().all(|part| part.id != format!("c@x{n}")) {
                return n;
            }
        }
    }

    /// Indexes at which parts of a kind may be.
    fn range(&self, kind: Kind) -> std::ops::Range<usize> {
        let start = self.0.iter().filter(|part| part.kind < kind).count();
        start..start + self.of(kind).count()
    }

    fn add(&mut self, random: &mut Random, kind: Kind) {
        if self.0.len() >= 15 {
            return;
        }
        let range = self.range(kind);
        let at = range.end;
        let n = self.free_name(random);
        let readable = at.min(self.range(Kind::Sink).start);
        let part = Self::part(random, kind, n, readable);
        for part in &mut self.0 {
            for input in &mut part.inputs {
                input.0 += usize::from(input.0 >= at);
            }
        }
        self.0.insert(at, part);
    }

    fn remove(&mut self, random: &mut Random) {
        let at = random.below(self.0.len());
        let kind = self.0[at].kind;
        if kind != Kind::Transform && self.of(kind).count() == 1 {
            return;
        }
        self.0.remove(at);
        for part in &mut self.0 {
            // Its readers read a source instead.
            for input in &mut part.inputs {
                if input.0 == at {
                    input.0 = 0;
                }
                input.0 -= usize::from(input.0 > at);
            }
        }
    }

    fn edit(&mut self, random: &mut Random) {
        let kinds = [Kind::Source, Kind::Transform, Kind::Transform, Kind::Sink];
        let at = random.below(self.0.len());
        let readable = at.min(self.range(Kind::Sink).start);
        match random.below(8) {
            0 | 1 => self.add(random, kinds[at % 4]),
            2 => self.remove(random),
            3 => {
                let n = self.free_name(random);
                self.0[at].id = format!("c@x{n}");
            }
            4 => self.0[at].version += 1,
            5 if self.0[at].kind == Kind::Sink => self.0[at].required ^= true,
            5 if self.0[at].kind == Kind::Transform => self.0[at].fork ^= true,
            _ => self.0[at].inputs = Self::inputs(random, self.0[at].kind, readable),
        }
    }
}

/// Sends a series through every source, twice, and waits for the acknowledgement of required sinks.
fn send(live: &Live, model: &Model, name: &str, round: usize) {
    for source in model.of(Kind::Source) {
        for series in [format!("r{round}_0"), format!("r{round}_1")] {
            let (told, outcome) = oneshot::channel();
            let id = source.id.replace('@', name);
            let orders = SOURCES.lock().unwrap()[&id].clone();
            live.runtime.block_on(async {
                orders.send((series, told)).await.unwrap();
                assert_eq!(outcome.await.unwrap(), Outcome::Delivered);
            });
        }
    }
}

/// Series received by every sink of a model, unordered.
fn came(model: &Model, name: &str) -> BTreeMap<String, Came> {
    let sinks = SINKS.lock().unwrap();
    let mut all = BTreeMap::new();
    for sink in model.of(Kind::Sink) {
        let id = sink.id.replace('@', name);
        let came = sinks.get(&id).cloned().unwrap_or_default();
        let plain =
            |(series, way): (String, String)| (series, way.replace(&format!("c{name}x"), "c@x"));
        let mut came: Vec<_> = came.into_iter().map(plain).collect();
        came.sort();
        all.insert(sink.id.clone(), came);
    }
    all
}

fn forget(name: &str) {
    let of_others = |id: &String, _: &mut Vec<_>| !id.starts_with(&format!("c{name}x"));
    SINKS.lock().unwrap().retain(of_others);
}

#[test]
fn after_any_edits_a_graph_does_what_a_fresh_one_does() {
    let (mut rounds, mut refused, mut most) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut model = Model::default();
        for kind in [Kind::Source, Kind::Transform, Kind::Sink].repeat(3) {
            model.add(&mut random, kind);
        }
        let name = format!("live{seed}");
        let mut live = Live::start(&model.text(&name));
        for round in 0..15 {
            let before = model.clone();
            for _ in 0..=random.below(4) {
                model.edit(&mut random);
            }
            if random.chance(25) {
                let at = random.below(model.0.len());
                let id = format!(
                    "{}]\ntype = \"versioned\"",
                    model.0[at].id.replace('@', &name)
                );
                let wrong = model
                    .text(&name)
                    .replacen(&id, &format!("{id}\nbroken = true"), 1);
                let error = live.try_reload(&wrong).unwrap_err();
                assert!(error.contains("as configured"), "{error}");
                refused += 1;
                model = before;
            } else {
                live.reload(&model.text(&name));
            }
            let fresh_name = format!("fresh{seed}n{round}");
            let fresh = Live::start(&model.text(&fresh_name));
            send(&fresh, &model, &fresh_name, round);
            assert_eq!(fresh.stop(), []);
            let expected = came(&model, &fresh_name);
            forget(&name);
            send(&live, &model, &name, round);
            let total = |came: &BTreeMap<_, Vec<_>>| came.values().map(Vec::len).sum::<usize>();
            until_so("all of it has come", || {
                total(&came(&model, &name)) >= total(&expected)
            });
            assert_eq!(came(&model, &name), expected, "seed {seed}: {model:#?}");
            most = most.max(total(&expected));
            rounds += 1;
        }
        assert_eq!(live.stop(), []);
    }
    assert!(
        refused > 20 && rounds == 180 && most >= 20,
        "{refused} {rounds} {most}"
    );
}

#[test]
fn of_a_thousand_components_only_the_one_that_changed_is_built() {
    let config = |version: usize| {
        let mut text = "[sources.big]\ntype = \"versioned\"\n".to_owned();
        for n in 0..500 {
            let input = match n % 10 {
                0 => "big".to_owned(),
                _ => format!("bigt{}", n - 1),
            };
            let version = if n == 250 { version } else { 0 };
            text += &format!(
                "[transforms.bigt{n}]\ntype = \"versioned\"\nversion = {version}\ninputs = [\"{input}\"]\n"
            );
            text += &format!("[sinks.bigs{n}]\ntype = \"versioned\"\ninputs = [\"bigt{n}\"]\n");
        }
        text
    };
    let mut live = Live::start(&config(0));
    let configs = (1..=5).map(|version| crate::in_process::config(&config(version)));
    for config in configs.collect::<Vec<_>>() {
        let start = Instant::now();
        let changes = live.try_apply(config).unwrap();
        println!("reloaded 1 of 1001 components in {:?}", start.elapsed());
        assert_eq!(changes.to_string(), "changed transforms.bigt250");
    }
    let built = BUILT.lock().unwrap();
    let of_this = built.iter().filter(|(id, _)| id.starts_with("big"));
    for (id, times) in of_this {
        assert_eq!(*times, if id == "bigt250" { 6 } else { 1 }, "{id}");
    }
    drop(built);
    assert_eq!(live.stop(), []);
}
