//! State that the handles of the listeners share: bound listeners, and shutdown.

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

/// State that the handles share.
pub(super) struct Shared {
    listeners: Mutex<Vec<Arc<Bound>>>,
    ended: AtomicBool,
    /// Held by every connection, those of closed listeners included. `true` cuts them all.
    connections: watch::Sender<bool>,
    /// Callback for refusals.
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
    /// Binds the address unless it is bound, and claims the path.
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

    /// Releases a claim, and with the last one the address.
    pub(super) fn release(&self, bound: &Arc<Bound>, claim: u64) {
        // Dropped after the lock is released: a handler may own a route itself.
        let _garbage;
        // Held throughout, so that no path is claimed on a closing listener.
        let mut listeners = lock(&self.listeners);
        let last;
        (last, _garbage) = bound.release(claim);
        if last {
            listeners.retain(|other| !Arc::ptr_eq(other, bound));
            bound.close();
        }
    }

    pub(super) fn watch_refusals(&self, watcher: Watcher) {
        // An error means that a callback is set already.
        let _ = self.watcher.set(watcher);
    }

    /// Starts the accept loops that are not running.
    pub(super) fn start(&self) {
        self.start_where(|_| true);
    }

    /// Starts those of listeners with a handler.
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

    /// Expiry of the certificates, by bound address.
    pub(super) fn certificates(&self) -> Vec<(SocketAddr, SystemTime)> {
        let listeners = lock(&self.listeners);
        let shown = listeners.iter();
        shown
            .filter_map(|bound| Some((bound.local, bound.settings.load().expires?)))
            .collect()
    }

    /// Closes all listeners and connections.
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
