//! The accept loop of a listener; no error ends it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tracing::warn;

use crate::listener::bound::{Bound, Opened, lock};
use crate::listener::connection::Accepted;
use crate::timed::Phase;

/// First and longest pause after a failed accept, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Time in which a closing connection usually releases its descriptor.
const CLOSING: Duration = Duration::from_millis(1);

/// Number of yields to tasks of unread connections before an idle connection is evicted.
const UNREAD_LOOKS: usize = 4;

/// Poll interval for an idle connection while all are busy and another one waits.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A connection's slot and its entry among the open ones; both are released on drop.
struct Place {
    bound: Arc<Bound>,
    id: u64,
    _slot: OwnedSemaphorePermit,
}

/// Accepts until the listener is closed. Errors cause a pause.
pub(super) async fn accept(bound: Arc<Bound>, connections: watch::Sender<bool>) {
    let mut closed = bound.closed.subscribe();
    let mut pause = PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            accepted = poll_fn(|cx| bound.poll_accept(cx)) => accepted,
        };
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                pause = PAUSE;
                match place(&bound, &mut closed).await {
                    Some(slot) => serve(&bound, &connections, slot, stream, peer),
                    None => {
                        if let Some(successor) = bound.successor() {
                            give(&successor, &connections, stream, peer);
                        }
                        return;
                    }
                }
            }
            Some(Err(error)) if is_callers(&error) => {}
            // The waiting caller gets the descriptor of an idle connection.
            Some(Err(error)) if is_shortage(&error) && bound.evict() => {
                tokio::time::sleep(CLOSING).await;
            }
            Some(Err(error)) => {
                warn!(address = %bound.local, %error, "cannot accept a connection, pausing");
                tokio::select! {
                    _ = closed.wait_for(|closed| *closed) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits for a free slot; `None` once the listener is closed. Connections without a request in
/// flight are evicted, so that no number of them locks out a request.
async fn place(bound: &Bound, closed: &mut watch::Receiver<bool>) -> Option<OwnedSemaphorePermit> {
    loop {
        let slots = Arc::clone(&bound.settings.load().slots);
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            return Some(slot);
        }
        for _ in 0..UNREAD_LOOKS {
            if !bound.has_unread() {
                break;
            }
            tokio::task::yield_now().await;
        }
        bound.evict();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return None,
            // An error means that the limit has changed.
            slot = slots.acquire_owned() => if let Ok(slot) = slot { return Some(slot) },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Hands a connection to another listener, unless that is full or has another address.
fn give(
    bound: &Arc<Bound>,
    connections: &watch::Sender<bool>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let slots = Arc::clone(&bound.settings.load().slots);
    if let Ok(slot) = slots.try_acquire_owned()
        && stream.local_addr().is_ok_and(|local| bound.takes(local))
    {
        serve(bound, connections, slot, stream, peer);
    }
}

/// Hands the connections that wait at the socket of a closed listener to its successor, unless that
/// is full.
pub(super) fn hand_over(
    bound: &Arc<Bound>,
    connections: &watch::Sender<bool>,
    from: &std::net::TcpListener,
) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    // Ends when no connection waits any more, or on an error.
    while let Ok((stream, peer)) = from.accept() {
        let stream = stream.set_nonblocking(true).map(|()| stream);
        if let Ok(stream) = stream.and_then(TcpStream::from_std) {
            give(bound, connections, stream, peer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.bound.open).list.remove(&self.id);
    }
}

/// Whether the process or the system has no free descriptors.
fn is_shortage(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which `ErrorKind` does not cover.
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Whether the caller's connection broke before it was accepted.
fn is_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Spawns the task of a connection.
fn serve(
    bound: &Arc<Bound>,
    connections: &watch::Sender<bool>,
    slot: OwnedSemaphorePermit,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let cut = connections.subscribe();
    let (end, close) = oneshot::channel();
    let phase = Phase::new();
    let id = {
        let mut open = lock(&bound.open);
        if open.closed {
            drop(open);
            // Accepted while a successor took over the port.
            let local = stream.local_addr();
            if let (Some(successor), Ok(local)) = (bound.successor(), local)
                && successor.takes(local)
            {
                serve(&successor, connections, slot, stream, peer);
            }
            return;
        }
        open.last_id += 1;
        let id = open.last_id;
        let phase = Arc::clone(&phase);
        open.list.insert(id, Opened { end, phase });
        id
    };
    let place = Place {
        bound: Arc::clone(bound),
        id,
        _slot: slot,
    };
    // The settings may have changed while the connection waited for a slot.
    let settings = bound.settings.load();
    let accepted = Accepted {
        stream,
        peer,
        acceptor: settings.acceptor.clone(),
        verified: settings.verifies(),
        header_timeout: settings.listen.header_timeout,
        idle_timeout: settings.listen.idle_timeout,
        max_age: settings.listen.max_age,
        max_streams: settings.max_streams(),
        phase,
        table: Arc::clone(&bound.table),
        refusals: bound.refusals.clone(),
        close,
        cut,
    };
    tokio::spawn(async move {
        let _place = place;
        accepted.run().await;
    });
}
