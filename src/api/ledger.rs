//! The ledgers of sinks as JSON: what each sink received, delivered, dropped and has queued, and
//! whether these balance.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use metrifold_http::{Response, answer};
use metrifold_model::ledger::Tally;
use metrifold_telemetry::{LEDGER_TENANTS, SinkLedger, Telemetry};

use super::json;
pub use metrifold_model::ledger::Difference;
use metrifold_model::ledger::Line;

/// Path of the ledgers.
pub const LEDGER: &str = "/api/v1/ledger";

/// Most tenants with a line of their own.
pub const TENANTS_MAX: usize = 1000;

/// Milliseconds between readings while a ledger does not balance. A batch that a reading caught
/// between two accounts has arrived by the last one; a difference that stays the same is a lost
/// batch.
const PAUSES: [u64; 7] = [2, 5, 10, 20, 40, 80, 160];

/// The answer of the endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ledgers {
    /// Whether all ledgers balance.
    pub balances: Balance,
    /// Time of the reading, in seconds since the epoch.
    pub time: u64,
    /// One ledger per sink.
    pub sinks: Vec<Sink>,
}

/// Whether received equals delivered plus dropped plus queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Balance {
    /// Known to balance, or not to.
    Known(bool),
    /// Undecided: with this much traffic no reading was of a single moment.
    Open(Open),
}

/// Reason why a balance is undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// Batches moved while the accounts were read.
    Moving,
}

impl Balance {
    const MOVING: Self = Self::Open(Open::Moving);

    /// Combines two: a known imbalance outranks an undecided balance.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(false), _) | (_, Self::Known(false)) => Self::Known(false),
            (Self::Known(true), Self::Known(true)) => Self::Known(true),
            _ => Self::MOVING,
        }
    }
}

/// The ledger of a sink.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sink {
    /// Name of the sink.
    pub sink: String,
    /// Start of the accounts of batches in memory, in seconds since the epoch.
    pub since: u64,
    /// Whether batches in a queue on disk are accounted for across restarts.
    pub across_restarts: bool,
    /// Whether this ledger balances.
    pub balances: Balance,
    /// Age of the oldest queued batch.
    pub oldest_seconds: Option<f64>,
    /// Bytes that are queued.
    pub queued_bytes: u64,
    /// Seconds until they are delivered at the present rate; `None` if nothing is delivered.
    pub drain_seconds: Option<f64>,
    /// Seconds for which the endpoint has been failing; `None` while it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_seconds: Option<f64>,
    /// Sum of all lines.
    pub total: Row,
    /// The largest tenants by samples, then by batches.
    pub tenants: Vec<Row>,
    /// Line of batches without a tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_tenant: Option<Row>,
    /// Sum of all other tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Row>,
}

/// A line of a ledger.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// The tenant; `None` on a line of several, or of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Received by the sink.
    pub received: Amount,
    /// Delivered to the endpoint.
    pub delivered: Amount,
    /// Given up, by reason.
    pub dropped: BTreeMap<String, Amount>,
    /// Still in the queue or in flight, counted from the structures that hold the batches.
    pub queued: Amount,
    /// Received less delivered, dropped and queued: zero unless a batch is lost or moving.
    pub difference: Amount,
}

/// An amount of data, or a difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Samples of the batches that were counted.
    pub samples: i64,
    /// Batches.
    pub batches: i64,
    /// Batches whose samples were never counted.
    pub uncounted_batches: i64,
    /// Encoded bytes.
    pub bytes: i64,
}

impl From<Tally> for Amount {
    fn from(tally: Tally) -> Self {
        Self {
            samples: tally.samples.cast_signed(),
            batches: tally.batches.cast_signed(),
            uncounted_batches: tally.uncounted.cast_signed(),
            bytes: tally.bytes.cast_signed(),
        }
    }
}

impl From<Difference> for Amount {
    fn from(difference: Difference) -> Self {
        Self {
            samples: difference.samples,
            batches: difference.batches,
            uncounted_batches: difference.uncounted,
            bytes: difference.bytes,
        }
    }
}

impl Row {
    fn new(tenant: Option<&str>, line: &Line) -> Self {
        let account = &line.account;
        let dropped = account.dropped.iter();
        Self {
            tenant: tenant.map(str::to_owned),
            received: account.received.into(),
            delivered: account.delivered.into(),
            dropped: dropped
                .map(|(reason, tally)| (reason.as_str().to_owned(), (*tally).into()))
                .collect(),
            queued: line.queued.into(),
            difference: line.difference().into(),
        }
    }
}

