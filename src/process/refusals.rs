//! Senders that are turned away, in the log and in the metrics.

use std::net::IpAddr;
use std::time::Duration;

use metrics::Label;
use tracing::warn;

use metrifold_base::{Limited, Sum};
use metrifold_http::TurnedAway;
use metrifold_telemetry::{Metric, Telemetry};

/// Messages on one topic are as far apart as that.
const EVERY: Duration = Duration::from_secs(10);

/// The longest path and reason that are logged, in characters of their first line.
const SHOWN: usize = 200;

/// Counts who is turned away, and tells of it now and then.
pub(super) struct Refusals {
    telemetry: Telemetry,
    told: Limited<Topic, Last>,
}

/// The address that listens, whose path it is, and the status: as many as are configured.
type Topic = (String, Option<String>, String);

/// The last one, and how many there were.
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

    /// Counts one.
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

    /// Tells what was held back for long enough, or all of it.
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
