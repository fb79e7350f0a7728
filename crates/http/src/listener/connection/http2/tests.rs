use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use metrifold_base::BoxFuture;

use crate::describe::chain;
use crate::testing::{Authority, fed, local, serving};
use crate::{Body, BodyError, BoxError, Handler, Listen, Response, Route, ServerTls, answer, body};

const LONG: Duration = Duration::from_secs(60);

/// Handler that echoes the version, the host and the body: at `/wait` once a permit is available,
/// elsewhere at once.
struct Two {
    may: Semaphore,
    entered: Semaphore,
}

impl Two {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            may: Semaphore::new(0),
            entered: Semaphore::new(0),
        })
    }

    async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }
}

/// Shared handle to the handler, for a route.
struct Of(Arc<Two>);

impl Handler for Of {
    fn handle(self: Arc<Self>, request: crate::Request) -> BoxFuture<Response> {
        Box::pin(async move {
            if request.uri.path() == "/wait" {
                self.0.entered.add_permits(1);
                self.0.may.acquire().await.unwrap().forget();
            }
            let host = request.headers["host"].to_str().unwrap().to_owned();
            let length = request.content_length();
            let body = body::read(request.body, length, 1 << 20, LONG).await;
            let text = format!("{host} {}", body.unwrap().len());
            answer::text(StatusCode::OK, &text)
        })
    }
}

fn listen(authority: &Authority, http2: bool) -> Listen {
    let (cert_file, key_file) = authority.issue("server", &["localhost"]);
    let mut listen = local("/{*any}");
    listen.tls = Some(ServerTls {
        cert_file,
        key_file,
        client_ca_file: None,
        client_crl_file: None,
        client_auth: crate::ClientAuth::Required,
        min_version: crate::tls::TlsVersion::V12,
        http2,
        http2_max_streams: 8,
    });
    listen
}

/// Opens a TLS connection that offers these ALPN protocols.
async fn connect(
    authority: &Authority,
    address: SocketAddr,
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    let tls = crate::ClientTls {
        ca_file: Some(authority.file("ca.crt")),
        ..crate::ClientTls::default()
    };
    let mut config = tls.config().unwrap();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

type Sender = SendRequest<Full<Bytes>>;

/// Opens an HTTP/2 connection. Returns its sender, and the task that ends with the connection.
async fn caller(authority: &Authority, route: &Route) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = connect(authority, route.local_addr(), &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    (sender, tokio::spawn(connection))
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(format!("https://localhost{path}"));
    request.body(Full::new(body.into())).unwrap()
}

async fn send(sender: &mut Sender, request: Request<Full<Bytes>>) -> (u16, String) {
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).trim().to_owned())
}

#[tokio::test]
async fn requests_go_side_by_side_and_bodies_are_larger_than_any_window() {
    let authority = Authority::new();
    let two = Two::new();
    let (_listeners, route, _serving) = serving(&listen(&authority, true), Of(Arc::clone(&two)));
    let (sender, _connection) = caller(&authority, &route).await;
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        async move { send(&mut sender, post("/wait", "first")).await }
    });
    two.entered().await;
    let large = vec![7; 1 << 20];
    let second = send(&mut sender.clone(), post("/now", large)).await;
    assert_eq!(second, (200, format!("localhost {}", 1 << 20)));
    assert!(!waiting.is_finished());
    two.may.add_permits(1);
    assert_eq!(waiting.await.unwrap(), (200, "localhost 5".to_owned()));
    // Paths and hosts are validated as in HTTP/1.1.
    let strange = send(&mut sender.clone(), post("/a/%2E%2E/b", "")).await;
    assert_eq!(strange.0, 400, "{strange:?}");
    let mut other = post("/now", "");
    let host = http::HeaderValue::from_static("far.test");
    other.headers_mut().insert("host", host);
    assert_eq!(send(&mut sender.clone(), other).await.0, 400);
    let mut heavy = post("/now", "");
    let value = http::HeaderValue::from_str(&"y".repeat(70 << 10)).unwrap();
    heavy.headers_mut().insert("x-long", value);
    assert_eq!(send(&mut sender.clone(), heavy).await.0, 431);
    assert_eq!(send(&mut sender.clone(), post("/now", "")).await.0, 200);
}

