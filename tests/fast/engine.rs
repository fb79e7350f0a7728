//! The engine: evaluation of a graph, start, shutdown, and the death of a part.
//!
//! Random graphs of test components are compared with a naive evaluation; components that fail and
//! panic are registered here like any component; behaviour of the whole process (signals, exit
//! codes, ports) is tested on the program itself.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use metrifold_access::Gate;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shutdown};
use metrifold_codec::remote_write::Limits;
use metrifold_codec::{Batch, Name};
use metrifold_engine::component::{
    BuildContext, BuildSink, BuildSource, BuildTransform, ComponentInfo, MetricsSink, SinkConfig,
    SinkPort, SourceConfig, SourcePort, TransformConfig, TransformPorts,
};
use metrifold_engine::config::parse_str;
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::planes::metrics::{
    Emitter, Form, Input, Metrics, Needs, Output, Plan, SendError, Transform,
};
use metrifold_engine::planes::{Sink, Source};
use metrifold_engine::topology::{Built, Leftover, Running};
use metrifold_http::Listeners;
use metrifold_model::{Ack, Kind, Origin, Outcome, Rejection, Until, Version};
use metrifold_targets::Directory;
use metrifold_telemetry::Telemetry;
use metrifold_testing::{
    Does, Endpoint, Metrifold, Random, Reply, Sender, body, fetch, free_address, one, until,
    until_so,
};

use crate::components::FOR_TESTS;

/// Channels by which a test orders its topology's sources, by name of the source. Names are unique
/// in this process.
static SOURCES: LazyLock<Mutex<HashMap<String, UnboundedSender<Order>>>> =
    LazyLock::new(Mutex::default);
/// Series received by each sink, by name of the sink.
static SINKS: LazyLock<Mutex<HashMap<String, Seen>>> = LazyLock::new(Mutex::default);
/// Name and path of each series.
type Seen = Vec<(String, String)>;
/// Number of times that a component was built, by name.
static BUILT: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

fn built(id: &str) -> usize {
    BUILT.lock().unwrap().get(id).copied().unwrap_or(0)
}

fn count_build(id: &str) -> usize {
    let mut built = BUILT.lock().unwrap();
    let times = built.entry(id.to_owned()).or_default();
    *times += 1;
    *times
}

fn received(sink: &str) -> Seen {
    SINKS.lock().unwrap().get(sink).cloned().unwrap_or_default()
}

enum Order {
    /// Sends series with these names, and reports the outcome.
    Send(Vec<String>, oneshot::Sender<Result<Outcome, SendError>>),
    Fail,
    Panic,
}

/// A source that follows the orders of a test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestSource {}

#[typetag::deserialize(name = "test")]
impl SourceConfig for TestSource {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn validate(&self, _: &mut Problems) {}
}

impl BuildSource<Metrics> for TestSource {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        count_build(&cx.id);
        let (orders, receiver) = unbounded_channel();
        SOURCES.lock().unwrap().insert(cx.id.to_string(), orders);
        Ok(Box::new(Ordered(cx.id.clone(), receiver)))
    }
}

struct Ordered(Arc<str>, UnboundedReceiver<Order>);

impl Source<Metrics> for Ordered {
    fn run(self: Box<Self>, out: Output, mut stop: Shutdown) -> BoxFuture<Result<(), RunError>> {
        let Self(id, mut orders) = *self;
        Box::pin(async move {
            loop {
                let order = tokio::select! {
                    order = orders.recv() => order,
                    () = stop.wait() => return Ok(()),
                };
                match order {
                    Some(Order::Send(names, told)) => {
                        let series: Vec<_> = names.iter().map(|name| one(name, 1)).collect();
                        let origin = Arc::new(Origin::internal(id.clone()));
                        let body = body(&series).into();
                        let mut batch =
                            Batch::from_body(Version::V1, body, Limits::default(), origin);
                        let (ack, mut waiter) = Ack::new(Until::Delivered);
                        batch.set_ack(ack);
                        let sent = match out.send(batch, Needs::Nothing).await {
                            Ok(_) => Ok(waiter.verdict().await),
                            Err(error) => Err(error),
                        };
                        let _ = told.send(sent);
                    }
                    Some(Order::Fail) => return Err(RunError("as ordered".into())),
                    Some(Order::Panic) => panic!("as ordered"),
                    None => return Ok(()),
                }
            }
        })
    }
}

/// A transform that appends its name to the label `path`, or acts according to its mode.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestTransform {
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Appends its name.
    #[default]
    Tag,
    /// Passes everything unchanged.
    Pass,
    /// Drops series whose name ends in an odd number.
    Drop,
    /// Sends even series to the output `even` and odd ones to `odd`.
    Fork,
    /// Emits the batch twice, marked 1 and 2.
    Twice,
    /// Panics on a series named `poison`, and refuses one named `refused`.
    Strict,
}

