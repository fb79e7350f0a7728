//! A steady load of closed-loop senders, which record their acknowledged samples.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::sender::Sender;
use crate::series::{body, one};

/// Senders that each write the samples of one series one by one, waiting for each acknowledgement.
pub struct Load {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<Sent>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
}

/// The record of a sender.
#[derive(Debug)]
pub struct Sent {
    /// Name of its series.
    pub name: String,
    /// Time of the last acknowledged sample.
    pub last: i64,
}

impl Load {
    /// Starts a sender per address. The first sample of each series has the time after `before`.
    pub fn start(before: i64, addresses: &[SocketAddr]) -> Self {
        let shared = Arc::<Shared>::default();
        let sender = |(n, &address): (usize, &SocketAddr)| {
            let (name, shared) = (format!("series{n}"), shared.clone());
            std::thread::spawn(move || send(name, before, address, &shared))
        };
        let senders = addresses.iter().enumerate().map(sender).collect();
        Self { shared, senders }
    }

    /// Number of acknowledged samples so far. Panics if a sender has ended, since waiting for more
    /// would be in vain.
    #[track_caller]
    pub fn acknowledged(&self) -> usize {
        let ended = self.senders.iter().position(JoinHandle::is_finished);
        if let Some(n) = ended {
            panic!("sender {n} has ended; its own panic says why");
        }
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops all senders. Panics if one got another answer than an acknowledgement, or lost its
    /// connection.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Sent> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let senders = std::mem::take(&mut self.senders).into_iter();
        senders.map(|sender| sender.join().unwrap()).collect()
    }
}

impl Drop for Load {
    /// Stops the senders of a failed test.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::free_address;
    use crate::endpoint::Endpoint;
    use crate::wait::until;

    #[test]
    fn a_load_whose_senders_have_died_is_not_waited_for() {
        let load = Load::start(0, &[free_address()]);
        let waited = std::panic::AssertUnwindSafe(|| {
            until("much is acknowledged", || {
                (load.acknowledged() > 100).then_some(())
            });
        });
        let panic = std::panic::catch_unwind(waited).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("sender 0 has ended"), "{message}");
    }

    #[test]
    fn a_load_knows_what_was_acknowledged() {
        let endpoint = Endpoint::healthy();
        let load = Load::start(7, &[endpoint.address()]);
        until("some is acknowledged", || {
            (load.acknowledged() > 10).then_some(())
        });
        let sent = load.stop();
        let last = (sent[0].name.clone(), sent[0].last);
        assert_eq!(endpoint.accepted().last(), Some(&last));
        assert_eq!(endpoint.accepted()[0].1, 8);
    }
}
