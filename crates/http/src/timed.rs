//! A connection's clock: how long callers may take to send a head, to be idle, to take an answer.
//!
//! hyper's own `header_read_timeout` starts when the previous answer is out, so that one number
//! would have to serve both for slow senders (short) and for idle connections (long). Here they
//! are two: the time for a head starts with its first byte.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Where a connection stands, shared between its transport, which sees bytes, and its service,
/// which sees requests. Counts up, so that the same phase of two requests is told apart.
#[derive(Debug)]
pub(super) struct Phase(AtomicU64);

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
        Arc::new(Self(AtomicU64::new(HEAD)))
    }

    /// A head is complete, the request under way.
    pub(super) fn busy(&self) {
        let now = self.get();
        self.0.store(now - now % PHASES + BUSY, Ordering::Relaxed);
    }

    /// The request is answered.
    pub(super) fn idle(&self) {
        let now = self.get();
        self.0.store(now - now % PHASES + PHASES, Ordering::Relaxed);
    }

    /// Bytes came: between two requests, they begin a head.
    fn bytes(&self) {
        let now = self.get();
        if now % PHASES == IDLE {
            self.0.store(now + HEAD, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.io).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                this.phase.bytes();
            }
            return Poll::Ready(result);
        }
        let phase = this.phase.get();
        if phase != this.seen {
            this.seen = phase;
            this.read.at = None;
        }
        match phase % PHASES {
            IDLE => this.read.poll(cx, this.idle_limit, "connection is idle"),
            HEAD => this
                .read
                .poll(cx, this.head_limit, "head of the request is late"),
            // A body's time is its reader's to bound.
            _ => Poll::Pending,
        }
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
        this.written(poll, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.written(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.written(poll, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_shutdown(cx);
        this.written(poll, cx)
    }
}
