//! The plane of rules, without components around it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use metrifold_base::locked;
use metrifold_model::{Kind, Rejection, RejectionKind, Tenant};
use metrifold_rules::{Group, RuleFile, StoredFile, TenantRules};
use metrifold_telemetry::{ComponentMetrics, Telemetry};
use tokio::sync::watch;

use crate::planes::{Edge as _, Node, Plane, Target, Wiring};

use super::{Conflict, Edge, Input, Output, RuleSet, Rules, Stage, Transform, View};

/// A transform that records the tenants that it is applied to, and marks their rules.
#[derive(Debug, Default)]
struct Marking {
    asked: Mutex<Vec<String>>,
    mark: &'static str,
}

impl Marking {
    fn with(mark: &'static str) -> Arc<Self> {
        Arc::new(Self {
            mark,
            ..Self::default()
        })
    }

    /// The tenants since the last call.
    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.asked))
    }
}

impl Transform for Marking {
    fn apply(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Arc<TenantRules>, Rejection> {
        locked(&self.asked).push(tenant.to_string());
        if rules.file("reject").is_some() {
            let reason = "rules of this kind are refused";
            return Err(Rejection::new(RejectionKind::Invalid, reason));
        }
        assert!(rules.file("panic").is_none(), "a panic, as intended");
        Ok(Arc::new(rules.with_file(self.mark.into(), file("mark"))))
    }
}

fn file(group: &str) -> Arc<StoredFile> {
    let group = Group {
        name: group.to_owned(),
        ..Group::default()
    };
    Arc::new(StoredFile::new(RuleFile {
        groups: vec![group],
    }))
}

/// Rules of one file with one group.
fn rules(name: &str, group: &str) -> Arc<TenantRules> {
    Arc::new(TenantRules::new([(name.into(), file(group))]))
}

fn set<'a>(tenants: impl IntoIterator<Item = (&'a str, Arc<TenantRules>)>) -> RuleSet {
    let tenants = tenants.into_iter();
    tenants.map(|(id, rules)| (id.into(), rules)).collect()
}

fn metrics(telemetry: &Telemetry, id: &str, kind: Kind) -> ComponentMetrics {
    telemetry.component(id, kind, "test")
}

/// A sink's edge with both of its ends.
struct Sink {
    edge: Arc<Edge>,
    input: Input,
}

impl Sink {
    fn of(sources: &[&str]) -> Self {
        let edge = Arc::new(Edge::new(metrics(&Telemetry::new(), "sink", Kind::Sink)));
        let input = edge.input();
        let sink = Self { edge, input };
        sink.wired(sources);
        sink
    }

    fn wired(&self, sources: &[&str]) {
        let sources: BTreeSet<Arc<str>> = sources.iter().map(|&id| id.into()).collect();
        self.edge.wired(&sources);
    }

    /// The new view, if there is one.
    fn seen(&mut self) -> Option<View> {
        let changed = pin!(self.input.changed());
        match changed.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(view) => Some(view.expect("the edge is there")),
            Poll::Pending => None,
        }
    }

    /// The joined sets of all sources.
    #[track_caller]
    fn joined(&mut self) -> RuleSet {
        let view = self.seen().expect("there is something new");
        assert_eq!(view.awaited().count(), 0);
        let joined = view.joined();
        assert_eq!(joined.conflicts.len(), 0, "{joined:?}");
        joined.set
    }
}

/// A stage that leads to these sinks, through a transform if there is one.
fn stage(transform: Option<Node<Rules>>, sinks: &[&Sink]) -> Arc<Stage> {
    let edges: Vec<_> = (0..sinks.len()).map(Target::Edge).collect();
    let (entry, nodes) = match transform {
        Some(node) => {
            let node = Node {
                outputs: vec![edges],
                ..node
            };
            (vec![Target::Node(0)], vec![node])
        }
        None => (edges, Vec::new()),
    };
    Arc::new(Stage::new(Wiring {
        entry,
        nodes,
        edges: sinks.iter().map(|sink| sink.edge.clone()).collect(),
        in_use: watch::channel(()).1,
    }))
}

