//! A configuration that is edited while the program runs it, and what is told of that.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{Answer, Child, Sender, until_so};

/// A source, a sink and whatever else.
pub fn config(more: &str) -> String {
    format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.out]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n{more}\n"
    )
}

/// A further sink.
pub fn sink(name: &str) -> String {
    format!("[sinks.{name}]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n")
}

pub fn file(child: &Child) -> PathBuf {
    child.folder().join("metrifold.toml")
}

/// Writes the file in place.
pub fn edit(child: &Child, config: &str) {
    fs::write(file(child), child.complete(config)).unwrap();
}

/// Puts another file in its place.
pub fn replace(child: &Child, config: &str) {
    let new = child.folder().join(".metrifold.toml.new");
    fs::write(&new, child.complete(config)).unwrap();
    fs::rename(new, file(child)).unwrap();
}

pub fn topology(child: &Child) -> Value {
    serde_json::from_slice(&child.get("/api/v1/topology").body).unwrap()
}

pub fn runs(child: &Child, component: &str) -> bool {
    let topology = topology(child);
    let components = topology["components"].as_array().unwrap();
    components.iter().any(|found| found["id"] == component)
}

pub fn reloads(child: &Child, outcome: &str) -> f64 {
    child.metric("metrifold_config_reloads_total", &[("outcome", outcome)])
}

pub fn successful(child: &Child) -> f64 {
    child.metric("metrifold_config_last_reload_successful", &[])
}

#[track_caller]
pub fn until_runs(child: &Child, component: &str) {
    until_so(&format!("{component} runs"), || runs(child, component));
}

#[track_caller]
pub fn until_refused(child: &Child, times: f64) -> String {
    until_so("the reload is refused", || {
        reloads(child, "refused") >= times
    });
    topology(child)["last_refused_reload"]["errors"].to_string()
}

/// Runs it so that its looks at the files can be counted.
pub const TALKATIVE: [&str; 2] = ["--log-level", "info,metrifold_engine::reload=debug"];

pub fn looks(child: &Child) -> usize {
    child.stderr().matches("looked at the files").count()
}

/// Waits until it has looked at the files and found nothing: what it does next is due to an event.
#[track_caller]
pub fn until_quiet(child: &Child) {
    let before = looks(child);
    until_so("it looks at the files", || looks(child) > before);
}

/// Asks for a reload.
#[track_caller]
pub fn post(child: &Child) -> Answer {
    Sender::new(child.api).post("/-/reload", &[], b"")
}

#[track_caller]
pub fn post_expecting(child: &Child, status: u16, last: &str) -> String {
    let answer = post(child);
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(text.lines().last(), Some(last), "{text}");
    text
}

/// Without watching, so that nothing but the test reloads.
#[track_caller]
pub fn unwatched(config: &str) -> Child {
    Child::start_with(config, &["--no-watch"])
}
