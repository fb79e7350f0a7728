//! One connection of a caller, from its TLS handshake to its end.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONNECTION, COOKIE, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use metrifold_base::BoxFuture;
use metrifold_model::ClientCertificate;

use crate::access::Head;
use crate::answer::{self, Endless};
use crate::body::{Body, BoxError};
use crate::listener::refusals::Refusals;
use crate::listener::routes::{Params, Served, Table, Target};
use crate::listener::{Request, Response};
use crate::methods::Methods;
use crate::target;
use crate::timed::{Phase, Spare, Timed};
use crate::tls::client_certificate as client_certificate_of;

/// The headers by which callers prove who they are.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// The most headers of a request.
const MAX_HEADERS: usize = 100;

/// The most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// How long, and for how many bytes, a connection is still read after its last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 << 20;

/// How a caller begins that speaks HTTP/2 without having asked.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What it is told, beside the code that says the same.
const USE_HTTP1: &str = "this address speaks HTTP/1.1";

/// Why a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The listener closes.
    Closed,
    /// Another caller needs its place. Without a request, it ends at once, even amid a head.
    Evicted,
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) acceptor: Option<TlsAcceptor>,
    /// Whether certificates that callers show were verified.
    pub(super) verified: bool,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) refusals: Refusals,
    pub(super) max_age: Duration,
    pub(super) phase: Arc<Phase>,
    /// Tells the connection to end after the request that is under way.
    pub(super) close: oneshot::Receiver<Ending>,
    /// Tells it to end now.
    pub(super) cut: watch::Receiver<bool>,
}

impl Accepted {
    /// Serves the connection until its end.
    pub(super) async fn run(mut self) {
        // Without it an answer waits for the acknowledgement of the one before. It fails only on a
        // connection that is gone.
        let _ = self.stream.set_nodelay(true);
        let Some(acceptor) = self.acceptor.take() else {
            let (stream, rest) = self.split();
            return rest.serve(stream, Shown::default()).await;
        };
        let limit = self.header_timeout;
        let (stream, mut rest) = self.split();
        // A handshake is no request: others may need its place.
        rest.phase.wait();
        let handshake = tokio::time::timeout(limit, acceptor.accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            _ = &mut rest.close => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let presented = chain.map_or(&[][..], |chain| chain);
                // What nobody verified names nobody.
                let leaf = presented.first().filter(|_| rest.verified);
                let shown = Shown {
                    certificate: leaf.and_then(client_certificate_of).map(Arc::new),
                    presented: presented.iter().map(|it| it.clone().into_owned()).collect(),
                };
                rest.serve(stream, shown).await;
            }
            // Whoever only looks whether somebody listens says nothing.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                debug!(peer = %rest.peer, %error, "tls handshake failed");
            }
            Ok(Err(error)) => {
                let reason = format!("tls handshake failed: {error}");
                rest.refusals.before_request(rest.peer, "<tls>", &reason);
            }
            Err(_) => debug!(peer = %rest.peer, "tls handshake took too long"),
        }
    }

    fn split(self) -> (TcpStream, Rest) {
        let rest = Rest {
            peer: self.peer,
            verified: self.verified,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            max_age: self.max_age,
            phase: self.phase,
            table: self.table,
            refusals: self.refusals,
            close: self.close,
            cut: self.cut,
        };
        (self.stream, rest)
    }
}

/// What is left of an accepted connection without its transport.
struct Rest {
    peer: SocketAddr,
    verified: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    max_age: Duration,
    phase: Arc<Phase>,
    table: Arc<ArcSwap<Table>>,
    refusals: Refusals,
    close: oneshot::Receiver<Ending>,
    cut: watch::Receiver<bool>,
}

