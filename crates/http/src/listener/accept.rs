//! The accept loop of a listener, which no error ends.

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

/// The first and the longest pause after a failure to accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection that is told to end may take to give its descriptor back, mostly.
const CLOSING: Duration = Duration::from_millis(1);

/// How often tasks of connections are let run that may have something to read, before one that is
/// idle has to go.
const UNREAD_LOOKS: usize = 4;

/// While all connections are busy and another waits: how often to look for one that is not any more.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A connection's place among the open ones, given up with it.
struct Place {
    bound: Arc<Bound>,
    id: u64,
    _slot: OwnedSemaphorePermit,
}

/// Accepts until the listener is closed. Errors make it pause, but never end it.
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
            // Callers that wait for a descriptor get that of an idle connection.
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

/// Waits for a place among the open connections; none once the listener is closed. Connections on
/// which nothing is under way give theirs up, so that no number of them keeps a request out.
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
            // An error says that the limit has changed.
            slot = slots.acquire_owned() => if let Ok(slot) = slot { return Some(slot) },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Gives a connection to a listener, unless that is full or has another address.
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

/// Gives those who still wait at the socket of a closed listener to its successor, unless that is
/// full.
pub(super) fn hand_over(
    bound: &Arc<Bound>,
    connections: &watch::Sender<bool>,
    from: &std::net::TcpListener,
) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    // Ends when nobody waits any more, or with an error, which is as much.
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

/// Whether there are too few descriptors, in the process or in the system.
fn is_shortage(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Whether one caller's connection broke before it was accepted.
fn is_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Gives a connection its task.
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
            // It was accepted while another took over the port.
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
    // As they are now, not when the wait for the connection began.
    let settings = bound.settings.load();
    let accepted = Accepted {
        stream,
        peer,
        acceptor: settings.acceptor.clone(),
        verified: settings.verifies(),
        header_timeout: settings.listen.header_timeout,
        idle_timeout: settings.listen.idle_timeout,
        max_age: settings.listen.max_age,
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
