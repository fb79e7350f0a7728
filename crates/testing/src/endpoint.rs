//! A scripted endpoint of remote write.

mod script;
mod server;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustls::ServerConfig;

use crate::address::free_address;
use crate::wait::until;

pub use script::{Does, Manner, Reply, Seen};
use server::Shared;

/// A scripted endpoint on loopback. Dropping it closes all connections; its address stays reserved.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// An endpoint that reacts to each request as `script` says.
    pub fn new<D: Into<Does>>(script: impl Fn(&Seen) -> D + Send + Sync + 'static) -> Self {
        Self::at(free_address(), script)
    }

    /// An endpoint behind TLS.
    pub fn tls<D: Into<Does>>(
        tls: Arc<ServerConfig>,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        Self::listen(free_address(), Some(tls), script)
    }

    /// An endpoint behind TLS at an address that the test has reserved.
    pub fn tls_at<D: Into<Does>>(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, Some(tls), script)
    }

    /// An endpoint at an address that the test has reserved.
    pub fn at<D: Into<Does>>(
        address: SocketAddr,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, None, script)
    }

    fn listen<D: Into<Does>>(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared::new(tls));
        shared.follow(move |seen| script(seen).into());
        let accepting = shared.clone();
        let accepting = std::thread::spawn(move || accepting.accept(&listener));
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// An endpoint that follows the protocol.
    pub fn speaking(manner: Manner) -> Self {
        Self::new(move |seen| manner.answer(seen))
    }

    /// An endpoint that answers 204 to everything.
    pub fn healthy() -> Self {
        Self::new(|_| 204)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        self.url_of("/write")
    }

    /// The URL of another path. The script sees the path.
    pub fn url_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Replaces the script.
    pub fn now<D: Into<Does>>(&self, script: impl Fn(&Seen) -> D + Send + Sync + 'static) {
        self.shared.follow(move |seen| script(seen).into());
    }

    /// Releases the hanging requests.
    pub fn release(&self) {
        *self.shared.released.0.lock().unwrap() = true;
        self.shared.released.1.notify_all();
    }

    /// Resets this many connections instead of reading their next request.
    pub fn reset(&self, connections: usize) {
        self.shared.resets.store(connections, Ordering::SeqCst);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests since the last call.
    pub fn take(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        let taken = self.shared.taken.swap(seen.len(), Ordering::SeqCst);
        seen[taken..].to_vec()
    }

    /// The only request since the last call.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// Samples of all requests that were answered 2xx, in order of arrival.
    pub fn accepted(&self) -> Vec<(String, i64)> {
        let seen = self.shared.seen.lock().unwrap();
        let accepted = seen.iter().filter(|seen| seen.accepted);
        accepted.flat_map(samples).collect()
    }

    /// Samples of all requests, in order of arrival.
    pub fn arrived(&self) -> Vec<(String, i64)> {
        self.shared
            .seen
            .lock()
            .unwrap()
            .iter()
            .flat_map(samples)
            .collect()
    }

    /// Waits for this many accepted samples.
    #[track_caller]
    pub fn wait_accepted(&self, samples: usize) -> Vec<(String, i64)> {
        let what = format!("{samples} samples are accepted");
        until(&what, || {
            let accepted = self.accepted();
            (accepted.len() >= samples).then_some(accepted)
        })
    }

    /// Waits for this many requests.
    #[track_caller]
    pub fn wait_requests(&self, requests: usize) {
        let what = format!("{requests} requests have come");
        until(&what, || (self.count() >= requests).then_some(()));
    }

    /// Most requests in flight at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn samples(seen: &Seen) -> Vec<(String, i64)> {
    let series = seen.series.as_deref().unwrap_or_default().iter();
    let samples = series.flat_map(|series| {
        let name = series.name();
        series.times().map(move |time| (name.to_owned(), time))
    });
    samples.collect()
}

/// An endpoint that does not answer until it is released.
pub fn hanging() -> Endpoint {
    Endpoint::new(|_| Does::Hang(Reply::new(204)))
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the accepting thread; once it has ended, nothing listens.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for (_, stream) in self.shared.streams.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
