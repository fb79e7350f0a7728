//! A bound address: its socket, the claims on its paths, and its shutdown.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use metrifold_base::BuildError;

use crate::access::Access;
use crate::listener::connection::Ending;
use crate::listener::refusals::{Refusals, Watcher};
use crate::listener::routes::{Served, Table};
use crate::listener::settings::Settings;
use crate::listener::{Handler, Listen, accept, announce};
use crate::socket::{self, overlap};
use crate::timed::{Phase, Spare};

/// A bound address.
pub(super) struct Bound {
    /// The configured address, by which sources share it.
    address: SocketAddr,
    /// The bound address.
    pub(super) local: SocketAddr,
    socket: Mutex<Socket>,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) table: Arc<ArcSwap<Table>>,
    claims: Mutex<Claims>,
    pub(super) refusals: Refusals,
    pub(super) open: Mutex<Open>,
    pub(super) closed: watch::Sender<bool>,
    /// The listener that has taken over the port; this one closes with its last handler.
    successor: OnceLock<Successor>,
}

/// A listener that takes over the port of another, together with the connections that wait there.
struct Successor {
    bound: Weak<Bound>,
    cut: watch::Sender<bool>,
}

pub(super) enum Socket {
    Bound(std::net::TcpListener),
    /// Bound beside listeners that overlap with its address; listens once it is started.
    Reserved(socket2::Socket, Vec<Arc<Bound>>),
    Accepting(TcpListener),
    Closed,
}

#[derive(Default)]
struct Claims {
    last_id: u64,
    last_turn: u64,
    list: Vec<Claim>,
}

impl Claims {
    fn is_any_served(&self) -> bool {
        self.list.iter().any(|claim| claim.handler.is_some())
    }
}

pub(super) struct Claim {
    id: u64,
    owner: String,
    settings: Arc<Settings>,
    /// Whether its path was ever served.
    served: bool,
    handler: Option<Served>,
    /// Serial number of the attached handler: the newest one gets the path.
    turn: u64,
}

/// Connections that can be told to close.
#[derive(Default)]
pub(super) struct Open {
    pub(super) closed: bool,
    pub(super) last_id: u64,
    /// In order of acceptance.
    pub(super) list: BTreeMap<u64, Opened>,
}

/// A connection with a task.
pub(super) struct Opened {
    pub(super) end: oneshot::Sender<Ending>,
    pub(super) phase: Arc<Phase>,
}

impl Bound {
    /// Binds an address, beside listeners in `others` that overlap with it.
    pub(super) fn bind(
        listen: &Listen,
        others: &[Arc<Self>],
        watcher: &Arc<OnceLock<Watcher>>,
    ) -> Result<Self, BuildError> {
        let settings = Settings::build(listen, None)?;
        let overlapping = others
            .iter()
            .filter(|other| other.is_open() && other.overlaps(listen.address));
        let overlapping: Vec<_> = overlapping.cloned().collect();
        let bound = if overlapping.is_empty() {
            socket::listen(listen.address)
                .and_then(|socket| Ok((socket.local_addr()?, Socket::Bound(socket))))
        } else {
            let shared = overlapping.iter().try_for_each(|other| other.share(true));
            shared
                .and_then(|()| socket::reserve(listen.address))
                .map(|socket| {
                    (
                        listen.address,
                        Socket::Reserved(socket, overlapping.clone()),
                    )
                })
        };
        let (local, socket) = bound.map_err(|error| {
            for other in &overlapping {
                other.share_no_more();
            }
            let reason = match (error.kind(), overlapping.first()) {
                (io::ErrorKind::AddrInUse, None) => {
                    "cannot listen: another process or component has this address".to_owned()
                }
                (_, Some(other)) => format!(
                    "cannot take over the port from {}: {error}; remove the other listener in one reload and add this one in the next",
                    other.address
                ),
                _ => format!("cannot listen: {error}"),
            };
            BuildError::new(listen.address, reason)
        })?;
        Ok(Self {
            address: listen.address,
            local,
            socket: Mutex::new(socket),
            settings: ArcSwap::from_pointee(settings),
            table: Arc::default(),
            claims: Mutex::default(),
            refusals: Refusals {
                watcher: Arc::clone(watcher),
                address: local,
            },
            open: Mutex::default(),
            closed: watch::Sender::new(false),
            successor: OnceLock::new(),
        })
    }

    /// Whether it was bound for this address, and has no successor.
    pub(super) fn has_for_itself(&self, address: SocketAddr) -> bool {
        self.address == address && self.successor.get().is_none()
    }

    /// Whether any path has a handler.
    pub(super) fn is_served(&self) -> bool {
        lock(&self.claims).is_any_served()
    }

    /// Allows or forbids that another listener shares the port.
    fn share(&self, share: bool) -> io::Result<()> {
        match &*lock(&self.socket) {
            Socket::Bound(socket) => socket::share_port(&SockRef::from(socket), share),
            Socket::Reserved(socket, _) => socket::share_port(&SockRef::from(socket), share),
            Socket::Accepting(socket) => socket::share_port(&SockRef::from(socket), share),
            Socket::Closed => Ok(()),
        }
    }