#[tokio::test]
async fn who_does_not_ask_for_it_or_may_not_have_it_is_served_in_http_1() {
    let authority = Authority::new();
    for (http2, asked) in [
        (true, &["http/1.1"][..]),
        (true, &[]),
        (false, &["h2", "http/1.1"]),
    ] {
        let (_listeners, route, _serving) = serving(&listen(&authority, http2), Of(Two::new()));
        let mut stream = connect(&authority, route.local_addr(), asked).await;
        assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let request = b"POST /now HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab";
        stream.write_all(request).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"x 2\n") {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "{text:?}");
        }
    }
}

#[tokio::test]
async fn who_speaks_it_without_having_asked_is_told_to_use_http_1() {
    let (_listeners, route, _serving) = serving(&local("/{*any}"), Of(Two::new()));
    let stream = TcpStream::connect(route.local_addr()).await.unwrap();
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    let connection = tokio::spawn(connection);
    let request = post("/now", "");
    assert!(sender.send_request(request).await.is_err());
    let error = connection.await.unwrap().unwrap_err();
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        told.contains("HTTP/1.1") || told.contains("http/1.1"),
        "{told}"
    );
}

#[tokio::test]
async fn a_connection_that_is_idle_ends_with_a_word() {
    let authority = Authority::new();
    let mut listen = listen(&authority, true);
    listen.idle_timeout = Duration::from_millis(50);
    let (_listeners, route, _serving) = serving(&listen, Of(Two::new()));
    let (mut sender, connection) = caller(&authority, &route).await;
    assert_eq!(send(&mut sender, post("/now", "")).await.0, 200);
    // No error, as GOAWAY announced that no further request would be answered.
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_is_old_ends_once_its_requests_are_answered() {
    let authority = Authority::new();
    let two = Two::new();
    let mut listen = listen(&authority, true);
    listen.max_age = Duration::from_secs(1);
    let (_listeners, route, _serving) = serving(&listen, Of(Arc::clone(&two)));
    let (sender, connection) = caller(&authority, &route).await;
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        async move { send(&mut sender, post("/wait", "")).await }
    });
    two.entered().await;
    // Further requests are refused as soon as the connection is too old.
    let mut refused = sender.clone();
    while refused.ready().await.is_ok() {
        let Ok(answer) = refused.send_request(post("/now", "")).await else {
            break;
        };
        drop(answer);
    }
    assert!(!waiting.is_finished());
    two.may.add_permits(1);
    assert_eq!(waiting.await.unwrap().0, 200);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn closing_lets_requests_end_that_are_under_way() {
    let authority = Authority::new();
    let two = Two::new();
    let (listeners, route, _serving) = serving(&listen(&authority, true), Of(Arc::clone(&two)));
    let (mut sender, connection) = caller(&authority, &route).await;
    let waiting = tokio::spawn(async move { send(&mut sender, post("/wait", "")).await });
    two.entered().await;
    let end = tokio::spawn(async move { listeners.shutdown(LONG).await });
    while TcpStream::connect(route.local_addr()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!end.is_finished());
    two.may.add_permits(1);
    assert_eq!(waiting.await.unwrap().0, 200);
    connection.await.unwrap().unwrap();
    assert_eq!(end.await.unwrap(), 0);
}

#[tokio::test]
async fn a_caller_that_gives_up_all_that_it_asks_is_cut_and_nobody_else() {
    let authority = Authority::new();
    let two = Two::new();
    let (_listeners, route, _serving) = serving(&listen(&authority, true), Of(Arc::clone(&two)));
    let (mut other, _others) = caller(&authority, &route).await;
    let (mut sender, connection) = caller(&authority, &route).await;
    let mut given_up = 0;
    while sender.ready().await.is_ok() && given_up < 10_000 {
        let asked = sender.send_request(post("/wait", ""));
        let entered = two.entered();
        tokio::select! {
            _ = asked => break,
            () = entered => {}
        }
        given_up += 1;
    }
    assert!(given_up < 1000, "{given_up}");
    // The caller may see a clean end or an error.
    let _ = connection.await.unwrap();
    assert_eq!(send(&mut other, post("/now", "")).await.0, 200);
}

#[tokio::test]
async fn a_caller_that_takes_no_answer_is_cut() {
    struct Streams;
    impl Handler for Streams {
        fn handle(self: Arc<Self>, _: crate::Request) -> BoxFuture<Response> {
            let (feed, body) = fed();
            tokio::spawn(async move {
                let piece = Bytes::from(vec![0; 64 << 10]);
                while feed.send(Ok(piece.clone())).await.is_ok() {}
            });
            Box::pin(async { Response::new(body) })
        }
    }
    let authority = Authority::new();
    let mut listen = listen(&authority, true);
    listen.idle_timeout = Duration::from_millis(100);
    let (_listeners, route, _serving) = serving(&listen, Streams);
    let (mut sender, connection) = caller(&authority, &route).await;
    let answer = sender.send_request(post("/", "")).await.unwrap();
    // The caller reads nothing of the body, so that the flow control window stays closed.
    let end = tokio::time::timeout(LONG, connection).await;
    assert!(end.is_ok(), "the connection is closed");
    drop(answer);
}

