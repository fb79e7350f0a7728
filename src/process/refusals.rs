//! Logs and counts requests that listeners refuse.

use std::net::IpAddr;
use std::time::Duration;

use metrics::Label;
use tracing::warn;

use metrifold_base::{Limited, Sum};
use metrifold_http::TurnedAway;
use metrifold_telemetry::{Metric, Telemetry};

/// Least interval between two log lines of one topic.
const EVERY: Duration = Duration::from_secs(10);

/// Longest path and reason in a log line, in characters of their first line.
const SHOWN: usize = 200;

/// Counts refused requests, and logs a summary per topic and interval.
pub(super) struct Refusals {
    telemetry: Telemetry,
    told: Limited<Topic, Last>,
}

/// Address of the listener, component that owns the path, status: bounded by the configuration.
type Topic = (String, Option<String>, String);

/// The last refused request of a topic, and the number of them.
struct Last {
    times: u64,
    peer: IpAddr,
    method: String,
    path: String,
    reason: String,
}

impl Sum for Last {
    fn add(&mut self, later: Self) {
        let times = self.times + later.times;
        *self = Self { times, ..later };
    }
}

impl Refusals {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self {
            telemetry,
            told: Limited::new(EVERY),
        }
    }

    /// Counts a refused request, and logs it unless its topic was logged recently.
    pub(super) fn note(&self, turned_away: &TurnedAway<'_>) {
        let address = turned_away.address.to_string();
        let code = turned_away.code.to_owned();
        let labels = vec![
            Label::new("address", address.clone()),
            Label::new("code", code.clone()),
        ];
        let counter = self.telemetry.counter(Metric::ListenerRefused, labels);
        counter.increment(1);
        let shown = |text: &str| -> String {
            let line = text.lines().next().unwrap_or_default();
            line.chars().take(SHOWN).collect()
        };
        let (method, path) = match turned_away.request {
            Some((method, path)) => (method.to_string(), shown(path)),
            None => Default::default(),
        };
        let last = Last {
            times: 1,
            peer: turned_away.peer.ip(),
            method,
            path,
            reason: shown(turned_away.reason),
        };
        let topic = (address, turned_away.owner.map(str::to_owned), code);
        if let Some(last) = self.told.note(topic.clone(), last) {
            tell(&topic, &last);
        }
    }

    /// Logs the summaries that are due, or all of them.
    pub(super) fn flush(&self, all: bool) {
        for (topic, last) in self.told.held(all) {
            tell(&topic, &last);
        }
    }
}

fn tell((address, owner, code): &Topic, last: &Last) {
    let Last {
        times,
        peer,
        method,
        path,
        reason,
    } = last;
    let suppressed = times - 1;
    warn!(
        %address, component = owner.as_deref(), %peer, %method, ?path, %code, %reason, suppressed,
        "sender is refused"
    );
}
