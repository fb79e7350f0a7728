//! Connections of the client, and answers that arrive on them.
//!
//! A connection has no task of its own: the task that sends a request, and later reads the answer,
//! moves it on. So a request costs no hand-over between tasks, and dropping it, or its answer, closes
//! the connection. Idle connections are checked when they are taken, and swept at times.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::mem::replace;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep};

use metrifold_base::locked;

use crate::body::{Body, BoxError};
use crate::client::connector::BoxIo;

/// Read buffer of a connection, which bounds the memory for an answer that is read slowly. The head
/// of an answer must fit in, too.
const BUFFER: usize = 32 << 10;

/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(90);

/// Interval in which idle connections are closed that are too old, or that their server has closed.
const SWEEP: Duration = Duration::from_secs(5);

/// A server, or an endpoint behind a proxy.
pub(super) type Server = (Scheme, Authority);

/// Idle connections. Clones share them.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    /// Idle connections that are kept for each server.
    most: usize,
    max_age: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The connection that was used last is at the end, and is used next.
    servers: HashMap<Server, Vec<Parked>>,
    /// Whether a task closes connections that are idle for too long.
    swept: bool,
}

struct Parked {
    line: Box<Line>,
    since: Instant,
}

/// A connection to a server.
pub(super) struct Line {
    sender: SendRequest<Body>,
    /// `None` once it has ended.
    connection: Option<Connection<TokioIo<BoxIo>, Body>>,
    born: Instant,
}

impl Pool {
    pub(super) fn new(most: usize, max_age: Duration) -> Self {
        Self(Arc::new(Shared {
            most,
            max_age,
            idle: Mutex::default(),
        }))
    }

    /// Takes an idle connection that is open as far as is known.
    pub(super) fn take(&self, server: &Server) -> Option<Box<Line>> {
        loop {
            let mut parked = locked(&self.0.idle).servers.get_mut(server)?.pop()?;
            if parked.is_usable(self.0.max_age) {
                return Some(parked.line);
            }
        }
    }

    /// Keeps a connection whose answer has ended for a further request, unless it is too old, or has
    /// not sent the request whole.
    fn put(&self, server: Server, mut line: Box<Line>) {
        if !line.is_open() || !line.sender.is_ready() || line.born.elapsed() >= self.0.max_age {
            return;
        }
        let mut idle = locked(&self.0.idle);
        let idle = &mut *idle;
        let parked = idle.servers.entry(server).or_default();
        if parked.len() < self.0.most {
            let since = Instant::now();
            parked.push(Parked { line, since });
        }
        if !replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// The answer on `line`, which is kept once the answer has been read.
    pub(super) fn answer(
        &self,
        server: Server,
        line: Box<Line>,
        answer: http::Response<Incoming>,
    ) -> http::Response<Body> {
        answer.map(|incoming| match http_body::Body::is_end_stream(&incoming) {
            true => {
                self.put(server, line);
                Body::empty()
            }
            false => Body::stream(Answer {
                incoming,
                line: Some((server, line)),
                pool: self.clone(),
            }),
        })
    }
}

/// Closes idle connections until there are none, or their client is gone.
async fn sweep(pool: Weak<Shared>) {
    loop {
        sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = locked(&pool.idle);
        idle.servers.retain(|_, parked| {
            parked.retain_mut(|parked| parked.is_usable(pool.max_age));
            !parked.is_empty()
        });
        if idle.servers.is_empty() {
            // The next idle connection starts another sweep.
            *idle = Idle::default();
            return;
        }
    }
}

impl Parked {
    fn is_usable(&mut self, max_age: Duration) -> bool {
        self.since.elapsed() < IDLE && self.line.born.elapsed() < max_age && self.line.is_open()
    }
}

impl Line {
    /// Speaks HTTP on a new connection.
    pub(super) async fn new(io: BoxIo) -> hyper::Result<Box<Self>> {
        let handshake = Builder::new()
            .max_buf_size(BUFFER)
            // As lenient as the client of Go, with which these servers may have been tried out only. How
            // long an answer is must be clear in any case.
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(TokioIo::new(io));
        let (sender, connection) = handshake.await?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            born: Instant::now(),
        }))
    }

    /// Sends a request, and waits for the head of its answer. The error holds the request if nothing
    /// of it was sent.
    pub(super) async fn send(
        &mut self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Incoming>, TrySendError<http::Request<Body>>> {
        let Self {
            sender, connection, ..
        } = self;
        // Its wake-ups are not heard, so that it must be ready whenever it can be.
        let mut answer = pin!(unconstrained(sender.try_send_request(request)));
        poll_fn(|cx| drive(connection, cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// Whether the connection is open, and no unexpected bytes have arrived on it, while it is idle.
    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let idle = poll_fn(|cx| {
            advance(&mut self.connection, cx);
            Poll::Ready(())
        });
        let _ = pin!(unconstrained(idle)).poll(&mut cx);
        self.connection.is_some()
    }
}

/// Moves a connection on.
fn advance<C: Future + Unpin>(connection: &mut Option<C>, cx: &mut Context<'_>) {
    // A failure is reported by what the connection sends or receives.
    if let Some(it) = connection
        && Pin::new(it).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// Moves a connection on until `wanted` is ready, which nothing but the connection makes ready.
///
/// A result that is ready at once is found without a waker: inside of hyper, connection, request and
/// body wake each other's task, which is this one, so that each request would poll the whole task again.
fn drive<C: Future + Unpin, T>(
    connection: &mut Option<C>,
    cx: &mut Context<'_>,
    mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut quiet = Context::from_waker(Waker::noop());
    let ready = wanted(&mut quiet);
    if ready.is_ready() {
        return ready;
    }
    advance(connection, &mut quiet);
    let ready = wanted(&mut quiet);
    if ready.is_ready() {
        return ready;
    }
    advance(connection, cx);
    wanted(&mut quiet)
}

/// The body of an answer.
struct Answer {
    incoming: Incoming,
    /// The connection; `None` after the end of the body.
    line: Option<(Server, Box<Line>)>,
    pool: Pool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self {
            incoming,
            line,
            pool,
        } = &mut *self;
        let Some((_, open)) = line else {
            return Poll::Ready(None);
        };
        let mut body = Pin::new(incoming);
        let polled = drive(&mut open.connection, cx, |cx| body.as_mut().poll_frame(cx));
        let ended = match &polled {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => http_body::Body::is_end_stream(&*body),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) => {
                *line = None;
                false
            }
        };
        if ended && let Some((server, line)) = line.take() {
            pool.put(server, line);
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.line.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.incoming)
    }
}
