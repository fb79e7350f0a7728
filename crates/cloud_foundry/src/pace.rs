//! How often the platform may be asked: by the limit that it publishes, by what it says is left of
//! it, and not at all while it asks for a pause.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use metrifold_base::locked;

/// The pause where the platform asks for one without saying how long.
const UNSAID: Duration = Duration::from_secs(30);
/// The longest pause that the platform can ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// The longest that a refresh is put off because little is left of the limit. What is left is
/// published in coarse steps, and whoever exceeds the limit is told so.
const STRETCH: Duration = Duration::from_secs(120);

/// What is known of the platform's limit.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How much of the limit may be used, from 0 to 1.
    share: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests in a window, by `/v3/info`, or by a header and that window.
    limit: Option<f64>,
    window: Option<Duration>,
    /// What is left, and until when.
    left: Option<(f64, SystemTime)>,
    blocked: Option<Instant>,
    requests: u64,
}

impl Pace {
    /// Up to so many percent of the limit may be used.
    pub(crate) fn new(percent: u16) -> Self {
        Self {
            share: f64::from(percent) / 100.0,
            state: Mutex::default(),
        }
    }

    /// Notes the limit that `/v3/info` publishes.
    pub(crate) fn publish(&self, limit: u64, window: Duration) {
        let mut state = locked(&self.state);
        state.limit = Some(limit as f64);
        state.window = Some(window);
    }

    /// Notes a request and what its answer says.
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
        let asked = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let asked = asked.and_then(|it| it.parse().ok().map(Duration::from_secs));
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

    /// How long nothing may be asked.
    pub(crate) fn blocked(&self) -> Duration {
        let blocked = locked(&self.state).blocked;
        blocked.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// How many requests have been answered.
    pub(crate) fn requests(&self) -> u64 {
        locked(&self.state).requests
    }

    /// The shortest time from one refresh of so many requests to the next.
    pub(crate) fn pause(&self, requests: u64) -> Duration {
        let (fair, left) = {
            let state = locked(&self.state);
            let requests = requests as f64;
            let fair = match (state.limit, state.window) {
                (Some(limit), Some(window)) => {
                    window.as_secs_f64() * requests / (limit * self.share).max(1.0)
                }
                _ => 0.0,
            };
            let left = state.left.map_or(0.0, |(left, reset)| {
                let time = reset.duration_since(SystemTime::now()).unwrap_or_default();
                time.as_secs_f64() * requests / (left * self.share).max(1.0)
            });
            (fair, left.min(STRETCH.as_secs_f64()))
        };
        let pause = Duration::from_secs_f64(fair.max(left).min(LONGEST.as_secs_f64()));
        pause.max(self.blocked())
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
        // 50 requests in 1000 s are 20 s for each.
        assert_eq!(pace.pause(4), Duration::from_secs(80));
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
        // Nothing is left, as far as the coarse number says.
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
        pace.answered(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
        assert_eq!(pace.blocked(), UNSAID);
    }
}