    /// Whether it prevents listening at an address.
    fn overlaps(&self, address: SocketAddr) -> bool {
        address.port() == self.local.port() && overlap(address.ip(), self.local.ip())
    }

    fn is_open(&self) -> bool {
        !matches!(*lock(&self.socket), Socket::Closed)
    }

    fn share_no_more(&self) {
        if let Err(error) = self.share(false) {
            warn!(address = %self.local, %error, "cannot stop sharing the port with other listeners");
        }
    }

    /// Records the listener that has taken over the port.
    fn succeed(&self, bound: &Arc<Self>, cut: &watch::Sender<bool>) {
        self.share_no_more();
        let (bound, cut) = (Arc::downgrade(bound), cut.clone());
        // Each listener has one port, which is taken over once.
        let _ = self.successor.set(Successor { bound, cut });
        self.close_if_succeeded(&lock(&self.claims));
    }

    /// The listener that has taken over the port, while it exists.
    pub(super) fn successor(&self) -> Option<Arc<Self>> {
        self.successor.get()?.bound.upgrade()
    }

    fn close_if_succeeded(&self, claims: &Claims) {
        let Some(Successor { bound, cut }) = self.successor.get() else {
            return;
        };
        if claims.is_any_served() {
            return;
        }
        let (Socket::Accepting(socket), Some(bound)) = (self.close(), bound.upgrade()) else {
            return;
        };
        // Closing the socket would reset connections that are not accepted yet.
        if let Ok(socket) = socket.into_std() {
            accept::hand_over(&bound, cut, &socket);
        }
    }

    pub(super) fn claim(&self, listen: &Listen, owner: &str) -> Result<u64, BuildError> {
        let mut claims = lock(&self.claims);
        for other in claims.list.iter().filter(|claim| !claim.served) {
            let theirs = &other.settings.listen;
            let help = |what| format!("{what}; {:?} listens on it too", other.owner);
            listen
                .compatible(theirs)
                .map_err(|error| BuildError::new(listen.address, help(error)))?;
            if listen.collides(theirs) {
                let error = format!("{:?} collides with {:?}", listen.path, theirs.path);
                return Err(BuildError::new("path", help(error)));
            }
        }
        let settings = Settings::build(listen, Some(&self.settings.load()))?;
        claims.last_id += 1;
        let id = claims.last_id;
        claims.list.push(Claim {
            id,
            owner: owner.to_owned(),
            settings: Arc::new(settings),
            served: false,
            handler: None,
            turn: 0,
        });
        // Everything that was in the table still is.
        self.publish(&claims);
        Ok(id)
    }

    /// Logs the address and the routes served on it.
    pub(super) fn announce(&self) {
        let claims = lock(&self.claims);
        let of = |claim: &Claim| {
            let listen = &claim.settings.listen;
            (claim.owner.clone(), listen.methods, listen.path.clone())
        };
        let served: Vec<_> = claims.list.iter().map(of).collect();
        let served = served
            .iter()
            .map(|(owner, methods, path)| (&**owner, *methods, &**path));
        let tls = self.settings.load().acceptor.is_some();
        info!(address = %self.local, tls, serves = announce::line(served), "listening");
    }

    /// Attaches a handler; returns its serial number.
    pub(super) fn attach(
        &self,
        id: u64,
        access: Arc<dyn Access>,
        handler: Arc<dyn Handler>,
    ) -> u64 {
        let _garbage;
        let mut claims = lock(&self.claims);
        claims.last_turn += 1;
        let turn = claims.last_turn;
        if let Some(claim) = claims.list.iter_mut().find(|claim| claim.id == id) {
            claim.served = true;
            claim.turn = turn;
            // The present table still holds the old handler, so that it is not dropped under the
            // lock.
            claim.handler = Some(Served {
                owner: claim.owner.as_str().into(),
                access,
                handler,
            });
            let old = self.settings.swap(Arc::clone(&claim.settings));
            if !Arc::ptr_eq(&old.slots, &claim.settings.slots) {
                // Wakes an accept loop that waits for a slot under the old limit.
                old.slots.close();
            }
        }
        _garbage = self.publish(&claims);
        turn
    }

    /// Detaches the handler with serial number `turn`, unless another has replaced it.
    pub(super) fn detach(&self, id: u64, turn: u64) {
        let _garbage;
        let mut claims = lock(&self.claims);
        if let Some(claim) = claims.list.iter_mut().find(|claim| claim.id == id)
            && claim.turn == turn
        {
            claim.handler = None;
        }
        _garbage = self.publish(&claims);
        self.close_if_succeeded(&claims);
    }

