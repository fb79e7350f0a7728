//! A bound address: its socket, the claims on its paths, and its end.

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
    /// As configured: what sources share it by.
    address: SocketAddr,
    /// As bound.
    pub(super) local: SocketAddr,
    socket: Mutex<Socket>,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) table: Arc<ArcSwap<Table>>,
    claims: Mutex<Claims>,
    pub(super) refusals: Refusals,
    pub(super) open: Mutex<Open>,
    pub(super) closed: watch::Sender<bool>,
    /// Who has taken over its port, so that it closes with its last handler.
    successor: OnceLock<Successor>,
}

/// A listener that takes over the port of another, and with it those who still wait there.
struct Successor {
    bound: Weak<Bound>,
    cut: watch::Sender<bool>,
}

pub(super) enum Socket {
    Bound(std::net::TcpListener),
    /// Bound beside others that have a part of its address, and listening once it is started.
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
    /// Its path has been served, now or before.
    served: bool,
    handler: Option<Served>,
    /// When the handler was attached: the last one has the path.
    turn: u64,
}

/// The connections that can still be told to end.
#[derive(Default)]
pub(super) struct Open {
    pub(super) closed: bool,
    pub(super) last_id: u64,
    /// In the order in which they were accepted.
    pub(super) list: BTreeMap<u64, Opened>,
}

/// A connection that is served.
pub(super) struct Opened {
    pub(super) end: oneshot::Sender<Ending>,
    pub(super) phase: Arc<Phase>,
}

impl Bound {
    /// Binds an address, if need be beside what `others` have of it.
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
                    "cannot take over the port from {}: {error}; remove what listens there in one step and add this in another",
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

    /// Whether it was bound for this address, and nobody has taken that over.
    pub(super) fn has_for_itself(&self, address: SocketAddr) -> bool {
        self.address == address && self.successor.get().is_none()
    }

    /// Whether a path has a handler.
    pub(super) fn is_served(&self) -> bool {
        lock(&self.claims).is_any_served()
    }

    /// Lets another listener have the port, too, or no more.
    fn share(&self, share: bool) -> io::Result<()> {
        match &*lock(&self.socket) {
            Socket::Bound(socket) => socket::share_port(&SockRef::from(socket), share),
            Socket::Reserved(socket, _) => socket::share_port(&SockRef::from(socket), share),
            Socket::Accepting(socket) => socket::share_port(&SockRef::from(socket), share),
            Socket::Closed => Ok(()),
        }
    }

    /// Whether it stands in the way of listening at an address.
    fn overlaps(&self, address: SocketAddr) -> bool {
        address.port() == self.local.port() && overlap(address.ip(), self.local.ip())
    }

    fn is_open(&self) -> bool {
        !matches!(*lock(&self.socket), Socket::Closed)
    }

    fn share_no_more(&self) {
        if let Err(error) = self.share(false) {
            warn!(address = %self.local, %error, "cannot take the port for itself again");
        }
    }

    /// Notes who has taken over the port.
    fn succeed(&self, bound: &Arc<Self>, cut: &watch::Sender<bool>) {
        self.share_no_more();
        let (bound, cut) = (Arc::downgrade(bound), cut.clone());
        // It has one port, which can be taken over once.
        let _ = self.successor.set(Successor { bound, cut });
        self.close_if_succeeded(&lock(&self.claims));
    }