#[typetag::deserialize(name = "test")]
impl TransformConfig for TestTransform {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn outputs(&self) -> Vec<String> {
        match self.mode {
            Mode::Fork => vec!["even".into(), "odd".into()],
            _ => Vec::new(),
        }
    }

    fn validate(&self, _: &mut Problems) {}
}

impl BuildTransform<Metrics> for TestTransform {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(Tester(cx.id.clone(), self.mode)))
    }
}

#[derive(Debug)]
struct Tester(Arc<str>, Mode);

fn is_odd(name: &str) -> bool {
    name.bytes().last().is_some_and(|byte| byte % 2 == 1)
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

/// Appends `mark` to the path of all series, and keeps those for which `keep` returns true.
fn edit(mut batch: Batch, mark: Option<&str>, keep: impl Fn(&str) -> bool) -> Batch {
    let (name, path) = (Name::new("__name__"), Name::new("path"));
    let edited = batch.edit(|arena| {
        arena.retain(|series| {
            if let Some(mark) = mark {
                let longer = text(series.get(&path)) + "/" + mark;
                series.set(&path, longer.as_bytes());
            }
            keep(&text(series.get(&name)))
        });
    });
    edited.unwrap();
    batch
}

impl Transform for Tester {
    fn plan(&self, _batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        Ok(Plan::Split(Box::new(|batch, out| self.apply(batch, out))))
    }
}

impl Tester {
    fn apply(&self, mut batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection> {
        let Self(id, mode) = self;
        match mode {
            Mode::Tag => out.emit(edit(batch, Some(id), |_| true)),
            Mode::Pass => out.emit(batch),
            Mode::Drop => out.emit(edit(batch, None, |name| !is_odd(name))),
            Mode::Fork => {
                out.emit_to(0, edit(batch.clone(), Some(id), |name| !is_odd(name)));
                out.emit_to(1, edit(batch, Some(id), is_odd));
            }
            Mode::Twice => {
                out.emit(edit(batch.clone(), Some("1"), |_| true));
                out.emit(edit(batch, Some("2"), |_| true));
            }
            Mode::Strict => {
                let arena = batch.arena().unwrap();
                let names: Vec<_> = arena
                    .iter()
                    .map(|s| text(s.get(&Name::new("__name__"))))
                    .collect();
                assert!(!names.iter().any(|name| name == "poison"), "as ordered");
                if names.iter().any(|name| name == "refused") {
                    return Err(Rejection::invalid("refused by a transform"));
                }
                out.emit(batch);
            }
        }
        Ok(())
    }
}

/// A sink that collects series, and dies of one named `fail-`, `panic-` or `late-` followed by the
/// sink's name; of the last one once it is told to end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestSink {
    #[serde(default)]
    required: bool,
    /// Number of failing builds after the first.
    #[serde(default)]
    broken: usize,
    /// Whether the sink's own transform is strict.
    #[serde(default)]
    strict: bool,
}

#[typetag::deserialize(name = "test")]
impl SinkConfig for TestSink {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn validate(&self, _: &mut Problems) {}
}

impl MetricsSink for TestSink {
    fn required(&self) -> bool {
        self.required
    }

    fn form(&self) -> Form {
        Form::Decoded
    }

    fn before(&self, cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        let strict = self.strict.then(|| Tester(cx.id.clone(), Mode::Strict));
        Ok(strict.map(|tester| Arc::new(tester) as Arc<dyn Transform>))
    }
}

impl BuildSink<Metrics> for TestSink {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        let times = count_build(&cx.id);
        if times > 1 && times <= 1 + self.broken {
            return Err(BuildError::new("test", "cannot be built yet"));
        }
        Ok(Box::new(Collecting(cx.id.clone())))
    }
}

struct Collecting(Arc<str>);

impl Sink<Metrics> for Collecting {
    fn run(self: Box<Self>, input: Input, mut stop: Shutdown) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            while let Some(mut delivery) = input.recv().await {
                let arena = delivery.batch.arena().unwrap();
                let label = |series: &metrifold_codec::SeriesRef<'_>, name: &str| {
                    text(series.get(&Name::new(name)))
                };
                let series: Vec<_> = arena
                    .iter()
                    .map(|series| (label(&series, "__name__"), label(&series, "path")))
                    .collect();
                let told = |what: &str| {
                    let what = format!("{what}-{}", self.0);
                    series.iter().any(|(name, _)| *name == what)
                };
                if told("fail") {
                    return Err(RunError("as ordered".into()));
                }
                let late = told("late");
                if late {
                    stop.wait().await;
                }
                assert!(!late && !told("panic"), "as ordered");
                let mut all = SINKS.lock().unwrap();
                all.entry(self.0.to_string()).or_default().extend(series);
                drop(all);
                delivery.delivered();
            }
            Ok(())
        })
    }
}

