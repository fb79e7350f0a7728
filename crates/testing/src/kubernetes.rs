//! A Kubernetes API server on loopback: paged lists, watches with bookmarks and timeouts, expired
//! histories, token rotation, writes with versions.

mod objects;
mod selector;
mod serve;
mod state;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rustls::ServerConfig;
use serde_json::Value;

pub use objects::{endpoints, endpointslice, ingress, namespace, node, owned, pod, service};
pub use state::{Expiry, State};

/// An API server. Its behaviour depends on one state, which a test changes.
pub struct Kubernetes {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
}

struct Shared {
    state: Mutex<State>,
    /// Notified of every write and of every change of behaviour.
    changed: Condvar,
}

impl Kubernetes {
    /// An empty cluster over plain HTTP. Requests need no token until one is set.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self::listen(None)
    }

    /// An empty cluster over TLS.
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        Self::listen(Some(config))
    }

    fn listen(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
        });
        let server = shared.clone();
        std::thread::spawn(move || serve::accept(&listener, &server, tls.as_ref()));
        Self {
            shared,
            address,
            scheme,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Content and behaviour of the server. Watches see changes when the guard is dropped.
    pub fn state(&self) -> Changing<'_> {
        Changing {
            state: self.shared.state.lock().unwrap(),
            changed: &self.shared.changed,
        }
    }

    /// Creates or replaces an object of a resource such as `pods`, in the API's format.
    pub fn put(&self, resource: &str, object: Value) {
        self.state().put(resource, object);
    }

    /// Deletes an object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.state().delete(resource, namespace, name);
    }

    /// Paths with queries of the requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Number of open watches.
    pub fn watches(&self) -> usize {
        self.state().watches
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.state().stopped = true;
        // Wakes the accepting thread.
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// A guard of the state; dropping it wakes the watches.
pub struct Changing<'a> {
    state: MutexGuard<'a, State>,
    changed: &'a Condvar,
}

impl std::ops::Deref for Changing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.changed.notify_all();
    }
}
