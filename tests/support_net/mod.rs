//! What the tests of faults share: an endpoint that misbehaves as told, a sender that writes raw
//! bytes, the program as a child, certificates, and waiting for what can be observed.
#![allow(dead_code, reason = "each test file uses its part")]

mod authority;
mod child;
pub mod edits;
mod endpoint;
mod live;
mod load;
pub mod pieces;
mod random;
mod sender;
mod series;
mod volume;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[allow(unused_imports)]
pub use {
    authority::Authority,
    child::Child,
    endpoint::{Does, Endpoint, Reply, Seen},
    live::{Live, config},
    load::Load,
    random::Random,
    sender::{Answer, Sender, fetch},
    series::{Series, body, body_v2, compress, decode, one, protobuf},
    volume::Volume,
};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until there is something to see.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks until it is so.
#[track_caller]
pub fn until_so(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// A local address on which nobody listens. Its port is below those that the kernel gives to
/// connections, so that only another test could take it meanwhile.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(61) + step) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