#[tokio::test]
async fn an_idle_connection_gives_its_place_to_another() {
    let authority = Authority::new();
    let mut listen = listen(&authority, true);
    listen.max_connections = Some(1);
    let (_listeners, route, _serving) = serving(&listen, Of(Two::new()));
    let (mut first, end) = caller(&authority, &route).await;
    assert_eq!(send(&mut first, post("/now", "")).await.0, 200);
    let (mut second, _connection) = caller(&authority, &route).await;
    end.await.unwrap().unwrap();
    assert_eq!(send(&mut second, post("/now", "")).await.0, 200);
}

/// The channel that feeds the body of an answer.
type Feed = mpsc::Sender<io::Result<Bytes>>;

/// Handler whose answers are fed by the test. At `/panic`, an error makes the body panic.
struct Fed(mpsc::Sender<Feed>);

impl Handler for Fed {
    fn handle(self: Arc<Self>, request: crate::Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let (feed, body) = fed();
            self.0.send(feed).await.unwrap();
            Response::new(match request.uri.path() {
                "/panic" => Body::stream(Panics(body)),
                _ => body,
            })
        })
    }
}

/// A body that panics on an error.
struct Panics(Body);

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| Ok(frame.unwrap())))
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_for_its_caller() {
    let authority = Authority::new();
    let (feeds, mut fed) = mpsc::channel(1);
    let (listeners, route, _serving) = serving(&listen(&authority, true), Fed(feeds));
    let (mut sender, _connection) = caller(&authority, &route).await;
    // Some clients take a reset with CANCEL for the end of the body.
    let internal = "unexpected internal error encountered";
    for (path, reason) in [("/error", internal), ("/panic", internal), ("/cut", "")] {
        sender.ready().await.unwrap();
        let answer = sender.send_request(post(path, "")).await.unwrap();
        let feed = fed.recv().await.unwrap();
        feed.send(Ok("first".into())).await.unwrap();
        let mut body = answer.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "first");
        match path {
            "/cut" => assert_eq!(listeners.shutdown(Duration::ZERO).await, 1),
            _ => feed.send(Err(io::Error::other("torn"))).await.unwrap(),
        }
        let end = body.frame().await;
        let error = end.expect("the body is not complete").unwrap_err();
        assert!(chain(&error).contains(reason), "{path}: {}", chain(&error));
    }
}

/// Handler that reports the body of each request.
struct Reports(mpsc::Sender<Result<Bytes, BodyError>>);

impl Handler for Reports {
    fn handle(self: Arc<Self>, request: crate::Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let body = body::read(request.body, None, 1 << 20, LONG).await;
            self.0.send(body).await.unwrap();
            answer::empty(StatusCode::NO_CONTENT)
        })
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

#[tokio::test]
async fn a_request_that_its_caller_resets_is_not_taken_for_whole() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const NO_ERROR: u8 = 0;
    const CANCEL: u8 = 8;
    let authority = Authority::new();
    let (reports, mut bodies) = mpsc::channel(1);
    let (_listeners, route, _serving) = serving(&listen(&authority, true), Reports(reports));
    let mut stream = connect(&authority, route.local_addr(), &["h2"]).await;
    // POST https://localhost/now, in HPACK.
    let head = [&[0x83, 0x87, 4, 4][..], b"/now", &[1, 9], b"localhost"].concat();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for (id, reset) in [(1, Some(NO_ERROR)), (3, Some(CANCEL)), (5, None)] {
        sent.extend(frame(HEADERS, END_HEADERS, id, &head));
        let end = if reset.is_none() { END_STREAM } else { 0 };
        sent.extend(frame(DATA, end, id, b"half"));
        sent.extend(reset.map_or(Vec::new(), |code| {
            frame(RST_STREAM, 0, id, &[0, 0, 0, code])
        }));
        stream.write_all(&sent).await.unwrap();
        sent.clear();
        let body = bodies.recv().await.unwrap();
        match reset {
            Some(_) => assert!(matches!(body, Err(BodyError::Broken(_))), "{id}: {body:?}"),
            None => assert_eq!(body.unwrap(), "half"),
        }
    }
}