fn node(transform: &Arc<Marking>, telemetry: &Telemetry) -> Option<Node<Rules>> {
    Some(Node {
        transform: transform.clone(),
        metrics: metrics(telemetry, "marking", Kind::Transform),
        outputs: Vec::new(),
    })
}

fn output(id: &str, stage: Arc<Stage>) -> Output {
    let metrics = metrics(&Telemetry::new(), id, Kind::Source);
    Rules::output(&id.into(), stage, metrics)
}

fn publish(output: &Output, set: RuleSet) {
    output.publish_now(set, output.begin());
}

#[test]
fn one_tenants_change_among_ten_thousand_is_one_call() {
    let (marking, telemetry) = (Marking::with("m"), Telemetry::new());
    let mut sink = Sink::of(&["source"]);
    let output = output("source", stage(node(&marking, &telemetry), &[&sink]));
    let tenant = |at: usize| format!("tenant-{at}");
    let ids: Vec<String> = (0..10_000).map(tenant).collect();
    let all = set(ids.iter().map(|id| (&**id, rules("a", id))));
    publish(&output, all.clone());
    let asked: BTreeSet<_> = marking.take_asked().into_iter().collect();
    assert_eq!(asked.len(), 10_000);
    assert_eq!(sink.joined().len(), 10_000);

    let changed = all.with("tenant-4711".into(), rules("a", "changed"));
    publish(&output, changed.clone());
    assert_eq!(marking.take_asked(), ["tenant-4711"]);
    let seen = sink.joined();
    assert_eq!(seen.len(), 10_000);
    let expected = rules("a", "changed").with_file("m".into(), file("mark"));
    assert_eq!(seen.get("tenant-4711"), Some(&Arc::new(expected)));

    // Removing a tenant calls no transform, and neither does publishing the same set again.
    publish(&output, changed.without("tenant-1"));
    publish(&output, changed.without("tenant-1"));
    assert_eq!(marking.take_asked(), [""; 0]);
    assert_eq!(sink.joined().len(), 9_999);
}

#[test]
fn a_transform_that_rejects_or_panics_keeps_the_tenants_old_rules_and_touches_no_others() {
    let (marking, telemetry) = (Marking::with("m"), Telemetry::new());
    let mut sink = Sink::of(&["source"]);
    let output = output("source", stage(node(&marking, &telemetry), &[&sink]));
    publish(
        &output,
        set([("a", rules("x", "1")), ("b", rules("x", "1"))]),
    );
    let before = sink.joined();
    for (name, error_type) in [("reject", "invalid"), ("panic", "internal")] {
        publish(
            &output,
            set([
                ("a", rules(name, "2")),
                ("b", rules("x", name)),
                ("new", rules(name, "2")),
            ]),
        );
        let seen = sink.joined();
        assert_eq!(seen.get("a"), before.get("a"), "{name}");
        let b = rules("x", name).with_file("m".into(), file("mark"));
        assert_eq!(seen.get("b"), Some(&Arc::new(b)), "{name}");
        assert_eq!(seen.get("new"), None, "{name}");
        let page = telemetry.render();
        let counted = page
            .lines()
            .find(|line| line.contains(&format!("error_type=\"{error_type}\"")));
        assert!(counted.is_some_and(|line| line.ends_with(" 2")), "{page}");
    }
    // Corrected rules pass again, and a removed tenant is removed even if its rules were refused.
    publish(&output, set([("a", rules("x", "3"))]));
    let seen = sink.joined();
    let a = rules("x", "3").with_file("m".into(), file("mark"));
    assert_eq!(seen, set([("a", Arc::new(a))]));
}