    /// Releases a claim; returns whether it was the last. The other returned values must be dropped
    /// without locks held.
    pub(super) fn release(&self, id: u64) -> (bool, (Vec<Claim>, Arc<Table>)) {
        let mut claims = lock(&self.claims);
        let gone: Vec<Claim> = claims.list.extract_if(.., |claim| claim.id == id).collect();
        let last = claims.list.is_empty();
        let table = if last {
            // Requests on connections that are still open are answered 503.
            let mut table = Table::default();
            for claim in &gone {
                // It was in a table before.
                let listen = &claim.settings.listen;
                let _ = table.insert_free(&listen.path, listen.methods, listen.free_text, None);
            }
            self.table.swap(Arc::new(table))
        } else {
            self.publish(&claims)
        };
        (last, (gone, table))
    }

    /// Publishes the claims as a table: those with a handler first, newest first, so that a claim
    /// that collides with a served path stays behind it. Returns the previous table, which must be
    /// dropped without locks held: it may own the last handle of a handler.
    fn publish(&self, claims: &Claims) -> Arc<Table> {
        let mut order: Vec<&Claim> = claims.list.iter().collect();
        order.sort_by_key(|claim| std::cmp::Reverse((claim.handler.is_some(), claim.turn)));
        let mut table = Table::default();
        for claim in order {
            // An error is a collision with an earlier claim.
            let listen = &claim.settings.listen;
            let _ = table.insert_free(
                &listen.path,
                listen.methods,
                listen.free_text,
                claim.handler.clone(),
            );
        }
        self.table.swap(Arc::new(table))
    }

    /// Makes the socket accept connections; returns false if it did before, or is closed.
    pub(super) fn open_socket(self: &Arc<Self>, cut: &watch::Sender<bool>) -> io::Result<bool> {
        let mut socket = lock(&self.socket);
        let (listening, before) = match &mut *socket {
            Socket::Bound(bound) => (bound.try_clone()?, Vec::new()),
            Socket::Reserved(bound, others) => {
                (socket::listen_at_last(bound)?, std::mem::take(others))
            }
            Socket::Accepting(_) | Socket::Closed => return Ok(false),
        };
        *socket = Socket::Accepting(TcpListener::from_std(listening)?);
        drop(socket);
        for other in before {
            other.succeed(self, cut);
        }
        Ok(true)
    }

    /// Whether a connection to this local address belongs to this listener.
    pub(super) fn takes(&self, local: SocketAddr) -> bool {
        let (ip, own) = (local.ip(), self.local.ip());
        ip.to_canonical() == own.to_canonical() || own.is_unspecified()
    }

    /// Tells all connections to close, and closes the socket when the returned value is dropped.
    pub(super) fn close(&self) -> Socket {
        let socket = std::mem::replace(&mut *lock(&self.socket), Socket::Closed);
        if let Socket::Reserved(_, others) = &socket {
            for other in others {
                other.share_no_more();
            }
        }
        self.closed.send_replace(true);
        let mut open = lock(&self.open);
        open.closed = true;
        for (_, opened) in std::mem::take(&mut open.list) {
            // An error means that the connection has ended already.
            let _ = opened.end.send(Ending::Closed);
        }
        socket
    }

    /// Evicts a connection without a request in flight, if there is one. Connections that never
    /// sent a request may take half of the slots: beyond that the oldest of them is evicted,
    /// otherwise the oldest idle one. So callers that only connect do not displace others, and a
    /// new connection has time to send its request. A connection that was accepted but not read yet
    /// is spared, since its request may have arrived. Returns whether one was evicted.
    pub(super) fn evict(&self) -> bool {
        let mut open = lock(&self.open);
        let oldest = |wanted| {
            let mut list = open.list.iter();
            list.find(|(_, opened)| opened.phase.spare() == Some(wanted))
        };
        let spare = open.list.values().map(|opened| opened.phase.spare());
        let silent = spare.filter(|spare| *spare == Some(Spare::Silent)).count();
        let (first, second) = match 2 * silent > open.list.len() {
            true => (Spare::Silent, Spare::Idle),
            false => (Spare::Idle, Spare::Silent),
        };
        let found = oldest(first).or_else(|| oldest(second));
        let Some(id) = found.map(|(id, _)| *id) else {
            return false;
        };
        let opened = open.list.remove(&id);
        opened.is_some_and(|opened| opened.end.send(Ending::Evicted).is_ok())
    }

    /// Whether the newest connection was not read since it was accepted.
    pub(super) fn has_unread(&self) -> bool {
        let open = lock(&self.open);
        let newest = open.list.last_key_value();
        newest.is_some_and(|(_, opened)| opened.phase.is_unread())
    }

    /// Accepts the next connection; `None` once the socket is closed.
    pub(super) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<(TcpStream, SocketAddr)>>> {
        match &*lock(&self.socket) {
            Socket::Accepting(socket) => socket.poll_accept(cx).map(Some),
            _ => Poll::Ready(None),
        }
    }
}

/// Locks state that no panic leaves half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
