//! One connection of a caller, from its TLS handshake to its end.

mod http2;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

use crate::access::{Head, InFlight};
use crate::answer::{self, Endless};
use crate::body::{Body, BodyError, BoxError};
use crate::listener::refusals::Refusals;
use crate::listener::routes::{Params, Served, Table, Target};
use crate::listener::{Request, Response};
use crate::methods::Methods;
use crate::target;
use crate::timed::{Phase, Spare, Timed, UnderWay};
use crate::tls::client_certificate as client_certificate_of;

/// Headers with credentials.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// Most headers per request.
const MAX_HEADERS: usize = 100;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Time and bytes for which a connection is still read after its last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 << 20;

/// ALPN protocol of HTTP/2.
const HTTP2: &[u8] = b"h2";

/// The first bytes of a caller that speaks HTTP/2 without negotiation.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// The message in the GOAWAY frame.
const USE_HTTP1: &str = "only HTTP/1.1 is supported";

/// Why a connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The listener closes.
    Closed,
    /// Another connection needs its slot. Without a request it closes at once, even within a head.
    Evicted,
}

/// An accepted connection.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) acceptor: Option<TlsAcceptor>,
    /// Whether the certificates of callers were verified.
    pub(super) verified: bool,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) refusals: Refusals,
    pub(super) max_age: Duration,
    /// Most concurrent requests of an HTTP/2 connection.
    pub(super) max_streams: u32,
    pub(super) phase: Arc<Phase>,
    /// Closes the connection after the request in flight.
    pub(super) close: oneshot::Receiver<Ending>,
    /// Closes the connection at once.
    pub(super) cut: watch::Receiver<bool>,
}

impl Accepted {
    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        // With Nagle's algorithm an answer would wait for the acknowledgement of the previous one.
        // Fails only on a connection that is gone.
        let _ = self.stream.set_nodelay(true);
        let Some(acceptor) = self.acceptor.take() else {
            let (stream, rest) = self.split();
            return rest.serve(stream, Shown::default()).await;
        };
        let limit = self.header_timeout;
        let (stream, mut rest) = self.split();
        // A handshake does not count as a request: the connection may be evicted.
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
                // An unverified certificate identifies nobody.
                let leaf = presented.first().filter(|_| rest.verified);
                let shown = Shown {
                    certificate: leaf.and_then(client_certificate_of).map(Arc::new),
                    presented: presented.iter().map(|it| it.clone().into_owned()).collect(),
                };
                match stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
                    true => rest.serve_http2(stream, shown).await,
                    false => rest.serve(stream, shown).await,
                }
            }
            // A port scan or health check sends nothing.
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
            max_streams: self.max_streams,
            phase: self.phase,
            table: self.table,
            refusals: self.refusals,
            close: self.close,
            cut: self.cut,
        };
        (self.stream, rest)
    }
}

/// An accepted connection without its transport.
struct Rest {
    peer: SocketAddr,
    verified: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    max_age: Duration,
    max_streams: u32,
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
            ends: Some(Instant::now() + self.max_age),
        };
        let mut connection = http1::Builder::new()
            // `Timed` decides about callers that close their sending side.
            .half_close(false)
            .keep_alive(true)
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            // The read buffer for bodies as well, which bounds the memory of a connection.
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
                // The last answer was sent, and another connection waits for the slot.
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
                    let reason = format!("request is not valid HTTP/1.1: {error}");
                    refusals.before_request(self.peer, "400", &reason);
                }
                error.is_parse()
            }
        };
        if answered && !needed {
            let parts = connection.into_parts();
            let mut io = parts.io.into_inner().into_inner();
            if parts.read_buf.starts_with(H2_PREFACE) {
                debug!(peer = %self.peer, "caller uses http/2: answered that only http/1.1 is supported");
                // The caller may be gone already.
                let _ = io.write_all(&use_http1()).await;
            }
            tokio::select! {
                () = linger(io) => {}
                _ = self.cut.wait_for(|cut| *cut) => {}
            }
        }
    }
}