impl Rest {
    async fn serve<T>(mut self, stream: T, shown: Shown)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let phase = self.phase;
        let io = Timed::new(
            stream,
            Arc::clone(&phase),
            self.header_timeout,
            self.idle_timeout,
        );
        let refusals = self.refusals.clone();
        let service = Dispatch {
            table: self.table,
            refusals: self.refusals,
            peer: self.peer,
            shown,
            phase: Arc::clone(&phase),
            born: Instant::now(),
            max_age: self.max_age,
        };
        let mut connection = http1::Builder::new()
            // `Timed` decides what the end of a caller's sending means.
            .half_close(false)
            .keep_alive(true)
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            // What bodies are read into, too: no more than this for each connection.
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(io), service);

        let mut needed = false;
        let result = tokio::select! {
            biased;
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
            ending = &mut self.close => {
                let spare = phase.spare();
                if ending == Ok(Ending::Evicted) && spare == Some(Spare::Silent) {
                    return;
                }
                // Its last answer is out, and another caller waits for its place.
                needed = ending == Ok(Ending::Evicted) && spare == Some(Spare::Idle);
                phase.close();
                Pin::new(&mut connection).graceful_shutdown();
                tokio::select! {
                    biased;
                    result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
                    _ = self.cut.wait_for(|cut| *cut) => return,
                }
            }
        };
        let answered = match &result {
            Ok(()) => true,
            Err(error) => {
                debug!(peer = %self.peer, %error, "connection failed");
                if error.is_parse() {
                    let reason = format!("what came is not HTTP/1.1: {error}");
                    refusals.before_request(self.peer, "400", &reason);
                }
                error.is_parse()
            }
        };
        if answered && !needed {
            let parts = connection.into_parts();
            let mut io = parts.io.into_inner().into_inner();
            if parts.read_buf.starts_with(H2_PREFACE) {
                debug!(peer = %self.peer, "caller speaks http/2: it was told to use http/1.1");
                // Whoever is gone is told nothing.
                let _ = io.write_all(&use_http1()).await;
            }
            tokio::select! {
                () = linger(io) => {}
                _ = self.cut.wait_for(|cut| *cut) => {}
            }
        }
    }
}

/// An answer in HTTP/2: no settings, and a GOAWAY with the code `HTTP_1_1_REQUIRED` (RFC 9113).
fn use_http1() -> Vec<u8> {
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frames.extend([0, 0, 8 + USE_HTTP1.len() as u8, 7, 0, 0, 0, 0, 0]);
    frames.extend([0, 0, 0, 0, 0, 0, 0, 0xd]);
    frames.extend(USE_HTTP1.as_bytes());
    frames
}

/// Ends a connection so that its last answer arrives. To close a socket on which bytes are unread
/// makes the kernel send a reset, and the reset makes the caller's kernel throw away the answer: a
/// sender of a body that is refused unread would see a broken connection and try again for ever.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    let end = async {
        if io.shutdown().await.is_ok() {
            let mut rest = io.take(LINGER_BYTES);
            // Whatever comes is thrown away; an error ends the connection just as well.
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// The certificates that a caller showed.
#[derive(Clone, Default)]
struct Shown {
    /// The caller's own, if the listener verified it.
    certificate: Option<Arc<ClientCertificate>>,
    /// All of them, the caller's own first, whoever signed it.
    presented: Arc<[CertificateDer<'static>]>,
}

/// Finds the handler of each request of a connection.
struct Dispatch {
    table: Arc<ArcSwap<Table>>,
    refusals: Refusals,
    peer: SocketAddr,
    shown: Shown,
    phase: Arc<Phase>,
    born: Instant,
    max_age: Duration,
}

impl Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: http::Request<Incoming>) -> Answering {
        let aged = self.born.elapsed() >= self.max_age;
        let answering = |answer| Answering {
            answer,
            aged,
            phase: Arc::clone(&self.phase),
        };
        if let Err(reason) = target::settle(&mut request) {
            self.phase.busy(true);
            let refusal = answer::text(StatusCode::BAD_REQUEST, reason);
            self.refused(&request, &refusal);
            return answering(Answer::Now(Some(refusal)));
        }
        let target = self
            .table
            .load()
            .find(request.method(), request.uri().path());
        let answer = match target {
            Target::Served(served, params) => {
                self.phase.busy(served.handler.answers_half_closed());
                return answering(Answer::Later(self.admit(served, params, request)));
            }
            Target::Detached => answer::retry_after(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "nobody serves this path at the moment",
            ),
            Target::OtherMethods(methods) => not_allowed(methods),
            Target::Unknown => answer::text(StatusCode::NOT_FOUND, "no such path"),
            Target::Ambiguous => answer::text(
                StatusCode::BAD_REQUEST,
                "path is not canonical: it has an empty or dot segment, a semicolon, or an escape that is malformed, in small letters, or of a character that stands for itself or for a step in a path",
            ),
        };
        self.phase.busy(true);
        self.refused(&request, &answer);
        answering(Answer::Now(Some(answer)))
    }
}

