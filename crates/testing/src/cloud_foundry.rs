//! A Cloud Foundry foundation on loopback: Cloud Controller, UAA and router, with the parts that
//! finding and scraping instances needs, and faults on demand.

mod controller;
mod router;
mod state;
mod uaa;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::endpoint::{Does, Endpoint, Seen};

pub use state::{App, Instance, Manner, Process, State};

/// A foundation. Its parts share one state, which a test changes.
pub struct CloudFoundry {
    state: Arc<Mutex<State>>,
    pub controller: Endpoint,
    pub uaa: Endpoint,
    pub router: Endpoint,
}

impl CloudFoundry {
    /// An empty foundation. It has a user `admin` with the password `geheim`, and a client `reader`
    /// with the secret `client-geheim`, which may read everything.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let state = Arc::new(Mutex::new(State::new()));
        let part = |answer: fn(&mut State, &Seen) -> Does| {
            let state = state.clone();
            Endpoint::new(move |seen| answer(&mut state.lock().unwrap(), seen))
        };
        let foundation = Self {
            controller: part(controller::answer),
            uaa: part(uaa::answer),
            router: part(router::answer),
            state,
        };
        let mut state = foundation.state();
        state.controller_url = foundation.api();
        state.uaa_url = foundation.uaa.url_of("");
        drop(state);
        foundation
    }

    /// The URL of the Cloud Controller.
    pub fn api(&self) -> String {
        self.controller.url_of("")
    }

    /// Content and behaviour of the foundation.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Starts a web process with routes in a space, which is created if missing.
    pub fn push(&self, place: &str, routes: &[&str], instances: u32) -> String {
        self.state().push(place, routes, instances)
    }

    /// Paths with queries of the requests for lists so far.
    pub fn asked(&self) -> Vec<String> {
        let seen = self.controller.seen().into_iter();
        seen.map(|seen| seen.path).collect()
    }

    /// Number of requests that count against the rate limit.
    pub fn requests(&self) -> u64 {
        self.state().counted
    }
}
