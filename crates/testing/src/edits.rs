//! Edits the configuration of a running program, and reads the outcome.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::{Answer, Metrifold, Sender, until_so};

pub fn file(running: &Metrifold) -> PathBuf {
    running.folder().join("metrifold.toml")
}

/// Overwrites the file.
pub fn edit(running: &Metrifold, config: &str) {
    fs::write(file(running), running.complete(config)).unwrap();
}

/// Replaces the file by another one.
pub fn replace(running: &Metrifold, config: &str) {
    let new = running.folder().join(".metrifold.toml.new");
    fs::write(&new, running.complete(config)).unwrap();
    fs::rename(new, file(running)).unwrap();
}

#[track_caller]
pub fn topology(running: &Metrifold) -> Value {
    running.get("/api/v1/topology").json()
}

#[track_caller]
pub fn runs(running: &Metrifold, component: &str) -> bool {
    let topology = topology(running);
    let components = topology["components"].as_array().unwrap();
    components.iter().any(|found| found["id"] == component)
}

#[track_caller]
pub fn reloads(running: &Metrifold, outcome: &str) -> f64 {
    running.metric("metrifold_config_reloads_total", &[("outcome", outcome)])
}

#[track_caller]
pub fn successful(running: &Metrifold) -> f64 {
    running.metric("metrifold_config_last_reload_successful", &[])
}

#[track_caller]
pub fn until_runs(running: &Metrifold, component: &str) {
    until_so(&format!("{component} runs"), || runs(running, component));
}

#[track_caller]
pub fn until_refused(running: &Metrifold, times: f64) -> String {
    until_so("the reload is refused", || {
        reloads(running, "refused") >= times
    });
    topology(running)["last_refused_reload"]["errors"].to_string()
}

/// Arguments for a log in which looks at the files can be counted.
pub const TALKATIVE: [&str; 2] = ["--log-level", "info,metrifold_files=debug"];

pub fn looks(running: &Metrifold) -> usize {
    running.log().matches("looked at the files").count()
}

/// Waits for a look that finds no change: the next reload must come from an event.
#[track_caller]
pub fn until_quiet(running: &Metrifold) {
    let before = looks(running);
    until_so("it looks at the files", || looks(running) > before);
}

/// Requests a reload.
#[track_caller]
pub fn post(running: &Metrifold) -> Answer {
    Sender::new(running.api).post("/-/reload", &[], b"")
}

#[track_caller]
pub fn post_expecting(running: &Metrifold, status: u16, last: &str) -> String {
    let answer = post(running);
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(text.lines().last(), Some(last), "{text}");
    text
}

/// Starts the program without watching files, so that only the test reloads.
#[track_caller]
pub fn unwatched(config: &str) -> Metrifold {
    Metrifold::start_with(config, &["--no-watch"])
}
