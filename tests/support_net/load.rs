//! A steady load: senders in a closed loop that know what was acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::{Sender, body, one};

/// Senders that each write one sample after the other of a series of its own, each once the one
/// before is in.
pub struct Load {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<Sent>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
}

/// What a sender has seen.
pub struct Sent {
    /// The name of its series.
    pub name: String,
    /// The time of the last sample that was acknowledged.
    pub last: i64,
}

impl Load {
    /// Starts a sender for each of the addresses. The first sample of their series has the time
    /// after `before`.
    pub fn start(before: i64, addresses: &[SocketAddr]) -> Self {
        let shared = Arc::<Shared>::default();
        let sender = |(n, &address): (usize, &SocketAddr)| {
            let (name, shared) = (format!("series{n}"), shared.clone());
            std::thread::spawn(move || send(name, before, address, &shared))
        };
        let senders = addresses.iter().enumerate().map(sender).collect();
        Self { shared, senders }
    }

    /// How many samples were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it. Panics if anything but an acknowledgement was answered, or a connection broke.
    pub fn stop(self) -> Vec<Sent> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let senders = self.senders.into_iter();
        senders.map(|sender| sender.join().unwrap()).collect()
    }
}

fn send(name: String, before: i64, address: SocketAddr, shared: &Shared) -> Sent {
    let mut sender = Sender::new(address);
    let mut last = before;
    while !shared.stop.load(Ordering::Relaxed) {
        let body = body(&[one(&name, last + 1)]);
        let answer = sender.try_post("/api/v1/write", &[], &body);
        let answer = answer.unwrap_or_else(|error| panic!("{name}: connection broke: {error}"));
        assert_eq!(answer.status, 204, "{name}: {}", answer.text());
        last += 1;
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    assert!(last > before, "{name} was never sent");
    Sent { name, last }
}
