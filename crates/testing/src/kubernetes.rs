//! A Kubernetes API server on loopback: lists in pages, watches with bookmarks and an end, histories
//! that are over, tokens that are rotated, objects that are written with their version.

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

/// An API server. All that it does comes of one state, which a test changes.
pub struct Kubernetes {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
}

struct Shared {
    state: Mutex<State>,
    /// Told when anything is written, or the server behaves otherwise.
    changed: Condvar,
}

impl Kubernetes {
    /// An empty cluster, in plain text. Nobody has to prove anything until there is a token.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self::listen(None)
    }

    /// The same in TLS.
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

    /// What there is, and how the server behaves. What is changed is heard by watches.
    pub fn state(&self) -> Changing<'_> {
        Changing {
            state: self.shared.state.lock().unwrap(),
            changed: &self.shared.changed,
        }
    }

    /// Creates or replaces an object of a resource such as `pods`, as it is written in the API.
    pub fn put(&self, resource: &str, object: Value) {
        self.state().put(resource, object);
    }

    /// Deletes an object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.state().delete(resource, namespace, name);
    }

    /// The requests that have come, as paths with queries.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.state().watches
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.state().stopped = true;
        // So that whoever accepts sees it.
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// A state that is being changed.
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