macro_rules! register {
    ($($kind:ident),*) => {$(
        inventory::submit! {
            ComponentInfo { kind: Kind::$kind, name: "test", summary: FOR_TESTS, keys: &[] }
        }
    )*};
}
register!(Source, Transform, Sink);

/// A topology in this process. `ID` in its configuration is replaced, so that names are unique.
struct Graph {
    id: usize,
    running: Running,
}

impl Graph {
    fn start(config: &str) -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let text = config.replace("ID", &id.to_string());
        let environment = |_: &str| None;
        let loaded = parse_str("test.toml", &text, &environment);
        let config = loaded.unwrap_or_else(|found| {
            let found: Vec<_> = found.iter().map(|found| found.render(false)).collect();
            panic!("{text}\n{}", found.join("\n"))
        });
        let config = Arc::new(config.config);
        let built = Built::build(
            config,
            Telemetry::new(),
            Listeners::new(),
            Stores::new(None),
            Directory::new(),
            Gate::new(),
        );
        let running = built
            .map_err(|errors| format!("{errors:?}"))
            .unwrap()
            .start();
        Self { id, running }
    }

    fn name(&self, name: &str) -> String {
        name.replace("ID", &self.id.to_string())
    }

    fn received(&self, sink: &str) -> Seen {
        received(&self.name(sink))
    }

    fn order(&self, source: &str, order: Order) {
        let source = self.name(source);
        SOURCES.lock().unwrap()[&source].send(order).ok().unwrap();
    }

    /// Sends series through a source and waits for the acknowledgement.
    async fn send(&self, source: &str, names: &[&str]) -> Result<Outcome, SendError> {
        let (told, outcome) = oneshot::channel();
        let names = names.iter().map(|name| self.name(name)).collect();
        self.order(source, Order::Send(names, told));
        tokio::time::timeout(metrifold_testing::PATIENCE, outcome)
            .await
            .unwrap()
            .unwrap()
    }

    /// Value of a line of the metrics page that begins with `name` and contains all `parts`.
    fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let page = self.running.telemetry().render();
        let parts: Vec<_> = parts.iter().map(|part| self.name(part)).collect();
        let lines = page.lines().filter(|line| {
            let found = line.split(['{', ' ']).next();
            found == Some(name)
                && parts
                    .iter()
                    .all(|part| line.contains(&format!("\"{part}\"")))
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    async fn stop(self) -> Vec<Leftover> {
        self.running.stop(Duration::from_secs(10)).await
    }
}

/// A graph for the naive evaluation.
#[derive(Debug, Default)]
struct Model {
    /// Mode and inputs, by name.
    transforms: BTreeMap<String, (Mode, Vec<String>)>,
    sinks: BTreeMap<String, Vec<String>>,
}

impl Model {
    /// Passes series from an output to everything behind it, edge by edge.
    fn follow(&self, output: &str, series: &Seen, arrived: &mut BTreeMap<String, Seen>) {
        for (sink, inputs) in &self.sinks {
            if inputs.iter().any(|input| input == output) {
                arrived
                    .entry(sink.clone())
                    .or_default()
                    .extend(series.iter().cloned());
            }
        }
        for (id, (mode, inputs)) in &self.transforms {
            if !inputs.iter().any(|input| input == output) {
                continue;
            }
            let marked = |mark: &str| -> Seen {
                let longer =
                    |(name, path): &(String, String)| (name.clone(), format!("{path}/{mark}"));
                series.iter().map(longer).collect()
            };
            let part = |seen: Seen, odd: bool| -> Seen {
                seen.into_iter()
                    .filter(|(name, _)| is_odd(name) == odd)
                    .collect()
            };
            match mode {
                Mode::Tag => self.follow(id, &marked(id), arrived),
                Mode::Pass | Mode::Strict => self.follow(id, series, arrived),
                Mode::Drop => self.follow(id, &part(series.clone(), false), arrived),
                Mode::Fork => {
                    self.follow(&format!("{id}.even"), &part(marked(id), false), arrived);
                    self.follow(&format!("{id}.odd"), &part(marked(id), true), arrived);
                }
                Mode::Twice => {
                    self.follow(id, &marked("1"), arrived);
                    self.follow(id, &marked("2"), arrived);
                }
            }
        }
    }

    fn random(random: &mut Random, sources: usize) -> Self {
        let mut model = Self::default();
        let mut outputs: Vec<String> = (0..sources).map(|n| format!("source-ID-{n}")).collect();
        // Every source is used.
        let pick = |random: &mut Random, outputs: &[String], first: Option<usize>| {
            let mut inputs: Vec<String> = first.iter().map(|&at| outputs[at].clone()).collect();
            for _ in 0..=random.below(3) {
                let input = &outputs[random.below(outputs.len())];
                if !inputs.contains(input) {
                    inputs.push(input.clone());
                }
            }
            inputs
        };
        let modes = [
            Mode::Tag,
            Mode::Tag,
            Mode::Pass,
            Mode::Drop,
            Mode::Fork,
            Mode::Twice,
        ];
        for n in 0..random.below(8) {
            let mode = modes[random.below(modes.len())];
            let id = format!("t-ID-{n}");
            let inputs = pick(random, &outputs, None);
            match mode {
                Mode::Fork => outputs.extend([format!("{id}.even"), format!("{id}.odd")]),
                _ => outputs.push(id.clone()),
            }
            model.transforms.insert(id, (mode, inputs));
        }
        for n in 0..=random.below(4) {
            let inputs = pick(random, &outputs, (n == 0).then_some(0));
            model.sinks.insert(format!("sink-ID-{n}"), inputs);
        }
        model
    }

    fn config(&self, sources: usize) -> String {
        let mut config = String::new();
        for n in 0..sources {
            config += &format!("[sources.source-ID-{n}]\ntype = \"test\"\n");
        }
        for (id, (mode, inputs)) in &self.transforms {
            let mode = format!("{mode:?}").to_lowercase();
            config += &format!(
                "[transforms.{id}]\ntype = \"test\"\nmode = \"{mode}\"\ninputs = {inputs:?}\n"
            );
        }
        for (at, (id, inputs)) in self.sinks.iter().enumerate() {
            let required = at % 2 == 0;
            config += &format!(
                "[sinks.{id}]\ntype = \"test\"\nrequired = {required}\ninputs = {inputs:?}\n"
            );
        }
        config
    }
}

#[tokio::test]
async fn random_graphs_deliver_what_a_naive_evaluation_says() {
    const SOURCES: usize = 2;
    let mut random = Random(21);
    let (mut several, mut most) = (0, 0);
    for _ in 0..150 {
        let model = Model::random(&mut random, SOURCES);
        let graph = Graph::start(&model.config(SOURCES));
        let mut expected = BTreeMap::new();
        for turn in 0..4 {
            let source = format!("source-ID-{}", turn % SOURCES);
            let names: Vec<_> = (0..1 + random.below(4))
                .map(|n| format!("m{turn}{n}"))
                .collect();
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            assert_eq!(graph.send(&source, &names).await, Ok(Outcome::Delivered));
            let series = names
                .iter()
                .map(|&name| (name.to_owned(), String::new()))
                .collect();
            model.follow(&source, &series, &mut expected);
        }
        let id = graph.id.to_string();
        assert_eq!(graph.stop().await, []);
        for sink in model.sinks.keys() {
            let mut arrived = received(&sink.replace("ID", &id));
            let mut expected: Seen = expected.remove(sink).unwrap_or_default();
            for (_, path) in &mut expected {
                *path = path.replace("ID", &id);
            }
            several += usize::from(
                expected
                    .iter()
                    .any(|(_, path)| path.matches('/').count() > 2),
            );
            most = most.max(expected.len());
            arrived.sort();
            expected.sort();
            assert_eq!(arrived, expected, "{sink} of {model:#?}");
        }
    }
    assert!(
        several > 20 && most > 50,
        "the graphs are not trivial: {several} {most}"
    );
}

#[tokio::test]
async fn what_a_transform_emits_first_arrives_first_however_long_the_way_is() {
    let mut config = "[sources.source-ID]\ntype = \"test\"\n".to_owned();
    for (id, mode, input) in [
        ("a", "twice", "source-ID"),
        ("b", "pass", "a-ID"),
        ("c", "twice", "b-ID"),
        ("d", "tag", "c-ID"),
    ] {
        config += &format!(
            "[transforms.{id}-ID]\ntype = \"test\"\nmode = \"{mode}\"\ninputs = [\"{input}\"]\n"
        );
    }
    for (id, input) in [("near", "a-ID"), ("far", "d-ID")] {
        config += &format!("[sinks.{id}-ID]\ntype = \"test\"\ninputs = [\"{input}\"]\n");
    }
    let graph = Graph::start(&config);
    assert_eq!(
        graph.send("source-ID", &["up"]).await,
        Ok(Outcome::Delivered)
    );
    let (near, far) = (graph.name("near-ID"), graph.name("far-ID"));
    let last = graph.name("d-ID");
    assert_eq!(graph.stop().await, []);
    let paths = |sink: &str| -> Vec<String> {
        received(sink)
            .into_iter()
            .map(|(_, path)| path.replace(&format!("/{last}"), ""))
            .collect()
    };
    assert_eq!(paths(&near), ["/1", "/2"]);
    assert_eq!(paths(&far), ["/1/1", "/1/2", "/2/1", "/2/2"]);
}

/// A source, a required sink, and an optional sink with these keys.
fn pair(keys: &str) -> String {
    format!(
        "[sources.source-ID]\ntype = \"test\"\n\
         [sinks.good-ID]\ntype = \"test\"\nrequired = true\ninputs = [\"source-ID\"]\n\
         [sinks.bad-ID]\ntype = \"test\"\ninputs = [\"source-ID\"]\n{keys}\n"
    )
}

async fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + metrifold_testing::PATIENCE;
    while !look() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_optional_sink_that_dies_is_built_anew_and_what_it_took_along_is_counted() {
    for death in ["fail-bad-ID", "panic-bad-ID"] {
        let graph = Graph::start(&pair("broken = 1"));
        let bad = graph.name("bad-ID");
        assert_eq!(
            graph.send("source-ID", &["a"]).await,
            Ok(Outcome::Delivered)
        );
        assert_eq!(
            graph.send("source-ID", &[death, "b"]).await,
            Ok(Outcome::Delivered)
        );
        wait_until("it has died", || {
            graph.metric("metrifold_component_up", &["bad-ID"]) == 0.0
        })
        .await;
        // Its build fails at first, and the new batch waits for it.
        assert_eq!(
            graph.send("source-ID", &["c"]).await,
            Ok(Outcome::Delivered)
        );
        wait_until("it has come back", || graph.received("bad-ID").len() == 2).await;
        let names = |sink| {
            graph
                .received(sink)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("bad-ID"), ["a", "c"]);
        assert_eq!(names("good-ID"), ["a", &graph.name(death), "b", "c"]);
        assert_eq!(built(&bad), 3, "built, not built, built");
        let restarts = graph.metric("metrifold_component_restarts_total", &["bad-ID"]);
        assert_eq!(restarts, 2.0);
        assert_eq!(graph.metric("metrifold_component_up", &["bad-ID"]), 1.0);
        for kind in ["died", "build"] {
            let errors = graph.metric("metrifold_component_errors_total", &["bad-ID", kind]);
            assert_eq!(errors, 1.0, "{kind}");
        }
        // The account balances: two series were lost with the sink.
        let lost = graph.metric(
            "metrifold_component_discarded_samples_total",
            &["bad-ID", "sink_died"],
        );
        let sent = graph.metric("metrifold_component_sent_samples_total", &["bad-ID"]);
        let received = graph.metric("metrifold_component_received_samples_total", &["bad-ID"]);
        assert_eq!((received, sent, lost), (4.0, 2.0, 2.0));
        let queued = graph.metric("metrifold_queue_bytes", &["bad-ID"]);
        assert_eq!(queued, 0.0);
        assert_eq!(graph.stop().await, []);
    }
}

#[tokio::test]
async fn a_required_sink_that_dies_has_the_sender_try_again() {
    for death in ["fail-good-ID", "panic-good-ID"] {
        let graph = Graph::start(&pair(""));
        let outcome = graph.send("source-ID", &[death]).await;
        let reason = graph.name("good-ID: sink died with the batch");
        assert_eq!(outcome, Ok(Outcome::failed(reason)));
        // The next batch waits until the sink is back.
        assert_eq!(
            graph.send("source-ID", &["a"]).await,
            Ok(Outcome::Delivered)
        );
        assert_eq!(graph.received("good-ID").len(), 1);
        wait_until("the other sink has both", || {
            graph.received("bad-ID").len() == 2
        })
        .await;
        let lost = graph.metric(
            "metrifold_component_discarded_samples_total",
            &["good-ID", "sink_died"],
        );
        assert_eq!(lost, 1.0);
        assert_eq!(graph.stop().await, []);
    }
}

#[tokio::test]
async fn a_batch_with_which_a_sink_dies_at_the_end_is_told() {
    let graph = Graph::start(&pair(""));
    let bad = graph.name("bad-ID");
    assert_eq!(
        graph.send("source-ID", &["late-bad-ID"]).await,
        Ok(Outcome::Delivered)
    );
    let left = graph.stop().await;
    let [lost] = &*left else { panic!("{left:?}") };
    assert_eq!(lost.sink.as_ref(), bad);
    // As what is left: the process does not end as if it had delivered everything.
    assert_eq!((lost.queued.batches, lost.queued.samples), (1, 1));
    assert!(lost.dropped.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn a_source_that_dies_comes_back_and_disturbs_nobody() {
    let config = "[sources.source-ID]\ntype = \"test\"\n[sources.other-ID]\ntype = \"test\"\n\
                  [sinks.out-ID]\ntype = \"test\"\nrequired = true\ninputs = [\"source-ID\", \"other-ID\"]\n";
    let graph = Graph::start(config);
    let source = graph.name("source-ID");
    for (times, order) in [(2, Order::Fail), (3, Order::Panic)] {
        assert_eq!(
            graph.send("source-ID", &["a"]).await,
            Ok(Outcome::Delivered)
        );
        graph.order("source-ID", order);
        wait_until("it is down", || {
            graph.metric("metrifold_component_up", &["source-ID"]) == 0.0
        })
        .await;
        assert_eq!(graph.send("other-ID", &["b"]).await, Ok(Outcome::Delivered));
        wait_until("it is back", || {
            built(&source) == times && graph.metric("metrifold_component_up", &["source-ID"]) == 1.0
        })
        .await;
        assert_eq!(graph.metric("metrifold_component_up", &["other-ID"]), 1.0);
    }
    assert_eq!(
        graph.send("source-ID", &["a"]).await,
        Ok(Outcome::Delivered)
    );
    assert_eq!(
        graph.metric("metrifold_component_restarts_total", &["source-ID"]),
        2.0
    );
    assert_eq!(
        graph.metric("metrifold_component_restarts_total", &["other-ID"]),
        0.0
    );
    let out = graph.name("out-ID");
    assert_eq!(graph.stop().await, []);
    assert_eq!(received(&out).len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transform_that_panics_costs_the_batch_a_500_and_nobody_anything_else() {
    let address = free_address();
    let config = format!(
        "[sources.source-ID]\ntype = \"remote_write\"\naddress = \"{address}\"\n\
         [transforms.strict-ID]\ntype = \"test\"\nmode = \"strict\"\ninputs = [\"source-ID\"]\n\
         [sinks.behind-ID]\ntype = \"test\"\nrequired = true\ninputs = [\"strict-ID\"]\n\
         [sinks.beside-ID]\ntype = \"test\"\nrequired = true\ninputs = [\"source-ID\"]\n"
    );
    panics_cost_only_their_batch(&config, address, "strict-ID").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_sinks_own_transform_costs_the_batch_a_500_as_well() {
    let address = free_address();
    let config = format!(
        "[sources.source-ID]\ntype = \"remote_write\"\naddress = \"{address}\"\n\
         [sinks.behind-ID]\ntype = \"test\"\nrequired = true\nstrict = true\ninputs = [\"source-ID\"]\n\
         [sinks.beside-ID]\ntype = \"test\"\nrequired = true\ninputs = [\"source-ID\"]\n"
    );
    panics_cost_only_their_batch(&config, address, "behind-ID").await;
}

async fn panics_cost_only_their_batch(config: &str, address: std::net::SocketAddr, whose: &str) {
    let graph = Graph::start(config);
    let sending = tokio::task::spawn_blocking(move || {
        until("the source is served", || {
            let answer = fetch(address, "/api/v1/write").ok()?;
            (answer.status == 405).then_some(())
        });
        let mut sender = Sender::new(address);
        let names = ["a", "poison", "b", "refused", "c"];
        names.map(|name| {
            let answer = sender.try_post("/api/v1/write", &[], &body(&[one(name, 1)]));
            answer
                .map(|answer| (answer.status, answer.text()))
                .unwrap_or_default()
        })
    });
    let answers = sending.await.unwrap();
    let statuses = answers.clone().map(|(status, _)| status);
    assert_eq!(statuses, [204, 500, 204, 400, 204], "{answers:?}");
    assert!(answers[1].1.contains("panicked"), "{answers:?}");
    assert!(
        answers[3].1.contains("refused by a transform"),
        "{answers:?}"
    );
    // A batch that is refused as a whole reaches no sink.
    for sink in ["behind-ID", "beside-ID"] {
        let names: Vec<_> = graph
            .received(sink)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b", "c"], "{sink}");
    }
    for kind in ["panicked", "rejected"] {
        let errors = graph.metric("metrifold_component_errors_total", &[whose, kind]);
        assert_eq!(errors, 1.0, "{kind}");
    }
    for sink in ["behind-ID", "beside-ID"] {
        assert_eq!(
            graph.metric("metrifold_component_restarts_total", &[sink]),
            0.0
        );
    }
    assert_eq!(graph.stop().await, []);
}

#[test]
fn a_signal_has_the_sinks_deliver_what_they_hold() {
    let endpoint = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let mut child = Metrifold::start(&process("required = false\nconnections = 1", &endpoint));
    let mut sender = Sender::new(child.ingest);
    for time in 1..=10 {
        assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
    }
    endpoint.wait_requests(1);
    child.signal("TERM");
    until_so("it shuts down", || child.log().contains("shutting down"));
    assert!(child.is_alive(), "it waits for its sinks");
    endpoint.release();
    assert_eq!(child.wait().code(), Some(0), "{}", child.log());
    assert!(
        child
            .log()
            .contains("everything was delivered or is on disk"),
        "{}",
        child.log()
    );
    let times: Vec<_> = endpoint
        .accepted()
        .into_iter()
        .map(|(_, time)| time)
        .collect();
    assert_eq!(times, (1..=10).collect::<Vec<_>>());
}

/// A remote-write source and sink.
fn process(keys: &str, endpoint: &Endpoint) -> String {
    format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n{keys}\n",
        endpoint.url()
    )
}

#[test]
fn a_request_that_is_under_way_is_answered_before_the_end() {
    let endpoint = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let mut child = Metrifold::start(&process("", &endpoint));
    let ingest = child.ingest;
    let waiting = std::thread::spawn(move || Sender::new(ingest).write(&body(&[one("up", 1)])));
    endpoint.wait_requests(1);
    child.signal("INT");
    until_so("it shuts down", || child.log().contains("shutting down"));
    // Late senders are refused, or cannot connect.
    let late = until("late senders are turned away", || {
        let answer = fetch(child.ingest, "/api/v1/write");
        match answer {
            Ok(answer) if answer.status == 405 => None,
            answer => Some(answer.map(|answer| answer.status)),
        }
    });
    assert!(late.is_err() || late.is_ok_and(|status| status == 503));
    endpoint.release();
    assert_eq!(waiting.join().unwrap().status, 204);
    assert_eq!(child.wait().code(), Some(0), "{}", child.log());
    assert_eq!(endpoint.accepted().len(), 1);
}

#[test]
fn data_that_is_left_is_named_and_makes_the_exit_code_1() {
    let (hanging, healthy) = (
        Endpoint::new(|_| Does::Hang(Reply::new(500))),
        Endpoint::healthy(),
    );
    let config = process("required = false\nconnections = 1", &hanging)
        + &format!(
            "[sinks.healthy]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n",
            healthy.url()
        );
    let mut child = Metrifold::start_with(&config, &["--shutdown-limit", "300ms"]);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=3 {
        assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
    }
    hanging.wait_requests(1);
    child.signal("TERM");
    assert_eq!(child.wait().code(), Some(1), "{}", child.log());
    let log = child.log();
    let left: Vec<_> = log
        .lines()
        .filter(|line| line.contains("left undelivered"))
        .collect();
    assert_eq!(left.len(), 1, "{log}");
    assert!(
        left[0].contains("sink=out") && left[0].contains("batches=3"),
        "{left:?}"
    );
    assert!(
        left[0].contains("ERROR") && left[0].contains("size="),
        "{left:?}"
    );
    assert_eq!(healthy.accepted().len(), 3);
}

#[test]
fn data_that_is_left_of_a_sink_that_a_reload_has_removed_is_named() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    let config = process("required = false\nconnections = 1", &hanging);
    let child = Metrifold::start_with(&config, &["--drain-limit", "300ms"]);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=3 {
        assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
    }
    hanging.wait_requests(1);
    let renamed = child.complete(&config.replace("sinks.out", "sinks.renamed"));
    std::fs::write(child.folder().join("metrifold.toml"), renamed).unwrap();
    child.until_logged("left undelivered");
    let log = child.log();
    let left = log.lines().find(|line| line.contains("left undelivered"));
    let left = left.unwrap();
    for part in [
        "ERROR",
        "sink=out",
        "removed",
        "batches=3",
        "samples=3",
        "--drain-limit",
    ] {
        assert!(left.contains(part), "{part}: {left}");
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    let config = process("required = false", &hanging);
    let mut child = Metrifold::start_with(&config, &["--shutdown-limit", "1h"]);
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
    hanging.wait_requests(1);
    child.signal("TERM");
    until_so("it shuts down", || child.log().contains("shutting down"));
    child.signal("INT");
    assert_eq!(child.wait().code(), Some(1));
    assert!(child.log().contains("second signal"), "{}", child.log());
}

#[test]
fn a_wrong_configuration_is_exit_code_78_and_binds_nothing() {
    let endpoint = Endpoint::healthy();
    let mut child = Metrifold::spawn(&process("conections = 4", &endpoint), &[]);
    assert_eq!(child.wait().code(), Some(78));
    let errors = child.log();
    assert!(
        errors.contains("conections") && errors.contains("`connections`"),
        "{errors}"
    );
    assert!(!errors.contains("metrifold runs"), "{errors}");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_started() {
    let endpoint = Endpoint::healthy();
    let taken = std::net::TcpListener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = free_address();
    let config = process("", &endpoint).replace("INGEST", &address)
        + &format!("[sources.other]\ntype = \"remote_write\"\naddress = \"{other}\"\n")
        + "[sinks.hole]\ntype = \"blackhole\"\ninputs = [\"other\"]\n";
    let mut child = Metrifold::spawn(&config, &[]);
    assert_eq!(child.wait().code(), Some(1));
    let log = child.log();
    let line = log
        .lines()
        .find(|line| line.contains("cannot build a component"))
        .unwrap();
    assert!(
        line.contains("component=ingest") && line.contains(&address),
        "{log}"
    );
    assert!(line.contains("has this address"), "{log}");
    assert!(!log.contains("metrifold runs"), "{log}");
    // The addresses bound before the error are released.
    assert!(std::net::TcpListener::bind(other).is_ok());
}

#[test]
fn a_sink_that_lost_its_output_is_reported_and_the_rest_goes_on() {
    let endpoint = Endpoint::healthy();
    let config =
        process("", &endpoint) + "[sinks.lines]\ntype = \"console\"\ninputs = [\"ingest\"]\n";
    let mut child = Metrifold::start_writing(&config, Stdio::piped());
    drop(child.stdout());
    let mut sender = Sender::new(child.ingest);
    let mut time = 0;
    let lines = [("component_id", "lines")];
    // Each batch kills the sink again, so that it is down most of the time.
    let not_ready = until("it is not ready", || {
        time += 1;
        assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
        let answer = child.get("/-/ready");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(not_ready.text(), "not running: sink lines");
    assert_eq!(child.metric("metrifold_component_up", &lines), 0.0);
    assert!(child.metric("metrifold_component_restarts_total", &lines) >= 1.0);
    assert_eq!(
        child.get("/-/healthy").status,
        200,
        "the process itself is well"
    );
    let log = child.log();
    let died = log
        .lines()
        .find(|line| line.contains("component died"))
        .unwrap();
    assert!(
        died.contains("component=lines") && died.contains("standard output"),
        "{died}"
    );
    until_so("it is built anew", || {
        child.log().contains("component was rebuilt")
    });
    time += 1;
    assert_eq!(sender.write(&body(&[one("up", time)])).status, 204);
    let times: Vec<_> = endpoint
        .accepted()
        .into_iter()
        .map(|(_, time)| time)
        .collect();
    assert_eq!(
        times,
        (1..=time).collect::<Vec<_>>(),
        "the other sink has all"
    );
    assert_eq!(
        child.metric(
            "metrifold_component_restarts_total",
            &[("component_id", "out")]
        ),
        0.0
    );
    let failed = [("component_id", "lines"), ("reason", "write_failed")];
    assert!(child.metric("metrifold_component_discarded_samples_total", &failed) >= 1.0);
    child.signal("TERM");
    child.wait();
}

#[test]
fn two_sources_share_an_address_each_with_its_own_path_and_callers() {
    let (first, second) = (Endpoint::healthy(), Endpoint::healthy());
    let config = process("", &first)
        + "[sources.guarded]\ntype = \"remote_write\"\naddress = \"INGEST\"\npath = \"/guarded\"\n"
        + "authorization = { credentials = \"open-sesame\" }\n"
        + &format!(
            "[sinks.second]\ntype = \"remote_write\"\ninputs = [\"guarded\"]\nendpoint = \"{}\"\n",
            second.url()
        );
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let request = body(&[one("up", 1)]);
    let token = [("authorization", "Bearer open-sesame")];
    assert_eq!(sender.write(&request).status, 204);
    assert_eq!((first.count(), second.count()), (1, 0));
    assert_eq!(sender.post("/guarded", &[], &request).status, 401);
    assert_eq!(sender.post("/guarded", &token, &request).status, 204);
    assert_eq!((first.count(), second.count()), (1, 1));
    for (source, answers) in [("ingest", 1.0), ("guarded", 1.0)] {
        let labels = [("component_id", source), ("code", "204")];
        assert_eq!(
            child.metric("metrifold_source_requests_total", &labels),
            answers,
            "{source}"
        );
    }
}

#[test]
fn its_own_metrics_can_be_shown_on_a_page_of_its_own() {
    let page = free_address();
    let config = format!(
        "[sources.own]\ntype = \"internal_metrics\"\ninterval = \"100ms\"\nlabels = {{ cluster = \"c1\" }}\n\
         [sinks.page]\ntype = \"prometheus_exporter\"\ninputs = [\"own\"]\naddress = \"{page}\"\n"
    );
    let child = Metrifold::start(&config);
    let line = until("its own metrics are on the page", || {
        let answer = fetch(page, "/metrics").ok()?;
        let text = answer.text();
        let sent = text.lines().find(|line| {
            line.starts_with("metrifold_component_sent_batches_total{")
                && line.contains("component_id=\"own\"")
        });
        sent.map(str::to_owned)
    });
    assert!(line.contains("cluster=\"c1\""), "{line}");
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    until_so("the value grows", || {
        let text = fetch(page, "/metrics").unwrap().text();
        let (series, _) = line.rsplit_once(' ').unwrap();
        text.lines()
            .any(|later| later.starts_with(series) && value(later) > value(&line))
    });
    assert_eq!(
        child.metric("metrifold_component_up", &[("component_id", "page")]),
        1.0
    );
}
