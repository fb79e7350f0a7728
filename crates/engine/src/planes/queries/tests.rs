//! Stages and edges of queries, without sources and sinks around them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use tokio::sync::watch;
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::body::{Body, BoxError};
use metrifold_model::{Kind, Origin, Rejection, RejectionKind};
use metrifold_telemetry::Telemetry;

use super::{
    Answer, Answerer, Edge, Edit, Output, Plan, Queries, Query, Serving, Stage, Transform,
};
use crate::planes::{Edge as _, Node, Plane, Target, Wiring};

/// Time until the deadline of a query.
const LIMIT: Duration = Duration::from_secs(10);

fn query(path: &str) -> Query {
    Query {
        method: Method::GET,
        uri: path.parse().unwrap(),
        headers: HeaderMap::new(),
        cookies: Vec::new(),
        turns: None,
        asked_for: None,
        body: Body::empty(),
        origin: Arc::new(Origin::internal("test".into())),
        tenant: None,
        deadline: Instant::now() + LIMIT,
    }
}

/// An answerer that computes its answer with a function.
struct Answers<F>(F);

impl<F> Answerer for Answers<F>
where
    F: Fn(Query) -> BoxFuture<Result<Answer, Rejection>> + Send + Sync,
{
    fn answer(self: Arc<Self>, query: Query) -> BoxFuture<Result<Answer, Rejection>> {
        (self.0)(query)
    }
}

/// Answers every query with a text.
fn says(text: &'static str) -> Arc<dyn Answerer> {
    Arc::new(Answers(move |_| {
        let answer: Result<Answer, Rejection> = Ok(Answer::new(text.into()));
        Box::pin(std::future::ready(answer)) as BoxFuture<_>
    }))
}

/// Answers every query with a body.
fn streams<B>(body: impl Fn() -> B + Send + Sync + 'static) -> Arc<dyn Answerer>
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    Arc::new(Answers(move |_| {
        let answer: Result<Answer, Rejection> = Ok(Answer::new(Body::stream(body())));
        Box::pin(std::future::ready(answer)) as BoxFuture<_>
    }))
}

/// Sends a query to the output that the first digit in its path names.
#[derive(Debug)]
struct ByDigit;

impl Transform for ByDigit {
    fn apply(&self, query: &mut Query) -> Result<Plan, Rejection> {
        let path = query.uri.path();
        match path.chars().find_map(|char| char.to_digit(10)) {
            Some(digit) => Ok(Plan::from(digit as usize)),
            None if path == "/panic" => panic!("as intended"),
            None => Err(Rejection::new(RejectionKind::Forbidden, "no digit")),
        }
    }
}

fn edge(telemetry: &Telemetry, id: &str) -> Arc<Edge> {
    let metrics = telemetry.component(id, Kind::Sink, "test");
    Arc::new(Edge::new(id.into(), metrics))
}

/// An output that leads to `entry`, with these transforms and edges behind it.
fn output(
    telemetry: &Telemetry,
    entry: Option<Target>,
    nodes: Vec<Vec<Vec<Target>>>,
    edges: &[&Arc<Edge>],
) -> Output {
    let nodes = nodes.into_iter().map(|outputs| Node {
        transform: Arc::new(ByDigit) as Arc<dyn Transform>,
        metrics: telemetry.component("transform", Kind::Transform, "test"),
        outputs,
    });
    let stage = Stage(Wiring {
        entry: entry.into_iter().collect(),
        nodes: nodes.collect(),
        edges: edges.iter().map(|edge| (*edge).clone()).collect(),
        in_use: watch::channel(()).1,
    });
    let metrics = telemetry.component("source", Kind::Source, "test");
    Queries::output(&"source".into(), Arc::new(stage), metrics)
}

/// An output that leads directly to one edge.
fn direct(telemetry: &Telemetry, edge: &Arc<Edge>) -> Output {
    output(telemetry, Some(Target::Edge(0)), vec![], &[edge])
}

