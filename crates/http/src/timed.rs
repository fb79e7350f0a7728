//! Timeouts of a connection: for the head of a request, between requests, and for writing an
//! answer.
//!
//! hyper's own `header_read_timeout` starts when the previous answer has been sent, so that one
//! value would apply both to slow senders (short) and to idle connections (long). Here these are
//! separate: the time for a head starts with its first byte.
//!
//! hyper's own `half_close` would apply to all requests alike, and without it hyper watches for the
//! end of a caller while a request is in flight. Here the handler decides whether that end is
//! passed on or held back.
//!
//! For an HTTP/2 connection, only the first head and blocked writes are timed here; its other limits
//! are enforced by the task of the connection, on the state in [`Streams`].

mod streams;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use streams::Streams;

/// Phase of a connection, shared between its transport, which sees bytes, and its service, which
/// sees requests. A counter, so that the same phase of two requests differs.
#[derive(Debug)]
pub(super) struct Phase {
    count: AtomicU64,
    /// Whether a read found no bytes from the caller.
    waited: AtomicBool,
    /// Whether the request in flight is answered even if its caller has closed its sending side.
    patient: AtomicBool,
    /// Whether the caller has closed its sending side during such a request.
    ended: AtomicBool,
    /// State of the requests of an HTTP/2 connection; unset for HTTP/1.1.
    streams: OnceLock<Arc<Streams>>,
    /// Waker of the task that reads the body of the request.
    reader: Mutex<Vec<Waker>>,
    /// Whether the connection must close after the requests in flight.
    closing: AtomicBool,
    /// Wakers of the tasks that send bodies of answers.
    writer: Mutex<Vec<Waker>>,
}

/// A connection without a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// Has sent no request yet.
    Silent,
    /// Is between two requests.
    Idle,
}

/// Guard of a request in flight.
#[derive(Debug)]
pub(super) struct UnderWay {
    phase: Arc<Phase>,
    /// Number of its answer, on an HTTP/2 connection.
    answer: Option<u64>,
}

/// Number of wakers that are kept in addition to those of requests in flight: some are stale.
const SPARE_WAKERS: usize = 16;

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;
const PHASES: u64 = 3;

/// A transport that fails with [`io::ErrorKind::TimedOut`] if the caller is too slow.
#[derive(Debug)]
pub(super) struct Timed<T> {
    io: T,
    phase: Arc<Phase>,
    /// The phase to which the deadline `read` belongs.
    seen: u64,
    head_limit: Duration,
    idle_limit: Duration,
    /// Whether the end of the caller's data was held back.
    ended: bool,
    read: Deadline,
    write: Deadline,
}