impl Dispatch {
    /// Tells of a request that led to nobody.
    fn refused(&self, request: &http::Request<Incoming>, answer: &Response) {
        let request = (request.method(), request.uri().path());
        self.refusals.answered(None, self.peer, request, answer);
    }

    /// Hands a request to its handler, if its caller is let in.
    fn admit(
        &self,
        Served {
            owner,
            access,
            handler,
        }: Served,
        params: Params,
        request: http::Request<Incoming>,
    ) -> BoxFuture<Response> {
        let (mut head, incoming) = request.into_parts();
        let phase = Arc::clone(&self.phase);
        let body = if http_body::Body::is_end_stream(&incoming) {
            Body::empty()
        } else {
            Body::stream(Received { incoming, phase })
        };
        let (peer, shown) = (self.peer, self.shown.clone());
        let refusals = self.refusals.clone();
        Box::pin(async move {
            let watched = refusals.are_watched();
            let asked = watched.then(|| (head.method.clone(), head.uri.clone()));
            let shown = Head {
                method: &head.method,
                uri: &head.uri,
                headers: &head.headers,
                params: &params,
                peer,
                certificate: shown.certificate.as_ref(),
                presented: &shown.presented,
            };
            let admission = access.admit(shown).await;
            let admission = admission.and_then(|caller| {
                let pass = access.enter(&caller, shown)?;
                Ok((caller, pass))
            });
            let response = match admission {
                Ok((caller, pass)) => {
                    // What a caller proves itself with is for nobody behind this door.
                    let cookies = head.headers.get_all(COOKIE).iter().cloned().collect();
                    for name in CREDENTIALS.iter().chain(&*access.hidden()) {
                        head.headers.remove(name);
                    }
                    let request = Request {
                        method: head.method,
                        uri: head.uri,
                        headers: head.headers,
                        cookies,
                        params,
                        peer,
                        caller,
                        body,
                    };
                    let mut response = handler.handle(request).await;
                    if let Some(pass) = pass {
                        response.extensions_mut().insert(UnderWay { _pass: pass });
                    }
                    response
                }
                Err(refusal) => {
                    let response = refusal.answer();
                    handler.refused(response.status());
                    response
                }
            };
            if let Some((method, uri)) = &asked {
                let request = (method, uri.path());
                refusals.answered(Some(&owner), peer, request, &response);
            }
            response
        })
    }
}

/// The answer to a method that a path does not have.
fn not_allowed(methods: Methods) -> Response {
    let list = methods.to_string();
    let first = list.split(',').next().unwrap_or_default();
    let text = format!("send {first}");
    let mut response = answer::text(StatusCode::METHOD_NOT_ALLOWED, &text);
    // Names of methods fit into a header.
    if let Ok(allow) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// An answer on its way.
struct Answering {
    answer: Answer,
    /// The connection is to end with it.
    aged: bool,
    phase: Arc<Phase>,
}

enum Answer {
    Now(Option<Response>),
    Later(BoxFuture<Response>),
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.answer {
            // hyper polls a future no further once it is ready; the default is never sent.
            Answer::Now(response) => response.take().unwrap_or_default(),
            Answer::Later(future) => ready!(future.as_mut().poll(cx)),
        };
        if self.aged {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let phase = Arc::clone(&self.phase);
        let endless = response.extensions().get::<Endless>().is_some();
        let pass = response.extensions_mut().remove::<UnderWay>();
        Poll::Ready(Ok(response.map(|body| Outgoing {
            body,
            endless,
            phase,
            _pass: pass,
        })))
    }
}

/// The body of an answer. The request is over once it is dropped: at its end, or when the caller
/// is gone.
struct Outgoing {
    body: Body,
    /// It ends when the connection is told to end.
    endless: bool,
    phase: Arc<Phase>,
    _pass: Option<UnderWay>,
}

/// What its access holds for a request that is under way.
#[derive(Clone)]
struct UnderWay {
    _pass: Arc<dyn Any + Send + Sync>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.endless && self.phase.is_closing(cx.waker()) {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.phase.idle();
    }
}

/// The body of a request. hyper never hears of the end of a caller that is still answered
/// afterwards, so that a body which it left incomplete is found here.
struct Received {
    incoming: Incoming,
    phase: Arc<Phase>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.phase.has_ended(cx.waker()) => {
                Poll::Ready(Some(Err("caller closed before the end of the body".into())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
