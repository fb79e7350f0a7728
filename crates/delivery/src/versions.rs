//! The version of remote write to send to an endpoint, learnt from its answers.
//!
//! With `protocol = "auto"` a batch leaves in the version in which it arrived. By the specification,
//! an answer to 2.0 without the written counts comes from an endpoint that only accepts 1.0, and a
//! sender may go back to 1.0 on 415. Neither is final here: the answer may be a proxy's page, and
//! endpoints are upgraded.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use metrifold_model::Version;

use super::protocol::Protocol;

/// Time for which an endpoint that has accepted 2.0 may answer 2xx without the written counts before
/// it counts as replaced by one of 1.0. Until then, the answers are attributed to a proxy in
/// between, and batches are kept: batches sent as 1.0 would be lost to the proxy.
const DOUBTED_FOR: Duration = Duration::from_secs(60);

/// The version that an endpoint has shown to accept.
#[derive(Debug)]
pub(super) struct Versions {
    protocol: Protocol,
    /// Time for which an endpoint that does not accept 2.0 is sent 1.0 before 2.0 is tried again.
    probe_after: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No version is known.
    Unknown,
    /// The endpoint accepts 2.0.
    Confirmed,
    /// The endpoint accepts 2.0, but since then has answered 2xx only without the written counts.
    Doubted(Instant),
    /// The endpoint accepts only 1.0, as found at this time.
    FellBack(Instant),
}

impl Versions {
    pub(super) fn new(protocol: Protocol, probe_after: Duration) -> Self {
        Self {
            protocol,
            probe_after,
            state: Mutex::new(State::Unknown),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version in which to send a batch that arrived in the given one.
    pub(super) fn choose(&self, arrived: Version) -> Version {
        match self.protocol {
            Protocol::V1 => Version::V1,
            Protocol::V2 => Version::V2,
            Protocol::Auto if matches!(*self.state(), State::FellBack(_)) => Version::V1,
            Protocol::Auto => arrived,
        }
    }

    /// Whether it is still unknown if 2.0 is accepted, so that 400 may concern the version.
    pub(super) fn is_unknown(&self) -> bool {
        self.protocol == Protocol::Auto && *self.state() == State::Unknown
    }

    /// Notes that 2.0 was accepted, or refused in a way that only an endpoint of 2.0 uses.
    pub(super) fn confirm(&self) {
        *self.state() = State::Confirmed;
    }

    /// Notes that 2.0 is not accepted. Returns whether that is new.
    pub(super) fn fall_back(&self) -> bool {
        let mut state = self.state();
        let known = matches!(*state, State::FellBack(_));
        *state = State::FellBack(Instant::now());
        !known
    }

    /// Notes a 2xx without the written counts. Returns whether 2.0 counts as not accepted now.
    pub(super) fn doubt(&self) -> bool {
        let mut state = self.state();
        match *state {
            State::Unknown | State::FellBack(_) => true,
            State::Confirmed => {
                *state = State::Doubted(Instant::now());
                false
            }
            State::Doubted(since) => since.elapsed() >= DOUBTED_FOR,
        }
    }

    /// Whether 2.0 is to be tried again from now on.
    pub(super) fn probe(&self) -> bool {
        let mut state = self.state();
        let due = matches!(*state, State::FellBack(since) if since.elapsed() >= self.probe_after);
        if due {
            *state = State::Unknown;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE_AFTER: Duration = Duration::from_secs(300);

    fn auto() -> Versions {
        Versions::new(Protocol::Auto, PROBE_AFTER)
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_of_1_0_is_asked_for_2_0_again_after_a_while() {
        let versions = auto();
        assert_eq!(versions.choose(Version::V2), Version::V2);
        assert!(versions.fall_back());
        assert!(!versions.fall_back(), "that is known");
        assert_eq!(versions.choose(Version::V2), Version::V1);
        tokio::time::advance(PROBE_AFTER - Duration::from_secs(1)).await;
        assert!(!versions.probe());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(versions.probe());
        assert!(!versions.probe(), "once");
        assert_eq!(versions.choose(Version::V2), Version::V2);
        assert_eq!(versions.choose(Version::V1), Version::V1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_of_somebody_else_is_not_taken_for_an_endpoint_that_is_known() {
        let versions = auto();
        assert!(versions.doubt(), "nothing is known of it");
        versions.confirm();
        for _ in 0..60 {
            assert!(!versions.doubt());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(versions.doubt(), "it has been replaced");
        versions.confirm();
        assert!(!versions.doubt(), "it is back");
    }

    #[test]
    fn a_version_that_is_configured_is_kept_to() {
        for (protocol, version) in [(Protocol::V1, Version::V1), (Protocol::V2, Version::V2)] {
            let versions = Versions::new(protocol, PROBE_AFTER);
            assert!(!versions.is_unknown());
            for arrived in [Version::V1, Version::V2] {
                assert_eq!(versions.choose(arrived), version);
            }
        }
    }
}
