//! Whether routers know the header that names an instance by its process.
//!
//! Gorouter knows `X-CF-PROCESS-INSTANCE` since March 2025 (its pull request 467); an older one ignores
//! it and picks any instance. Asked for an instance that nobody has, the former answers 400 since there
//! is no such route, and the latter with the page of an instance. Until one of these answers arrives,
//! nothing is scraped: an instance that an old router picks would be taken for another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use tracing::info;

use metrifold_base::locked;
use metrifold_discovery::Labels;
use metrifold_scrape::FindHeader;

use super::instances::{APP_INSTANCE, PROCESS_INSTANCE};

/// Instance that no foundation has, of a process or an application.
const NOBODY: HeaderValue = HeaderValue::from_static("00000000-0000-4000-8000-000000000000:0");

/// Time after which a router is asked again: it may have been upgraded.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
/// Time after which a question of that kind counts as lost.
const LOST: Duration = Duration::from_secs(60);
/// Time after which an address that no target has any more is forgotten.
const FORGET: Duration = Duration::from_secs(2 * 3600);

/// What routers answered, by the address that they were asked at. There are as many as there are
/// routes to applications that several processes serve, and have been in the last hours.
#[derive(Debug, Default)]
pub(super) struct Routers(Mutex<HashMap<Arc<str>, Known>>);

/// A router's answer.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Whether the router knows the header.
    by_process: bool,
    at: Instant,
    /// When it was last asked whether that has changed.
    asked: Instant,
    /// When a target was last scraped at the address.
    used: Instant,
}

/// The header of an instance: by its process where the router knows that, by the application where it
/// does not, and of nobody while that is not known.
#[derive(Debug)]
pub(super) struct WhereKnown {
    routers: Arc<Routers>,
    address: Arc<str>,
    process: HeaderValue,
    app: HeaderValue,
}

impl WhereKnown {
    pub(super) fn new(
        routers: Arc<Routers>,
        target: &Labels,
        process: HeaderValue,
        app: HeaderValue,
    ) -> Self {
        Self {
            routers,
            address: target.get("__address__").unwrap_or_default().into(),
            process,
            app,
        }
    }

    fn known(&self) -> Option<Known> {
        locked(&self.routers.0).get(&self.address).copied()
    }

    fn note(&self, by_process: bool) {
        let now = Instant::now();
        let mut routers = locked(&self.routers.0);
        routers.retain(|_, known| known.used.elapsed() < FORGET);
        let known = Known {
            by_process,
            at: now,
            asked: now,
            used: now,
        };
        routers.insert(self.address.clone(), known);
    }
}

impl FindHeader for WhereKnown {
    fn question(&self) -> Option<(HeaderName, HeaderValue)> {
        let mut routers = locked(&self.routers.0);
        let due = match routers.get_mut(&self.address) {
            // Every target asks, since none can be scraped without the answer.
            None => true,
            Some(known) => {
                known.used = Instant::now();
                let due = known.at.elapsed() >= ASK_AGAIN && known.asked.elapsed() >= LOST;
                // One asks, and the others use what is known.
                if due {
                    known.asked = known.used;
                }
                due
            }
        };
        due.then_some((PROCESS_INSTANCE, NOBODY))
    }

    fn answered(&self, answer: &http::response::Parts) {
        let error = answer.headers.get("x-cf-routererror");
        let by_process = match error.map(HeaderValue::as_bytes) {
            Some(b"unknown_route") if answer.status == StatusCode::BAD_REQUEST => true,
            // Every router answers 404 for a host that it does not know yet. From that and from other
            // trouble, such as a router without instances, nothing follows.
            Some(_) => return,
            None if answer.status.is_server_error() => return,
            None => false,
        };
        let changed = self
            .known()
            .is_none_or(|known| known.by_process != by_process);
        if changed && !by_process {
            let address = &*self.address;
            info!(
                address,
                "the router does not know X-CF-PROCESS-INSTANCE: instances are named by their application, which is \
                 ambiguous while it has several processes of a type"
            );
        }
        self.note(by_process);
    }

    fn find(&self) -> (HeaderName, HeaderValue) {
        match self.known().map(|known| known.by_process) {
            Some(true) => (PROCESS_INSTANCE, self.process.clone()),
            Some(false) => (APP_INSTANCE, self.app.clone()),
            // All routers know this header, and refuse it: the scrape fails.
            None => (APP_INSTANCE, NOBODY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, error: Option<&str>) -> http::response::Parts {
        let mut answer = http::Response::builder().status(status);
        if let Some(error) = error {
            answer = answer.header("X-Cf-RouterError", error);
        }
        answer.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_header_is_what_the_router_knows() {
        let target: Labels = [("__address__", "a:80")].into_iter().collect();
        let value = HeaderValue::from_static;
        for (status, error, expected) in [
            (400, Some("unknown_route"), Some((PROCESS_INSTANCE, "p:1"))),
            (404, Some("unknown_route"), None),
            (200, None, Some((APP_INSTANCE, "a:1"))),
            (401, None, Some((APP_INSTANCE, "a:1"))),
            (404, None, Some((APP_INSTANCE, "a:1"))),
            (503, Some("no_endpoints"), None),
            (502, None, None),
        ] {
            let routers = Arc::<Routers>::default();
            let finder = || WhereKnown::new(routers.clone(), &target, value("p:1"), value("a:1"));
            let first = finder();
            assert_eq!(first.question(), Some((PROCESS_INSTANCE, NOBODY)));
            assert_eq!(first.find(), (APP_INSTANCE, NOBODY));
            first.answered(&answer(status, error));
            // Others at the same address know it as well.
            let other = finder();
            assert_eq!(other.question().is_none(), expected.is_some(), "{status}");
            let expected = expected.map(|(name, text)| (name, value(text)));
            let nobody = (APP_INSTANCE, NOBODY);
            assert_eq!(other.find(), expected.unwrap_or(nobody), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_target_asks_again_and_an_address_without_targets_is_forgotten() {
        let routers = Arc::<Routers>::default();
        let at = |address: &str| {
            let target: Labels = [("__address__", address)].into_iter().collect();
            let value = HeaderValue::from_static;
            WhereKnown::new(routers.clone(), &target, value("p:1"), value("a:1"))
        };
        let yes = answer(400, Some("unknown_route"));
        at("a:80").answered(&yes);
        at("b:80").answered(&yes);
        assert!(at("a:80").question().is_none());
        tokio::time::advance(ASK_AGAIN).await;
        assert!(at("a:80").question().is_some());
        assert!(at("a:80").question().is_none());
        assert_eq!(at("a:80").find().0, PROCESS_INSTANCE);
        // The answer was lost.
        tokio::time::advance(LOST).await;
        assert!(at("a:80").question().is_some());
        at("a:80").answered(&yes);
        tokio::time::advance(FORGET - ASK_AGAIN - LOST).await;
        assert!(at("a:80").question().is_none());
        at("c:80").answered(&yes);
        let known: Vec<_> = locked(&routers.0).keys().cloned().collect();
        assert!(!known.contains(&"b:80".into()), "{known:?}");
        assert_eq!(known.len(), 2);
    }
}