async fn text(answer: Answer) -> Result<String, BoxError> {
    use http_body_util::BodyExt;
    let bytes = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn asked(output: &Output, path: &str) -> String {
    text(output.ask(query(path)).await.unwrap()).await.unwrap()
}

async fn refused(output: &Output, path: &str) -> RejectionKind {
    output.ask(query(path)).await.unwrap_err().kind
}

#[tokio::test]
async fn transforms_choose_the_output_and_may_refuse() {
    let telemetry = Telemetry::new();
    let edges = ["a", "b"].map(|id| edge(&telemetry, id));
    let _serving: Vec<Serving> = edges
        .iter()
        .zip(["a", "b"])
        .map(|(edge, text)| edge.input().serve(says(text)))
        .collect();
    let nodes = vec![
        vec![vec![Target::Edge(0)], vec![Target::Node(1)], vec![]],
        vec![vec![], vec![Target::Edge(1)]],
    ];
    let [a, b] = &edges;
    let output = output(&telemetry, Some(Target::Node(0)), nodes, &[a, b]);
    assert_eq!(asked(&output, "/0").await, "a");
    assert_eq!(asked(&output, "/1").await, "b", "through both transforms");
    // An output without a target, and one that the transform does not have.
    assert_eq!(refused(&output, "/2").await, RejectionKind::NotFound);
    assert_eq!(refused(&output, "/7").await, RejectionKind::NotFound);
    assert_eq!(refused(&output, "/none").await, RejectionKind::Forbidden);
    let page = telemetry.render();
    for (code, times) in [("<passed>", 5), ("<refused>", 1)] {
        let mut samples = page.lines().filter(|line| !line.starts_with('#'));
        let line = samples.find(|line| line.contains(code)).unwrap();
        assert!(line.ends_with(&format!(" {times}")), "{line}");
    }
}

#[tokio::test]
async fn a_panic_of_a_transform_costs_the_query_alone() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let _serving = edge.input().serve(says("a"));
    let nodes = vec![vec![vec![Target::Edge(0)]]];
    let output = output(&telemetry, Some(Target::Node(0)), nodes, &[&edge]);
    assert_eq!(refused(&output, "/panic").await, RejectionKind::Internal);
    assert_eq!(asked(&output, "/0").await, "a");
}

async fn panics_later() -> Result<Answer, Rejection> {
    tokio::task::yield_now().await;
    panic!("as intended")
}

#[tokio::test]
async fn a_panic_of_an_answerer_costs_the_query_alone() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    let answerer = Answers(|query: Query| match query.uri.path() {
        "/now" => panic!("as intended"),
        "/later" => Box::pin(panics_later()) as BoxFuture<_>,
        _ => Box::pin(async { Ok(Answer::new("a".into())) }),
    });
    let _serving = edge.input().serve(Arc::new(answerer));
    for path in ["/now", "/later"] {
        assert_eq!(refused(&output, path).await, RejectionKind::Internal);
        assert_eq!(asked(&output, "/").await, "a");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_sink_queries_are_refused_until_there_is_one() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    assert_eq!(refused(&output, "/").await, RejectionKind::Unavailable);
    let serving = edge.input().serve(says("a"));
    assert_eq!(asked(&output, "/").await, "a");
    drop(serving);
    assert_eq!(refused(&output, "/").await, RejectionKind::Unavailable);
    let _serving = edge.input().serve(says("b"));
    assert_eq!(asked(&output, "/").await, "b");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_being_started_is_waited_for() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    let starting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        edge.input().serve(says("a"))
    };
    let (answer, _serving) = tokio::join!(asked(&output, "/"), starting);
    assert_eq!(answer, "a");
}

