//! `queues`: lists the queues on disk, and moves or removes those that no sink reads.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use metrifold_engine::config::queues::{self, Found};
use metrifold_engine::config::{Config, LoadOptions};
use metrifold_model::ledger::Tally;
use metrifold_queue::disk;

use super::{EXIT_FAILURE, EXIT_USAGE, Global, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold queues list
  metrifold queues adopt old_name new_name
  metrifold queues discard old_name --yes

A sink that gets another name leaves its queue behind, under data_dir. `adopt` moves what is in it, and \
its accounts, to the queue of another sink, where it comes first; `discard` removes it. Both go by the \
configuration (--config) and refuse while a process has one of the queues: stop it first. `list` can be \
run at any time.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct QueuesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the queues under data_dir, their content, and the sinks that read them
    List(ListArgs),
    /// Move the content of a queue, and its accounts, to the queue of another sink
    Adopt(AdoptArgs),
    /// Remove a queue and its content
    Discard(DiscardArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AdoptArgs {
    /// Queue that no sink reads
    old: String,

    /// Sink that is to deliver the queue's content
    new: String,
}

#[derive(Debug, Args)]
struct DiscardArgs {
    /// Queue to remove
    name: String,

    /// Confirm that the queue's content may be lost
    #[arg(long)]
    yes: bool,
}

/// A queue in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    read: bool,
    in_use: bool,
    batches: u64,
    samples: u64,
    uncounted_batches: u64,
    bytes: u64,
    #[serde(skip)]
    queued: Tally,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn execute(global: &Global, args: &QueuesArgs) -> u8 {
    // The subcommand itself reads the queues.
    let options = LoadOptions { environment: false };
    let config = match report::load(global, options) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    match &args.action {
        Action::List(args) => list(&config, args.json),
        Action::Adopt(args) => adopt(&config, &args.old, &args.new),
        Action::Discard(args) => discard(&config, &args.name, args.yes),
    }
}

fn list(config: &Config, json: bool) -> u8 {
    let found = queues::find(config);
    let rows = found.iter().map(row).collect::<Vec<_>>();
    if json {
        return match serde_json::to_string_pretty(&rows) {
            Ok(text) => report::print(&format!("{text}\n")),
            Err(error) => refuse(&error.to_string()),
        };
    }
    let mut out = String::new();
    for row in &rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{}: {}", row.name, state(row));
        let _ = match &row.error {
            Some(error) => writeln!(out, "  cannot be read: {error}"),
            None => writeln!(
                out,
                "  {}, {} bytes of files",
                amount(row.queued),
                row.bytes
            ),
        };
    }
    if rows.is_empty() {
        out.push_str("there is no queue on disk\n");
    }
    report::print(&out)
}

fn row(found: &Found) -> Row<'_> {
    let survey = found.survey.as_ref().ok();
    let queued = survey.map(|survey| survey.queued).unwrap_or_default();
    Row {
        name: &found.name,
        read: found.is_read,
        in_use: survey.is_some_and(|survey| survey.in_use),
        batches: queued.batches,
        samples: queued.samples,
        uncounted_batches: queued.uncounted,
        bytes: survey.map_or(0, |survey| survey.bytes),
        queued,
        error: found.survey.as_ref().err().map(ToString::to_string),
    }
}

fn state(row: &Row<'_>) -> &'static str {
    match (row.read, row.in_use) {
        (true, true) => "read by the sink of this name, in use by a process",
        (true, false) => "read by the sink of this name",
        (false, true) => "read by no sink of the configuration, in use by a process",
        (false, false) => "read by no sink of the configuration",
    }
}

fn adopt(config: &Config, old: &str, new: &str) -> u8 {
    if queues::is_read(config, old) {
        return refuse(&format!(
            "sink {old} reads its queue: rename or remove it in the configuration first"
        ));
    }
    if !queues::is_declared(config, new) {
        return refuse(&format!(
            "there is no sink {new} with a queue on disk in the configuration"
        ));
    }
    let (from, to) = match (place(config, old), place(config, new)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(code), _) | (_, Err(code)) => return code,
    };
    if !from.is_dir() {
        return refuse(&format!(
            "there is no queue {old}: see `metrifold queues list`"
        ));
    }
    match disk::adopt(&from, &to) {
        Ok(moved) => report::print(&format!(
            "moved {} from {old} to {new}, in front of what was there, and the accounts with them\n",
            amount(moved)
        )),
        Err(error) => refuse(&error.to_string()),
    }
}

fn discard(config: &Config, name: &str, yes: bool) -> u8 {
    let path = match place(config, name) {
        Ok(path) => path,
        Err(code) => return code,
    };
    if !path.is_dir() {
        return refuse(&format!(
            "there is no queue {name}: see `metrifold queues list`"
        ));
    }
    if !yes {
        let held = disk::survey(&path).map(|survey| amount(survey.queued));
        let held = held.unwrap_or_else(|error| format!("data that cannot be read ({error})"));
        report::complain(&format!(
            "queue {name} holds {held}, which would be lost: add --yes to remove it"
        ));
        return EXIT_USAGE;
    }
    match disk::discard(&path) {
        Ok(lost) => report::print(&format!("removed {name} with {}\n", amount(lost))),
        Err(error) => refuse(&error.to_string()),
    }
}

/// Folder of a queue. The name must be a single path segment.
fn place(config: &Config, name: &str) -> Result<PathBuf, u8> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        report::complain(&format!("{name:?} is not the name of a queue"));
        return Err(EXIT_USAGE);
    }
    queues::folder(config, name).ok_or_else(|| refuse("the configuration has no data_dir"))
}

fn refuse(reason: &str) -> u8 {
    report::complain(reason);
    EXIT_FAILURE
}

fn amount(tally: Tally) -> String {
    let uncounted = match tally.uncounted {
        0 => String::new(),
        more => format!(" and those of {} that were not counted", batches(more)),
    };
    let (batches, samples) = (batches(tally.batches), samples(tally.samples));
    format!("{batches} with {samples}{uncounted}")
}

fn batches(number: u64) -> String {
    match number {
        1 => "1 batch".to_owned(),
        _ => format!("{number} batches"),
    }
}

fn samples(number: u64) -> String {
    report::count(usize::try_from(number).unwrap_or(usize::MAX), "sample")
}
