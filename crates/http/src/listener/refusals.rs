//! Who is turned away at a listener, told to whoever watches.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};

use super::Response;
use crate::answer::Reason;

/// Somebody was turned away with a status from 400 to 499, by the listener or by who serves the path,
/// or did not get as far as that.
#[derive(Clone, Copy, Debug)]
pub struct TurnedAway<'a> {
    /// The address that listens.
    pub address: SocketAddr,
    /// Who serves the path; none if nobody does.
    pub owner: Option<&'a str>,
    /// Who was turned away.
    pub peer: SocketAddr,
    /// Method and path, if there was a request.
    pub request: Option<(&'a Method, &'a str)>,
    /// The status, or `<tls>` for a handshake that failed.
    pub code: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Is told of refusals, and must not wait.
pub(super) type Watcher = Box<dyn Fn(&TurnedAway<'_>) + Send + Sync>;

/// Where the refusals of a listener are told.
#[derive(Clone)]
pub(super) struct Refusals {
    pub(super) watcher: Arc<OnceLock<Watcher>>,
    pub(super) address: SocketAddr,
}

impl Refusals {
    /// Whether anybody wants to know.
    pub(super) fn are_watched(&self) -> bool {
        self.watcher.get().is_some()
    }

    /// Tells that there was no request to answer.
    pub(super) fn before_request(&self, peer: SocketAddr, code: &str, reason: &str) {
        self.tell(&TurnedAway {
            address: self.address,
            owner: None,
            peer,
            request: None,
            code,
            reason,
        });
    }

    /// Tells of an answer, if it is a refusal of Metrifold's own: what a far end answers to a query
    /// has no reason beside it.
    pub(super) fn answered(
        &self,
        owner: Option<&str>,
        peer: SocketAddr,
        request: (&Method, &str),
        response: &Response,
    ) {
        let status: StatusCode = response.status();
        if status.is_client_error()
            && let Some(Reason(reason)) = response.extensions().get()
        {
            self.tell(&TurnedAway {
                address: self.address,
                owner,
                peer,
                request: Some(request),
                code: status.as_str(),
                reason,
            });
        }
    }

    fn tell(&self, refusal: &TurnedAway<'_>) {
        if let Some(watcher) = self.watcher.get() {
            watcher(refusal);
        }
    }
}
