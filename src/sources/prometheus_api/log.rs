//! A log of queries: caller, parameters, duration, replica, bytes; a sample of all queries, and
//! slow ones separately. Bounded in lines per second and in bytes per line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use metrifold_base::{Period, Problems, Size, keys, locked};
use metrifold_engine::planes::queries::Answer;
use metrifold_http::Request;
use metrifold_http::form::Form;
use metrifold_model::Tenant;

keys! {
    /// Query log.
    #[derive(Clone, Debug)]
    pub(super) struct QueryLogKeys {
        /// Log one of this many queries, under `metrifold::queries`: 1 logs every query, 0 none.
        sample: u64 = default(0),
        /// Threshold above which a query is logged as a warning, under `metrifold::slow_queries`, independently of `sample`. Unset, slow queries are not logged.
        slow: Option<Period> = unset("10s"),
        /// Maximum number of log lines per second. Further ones are counted and not written.
        max_per_second: u64 = default(20),
        /// Maximum length of the query text in a log line.
        max_query_bytes: Size = default("2KiB"),
    }
}

impl QueryLogKeys {
    pub(super) fn validate(&self, problems: &mut Problems) {
        if self.slow.is_some_and(|slow| slow.0.is_zero()) {
            let problem = problems.at("log.slow", "must be longer than 0s");
            problem.help("set log.sample = 1 to log all queries");
        }
        if self.max_per_second == 0 {
            problems.at("log.max_per_second", "must be at least 1");
        }
    }
}

/// The query log of a source.
pub(super) struct QueryLog {
    sample: u64,
    slow: Option<Duration>,
    most: usize,
    seen: AtomicU64,
    pace: Arc<Pace>,
}

/// Limit on lines per second: the current second, the lines written in it, and the lines skipped.
struct Pace {
    most: u64,
    state: Mutex<(Option<Instant>, u64, u64)>,
}

/// Log entry of a query, written when the query ends.
pub(super) struct Entry {
    started: Instant,
    path: String,
    text: String,
    caller: Option<String>,
    peer: String,
    tenant: Arc<OnceLock<Tenant>>,
    sampled: bool,
    slow: Option<Duration>,
    pace: Arc<Pace>,
    status: u16,
    replica: Option<String>,
    bytes: u64,
    broken: bool,
}

/// Header in which a router names the replica that answered.
const SERVED_BY: &str = "x-served-by";

/// Parameters that are logged.
const TOLD: [&str; 6] = ["query", "match[]", "time", "start", "end", "step"];

impl QueryLog {
    pub(super) fn new(keys: &QueryLogKeys) -> Self {
        Self {
            sample: keys.sample,
            slow: keys.slow.map(|it| it.0),
            most: keys.max_query_bytes.bytes(),
            seen: AtomicU64::new(0),
            pace: Arc::new(Pace {
                most: keys.max_per_second,
                state: Mutex::default(),
            }),
        }
    }

    /// The entry for a query. `None` if it is neither sampled nor can be slow.
    pub(super) fn entry(
        &self,
        started: Instant,
        path: &str,
        request: &Request,
        form: Option<&str>,
        tenant: &Arc<OnceLock<Tenant>>,
    ) -> Option<Entry> {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        let sampled = self.sample > 0 && number.is_multiple_of(self.sample);
        if !sampled && self.slow.is_none() {
            return None;
        }
        Some(Entry {
            started,
            path: path.to_owned(),
            text: told(request.uri.query(), form, self.most),
            caller: request.caller.subject().map(str::to_owned),
            peer: request.peer.ip().to_string(),
            tenant: tenant.clone(),
            sampled,
            slow: self.slow,
            pace: self.pace.clone(),
            status: 0,
            replica: None,
            bytes: 0,
            broken: false,
        })
    }
}

impl Entry {
    /// Records the head of the answer.
    pub(super) fn answered(mut self, answer: &Answer) -> Self {
        self.status = answer.status().as_u16();
        let replica = answer.headers().get(SERVED_BY);
        self.replica = replica.and_then(|it| it.to_str().ok()).map(str::to_owned);
        self
    }

    /// Ends the entry of a query that was refused or failed.
    pub(super) fn refused(mut self, status: http::StatusCode) {
        self.status = status.as_u16();
    }

    /// Records bytes of the answer.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Records that the answer broke off.
    pub(super) fn broke(&mut self) {
        self.broken = true;
    }
}

impl Drop for Entry {
    /// Writes the entry: the query has been answered or cancelled.
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let slow = self.slow.is_some_and(|slow| took > slow);
        if !slow && !self.sampled {
            return;
        }
        let Some(left_out) = self.pace.pass() else {
            return;
        };
        let (path, query, peer) = (&self.path, &self.text, &self.peer);
        let caller = self.caller.as_deref().unwrap_or_default();
        let tenant = self.tenant.get().map_or("", |it| &**it);
        let replica = self.replica.as_deref().unwrap_or_default();
        let (status, bytes, broken) = (self.status, self.bytes, self.broken);
        let milliseconds = took.as_millis() as u64;
        if slow {
            warn!(
                target: "metrifold::slow_queries",
                path, query, caller, peer, tenant, replica, status, milliseconds, bytes, broken, left_out,
                "slow query"
            );
        } else {
            info!(
                target: "metrifold::queries",
                path, query, caller, peer, tenant, replica, status, milliseconds, bytes, broken, left_out,
                "query"
            );
        }
    }
}

impl Pace {
    /// Claims a line. Returns the number of lines skipped since the last one, or `None` if the
    /// limit is reached.
    fn pass(&self) -> Option<u64> {
        let mut state = locked(&self.state);
        let (second, written, left_out) = &mut *state;
        if second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            *second = Some(Instant::now());
            *written = 0;
        }
        if *written >= self.most {
            *left_out += 1;
            return None;
        }
        *written += 1;
        Some(std::mem::take(left_out))
    }
}

/// The logged parameters of a query, in at most `most` bytes.
fn told(query: Option<&str>, form: Option<&str>, most: usize) -> String {
    let forms = query.into_iter().chain(form);
    let forms = forms.filter_map(|text| Form::parse(text).ok());
    let mut told = String::new();
    for form in forms {
        for name in TOLD {
            for value in form.values(name) {
                let separator = if told.is_empty() { "" } else { " " };
                told.push_str(&format!("{separator}{name}={value}"));
            }
        }
    }
    if told.len() > most {
        let end = (0..=most).rev().find(|at| told.is_char_boundary(*at));
        told.truncate(end.unwrap_or(0));
        told.push('…');
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_told_in_few_bytes_and_without_other_parameters() {
        let query = Some("query=up%7Ba%3D%22b%22%7D&token=hidden&start=1");
        assert_eq!(
            told(query, Some("step=5"), 100),
            "query=up{a=\"b\"} start=1 step=5"
        );
        assert_eq!(told(Some("query=%C3%A4%C3%A4"), None, 7), "query=…");
        assert_eq!(told(Some("query=%C3%A4%C3%A4"), None, 8), "query=ä…");
        assert_eq!(told(Some("%"), None, 100), "");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_lines_are_written_than_are_allowed() {
        let pace = Pace {
            most: 2,
            state: Mutex::default(),
        };
        let passed: Vec<_> = (0..5).map(|_| pace.pass()).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pace.pass(), Some(3));
        assert_eq!(pace.pass(), Some(0));
    }
}