impl Sink {
    fn new(read: &SinkLedger, balances: Balance, tenants: usize) -> Self {
        let ledger = &read.ledger;
        let is_there = |line: &Line| *line != Line::default();
        let named = ledger.tenants.iter();
        let mut named: Vec<_> = named
            .filter(|(tenant, line)| !tenant.is_empty() && is_there(line))
            .collect();
        named.sort_by_key(|(_, line)| {
            let received = line.account.received;
            std::cmp::Reverse((received.samples, received.batches))
        });
        let mut other = ledger.rest.clone();
        for (_, line) in named.iter().skip(tenants) {
            other.add(line);
        }
        let shown = named.iter().take(tenants);
        let without_tenant = ledger.tenants.get("").filter(|line| is_there(line));
        Self {
            sink: read.sink.to_string(),
            since: seconds(ledger.since),
            across_restarts: ledger.on_disk,
            balances,
            oldest_seconds: ledger.oldest.map(|oldest| oldest.as_secs_f64()),
            queued_bytes: ledger.total.queued.bytes,
            drain_seconds: read.drain_seconds,
            failing_seconds: read.failing.map(|failing| failing.as_secs_f64()),
            total: Row::new(None, &ledger.total),
            tenants: shown
                .map(|(tenant, line)| Row::new(Some(tenant), line))
                .collect(),
            without_tenant: without_tenant.map(|line| Row::new(None, line)),
            other: is_there(&other).then(|| Row::new(None, &other)),
        }
    }
}

/// Parameters of the query.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    sink: Option<String>,
    tenants: usize,
}

/// Answers with the ledgers, filtered by the query's `sink` and `tenants`.
pub(super) async fn ledger(telemetry: &Telemetry, query: Option<&str>) -> Response {
    let asked = match asked(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(reason) => return answer::text(StatusCode::BAD_REQUEST, &reason),
    };
    let mut read = read(telemetry).await;
    if let Some(sink) = &asked.sink {
        read.retain(|(ledger, _)| *ledger.sink == **sink);
        if read.is_empty() {
            return answer::text(StatusCode::NOT_FOUND, &format!("there is no sink {sink:?}"));
        }
    }
    let all = read.iter().map(|(_, balance)| *balance);
    json(&Ledgers {
        balances: all.fold(Balance::Known(true), Balance::and),
        time: seconds(SystemTime::now()),
        sinks: read
            .iter()
            .map(|(ledger, balance)| Sink::new(ledger, *balance, asked.tenants))
            .collect(),
    })
}

/// Reads all ledgers, and those that do not balance again until the cause is known.
async fn read(telemetry: &Telemetry) -> Vec<(SinkLedger, Balance)> {
    let first = |ledger: SinkLedger| {
        let balance = match ledger.ledger.balances() {
            true => Balance::Known(true),
            false => Balance::MOVING,
        };
        (ledger, balance)
    };
    let mut found: Vec<_> = telemetry.ledgers().into_iter().map(first).collect();
    for pause in PAUSES {
        if found
            .iter()
            .all(|(_, balance)| *balance == Balance::Known(true))
        {
            break;
        }
        sleep(Duration::from_millis(pause)).await;
        let mut again = telemetry.ledgers();
        for (ledger, balance) in &mut found {
            let place = again.iter().position(|it| it.sink == ledger.sink);
            let (Some(place), true) = (place, *balance != Balance::Known(true)) else {
                continue;
            };
            let later = again.swap_remove(place);
            *balance = if later.ledger.balances() {
                Balance::Known(true)
            } else if later.ledger.lacks_the_same(&ledger.ledger) {
                Balance::Known(false)
            } else {
                Balance::MOVING
            };
            *ledger = later;
        }
    }
    found
}

fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked {
        sink: None,
        tenants: LEDGER_TENANTS,
    };
    // The query is parsed as part of a made-up URL.
    let url = reqwest::Url::parse(&format!("http://query/?{query}"));
    let url = url.map_err(|error| error.to_string())?;
    for (key, value) in url.query_pairs() {
        match &*key {
            "sink" => asked.sink = Some(value.into_owned()),
            "tenants" => {
                let number = value.parse().ok().filter(|number| *number <= TENANTS_MAX);
                asked.tenants =
                    number.ok_or_else(|| format!("tenants must be from 0 to {TENANTS_MAX}"))?;
            }
            _ => return Err(format!("there is no {key:?}: use sink and tenants")),
        }
    }
    Ok(asked)
}

/// Seconds since the epoch.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_lines_are_meant_and_nothing_else() {
        let all = asked("").unwrap();
        assert_eq!((all.sink, all.tenants), (None, LEDGER_TENANTS));
        let some = asked("tenants=7&sink=a%20b").unwrap();
        assert_eq!((some.sink.as_deref(), some.tenants), (Some("a b"), 7));
        for wrong in ["tenants=x", "tenants=-1", "tenants=1001", "tenant=a"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whether_it_balances_is_true_false_or_moving() {
        let (yes, no) = (Balance::Known(true), Balance::Known(false));
        let text = |balance: Balance| serde_json::to_string(&balance).unwrap();
        let texts = [yes, no, Balance::MOVING].map(text);
        assert_eq!(texts, ["true", "false", "\"moving\""]);
        for text in texts {
            let back: Balance = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
        assert_eq!(yes.and(yes), yes);
        assert_eq!(yes.and(Balance::MOVING), Balance::MOVING);
        assert_eq!(Balance::MOVING.and(no), no);
    }
}
