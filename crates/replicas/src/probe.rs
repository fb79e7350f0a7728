//! A probe: whether a replica is ready, and which data it has.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use metrifold_base::foreign;
use metrifold_http::{Body, BodyError, body};

use crate::keys::RoutingKeys;
use crate::replica::Replica;
use crate::signals::{MetricsPage, Signals, Span, blocks, join};
use crate::strategy::Kind;
use crate::time::epoch_ms;

/// Requests of a probe.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    path: String,
    contains: Option<String>,
    timeout: Duration,
    max_bytes: usize,
    signals: bool,
    /// How far back data must go, for a query that checks this at servers without these metrics.
    history: Option<Duration>,
}

/// Header with which Prometheus announces its shutdown.
const STOPPING: &str = "x-prometheus-stopping";

/// The most bytes of an answer about readiness.
const READY_BYTES: usize = 64 << 10;

/// The most characters of an answer that are shown.
const SHOWN: usize = 100;

impl Plan {
    pub(crate) fn new(keys: &RoutingKeys) -> Self {
        let history = keys.minimum_history.map(|it| it.0);
        Self {
            path: keys.probe.path.clone(),
            contains: keys.ready_text().map(str::to_owned),
            timeout: keys.probe.timeout.0,
            max_bytes: keys.probe.max_bytes.bytes(),
            signals: keys.reads_signals(),
            history: history.filter(|_| keys.strategy == Kind::MinimumHistory),
        }
    }

    /// Probes a replica within the timeout. The signals are `None` if the plan does not read them,
    /// or they could not be read this time.
    pub(crate) async fn probe(&self, replica: &Replica) -> Result<Option<Signals>, String> {
        let deadline = Instant::now() + self.timeout;
        let ready = async {
            let ready = timeout_at(deadline, self.ready(replica, deadline)).await;
            let late = || format!("no answer to {} within {:?}", self.path, self.timeout);
            ready.unwrap_or_else(|_| Err(late()))
        };
        let signals = async {
            if !self.signals {
                return None;
            }
            let signals = timeout_at(deadline, self.signals(replica, deadline)).await;
            signals.unwrap_or(None)
        };
        let (ready, signals) = tokio::join!(ready, signals);
        ready.map(|()| signals)
    }

    async fn ready(&self, replica: &Replica, deadline: Instant) -> Result<(), String> {
        let (status, headers, text) = get(replica, &self.path, READY_BYTES, deadline).await?;
        let text = String::from_utf8_lossy(&text);
        if !(200..400).contains(&status.as_u16()) {
            let replay = match status {
                StatusCode::SERVICE_UNAVAILABLE => replay(replica, deadline).await,
                _ => None,
            };
            return Err(replay.unwrap_or_else(|| {
                let text = foreign(&text, SHOWN);
                format!("{} answered {}: {text}", self.path, status.as_u16())
            }));
        }
        if headers.get(STOPPING).map(HeaderValue::as_bytes) == Some(b"true") {
            return Err("it is shutting down".to_owned());
        }
        match &self.contains {
            Some(expected) if !text.contains(expected.as_str()) => {
                let text = foreign(&text, SHOWN);
                Err(format!("{} does not say {expected:?}: {text}", self.path))
            }
            _ => Ok(()),
        }
    }

    async fn signals(&self, replica: &Replica, deadline: Instant) -> Option<Signals> {
        let list = "/api/v1/status/tsdb/blocks";
        let (page, list) = tokio::join!(
            get(replica, "/metrics", self.max_bytes, deadline),
            get(replica, list, self.max_bytes, deadline),
        );
        let page = match page {
            Ok((StatusCode::OK, _, page)) => MetricsPage::read(&String::from_utf8_lossy(&page)),
            // Thanos, Mimir and gateways may have no page with these metrics.
            Ok(_) => MetricsPage::default(),
            Err(_) => return None,
        };
        let head_start = page.head_start();
        let mut signals = page.signals();
        let list = list.ok().filter(|(status, ..)| *status == StatusCode::OK);
        if let Some((spans, samples)) = list.and_then(|(.., list)| blocks(&list)) {
            signals.samples = Some(samples + signals.samples.unwrap_or(0.0));
            let head = head_start.zip(signals.newest);
            let head = head.map(|(start, end)| Span { start, end });
            signals.spans = join(spans.into_iter().chain(head).collect(), 0);
            if let Some(first) = signals.spans.first() {
                signals.oldest = Some(signals.oldest.map_or(first.start, |it| it.min(first.start)));
            }
        }
        if let Some(history) = self.history
            && signals.oldest.is_none()
        {
            let history = i64::try_from(history.as_millis()).unwrap_or(i64::MAX);
            let time = epoch_ms().saturating_sub(history) / 1000;
            let query = format!("/api/v1/query?query=max(up)&time={time}");
            let answer = get(replica, &query, READY_BYTES, deadline).await;
            signals.answers_history = answer.ok().map(|(.., text)| has_result(&text));
        }
        Some(signals)
    }
}

/// Whether the answer to a query has any series.
fn has_result(text: &[u8]) -> bool {
    let answer: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    let series = answer
        .as_ref()
        .and_then(|it| it["data"]["result"].as_array());
    series.is_some_and(|series| !series.is_empty())
}

/// Progress of the write-ahead log's replay, for a Prometheus that is not ready.
async fn replay(replica: &Replica, deadline: Instant) -> Option<String> {
    let path = "/api/v1/status/walreplay";
    let (status, _, text) = get(replica, path, READY_BYTES, deadline).await.ok()?;
    let answer: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let number = |name: &str| answer["data"][name].as_i64();
    let (first, last, current) = (number("min")?, number("max")?, number("current")?);
    (status == StatusCode::OK)
        .then(|| format!("it replays its write-ahead log: segment {current} of {first} to {last}"))
}

async fn get(
    replica: &Replica,
    target: &str,
    max: usize,
    deadline: Instant,
) -> Result<(StatusCode, HeaderMap, bytes::Bytes), String> {
    let sent = replica.send(
        Method::GET,
        target,
        HeaderMap::new(),
        Body::empty(),
        deadline,
    );
    let (head, body) = sent.await.map_err(|error| error.to_string())?.into_parts();
    let left = deadline.saturating_duration_since(Instant::now());
    let read = body::read(body, None, max, left).await;
    let body = read.map_err(|error: BodyError| format!("{target}: {error}"))?;
    Ok((head.status, head.headers, body))
}
