//! A connection's clock: how long callers may take to send a head, to be idle, to take an answer.
//!
//! hyper's own `header_read_timeout` starts when the previous answer is out, so that one number
//! would have to serve both for slow senders (short) and for idle connections (long). Here they
//! are two: the time for a head starts with its first byte.
//!
//! hyper's own `half_close` would have to be the same for all requests, and without it hyper looks
//! for the end of a caller while a request is under way. Here the end is passed on or held back by
//! what the handler says.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Where a connection stands, shared between its transport, which sees bytes, and its service,
/// which sees requests. Counts up, so that the same phase of two requests is told apart.
#[derive(Debug)]
pub(super) struct Phase {
    count: AtomicU64,
    /// It was looked for bytes of the caller's, and there were none.
    waited: AtomicBool,
    /// The request that is under way is answered even if its caller sends no more.
    patient: AtomicBool,
    /// The caller has closed its sending side while a request was under way that is answered.
    ended: AtomicBool,
    /// Who reads the body of the request.
    reader: Mutex<Option<Waker>>,
    /// The connection is to end with the request that is under way.
    closing: AtomicBool,
    /// Who sends the body of the answer.
    writer: Mutex<Option<Waker>>,
}

/// A connection on which nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// It has not brought a request yet.
    Silent,
    /// It is between two requests.
    Idle,
}

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;
const PHASES: u64 = 3;

/// A transport that fails with [`io::ErrorKind::TimedOut`] when the caller takes too long.
#[derive(Debug)]
pub(super) struct Timed<T> {
    io: T,
    phase: Arc<Phase>,
    /// The phase that `read` belongs to.
    seen: u64,
    head_limit: Duration,
    idle_limit: Duration,
    /// The end of the caller's sending has been held back.
    ended: bool,
    read: Deadline,
    write: Deadline,
}

/// A deadline that is cheap to move: the timer behind it is only touched when it is too late, or
/// when it fires too early.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Phase {
    /// A connection that owes its first head.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(HEAD),
            waited: AtomicBool::new(false),
            patient: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            reader: Mutex::default(),
            closing: AtomicBool::new(false),
            writer: Mutex::default(),
        })
    }

    /// A head is complete, the request under way; `patient` says that it is answered even if the
    /// caller sends no more.
    pub(super) fn busy(&self, patient: bool) {
        self.patient.store(patient, Ordering::Relaxed);
        self.enter(BUSY);
    }

    /// Nothing has come yet of what the caller owes.
    pub(super) fn wait(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// The request is answered.
    pub(super) fn idle(&self) {
        self.enter(PHASES);
    }

    /// How much a connection is missed that ends now; none if a request, or its head after others,
    /// is under way.
    pub(super) fn spare(&self) -> Option<Spare> {
        match self.get() {
            HEAD if self.waited.load(Ordering::Relaxed) => Some(Spare::Silent),
            phase if phase % PHASES == IDLE => Some(Spare::Idle),
            _ => None,
        }
    }

    /// Whether nobody has looked yet for what the caller may have sent with the connection.
    pub(super) fn is_unread(&self) -> bool {
        self.get() == HEAD && !self.waited.load(Ordering::Relaxed)
    }

    /// Whether the caller has closed its sending side. Wakes `reader` when it does.
    pub(super) fn has_ended(&self, reader: &Waker) -> bool {
        is_set(&self.ended, &self.reader, reader)
    }

    /// Whether the connection is to end. Wakes `writer` when it is.
    pub(super) fn is_closing(&self, writer: &Waker) -> bool {
        is_set(&self.closing, &self.writer, writer)
    }

    /// The connection is to end with the request that is under way.
    pub(super) fn close(&self) {
        set(&self.closing, &self.writer);
    }

    /// Whether the end of the caller's sending is held back.
    fn holds_end(&self) -> bool {
        self.get() % PHASES == BUSY && self.patient.load(Ordering::Relaxed)
    }

    fn end(&self) {
        set(&self.ended, &self.reader);
    }

    /// Bytes came: between two requests, they begin a head.
    fn bytes(&self) {
        if self.get() % PHASES == IDLE {
            self.enter(HEAD);
        }
    }

    fn enter(&self, phase: u64) {
        let now = self.get();
        self.count
            .store(now - now % PHASES + phase, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Whether a flag is set; if not, `waker` is woken when it is.
fn is_set(flag: &AtomicBool, waiting: &Mutex<Option<Waker>>, waker: &Waker) -> bool {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *waiting {
        Some(known) => known.clone_from(waker),
        None => *waiting = Some(waker.clone()),
    }
    flag.load(Ordering::Relaxed)
}

/// Sets a flag, and wakes who waits for it.
fn set(flag: &AtomicBool, waiting: &Mutex<Option<Waker>>) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    flag.store(true, Ordering::Relaxed);
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

impl<T> Timed<T> {
    /// Wraps a transport.
    pub(super) fn new(io: T, phase: Arc<Phase>, head_limit: Duration, idle: Duration) -> Self {
        Self {
            io,
            seen: phase.get(),
            phase,
            head_limit,
            idle_limit: idle,
            ended: false,
            read: Deadline::default(),
            write: Deadline::default(),
        }
    }

    /// The transport without its clock.
    pub(super) fn into_inner(self) -> T {
        self.io
    }

    /// Gives up on a caller that takes too long to take what is written.
    fn written<R>(
        &mut self,
        poll: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if poll.is_ready() {
            self.write.at = None;
            return poll;
        }
        self.write
            .poll(cx, self.idle_limit, "caller does not take the answer")
    }

    /// A connection is idle from the last byte of the answer on.
    fn progress(&mut self, poll: &Poll<io::Result<usize>>) {
        if poll.is_ready() && self.phase.get() % PHASES == IDLE {
            self.read.at = None;
        }
    }

    /// Waits for bytes: pending, or an error once the caller has taken too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.wait();
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.read.at = None;
        }
        match phase % PHASES {
            IDLE => self.read.poll(cx, self.idle_limit, "connection is idle"),
            HEAD => self
                .read
                .poll(cx, self.head_limit, "head of the request is late"),
            // A body's time is its reader's to bound.
            _ => Poll::Pending,
        }
    }
}

impl Deadline {
    /// Fails once `limit` has passed since the first call after `at` was cleared.
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        what: &'static str,
    ) -> Poll<io::Result<R>> {
        let at = *self.at.get_or_insert_with(|| Instant::now() + limit);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            sleep.as_mut().reset(at);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return match this.phase.holds_end() {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            };
        }
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let Poll::Ready(result) = Pin::new(&mut this.io).poll_read(cx, buffer) else {
            return this.wait(cx);
        };
        if buffer.filled().len() > before {
            this.phase.bytes();
        } else if result.is_ok() && room > 0 && this.phase.holds_end() {
            this.ended = true;
            this.phase.end();
            return Poll::Pending;
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.progress(&poll);
        this.written(poll, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.progress(&poll);
        this.written(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        let poll = this.written(poll, cx);
        if poll.is_ready() && this.phase.get() % PHASES == IDLE {
            // hyper, which waits for bytes since before the answer, does not ask again by itself.
            if this.ended || this.wait(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_shutdown(cx);
        this.written(poll, cx)
    }
}