/// A deadline that is cheap to move: its timer is changed only when it would fire too late, or has
/// fired too early.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Phase {
    /// The phase of a new connection, which waits for its first head.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(HEAD),
            waited: AtomicBool::new(false),
            patient: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            streams: OnceLock::new(),
            reader: Mutex::default(),
            closing: AtomicBool::new(false),
            writer: Mutex::default(),
        })
    }

    /// Allows several concurrent requests on the connection.
    pub(super) fn multiplex(&self) -> Arc<Streams> {
        Arc::clone(self.streams.get_or_init(|| Arc::new(Streams::new())))
    }

    /// Whether the connection can have several concurrent requests: whether it is HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.streams.get().is_some()
    }

    /// Marks a complete head and a request in flight until the guard is dropped. The request is answered
    /// even if the caller closes its sending side if `patient` is set.
    pub(super) fn busy(self: &Arc<Self>, patient: bool) -> UnderWay {
        match self.streams.get() {
            // HTTP/2 has no half-closed connections.
            Some(streams) => streams.begin(),
            None => {
                self.patient.store(patient, Ordering::Relaxed);
                self.enter(BUSY);
            }
        }
        UnderWay {
            phase: Arc::clone(self),
            answer: None,
        }
    }

    /// Notes that a read found no bytes.
    pub(super) fn wait(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// How expendable the connection is; `None` while a request, or the head of a later one, is in
    /// flight.
    pub(super) fn spare(&self) -> Option<Spare> {
        match self.get() {
            HEAD if self.waited.load(Ordering::Relaxed) => Some(Spare::Silent),
            phase if phase % PHASES == IDLE => Some(Spare::Idle),
            _ => None,
        }
    }

    /// Whether the connection was never read, so that a request may have arrived with it.
    pub(super) fn is_unread(&self) -> bool {
        self.get() == HEAD && !self.waited.load(Ordering::Relaxed)
    }

    /// Whether the caller has closed its sending side; `reader` is woken when it does.
    pub(super) fn has_ended(&self, reader: &Waker) -> bool {
        !self.is_multiplexed() && is_set(&self.ended, (&self.reader, SPARE_WAKERS), reader)
    }

    /// Whether the connection must close; `writer` is woken when it must.
    pub(super) fn is_closing(&self, writer: &Waker) -> bool {
        let streams = self.streams.get().map_or(0, |streams| streams.under_way());
        let most = SPARE_WAKERS + 2 * streams;
        is_set(&self.closing, (&self.writer, most), writer)
    }

    /// Closes the connection after the request in flight.
    pub(super) fn close(&self) {
        set(&self.closing, &self.writer);
    }

    /// Whether the end of the caller's data is held back.
    fn holds_end(&self) -> bool {
        self.get() % PHASES == BUSY && self.patient.load(Ordering::Relaxed)
    }

    fn end(&self) {
        set(&self.ended, &self.reader);
    }

    /// Notes that bytes have arrived, which start a head between two requests.
    fn bytes(&self) {
        if !self.is_multiplexed() && self.get() % PHASES == IDLE {
            self.enter(HEAD);
        }
    }

    fn enter(&self, phase: u64) {
        let now = self.get();
        self.count
            .store(now - now % PHASES + phase, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        match self.streams.get() {
            Some(streams) => streams.phase(),
            None => self.count.load(Ordering::Relaxed),
        }
    }
}

impl UnderWay {
    /// Marks bytes of the answer as ready for the caller.
    pub(super) fn offer(&mut self) {
        let streams = self.phase.streams.get();
        self.answer = streams.map(|streams| match self.answer {
            None => streams.offer(),
            Some(number) => {
                streams.offer_more(number);
                number
            }
        });
    }

    /// Marks all bytes of the answer so far as taken by the caller.
    pub(super) fn taken(&self) {
        if let (Some(streams), Some(number)) = (self.phase.streams.get(), self.answer) {
            streams.taken(number);
        }
    }

    /// The connection of the request.
    pub(super) fn phase(&self) -> &Arc<Phase> {
        &self.phase
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.taken();
        match self.phase.streams.get() {
            Some(streams) => streams.end(self.answer.is_some()),
            None => self.phase.enter(PHASES),
        }
    }
}

/// Whether a flag is set; otherwise `waker` is woken when it is.
fn is_set(flag: &AtomicBool, (waiting, most): (&Mutex<Vec<Waker>>, usize), waker: &Waker) -> bool {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if !waiting.iter().any(|known| known.will_wake(waker)) {
        if waiting.len() >= most {
            // Most are stale. Tasks of requests in flight register again.
            waiting.drain(..).for_each(Waker::wake);
        }
        waiting.push(waker.clone());
    }
    flag.load(Ordering::Relaxed)
}

/// Sets a flag, and wakes the waiting tasks.
fn set(flag: &AtomicBool, waiting: &Mutex<Vec<Waker>>) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    flag.store(true, Ordering::Relaxed);
    waiting.drain(..).for_each(Waker::wake);
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

    /// Applies the deadline of a write, which fails if the caller does not read.
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
            .poll(cx, self.idle_limit, "caller does not read the answer")
    }

    /// Restarts the idle time with every write after a request: it counts from the answer's last
    /// byte.
    fn progress(&mut self, poll: &Poll<io::Result<usize>>) {
        if poll.is_ready() && self.phase.get() % PHASES == IDLE {
            self.read.at = None;
        }
    }

    /// Waits for bytes: pending, or an error once the caller is too late.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.wait();
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.read.at = None;
        }
        match phase % PHASES {
            // An idle HTTP/2 connection is closed with a GOAWAY by its own task.
            IDLE if self.phase.is_multiplexed() => Poll::Pending,
            IDLE => self.read.poll(cx, self.idle_limit, "connection is idle"),
            HEAD => self.read.poll(
                cx,
                self.head_limit,
                "head of the request did not arrive in time",
            ),
            // The reader of a body bounds its time.
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
            // hyper waits for bytes since before the answer, and does not poll again by itself.
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
