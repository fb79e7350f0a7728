//! Reports callers that a listener refuses.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};

use super::Response;
use crate::answer::Reason;

/// A caller that was refused with a status from 400 to 499, by the listener or by the path's
/// component, or before there was a request.
#[derive(Clone, Copy, Debug)]
pub struct TurnedAway<'a> {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Component that serves the path; `None` if there is none.
    pub owner: Option<&'a str>,
    /// Address of the caller.
    pub peer: SocketAddr,
    /// Method and path, if a request was read.
    pub request: Option<(&'a Method, &'a str)>,
    /// Status, or `<tls>` for a failed handshake.
    pub code: &'a str,
    /// Reason of the refusal.
    pub reason: &'a str,
}

/// Callback for refusals, which must not block.
pub(super) type Watcher = Box<dyn Fn(&TurnedAway<'_>) + Send + Sync>;

/// Reports the refusals of one listener.
#[derive(Clone)]
pub(super) struct Refusals {
    pub(super) watcher: Arc<OnceLock<Watcher>>,
    pub(super) address: SocketAddr,
}

impl Refusals {
    /// Whether a callback is set.
    pub(super) fn are_watched(&self) -> bool {
        self.watcher.get().is_some()
    }

    /// Reports a caller that was refused before there was a request.
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

    /// Reports an answer if it is a refusal of Metrifold's own: answers of a far end carry no
    /// [`Reason`].
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
