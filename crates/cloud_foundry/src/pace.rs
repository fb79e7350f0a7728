//! Pace of requests: bounded by the published rate limit, by what the platform says is left of it,
//! and stopped while the platform asks for a pause.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_http::retry_after;

/// Pause when the platform asks for one without a duration.
const UNSAID: Duration = Duration::from_secs(30);
/// Longest pause that the platform can ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest delay of a refresh because little of the limit is left. The remainder is published in
/// coarse steps, and a client beyond the limit is told so.
const STRETCH: Duration = Duration::from_secs(120);

/// State of the platform's rate limit.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Share of the limit that may be used, from 0 to 1.
    share: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests per window, from `/v3/info` or a header.
    limit: Option<f64>,
    window: Option<Duration>,
    /// Remaining requests, and the time at which they are reset.
    left: Option<(f64, SystemTime)>,
    blocked: Option<Instant>,
    requests: u64,
}

impl Pace {
    /// A pace that uses up to `percent` of the limit.
    pub(crate) fn new(percent: u16) -> Self {
        Self {
            share: f64::from(percent) / 100.0,
            state: Mutex::default(),
        }
    }

    /// Records the limit from `/v3/info`.
    pub(crate) fn publish(&self, limit: u64, window: Duration) {
        let mut state = locked(&self.state);
        state.limit = Some(limit as f64);
        state.window = Some(window);
    }

    /// Records a request and the limits in its answer's headers.
    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        let number = |name: &str| -> Option<f64> {
            let value = headers.get(name)?.to_str().ok()?.parse().ok()?;
            (value >= 0.0 && f64::is_finite(value)).then_some(value)
        };
        let mut state = locked(&self.state);
        state.requests += 1;
        if let Some(limit) = number("x-ratelimit-limit") {
            state.limit = Some(limit);
        }
        if let (Some(left), Some(reset)) =
            (number("x-ratelimit-remaining"), number("x-ratelimit-reset"))
        {
            let reset = UNIX_EPOCH.checked_add(Duration::from_secs(reset as u64));
            state.left = reset.map(|reset| (left, reset));
        }
        let asked = retry_after(headers);
        let pause = match status {
            StatusCode::TOO_MANY_REQUESTS => Some(asked.unwrap_or(UNSAID)),
            StatusCode::SERVICE_UNAVAILABLE => asked,
            _ => None,
        };
        if let Some(pause) = pause {
            let pause = pause.clamp(Duration::from_secs(1), LONGEST);
            state.blocked = Some(Instant::now() + pause);
        }
    }

    /// Time for which no requests may be sent.
    pub(crate) fn blocked(&self) -> Duration {
        let blocked = locked(&self.state).blocked;
        blocked.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Number of answered requests.
    pub(crate) fn requests(&self) -> u64 {
        locked(&self.state).requests
    }

    /// Shortest time between two refreshes that take this number of requests.
    pub(crate) fn pause(&self, requests: u64) -> Duration {
        let requests = requests as f64;
        let (fair, left) = self.seconds_per_request();
        let left = (left * requests).min(STRETCH.as_secs_f64());
        let pause = (fair * requests).max(left).min(LONGEST.as_secs_f64());
        Duration::from_secs_f64(pause).max(self.blocked())
    }

    /// Number of requests that a refresh may take without delaying the next one beyond this
    /// interval.
    pub(crate) fn allowance(&self, interval: Duration) -> u64 {
        let (fair, left) = self.seconds_per_request();
        // A cast saturates: without a limit, the quotient is infinite.
        (interval.as_secs_f64() / fair.max(left)) as u64
    }

    /// Seconds that each request takes of the limit, and of what is left of it.
    fn seconds_per_request(&self) -> (f64, f64) {
        let state = locked(&self.state);
        let fair = match (state.limit, state.window) {
            (Some(limit), Some(window)) => window.as_secs_f64() / (limit * self.share).max(1.0),
            _ => 0.0,
        };
        let left = state.left.map_or(0.0, |(left, reset)| {
            let time = reset.duration_since(SystemTime::now()).unwrap_or_default();
            time.as_secs_f64() / (left * self.share).max(1.0)
        });
        (fair, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_limit_stretches_refreshes_to_its_share() {
        let pace = Pace::new(50);
        assert_eq!(pace.pause(4), Duration::ZERO);
        pace.publish(100, Duration::from_secs(1000));
        // 50 requests in 1000 s are one every 20 s.
        assert_eq!(pace.pause(4), Duration::from_secs(80));
    }

    #[test]
    fn as_many_requests_are_allowed_as_fit_into_an_interval() {
        let pace = Pace::new(50);
        let interval = Duration::from_secs(15);
        assert_eq!(pace.allowance(interval), u64::MAX);
        // 1000 requests in 1800 s are one every 1.8 s.
        pace.publish(2000, Duration::from_secs(1800));
        assert_eq!(pace.allowance(interval), 8);
        assert!(pace.pause(8) <= interval);
        assert!(pace.pause(9) > interval);
        assert_eq!(pace.allowance(Duration::from_secs(1)), 0);
    }

    #[test]
    fn what_is_left_counts_until_it_is_reset() {
        let pace = Pace::new(100);
        let reset = SystemTime::now() + Duration::from_secs(1000);
        let reset = reset.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let said = |left: u64| {
            headers(&[
                ("x-ratelimit-limit", "2000".to_owned()),
                ("x-ratelimit-remaining", left.to_string()),
                ("x-ratelimit-reset", reset.to_string()),
            ])
        };
        pace.answered(StatusCode::OK, &said(100));
        let pause = pace.pause(4).as_secs();
        assert!((35..=40).contains(&pause), "{pause}");
        // Nothing is left, according to the coarse number.
        pace.answered(StatusCode::OK, &said(0));
        assert_eq!(pace.pause(4), STRETCH);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_while_a_pause_is_asked_for() {
        let pace = Pace::new(50);
        let asked = headers(&[("retry-after", "37".to_owned())]);
        pace.answered(StatusCode::TOO_MANY_REQUESTS, &asked);
        assert_eq!(pace.blocked(), Duration::from_secs(37));
        assert_eq!(pace.pause(1), Duration::from_secs(37));
        tokio::time::advance(Duration::from_secs(38)).await;
        assert_eq!(pace.blocked(), Duration::ZERO);
        // A long pause, as a date.
        let asked = headers(&[("retry-after", "Thu, 31 Dec 2099 23:59:59 GMT".to_owned())]);
        pace.answered(StatusCode::SERVICE_UNAVAILABLE, &asked);
        assert_eq!(pace.blocked(), LONGEST);
        tokio::time::advance(LONGEST).await;
        pace.answered(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
        assert_eq!(pace.blocked(), UNSAID);
    }
}