#[tokio::test]
async fn a_sink_that_was_told_to_stop_answers_those_who_come_late() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    let input = edge.input();
    input.serve(says("late")).retire();
    assert_eq!(asked(&output, "/").await, "late");
    // It replaces no other answerer.
    let old = input.serve(says("old"));
    let _new = input.serve(says("new"));
    old.retire();
    assert_eq!(asked(&output, "/").await, "new");
}

#[tokio::test]
async fn who_is_dropped_late_does_not_detach_the_successor() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    let first = edge.input().serve(says("first"));
    let second = edge.input().serve(says("second"));
    drop(first);
    assert_eq!(asked(&output, "/").await, "second");
    drop(second);
    assert_eq!(refused(&output, "/").await, RejectionKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answerer_that_is_late_is_given_up() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let output = direct(&telemetry, &edge);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = dropped.clone();
    let answerer = Answers(move |_| {
        let counter = Counter(counted.clone());
        Box::pin(async move {
            let _counter = counter;
            std::future::pending().await
        }) as BoxFuture<_>
    });
    let _serving = edge.input().serve(Arc::new(answerer));
    let started = Instant::now();
    assert_eq!(refused(&output, "/").await, RejectionKind::TimedOut);
    assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs());
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

/// Counts how often it is dropped.
struct Counter(Arc<AtomicUsize>);

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body of one piece followed by silence, or of endless pieces.
struct Endless {
    silent: bool,
    pieces: usize,
    _dropped: Counter,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.silent && self.pieces > 0 {
            return Poll::Pending;
        }
        self.pieces += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from("piece")))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_breaks_off_at_the_deadline_and_is_dropped() {
    use http_body_util::BodyExt;
    for silent in [true, false] {
        let telemetry = Telemetry::new();
        let edge = edge(&telemetry, "a");
        let output = direct(&telemetry, &edge);
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = dropped.clone();
        let answerer = streams(move || Endless {
            silent,
            pieces: 0,
            _dropped: Counter(counted.clone()),
        });
        let _serving = edge.input().serve(answerer);
        let started = Instant::now();
        let answer = output.ask(query("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        let mut pieces = 0;
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(_) => pieces += 1,
                Err(error) => break error,
            }
            if !silent {
                // A caller that reads slowly.
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        assert_eq!(error.to_string(), "answer did not end in time");
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs(), "{silent}");
        assert_eq!(pieces, if silent { 1 } else { 10 });
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "while {body:?} is held");
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn a_stage_is_in_use_until_the_answer_has_been_read_or_dropped() {
    let telemetry = Telemetry::new();
    let edge = edge(&telemetry, "a");
    let _serving = edge.input().serve(says("a"));
    for read in [true, false] {
        let output = direct(&telemetry, &edge);
        let old = Arc::downgrade(&output.stage.load_full());
        let answer = output.ask(query("/")).await.unwrap();
        let next = direct(&telemetry, &edge);
        Queries::redirect(&output, next.stage.load_full());
        assert!(old.upgrade().is_some(), "a query is under way");
        match read {
            true => assert_eq!(text(answer).await.unwrap(), "a"),
            false => drop(answer),
        }
        assert!(old.upgrade().is_none());
        assert_eq!(asked(&output, "/").await, "a");
    }
}

/// Reads the body, up to ten bytes, and answers with it and the answer to a second query for the
/// same path.
#[derive(Debug)]
struct Echo;

impl Transform for Echo {
    fn reads_body(&self, _: &Query) -> Option<usize> {
        Some(10)
    }

    fn apply(&self, query: &mut Query) -> Result<Plan, Rejection> {
        let sent = query.body.whole().unwrap().clone();
        let beside = match query.uri.path() {
            "/beside" | "/failing" => Some(self::query("/other")),
            _ => None,
        };
        let panics = query.uri.path() == "/panic";
        let edit = Edit {
            beside,
            max_bytes: 20,
            apply: Box::new(move |answer, beside| {
                assert!(!panics, "as intended");
                Ok([&sent, answer, beside].join(&b'+'))
            }),
        };
        Ok(Plan {
            output: 0,
            edit: Some(edit),
        })
    }
}

/// An edge, and an output that leads there through [`Echo`].
fn echoing(telemetry: &Telemetry) -> (Arc<Edge>, Output) {
    let edge = edge(telemetry, "a");
    let node = Node {
        transform: Arc::new(Echo) as Arc<dyn Transform>,
        metrics: telemetry.component("transform", Kind::Transform, "test"),
        outputs: vec![vec![Target::Edge(0)]],
    };
    let stage = Stage(Wiring {
        entry: vec![Target::Node(0)],
        nodes: vec![node],
        edges: vec![edge.clone()],
        in_use: watch::channel(()).1,
    });
    let metrics = telemetry.component("source", Kind::Source, "test");
    let output = Queries::output(&"source".into(), Arc::new(stage), metrics);
    (edge, output)
}

fn sending(path: &str, body: &'static str) -> Query {
    Query {
        body: Body::stream(Body::from(body)),
        ..query(path)
    }
}

#[tokio::test]
async fn a_transform_sees_bodies_whole_and_edits_the_answer() {
    let telemetry = Telemetry::new();
    let (edge, output) = echoing(&telemetry);
    let answerer = Answers(|query: Query| {
        Box::pin(async move {
            let path = query.uri.path().to_owned();
            let mut answer = Answer::new(path.into());
            answer.headers_mut().insert("etag", "1".parse().unwrap());
            answer.headers_mut().insert("x-kept", "1".parse().unwrap());
            Ok(answer)
        }) as BoxFuture<_>
    });
    let _serving = edge.input().serve(Arc::new(answerer));
    for (path, expected) in [("/one", "sent+/one+"), ("/beside", "sent+/beside+/other")] {
        let answer = output.ask(sending(path, "sent")).await.unwrap();
        assert_eq!(answer.headers().len(), 1, "{:?}", answer.headers());
        assert_eq!(text(answer).await.unwrap(), expected);
    }
    let head = Query {
        method: Method::HEAD,
        ..sending("/one", "")
    };
    let answer = output.ask(head).await.unwrap();
    assert_eq!(text(answer).await.unwrap(), "");
    let refused = async |query| output.ask(query).await.unwrap_err().kind;
    let long = sending("/one", "eleven bytes");
    assert_eq!(refused(long).await, RejectionKind::TooLarge);
    let long = query("/an-answer-that-is-longer-than-allowed");
    assert_eq!(refused(long).await, RejectionKind::Unreachable);
    assert_eq!(refused(query("/panic")).await, RejectionKind::Internal);
    assert_eq!(asked(&output, "/one").await, "+/one+");
}

#[tokio::test]
async fn what_cannot_be_edited_passes_if_it_is_an_error_and_is_refused_otherwise() {
    let telemetry = Telemetry::new();
    let (edge, output) = echoing(&telemetry);
    let answerer = Answers(|query: Query| {
        Box::pin(async move {
            let mut answer = Answer::new("error".into());
            match query.uri.path() {
                "/gzip" => {
                    let gzip = "gzip".parse().unwrap();
                    answer.headers_mut().insert("content-encoding", gzip);
                }
                "/failing" => {}
                "/other" => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                path => *answer.status_mut() = path[1..].parse().unwrap(),
            }
            Ok(answer)
        }) as BoxFuture<_>
    });
    let _serving = edge.input().serve(Arc::new(answerer));
    for (path, status) in [
        ("/302", 302),
        ("/422", 422),
        ("/503", 503),
        ("/failing", 503),
    ] {
        let answer = output.ask(query(path)).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(text(answer).await.unwrap(), "error", "{path}");
    }
    for path in ["/gzip", "/206", "/204"] {
        let kind = refused(&output, path).await;
        assert_eq!(kind, RejectionKind::Unreachable, "{path}");
    }
}
