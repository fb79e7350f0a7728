//! Messages that users see for each kind of mistake.

mod diagnostics;
mod graph;
mod loading;

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{Address, BuildError, Endpoint, Problems, Secret, Size, keys, words};
use metrifold_http::Listen;
use metrifold_model::Kind;
use metrifold_queue::QueueConfig;

use crate::component::{
    BuildContext, BuildSink, BuildSource, BuildTransform, ComponentInfo, MetricsSink, Resource,
    SinkPort, SourcePort, TransformPorts,
};
use crate::memory::Sizes;
use crate::planes::metrics::Form;
use crate::planes::{Plane, Sink, Source};

use super::*;

/// A listener for tests.
pub(super) fn listen(address: &str, path: &str) -> Listen {
    Listen::new(address.parse().unwrap(), path)
}

words! {
    /// What a test component carries.
    #[derive(Clone, Copy, Debug)]
    enum Carries {
        /// Batches.
        Metrics = "metrics",
        /// Reads.
        Queries = "queries",
    }
}

keys! {
    #[derive(Debug)]
    struct TestSource {
        /// Where it listens.
        address: Address = required("127.0.0.1:0"),
        /// The path.
        path: String = default("/"),
        /// What it sends.
        signal: Carries = default("metrics"),
        /// A secret.
        password: Option<Secret> = unset("hidden"),
        /// Headers.
        headers: BTreeMap<String, Secret> = unset({ a = "b" }),
        /// The largest body and what it may decompress to.
        largest: Vec<Size> = unset(["1MiB", "4MiB"]),
    }
}

#[typetag::deserialize(name = "test_source")]
impl SourceConfig for TestSource {
    fn port(&self) -> SourcePort<'_> {
        match self.signal {
            Carries::Metrics => SourcePort::Metrics(self),
            Carries::Queries => SourcePort::Queries(self),
        }
    }

    fn largest_request(&self) -> Option<Sizes> {
        let [body, decoded] = *self.largest.as_slice() else {
            return None;
        };
        Some(Sizes {
            body: body.0,
            decoded: decoded.0,
        })
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Route(listen(
            &self.address.to_string(),
            &self.path,
        ))]
    }

    fn validate(&self, problems: &mut Problems) {
        if !self.path.starts_with('/') {
            problems
                .at(
                    "path",
                    format!("{:?} does not start with a slash", self.path),
                )
                .help("write /path");
        }
        for (name, value) in &self.headers {
            if value.expose().is_empty() {
                problems.at(format!("headers.{name}"), "is empty");
            }
        }
    }
}

impl<P: Plane> BuildSource<P> for TestSource {
    fn build(&self, _cx: &BuildContext) -> Result<Box<dyn Source<P>>, BuildError> {
        Err(BuildError::new("test", "cannot be built"))
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "test_source",
        summary: "Exists in tests.",
        keys: TestSource::ENTRIES,
    }
}

keys! {
    #[derive(Debug)]
    struct TestTransform {
        /// Its outputs.
        routes: Vec<String> = unset(["a"]),
        /// Its rules.
        rules: Vec<Rule> = unset([{ regex = "a" }]),
    }
}

keys! {
    #[derive(Debug)]
    struct Rule {
        /// A pattern.
        regex: String = required("a"),
    }
}

#[typetag::deserialize(name = "test_transform")]
impl TransformConfig for TestTransform {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            queries: Some(self),
            ..TransformPorts::default()
        }
    }

    fn outputs(&self) -> Vec<String> {
        self.routes.clone()
    }

    fn validate(&self, problems: &mut Problems) {
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.regex.contains('(') {
                problems.at(format!("rules[{index}].regex"), "group is not closed");
            }
        }
    }
}

impl<P: Plane> BuildTransform<P> for TestTransform {
    fn build(&self, _cx: &BuildContext) -> Result<Arc<P::Transform>, BuildError> {
        Err(BuildError::new("test", "cannot be built"))
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "test_transform",
        summary: "Exists in tests.",
        keys: TestTransform::ENTRIES,
    }
}

keys! {
    #[derive(Debug)]
    struct TestSink {
        /// Where it sends.
        endpoint: Endpoint = required("http://localhost/"),
        /// Whether it is required.
        required: bool = default(false),
        /// Its queue.
        queue: QueueConfig = table,
        /// What it takes.
        signal: Carries = default("metrics"),
    }
}

#[typetag::deserialize(name = "test_sink")]
impl SinkConfig for TestSink {
    fn port(&self) -> SinkPort<'_> {
        match self.signal {
            Carries::Metrics => SinkPort::Metrics(self),
            Carries::Queries => SinkPort::Queries(self),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        self.queue.validate(self.required, problems);
    }
}

impl MetricsSink for TestSink {
    fn form(&self) -> Form {
        Form::Decoded
    }
}

impl<P: Plane> BuildSink<P> for TestSink {
    fn build(&self, _cx: &BuildContext) -> Result<Box<dyn Sink<P>>, BuildError> {
        Err(BuildError::new("test", "cannot be built"))
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "test_sink",
        summary: "Exists in tests.",
        keys: TestSink::ENTRIES,
    }
}

/// The environment of these tests.
fn environment(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("thanos".to_owned()),
        "TOKEN" => Some("hunter2".to_owned()),
        _ => None,
    }
}

/// Loads texts as `a.toml`, `b.toml` and `c.toml`.
pub(super) fn load_texts(texts: &[&str]) -> Result<Loaded, Vec<Diagnostic>> {
    let names = ["a.toml", "b.toml", "c.toml"];
    let texts: Vec<(&str, &str)> = names.into_iter().zip(texts.iter().copied()).collect();
    parse_texts(&texts, &environment, LoadOptions::default())
}

/// All that is printed for the texts.
fn printed(texts: &[&str]) -> String {
    let found = match load_texts(texts) {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    let rendered: Vec<String> = found.iter().map(|found| found.render(false)).collect();
    rendered.join("\n\n")
}

/// A configuration with a source `in`, a sink `out` and `more`.
pub(super) fn around(more: &str) -> String {
    format!(
        "[sources.in]\ntype = 'test_source'\naddress = '127.0.0.1:1'\n\
         [sinks.out]\ntype = 'test_sink'\ninputs = ['in']\nendpoint = 'http://x'\n{more}"
    )
}

/// Compares the output for the texts with `expected`. Ignores surrounding white space and lists of
/// component types, which grow with every component.
#[track_caller]
fn check(texts: &[&str], expected: &str) {
    let printed = printed(texts);
    let lines: Vec<&str> = printed
        .lines()
        .map(|line| line.find(" types: `").map_or(line, |at| &line[..at + 7]))
        .collect();
    assert_eq!(lines.join("\n").trim(), expected.trim());
}
