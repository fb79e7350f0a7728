//! Concurrent requests of an HTTP/2 connection, as its timeouts need to know them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{BUSY, HEAD, IDLE, PHASES};

/// Maximum number of consecutive requests that a caller may reset before one is answered. Each costs
/// the caller a single frame but the server work ("rapid reset", CVE-2023-44487).
const MOST_GIVEN_UP: u32 = 200;

/// State of the requests of a connection.
#[derive(Debug)]
pub(crate) struct Streams {
    state: Mutex<State>,
    flooded: Notify,
}

#[derive(Debug)]
struct State {
    /// Number of requests in flight.
    under_way: usize,
    /// Number of times that the connection became busy.
    begun: u64,
    idle_since: Instant,
    /// Answers with data that the caller has not taken, by number, with the time since when.
    stalled: BTreeMap<u64, Instant>,
    /// Number of the newest answer.
    last: u64,
    /// Number of requests that were reset since the last answer.
    given_up: u32,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                under_way: 0,
                begun: 0,
                idle_since: Instant::now(),
                stalled: BTreeMap::new(),
                last: 0,
                given_up: 0,
            }),
            flooded: Notify::new(),
        }
    }

    /// Records the start of a request.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.begun += u64::from(state.under_way == 0);
        state.under_way += 1;
    }

    /// Records the end of a request: answered, or reset by its caller.
    pub(super) fn end(&self, answered: bool) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.idle_since = Instant::now();
        }
        state.given_up = match answered {
            true => 0,
            false => state.given_up + 1,
        };
        if state.given_up >= MOST_GIVEN_UP {
            self.flooded.notify_one();
        }
    }

    /// Number of requests in flight.
    pub(super) fn under_way(&self) -> usize {
        self.state().under_way
    }

    /// Phase of the connection, in the numbering of an HTTP/1.1 connection.
    pub(super) fn phase(&self) -> u64 {
        let state = self.state();
        let phase = match (state.under_way, state.begun) {
            (0, 0) => HEAD,
            (0, _) => IDLE,
            _ => BUSY,
        };
        state.begun * PHASES + phase
    }

    /// Start of the current idle time; none while a request is in flight.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.under_way == 0).then_some(state.idle_since)
    }

    /// Like `idle_since`, but none before the first request.
    pub(crate) fn rests_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.under_way == 0 && state.begun > 0).then_some(state.idle_since)
    }

    /// Start of the longest current stall: time since when the caller takes nothing of an answer.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.state().stalled.values().min().copied()
    }

    /// Registers an answer whose first data the caller has to take now. Returns its number.
    pub(super) fn offer(&self) -> u64 {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.stalled.insert(number, Instant::now());
        number
    }

    /// Records that an answer has further data for the caller.
    pub(super) fn offer_more(&self, number: u64) {
        self.state().stalled.insert(number, Instant::now());
    }

    /// Records that the caller has taken all available data of an answer.
    pub(super) fn taken(&self, number: u64) {
        self.state().stalled.remove(&number);
    }

    /// Waits until the caller has reset too many requests in a row.
    pub(crate) async fn flooded(&self) {
        self.flooded.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_busy_until_its_last_request_is_over() {
        let streams = Streams::new();
        assert_eq!(streams.phase() % PHASES, HEAD);
        streams.begin();
        streams.begin();
        let busy = streams.phase();
        assert_eq!(busy % PHASES, BUSY);
        streams.end(true);
        assert_eq!((streams.phase(), streams.idle_since()), (busy, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        streams.end(true);
        assert_eq!(streams.phase() % PHASES, IDLE);
        assert_eq!(streams.idle_since(), Some(Instant::now()));
        let first = streams.phase();
        streams.begin();
        streams.end(true);
        assert!(streams.phase() > first, "another time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_waits_for_its_caller_the_longest_is_known() {
        let streams = Streams::new();
        let begun = Instant::now();
        let (one, two) = (streams.offer(), streams.offer());
        tokio::time::advance(Duration::from_secs(1)).await;
        streams.offer_more(one);
        assert_eq!(streams.stalled_since(), Some(begun));
        streams.taken(two);
        assert_eq!(streams.stalled_since(), Some(Instant::now()));
        streams.taken(one);
        assert_eq!(streams.stalled_since(), None);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_all_that_it_asks_is_told_from_one_that_gives_up_some() {
        let streams = Streams::new();
        for number in 0..10 * MOST_GIVEN_UP {
            streams.begin();
            streams.end(number % 2 == 0);
        }
        let flooded = tokio::time::timeout(Duration::ZERO, streams.flooded());
        assert!(flooded.await.is_err());
        for _ in 0..MOST_GIVEN_UP {
            streams.begin();
            streams.end(false);
        }
        streams.flooded().await;
    }
}
