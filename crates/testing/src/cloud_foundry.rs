//! A Cloud Foundry foundation on loopback: Cloud Controller, UAA and router, as far as somebody who
//! looks for instances and scrapes them meets them, with what a test has it do.

mod controller;
mod router;
mod state;
mod uaa;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::endpoint::{Does, Endpoint, Seen};

pub use state::{App, Instance, Manner, Process, State};

/// A foundation. Its parts answer from one state, which a test changes.
pub struct CloudFoundry {
    state: Arc<Mutex<State>>,
    pub controller: Endpoint,
    pub uaa: Endpoint,
    pub router: Endpoint,
}

impl CloudFoundry {
    /// An empty foundation. Its user is `admin` with the password `geheim`, its client that may read
    /// everything is `reader` with the secret `client-geheim`.
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

    /// What there is, and how it behaves.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Starts a web process with routes, in a space that is made if there is none.
    pub fn push(&self, place: &str, routes: &[&str], instances: u32) -> String {
        self.state().push(place, routes, instances)
    }

    /// The requests of lists that have come, as paths with queries.
    pub fn asked(&self) -> Vec<String> {
        let seen = self.controller.seen().into_iter();
        seen.map(|seen| seen.path).collect()
    }

    /// How many requests count against the rate limit.
    pub fn requests(&self) -> u64 {
        self.state().counted
    }
}