#[test]
fn of_many_tenants_that_change_at_once_each_has_its_own_outcome() {
    let (marking, telemetry) = (Marking::with("m"), Telemetry::new());
    let mut sink = Sink::of(&["source"]);
    let output = output("source", stage(node(&marking, &telemetry), &[&sink]));
    let ids: Vec<String> = (0..1_000).map(|at| format!("tenant-{at}")).collect();
    let kind = |at: usize| match at % 10 {
        3 => "reject",
        7 => "panic",
        _ => "x",
    };
    let all = ids.iter().enumerate();
    publish(
        &output,
        set(all.map(|(at, id)| (&**id, rules(kind(at), id)))),
    );
    let seen = sink.joined();
    assert_eq!(seen.len(), 800);
    for (at, id) in ids.iter().enumerate() {
        let made = rules("x", id).with_file("m".into(), file("mark"));
        let expected = (kind(at) == "x").then(|| Arc::new(made));
        assert_eq!(seen.get(id), expected.as_ref(), "{id}");
        assert_eq!(
            output.refused(id).len(),
            usize::from(expected.is_none()),
            "{id}"
        );
    }
}

#[test]
fn a_sink_sees_who_is_awaited_and_then_the_newest_of_all_sources() {
    let mut sink = Sink::of(&["a", "b"]);
    let (a, b) = (
        output("a", stage(None, &[&sink])),
        output("b", stage(None, &[&sink])),
    );
    let awaited = |view: &View| view.awaited().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(awaited(&sink.seen().unwrap()), ["a", "b"]);
    assert!(sink.seen().is_none());
    publish(&a, set([("t", rules("x", "1"))]));
    assert_eq!(awaited(&sink.seen().unwrap()), ["b"]);
    // An empty set counts as published.
    publish(&b, RuleSet::default());
    assert_eq!(sink.joined(), set([("t", rules("x", "1"))]));
    for generation in ["2", "3", "4"] {
        publish(&a, set([("t", rules("x", generation))]));
        publish(
            &b,
            set([("t", rules("y", generation)), ("u", rules("x", generation))]),
        );
    }
    let both = rules("x", "4").with_file("y".into(), file("4"));
    let newest = set([("t", Arc::new(both)), ("u", rules("x", "4"))]);
    assert_eq!(sink.joined(), newest);
    assert!(sink.seen().is_none());
}

#[test]
fn one_file_of_two_sources_is_a_conflict_unless_it_is_the_same() {
    let mut sink = Sink::of(&["a", "b"]);
    let (a, b) = (
        output("a", stage(None, &[&sink])),
        output("b", stage(None, &[&sink])),
    );
    publish(&a, set([("t", rules("x", "1"))]));
    publish(&b, set([("t", rules("x", "1"))]));
    assert_eq!(sink.joined(), set([("t", rules("x", "1"))]));
    publish(&b, set([("t", rules("x", "2")), ("v", rules("x", "2"))]));
    let conflict = Conflict {
        tenant: "t".into(),
        file: "x".into(),
        sides: vec![rules("x", "1"), rules("x", "2")],
    };
    let joined = sink.seen().unwrap().joined();
    assert_eq!(joined.conflicts, [("t".into(), conflict)].into());
    assert_eq!(
        joined.set,
        set([("v", rules("x", "2"))]),
        "other tenants are not held up"
    );
    // What is there of the tenant stays; of others, nothing old comes back.
    let before = set([("t", rules("x", "1")), ("gone", rules("x", "1"))]);
    let kept = set([("t", rules("x", "1")), ("v", rules("x", "2"))]);
    assert_eq!(joined.keeping(&before), kept);
    // Two tenants may have files of the same name.
    publish(&b, set([("u", rules("x", "2"))]));
    let both = set([("t", rules("x", "1")), ("u", rules("x", "2"))]);
    assert_eq!(sink.joined(), both);
}

