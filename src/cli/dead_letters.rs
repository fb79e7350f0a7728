//! `dead-letters`: batches that endpoints have refused, as a running process keeps them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;

use metrifold_base::Period;
use metrifold_engine::dead_letters::{Entry, Listing};

use crate::api::dead_letters::{
    DISCARD, Done, LIST, NAMED_MAX, Named, RESEND, RESEND_LIMIT, Results,
};

use super::admin::{self, AdminArgs, Process};
use super::{EXIT_FAILURE, EXIT_OK, Global, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold dead-letters list
  metrifold dead-letters list --sink mimir --tenant team-a --json
  metrifold dead-letters resend mimir/1763719441123
  metrifold dead-letters discard --all --sink mimir

The running process is asked, at the admin address of the configuration (--config), unless \
--address names another one. Exits with 0 when all was done, and with 1 when a letter could not be \
sent or discarded, or nobody answered.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, the newest first
    List(ListArgs),
    /// Queue dead letters at their sinks again; each is removed once its sink has it
    Resend(ChosenArgs),
    /// Remove dead letters
    Discard(ChosenArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,

    /// Maximum number of letters to list
    #[arg(long, value_name = "N", default_value = "100")]
    limit: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ChosenArgs {
    /// Letters, by their names in `list`
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with_all = ["all", "sink", "tenant"]
    )]
    ids: Vec<String>,

    /// All present letters, or those of --sink and --tenant
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Only letters of this sink
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,

    /// Only letters of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

/// Longest wait for a list, which the process reads from disk.
const TIMEOUT: Period = Period::secs(60);

pub(super) fn execute(global: &Global, args: &DeadLettersArgs) -> u8 {
    let done = match &args.action {
        Action::List(args) => list(global, args),
        Action::Resend(args) => act(global, args, RESEND, "sent"),
        Action::Discard(args) => act(global, args, DISCARD, "discarded"),
    };
    done.unwrap_or_else(|code| code)
}

fn list(global: &Global, args: &ListArgs) -> Result<u8, u8> {
    let process = args.admin.find(global)?;
    let listing = listing(&process, &args.filter, args.limit)?;
    if args.json {
        // Serializing strings and numbers cannot fail.
        let json = serde_json::to_string_pretty(&listing).unwrap_or_default();
        return Ok(report::print(&format!("{json}\n")));
    }
    let mut text = String::new();
    for entry in &listing.letters {
        describe(&mut text, entry);
    }
    if listing.more {
        report::complain("there are more letters: use --limit");
    }
    Ok(report::print(&text))
}

/// Sends or discards the chosen letters, in requests of bounded size.
fn act(global: &Global, args: &ChosenArgs, path: &str, what: &str) -> Result<u8, u8> {
    let process = args.admin.find(global)?;
    let ids = if args.all {
        // Taken once: letters that are refused again meanwhile are not sent twice.
        let all = listing(&process, &args.filter, usize::MAX)?;
        all.letters
            .into_iter()
            .rev()
            .map(|entry| entry.id)
            .collect()
    } else {
        // Each once, in the order of the command line.
        let mut seen = BTreeSet::new();
        let mut ids = args.ids.clone();
        ids.retain(|id| seen.insert(id.clone()));
        ids
    };
    let (mut done, mut failed) = (0, 0);
    for ids in ids.chunks(NAMED_MAX) {
        let named = Named { ids: ids.to_vec() };
        let body = serde_json::to_string(&named).unwrap_or_default();
        let timeout = Period(RESEND_LIMIT + TIMEOUT.0);
        let answer = admin::ask(&process, Method::POST, path, body, timeout);
        let Results { results } = parse(&process, answer)?;
        for Done { id, reason, .. } in &results {
            match reason {
                None => done += 1,
                Some(reason) => {
                    failed += 1;
                    report::complain(&format!("{id}: {reason}"));
                }
            }
        }
    }
    let told = report::print(&format!("{what}: {}\n", report::count(done, "letter")));
    Ok(match (told, failed) {
        (EXIT_OK, 0) => EXIT_OK,
        _ => EXIT_FAILURE,
    })
}

fn listing(process: &Process, filter: &FilterArgs, limit: usize) -> Result<Listing, u8> {
    let mut query = Vec::from([("limit", limit.to_string())]);
    let given = [("sink", &filter.sink), ("tenant", &filter.tenant)];
    query.extend(
        given
            .map(|(key, value)| value.clone().map(|v| (key, v)))
            .into_iter()
            .flatten(),
    );
    // The query is encoded as part of a made-up URL.
    let url = Url::parse_with_params(&format!("http://{process}{LIST}"), query);
    let url = url.map_err(|error| cannot_be_asked(process, &error.to_string()))?;
    let path = format!("{LIST}?{}", url.query().unwrap_or_default());
    let answer = admin::ask(process, Method::GET, &path, String::new(), TIMEOUT);
    parse(process, answer)
}

fn parse<T: DeserializeOwned>(
    process: &Process,
    answer: Result<(StatusCode, String), String>,
) -> Result<T, u8> {
    match answer {
        Ok((StatusCode::OK, text)) => serde_json::from_str(&text)
            .map_err(|error| cannot_be_asked(process, &error.to_string())),
        Ok((status, text)) => {
            report::tell(&text);
            report::complain(&format!("{process} answered {status}"));
            Err(EXIT_FAILURE)
        }
        Err(error) => Err(cannot_be_asked(process, &error)),
    }
}

fn cannot_be_asked(process: &Process, error: &str) -> u8 {
    report::complain(&format!("cannot reach {process}: {error}"));
    EXIT_FAILURE
}

/// Writes a letter in a few lines.
fn describe(out: &mut String, entry: &Entry) {
    let tenant = entry.tenant.as_deref();
    let tenant = tenant.map_or_else(String::new, |tenant| {
        format!("  tenant {}", report::plain(tenant))
    });
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{}  {}{tenant}", entry.id, date(entry.time));
    if let Some(reason) = &entry.damaged {
        let _ = writeln!(out, "  damaged: {reason}");
        return;
    }
    let _ = writeln!(out, "  {}", report::plain(&entry.reason));
    for series in &entry.series {
        let samples = report::count(series.samples as usize, "sample");
        let first = series.first_timestamp;
        let first = first.map_or_else(String::new, |first| format!(" from {first}"));
        let _ = writeln!(out, "  {}  {samples}{first}", series.labels);
    }
    if entry.more_series > 0 {
        let _ = writeln!(out, "  and {} more series", entry.more_series);
    }
}

/// The date in HTTP's format, whose years have four digits.
fn date(millis: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800_000;
    match millis < YEAR_10000 {
        true => httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis)),
        false => millis.to_string(),
    }
}