/// An HTTP/2 answer: empty settings, and a GOAWAY with the code `HTTP_1_1_REQUIRED` (RFC 9113).
fn use_http1() -> Vec<u8> {
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frames.extend([0, 0, 8 + USE_HTTP1.len() as u8, 7, 0, 0, 0, 0, 0]);
    frames.extend([0, 0, 0, 0, 0, 0, 0, 0xd]);
    frames.extend(USE_HTTP1.as_bytes());
    frames
}

/// Closes a connection so that its last answer arrives. Closing a socket with unread bytes makes
/// the kernel send a reset, on which the caller's kernel discards the answer: a sender whose body
/// was refused unread would see a broken connection and retry for ever.
async fn linger<T: AsyncRead + AsyncWrite + Unpin>(mut io: T) {
    let end = async {
        if io.shutdown().await.is_ok() {
            let mut rest = io.take(LINGER_BYTES);
            // Data is discarded; an error ends the connection as well.
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// The certificates of a caller.
#[derive(Clone, Default)]
struct Shown {
    /// The caller's own, if the listener verified it.
    certificate: Option<Arc<ClientCertificate>>,
    /// The chain, starting with the caller's own, whoever signed it.
    presented: Arc<[CertificateDer<'static>]>,
}

/// Routes each request of a connection to its handler.
struct Dispatch {
    table: Arc<ArcSwap<Table>>,
    refusals: Refusals,
    peer: SocketAddr,
    shown: Shown,
    phase: Arc<Phase>,
    /// Time from which answers close their connection. In HTTP/2, the connection closes itself.
    ends: Option<Instant>,
}

impl Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: http::Request<Incoming>) -> Answering {
        let aged = self.ends.is_some_and(|ends| Instant::now() >= ends);
        let answering = |answer, patient| Answering {
            answer,
            aged,
            under_way: Some(self.phase.busy(patient)),
        };
        if let Err(reason) = target::settle(&mut request) {
            let refusal = answer::json_error(StatusCode::BAD_REQUEST, reason);
            self.refused(&request, &refusal);
            return answering(Answer::Now(Some(refusal)), true);
        }
        let target = self
            .table
            .load()
            .find(request.method(), request.uri().path());
        let answer = match target {
            Target::Served(served, params) => {
                let patient = served.handler.answers_half_closed();
                let answer = Answer::Later(self.admit(served, params, request));
                return answering(answer, patient);
            }
            Target::Detached => answer::in_json(answer::retry_after(
                StatusCode::SERVICE_UNAVAILABLE,
                1,
                "this path is not served at the moment",
            )),
            Target::OtherMethods(methods) => not_allowed(methods),
            Target::Unknown => answer::json_error(StatusCode::NOT_FOUND, "no such path"),
            Target::Ambiguous => answer::json_error(
                StatusCode::BAD_REQUEST,
                "path is not canonical: it has an empty or dot segment, a semicolon, or an escape that is malformed, in lower case, or of a character that needs none or separates segments",
            ),
        };
        self.refused(&request, &answer);
        answering(Answer::Now(Some(answer)), true)
    }
}

impl Dispatch {
    /// Reports a request that reached no route.
    fn refused(&self, request: &http::Request<Incoming>, answer: &Response) {
        let request = (request.method(), request.uri().path());
        self.refusals.answered(None, self.peer, request, answer);
    }

    /// Hands a request to its handler if the caller is admitted.
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
        let received = (!http_body::Body::is_end_stream(&incoming)).then(|| Received {
            incoming,
            phase: Arc::clone(&self.phase),
            meter: None,
        });
        // A request without a body announces the length 0.
        let length = received
            .as_ref()
            .map_or(Some(0), |body| http_body::Body::size_hint(body).exact());
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
                let pass = access.enter(&caller, shown, length)?;
                Ok((caller, pass))
            });
            let response = match admission {
                Ok((caller, pass)) => {
                    let body = match received {
                        Some(mut body) => {
                            body.meter = pass.clone().filter(|_| length.is_none());
                            Body::stream(body)
                        }
                        None => Body::empty(),
                    };
                    // Credentials are removed before the handler sees the request.
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
                        response.extensions_mut().insert(Held { _pass: pass });
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

/// The answer to a method that a path does not support.
fn not_allowed(methods: Methods) -> Response {
    let list = methods.to_string();
    let text = match list.rsplit_once(", ") {
        Some((others, last)) => format!("send {others} or {last}"),
        None => format!("send {list}"),
    };
    let mut response = answer::json_error(StatusCode::METHOD_NOT_ALLOWED, &text);
    // Names of methods are valid header values.
    if let Ok(allow) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// A pending answer.
struct Answering {
    answer: Answer,
    /// Whether the connection closes after this answer.
    aged: bool,
    /// `None` once there is an answer.
    under_way: Option<UnderWay>,
}

enum Answer {
    Now(Option<Response>),
    Later(BoxFuture<Response>),
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.answer {
            // hyper does not poll a future again after it is ready; the default is never sent.
            Answer::Now(response) => response.take().unwrap_or_default(),
            Answer::Later(future) => ready!(future.as_mut().poll(cx)),
        };
        if self.aged {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let mut under_way = self.under_way.take();
        if let Some(under_way) = &mut under_way {
            under_way.offer();
        }
        let endless = response.extensions().get::<Endless>().is_some();
        let pass = response.extensions_mut().remove::<Held>();
        Poll::Ready(Ok(response.map(|body| Outgoing {
            body,
            endless,
            under_way,
            _pass: pass,
        })))
    }
}

/// The body of an answer. Dropping it ends the request: at the end of the body, or when the caller
/// has disconnected.
struct Outgoing {
    body: Body,
    /// Whether the body ends as soon as the connection must close.
    endless: bool,
    under_way: Option<UnderWay>,
    _pass: Option<Held>,
}

/// The guard of the route's access check, held while the request is in flight.
#[derive(Clone)]
struct Held {
    _pass: Arc<dyn InFlight>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self {
            body,
            endless,
            under_way,
            ..
        } = &mut *self;
        let Some(under_way) = under_way else {
            return Pin::new(body).poll_frame(cx);
        };
        under_way.taken();
        if *endless && under_way.phase().is_closing(cx.waker()) {
            return Poll::Ready(None);
        }
        // An HTTP/2 stream whose task panics is reset with CANCEL, which some clients, such as those of
        // older versions of hyper, take for the end of the body. An error resets it with INTERNAL_ERROR.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        let polled = polled.unwrap_or_else(|_| {
            let reason = "the component that makes the answer panicked";
            Poll::Ready(Some(Err(reason.into())))
        });
        if let Poll::Ready(Some(Ok(_))) = &polled {
            under_way.offer();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request. Detects incomplete bodies that hyper does not report as such: the end of
/// a half-closed connection that still gets an answer, and an HTTP/2 request that its caller resets
/// with `NO_ERROR`.
struct Received {
    incoming: Incoming,
    phase: Arc<Phase>,
    /// Counts the body as it arrives; `None` if its length was announced and counted.
    meter: Option<Arc<dyn InFlight>>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.phase.has_ended(cx.waker()) => {
                Some(Err("caller closed before the end of the body".into()))
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) if self.was_reset() => Some(Err(
                "caller reset the request before the end of the body".into(),
            )),
            Poll::Ready(frame) => frame.map(|frame| self.count(frame?)),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Received {
    /// Whether the caller reset the request, when hyper reports the end of its body.
    fn was_reset(&self) -> bool {
        // `is_end_stream` is not exact for HTTP/1.1, whose incomplete bodies hyper reports itself.
        self.phase.is_multiplexed() && !http_body::Body::is_end_stream(&self.incoming)
    }

    /// Counts a frame, unless the length of the body was counted already.
    fn count(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        if let (Some(meter), Some(data)) = (&self.meter, frame.data_ref()) {
            let counted = meter.received(data.len() as u64);
            counted.map_err(BodyError::Refused)?;
        }
        Ok(frame)
    }
}
