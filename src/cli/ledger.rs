//! `ledger`: prints what each sink of a running process received, delivered, dropped and has
//! queued, and whether these balance.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use reqwest::{Method, StatusCode, Url};

use metrifold_base::Period;

use crate::api::ledger::{Amount, Balance, LEDGER, Ledgers, Row, Sink};

use super::admin::{self, AdminArgs, Process};
use super::{EXIT_FAILURE, EXIT_MOVING, EXIT_OK, Global, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold ledger
  metrifold ledger --sink thanos --tenants 50
  metrifold ledger --format json --address 10.0.0.7:8686

The running process is asked, at the admin address of the configuration (--config), unless \
--address names another one. Exits with 0 when what was received is what was delivered, dropped \
and queued, with 1 when something is missing or nobody answered, and with 75 when so much goes \
through that it cannot be said: ask again.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct LedgerArgs {
    /// Only the ledger of this sink
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,

    /// Maximum number of tenants to name; the others share one line
    #[arg(long, value_name = "N", default_value = "20")]
    tenants: usize,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables
    Text,
    /// JSON, as on the admin address
    Json,
}

const TIMEOUT: Period = Period::secs(30);

pub(super) fn execute(global: &Global, args: &LedgerArgs) -> u8 {
    run(global, args).unwrap_or_else(|code| code)
}

fn run(global: &Global, args: &LedgerArgs) -> Result<u8, u8> {
    let process = args.admin.find(global)?;
    let text = ask(&process, args)?;
    let ledgers: Ledgers = serde_json::from_str(&text)
        .map_err(|error| cannot_be_asked(&process, &error.to_string()))?;
    let told = match args.format {
        Format::Json => report::print(&format!("{}\n", text.trim_end())),
        Format::Text => report::print(&tables(&ledgers)),
    };
    Ok(match (told, ledgers.balances) {
        (EXIT_OK, Balance::Known(true)) => EXIT_OK,
        (EXIT_OK, Balance::Open(_)) => EXIT_MOVING,
        _ => EXIT_FAILURE,
    })
}

fn ask(process: &Process, args: &LedgerArgs) -> Result<String, u8> {
    let tenants = args.tenants.to_string();
    let mut query = vec![("tenants", &*tenants)];
    query.extend(args.sink.as_deref().map(|sink| ("sink", sink)));
    // The query is encoded as part of a made-up URL.
    let url = Url::parse_with_params(&format!("http://{process}{LEDGER}"), query);
    let url = url.map_err(|error| cannot_be_asked(process, &error.to_string()))?;
    let path = format!("{LEDGER}?{}", url.query().unwrap_or_default());
    match admin::ask(process, Method::GET, &path, String::new(), TIMEOUT) {
        Ok((StatusCode::OK, text)) => Ok(text),
        Ok((status, text)) => {
            report::tell(&report::plain(&text));
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

fn tables(ledgers: &Ledgers) -> String {
    let mut out = String::new();
    for sink in &ledgers.sinks {
        block(&mut out, sink);
    }
    out += verdict(ledgers.balances);
    out.push('\n');
    out
}

fn verdict(balance: Balance) -> &'static str {
    match balance {
        Balance::Known(true) => "balances: received = delivered + dropped + queued",
        Balance::Known(false) => {
            "does not balance: batches or samples are missing, or counted twice"
        }
        Balance::Open(_) => "moving: there is too much traffic to say whether it balances",
    }
}

/// Writes the ledger of a sink. Writing to a `String` cannot fail.
fn block(out: &mut String, sink: &Sink) {
    let since = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(sink.since));
    let restarts = match sink.across_restarts {
        true => ", and of what was on disk across restarts",
        false => "",
    };
    let _ = writeln!(
        out,
        "{}: since {since}{restarts}",
        report::plain(&sink.sink)
    );
    let total = &sink.total;
    let uncounted = total.received.uncounted_batches;
    table(out, "samples", sink, |amount| amount.samples);
    if uncounted > 0 {
        table(out, "batches", sink, |amount| amount.batches);
        let _ = writeln!(
            out,
            "  not counted: {uncounted} of {} batches, whose samples are in no figure above",
            total.received.batches
        );
    }
    let reasons = total.dropped.iter().map(|(reason, amount)| {
        let reason = report::plain(reason);
        match (amount.samples, amount.uncounted_batches) {
            (0, _) => format!("{reason} {}", batches(amount.batches)),
            (samples, 0) => format!("{reason} {}", count(samples, "sample")),
            (samples, more) => {
                let samples = count(samples, "sample");
                format!("{reason} {samples} and {} not counted", batches(more))
            }
        }
    });
    let reasons: Vec<String> = reasons.collect();
    if !reasons.is_empty() {
        let _ = writeln!(out, "  dropped: {}", reasons.join(", "));
    }
    let queued = total.queued;
    if queued.batches > 0 {
        let size = size(sink.queued_bytes);
        let oldest = sink.oldest_seconds.map_or_else(String::new, |seconds| {
            format!(", the oldest {} old", duration(seconds))
        });
        let drained = match (sink.failing_seconds, sink.drain_seconds) {
            (Some(seconds), _) => {
                format!("the endpoint has been failing for {}", duration(seconds))
            }
            (None, Some(seconds)) => format!("drained in about {}", duration(seconds)),
            (None, None) => "nothing is being delivered".to_owned(),
        };
        let _ = writeln!(
            out,
            "  queued: {} in {}, {size}{oldest}; {drained}",
            count(queued.samples, "sample"),
            batches(queued.batches)
        );
    }
    let _ = writeln!(out, "  {}\n", verdict(sink.balances));
}

fn count(number: i64, what: &str) -> String {
    report::count(usize::try_from(number).unwrap_or(0), what)
}

fn batches(number: i64) -> String {
    match number {
        1 => "1 batch".to_owned(),
        _ => format!("{number} batches"),
    }
}

/// Writes a table of one figure per line and account, with columns as wide as their contents.
fn table(out: &mut String, what: &str, sink: &Sink, of: impl Fn(&Amount) -> i64) {
    let row = |name: String, line: &Row| {
        let dropped: i64 = line.dropped.values().map(&of).sum();
        let figures = [
            of(&line.received),
            of(&line.delivered),
            dropped,
            of(&line.queued),
            of(&line.difference),
        ];
        (name, figures.map(|figure| figure.to_string()))
    };
    let head = ["received", "delivered", "dropped", "queued", "difference"];
    let mut rows = vec![(what.to_owned(), head.map(str::to_owned))];
    for line in &sink.tenants {
        let name = report::plain(line.tenant.as_deref().unwrap_or_default());
        rows.push(row(name, line));
    }
    let without = sink.without_tenant.as_ref();
    rows.extend(without.map(|line| row("<none>".to_owned(), line)));
    let other = sink.other.as_ref();
    rows.extend(other.map(|line| row("<other>".to_owned(), line)));
    rows.push(row("total".to_owned(), &sink.total));
    let first = rows.iter().map(|(name, _)| name.chars().count()).max();
    let mut widths = [0; 5];
    for (_, figures) in &rows {
        for (width, figure) in widths.iter_mut().zip(figures) {
            *width = figure.len().max(*width);
        }
    }
    for (name, figures) in rows {
        let _ = write!(out, "  {name:<first$}", first = first.unwrap_or(0));
        for (width, figure) in widths.iter().zip(figures) {
            let _ = write!(out, "  {figure:>width$}");
        }
        out.push('\n');
    }
}

/// Bytes in a readable unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    let whole = bytes as f64 / f64::from(1 << 10).powi(power.cast_signed());
    format!("{whole:.1} {}", UNITS[power as usize - 1])
}

/// Seconds in a readable unit.
fn duration(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        10.0..600.0 => format!("{seconds:.0} s"),
        600.0..36_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{
      "balances": false, "time": 1700000100,
      "sinks": [{
        "sink": "thanos", "since": 1700000000, "across_restarts": true, "balances": false,
        "oldest_seconds": 12.4, "queued_bytes": 2048, "drain_seconds": null,
        "total": {
          "received": {"samples": 1000, "batches": 30, "uncounted_batches": 4, "bytes": 9000},
          "delivered": {"samples": 900, "batches": 20, "uncounted_batches": 2, "bytes": 6000},
          "dropped": {
            "refused": {"samples": 40, "batches": 0, "uncounted_batches": 0, "bytes": 0},
            "queue_full": {"samples": 7, "batches": 3, "uncounted_batches": 1, "bytes": 5},
            "shutdown": {"samples": 0, "batches": 1, "uncounted_batches": 1, "bytes": 5}
          },
          "queued": {"samples": 52, "batches": 6, "uncounted_batches": 0, "bytes": 2048},
          "difference": {"samples": 1, "batches": 0, "uncounted_batches": 0, "bytes": 0}
        },
        "tenants": [{
          "tenant": "a\u001b[2Jb",
          "received": {"samples": 1000, "batches": 30, "uncounted_batches": 4, "bytes": 9000},
          "delivered": {"samples": 900, "batches": 20, "uncounted_batches": 2, "bytes": 6000},
          "dropped": {},
          "queued": {"samples": 52, "batches": 6, "uncounted_batches": 0, "bytes": 2048},
          "difference": {"samples": 48, "batches": 4, "uncounted_batches": 2, "bytes": 952}
        }]
      }]
    }"#;

    #[test]
    fn a_ledger_is_a_table_that_says_whether_it_balances() {
        let ledgers: Ledgers = serde_json::from_str(ANSWER).unwrap();
        let text = tables(&ledgers);
        let expected = "\
thanos: since Tue, 14 Nov 2023 22:13:20 GMT, and of what was on disk across restarts
  samples  received  delivered  dropped  queued  difference
  a [2Jb       1000        900        0      52          48
  total        1000        900       47      52           1
  batches  received  delivered  dropped  queued  difference
  a [2Jb         30         20        0       6           4
  total          30         20        4       6           0
  not counted: 4 of 30 batches, whose samples are in no figure above
  dropped: queue_full 7 samples and 1 batch not counted, refused 40 samples, shutdown 1 batch
  queued: 52 samples in 6 batches, 2.0 KiB, the oldest 12 s old; nothing is being delivered
  does not balance: batches or samples are missing, or counted twice

does not balance: batches or samples are missing, or counted twice
";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 129_243, 3 << 30, 1 << 55].map(size);
        let expected = [
            "0 B",
            "1023 B",
            "1.0 KiB",
            "126.2 KiB",
            "3.0 GiB",
            "32768.0 TiB",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn seconds_are_told_in_the_unit_that_fits() {
        let told = [0.26, 12.4, 900.0, 90_000.0].map(duration);
        assert_eq!(told, ["0.3 s", "12 s", "15 min", "25 h"]);
    }
}