#[test]
fn another_stage_shows_the_last_set_again() {
    let telemetry = Telemetry::new();
    let (old, new) = (Marking::with("old"), Marking::with("new"));
    let (mut before, mut after) = (Sink::of(&["source"]), Sink::of(&["source"]));
    let output = output("source", stage(node(&old, &telemetry), &[&before]));
    // Nothing was published, so nothing is known.
    Rules::redirect(&output, stage(node(&old, &telemetry), &[&before]));
    assert_eq!(before.seen().unwrap().awaited().count(), 1);
    publish(&output, set([("t", rules("x", "1"))]));
    assert!(before.joined().get("t").unwrap().file("old").is_some());

    let next = stage(node(&new, &telemetry), &[&before, &after]);
    Rules::redirect(&output, next);
    for sink in [&mut before, &mut after] {
        let seen = sink.joined();
        let expected = rules("x", "1").with_file("new".into(), file("mark"));
        assert_eq!(seen, set([("t", Arc::new(expected))]));
    }
    // A successor of the source publishes through the same output.
    let metrics = metrics(&telemetry, "source", Kind::Source);
    let successor = Rules::succeed(&output, metrics);
    publish(&successor, set([("t", rules("x", "2"))]));
    assert_eq!(old.take_asked(), ["t"]);
    assert_eq!(new.take_asked(), ["t", "t"]);
    let expected = rules("x", "2").with_file("new".into(), file("mark"));
    assert_eq!(after.joined(), set([("t", Arc::new(expected))]));
}

#[test]
fn a_publication_that_a_later_one_has_overtaken_changes_nothing() {
    let mut sink = Sink::of(&["source"]);
    let output = output("source", stage(None, &[&sink]));
    let (first, second) = (output.begin(), output.begin());
    output.publish_now(set([("t", rules("x", "2"))]), second);
    output.publish_now(set([("t", rules("x", "1"))]), first);
    assert_eq!(sink.joined(), set([("t", rules("x", "2"))]));
}

#[test]
fn rules_that_a_transform_rejects_stay_through_another_stage() {
    let (marking, telemetry) = (Marking::with("m"), Telemetry::new());
    let mut sink = Sink::of(&["source"]);
    let output = output("source", stage(node(&marking, &telemetry), &[&sink]));
    publish(
        &output,
        set([("t", rules("x", "1")), ("gone", rules("x", "1"))]),
    );
    let before = sink.joined();
    publish(&output, set([("t", rules("reject", "2"))]));
    assert_eq!(sink.joined(), before.without("gone"));
    Rules::redirect(&output, stage(node(&marking, &telemetry), &[&sink]));
    assert_eq!(sink.joined(), before.without("gone"));
}

#[test]
fn the_rules_of_a_source_that_is_removed_go() {
    let mut sink = Sink::of(&["a", "b"]);
    let [a, _b] = [("a", "t"), ("b", "u")].map(|(id, tenant)| {
        let output = output(id, stage(None, &[&sink]));
        publish(&output, set([(tenant, rules("x", id))]));
        output
    });
    assert_eq!(sink.joined().len(), 2);
    sink.wired(&["b"]);
    assert_eq!(sink.joined(), set([("u", rules("x", "b"))]));
    // The removed source may still run for a moment.
    publish(&a, set([("t", rules("x", "late"))]));
    assert!(sink.seen().is_none());
    // The same sources again change nothing.
    sink.wired(&["b"]);
    assert!(sink.seen().is_none());
    // A source that is added is awaited, and the other sets stay visible meanwhile.
    sink.wired(&["b", "c"]);
    let view = sink.seen().unwrap();
    let awaited: Vec<_> = view.awaited().map(|id| &**id).collect();
    assert_eq!(awaited, ["c"]);
}

#[test]
fn a_source_that_leads_to_a_sink_on_two_ways_sends_both_at_once() {
    let (marking, telemetry) = (Marking::with("m"), Telemetry::new());
    let mut sink = Sink::of(&["source"]);
    let node = Node {
        outputs: vec![vec![Target::Edge(0)]],
        ..node(&marking, &telemetry).unwrap()
    };
    let stage = Stage::new(Wiring {
        entry: vec![Target::Edge(0), Target::Node(0)],
        nodes: vec![node],
        edges: vec![sink.edge.clone()],
        in_use: watch::channel(()).1,
    });
    let output = output("source", Arc::new(stage));
    publish(&output, set([("t", rules("x", "1"))]));
    let expected = rules("x", "1").with_file("m".into(), file("mark"));
    assert_eq!(sink.joined(), set([("t", Arc::new(expected))]));
    assert!(sink.seen().is_none());
}
