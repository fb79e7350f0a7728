//! What the handles of the listeners share: the listeners that are bound, and their end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::error;

use metrifold_base::BuildError;

use crate::listener::bound::{Bound, lock};
use crate::listener::refusals::Watcher;
use crate::listener::{Listen, accept, routes};

/// What the handles share.
pub(super) struct Shared {
    listeners: Mutex<Vec<Arc<Bound>>>,
    ended: AtomicBool,
    /// Every connection holds a receiver, of closed listeners too. `true` cuts them all.
    connections: watch::Sender<bool>,
    /// Is told of refusals.
    watcher: Arc<OnceLock<Watcher>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            listeners: Mutex::default(),
            ended: AtomicBool::new(false),
            connections: watch::Sender::new(false),
            watcher: Arc::default(),
        }
    }
}

impl Shared {
    /// Binds the address if need be, and claims the path.
    pub(super) fn claim(
        &self,
        listen: &Listen,
        owner: &str,
    ) -> Result<(Arc<Bound>, u64), BuildError> {
        routes::check(&listen.path).map_err(|error| BuildError::new("path", error))?;
        let mut listeners = lock(&self.listeners);
        if self.ended.load(Ordering::Relaxed) {
            return Err(BuildError::new(listen.address, "listeners are shut down"));
        }
        let known = listeners
            .iter()
            .find(|bound| bound.has_for_itself(listen.address));
        if let Some(bound) = known {
            let claim = bound.claim(listen, owner)?;
            return Ok((Arc::clone(bound), claim));
        }
        let bound = Arc::new(Bound::bind(listen, &listeners, &self.watcher)?);
        let claim = bound.claim(listen, owner)?;
        listeners.push(Arc::clone(&bound));
        Ok((bound, claim))
    }

    /// Gives a claim up, and the address with the last one.
    pub(super) fn release(&self, bound: &Arc<Bound>, claim: u64) {
        // Dropped last, after the lock: a handler may own a route itself.
        let _garbage;
        // Held throughout, so that nobody claims a path on a listener that is about to close.
        let mut listeners = lock(&self.listeners);
        let last;
        (last, _garbage) = bound.release(claim);
        if last {
            listeners.retain(|other| !Arc::ptr_eq(other, bound));
            bound.close();
        }
    }

    pub(super) fn watch_refusals(&self, watcher: Watcher) {
        // An error says that somebody watches already.
        let _ = self.watcher.set(watcher);
    }

    /// Starts the accept loops that are not running yet.
    pub(super) fn start(&self) {
        self.start_where(|_| true);
    }

    /// The same where a path has a handler.
    pub(super) fn start_served(&self) {
        self.start_where(|bound| bound.is_served());
    }

    fn start_where(&self, wanted: impl Fn(&Bound) -> bool) {
        for bound in lock(&self.listeners).iter().filter(|bound| wanted(bound)) {
            match bound.open_socket(&self.connections) {
                Ok(true) => {
                    bound.announce();
                    let cut = self.connections.clone();
                    tokio::spawn(accept::accept(Arc::clone(bound), cut));
                }
                Ok(false) => {}
                Err(error) => error!(address = %bound.local, %error, "cannot listen"),
            }
        }
    }

    /// Reads all certificates again.
    pub(super) fn renew_certificates(&self) -> Vec<BuildError> {
        let listeners = lock(&self.listeners);
        let renewed = listeners.iter().map(|bound| bound.renew_certificates());
        renewed.filter_map(Result::err).collect()
    }

    /// When the certificates expire that are shown, by the addresses that are bound.
    pub(super) fn certificates(&self) -> Vec<(SocketAddr, SystemTime)> {
        let listeners = lock(&self.listeners);
        let shown = listeners.iter();
        shown
            .filter_map(|bound| Some((bound.local, bound.settings.load().expires?)))
            .collect()
    }

    /// Ends all listeners and connections.
    pub(super) async fn shutdown(&self, limit: Duration) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        for bound in &listeners {
            bound.close();
        }
        if tokio::time::timeout(limit, self.connections.closed())
            .await
            .is_ok()
        {
            return 0;
        }
        let left = self.connections.receiver_count();
        self.connections.send_replace(true);
        left
    }
}