    /// Who has taken over the port, if that still listens.
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
        // Who was not accepted yet would be reset.
        if let Ok(socket) = socket.into_std() {
            accept::hand_over(&bound, cut, &socket);
        }
    }

    pub(super) fn claim(&self, listen: &Listen, owner: &str) -> Result<u64, BuildError> {
        let mut claims = lock(&self.claims);
        for other in claims.list.iter().filter(|claim| !claim.served) {
            let theirs = &other.settings.listen;
            let help = |what| format!("{what}; it is also listened on by {:?}", other.owner);
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
        // What was in the table still is.
        self.publish(&claims);
        Ok(id)
    }

    /// Says what is listened on, and for whom.
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

    /// Attaches a handler; returns its turn.
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
            // Still in the table that is about to go, so that it is not dropped here.
            claim.handler = Some(Served {
                owner: claim.owner.as_str().into(),
                access,
                handler,
            });
            let old = self.settings.swap(Arc::clone(&claim.settings));
            if !Arc::ptr_eq(&old.slots, &claim.settings.slots) {
                // Wakes the accept loop, if it waits for a slot under the old limit.
                old.slots.close();
            }
        }
        _garbage = self.publish(&claims);
        turn
    }

    /// Detaches the handler that was attached at `turn`, unless another has taken its place.
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

    /// Reads the certificates again: all or none, for the claims too, since their settings come
    /// back when they are served again.
    pub(super) fn renew_certificates(&self) -> Result<(), BuildError> {
        let mut claims = lock(&self.claims);
        let renew = |old: &Arc<Settings>| match &old.listen.tls {
            Some(_) => Settings::build(&old.listen, Some(old)).map(Arc::new),
            None => Ok(Arc::clone(old)),
        };
        let current = renew(&self.settings.load())?;
        let renewed = claims.list.iter().map(|claim| renew(&claim.settings));
        let renewed = renewed.collect::<Result<Vec<_>, _>>()?;
        for (claim, settings) in claims.list.iter_mut().zip(renewed) {
            claim.settings = settings;
        }
        self.settings.store(current);
        Ok(())
    }

    /// Gives a claim up; true if it was the last. What is returned beside must be dropped without
    /// locks.
    pub(super) fn release(&self, id: u64) -> (bool, (Vec<Claim>, Arc<Table>)) {
        let mut claims = lock(&self.claims);
        let gone: Vec<Claim> = claims.list.extract_if(.., |claim| claim.id == id).collect();
        let last = claims.list.is_empty();
        let table = if last {
            // Who is connected until the listener has closed is told to come back.
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

    /// Shows requests the claims: those with a handler first, the last attached before others, so
    /// that whatever collides with a path that is being served stays behind it. Returns the table
    /// of before, to be dropped without locks: it may hold the last handle of a handler.
    fn publish(&self, claims: &Claims) -> Arc<Table> {
        let mut order: Vec<&Claim> = claims.list.iter().collect();
        order.sort_by_key(|claim| std::cmp::Reverse((claim.handler.is_some(), claim.turn)));
        let mut table = Table::default();
        for claim in order {
            // An error is a collision with a claim that goes first.
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

    /// Makes the socket ready to accept; false if it was before, or is closed.
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

    /// Whether a connection to this address is one to this listener.
    pub(super) fn takes(&self, local: SocketAddr) -> bool {
        let (ip, own) = (local.ip(), self.local.ip());
        ip.to_canonical() == own.to_canonical() || own.is_unspecified()
    }

    /// Closes the socket at once, unless what is returned is kept, and tells all connections to end.
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
            // An error says that it has ended by itself.
            let _ = opened.end.send(Ending::Closed);
        }
        socket
    }

    /// Ends a connection on which nothing is under way, if there is one, for another to take its
    /// place. Those that never brought a request may have half of the places; then the oldest of
    /// them goes, and else the oldest that is idle. So those who only connect do not drive out the
    /// others, and who has just connected has time to send. One that was accepted but not read yet
    /// is spared: its request may be there. Returns whether there was one.
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

    /// Whether the newest connection has not been looked at since it was accepted.
    pub(super) fn has_unread(&self) -> bool {
        let open = lock(&self.open);
        let newest = open.list.last_key_value();
        newest.is_some_and(|(_, opened)| opened.phase.is_unread())
    }

    /// The next connection; none once the socket is closed.
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

/// No state behind these locks is half-changed by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
