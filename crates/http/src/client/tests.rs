use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use metrifold_base::{Problems, Secret};

use crate::testing::{Authority, By, fed, local, proxy, raw, serving, who};
use crate::{Parts, ServerTls, answer};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn config() -> ClientConfig {
    ClientConfig {
        tls: ClientTls::default(),
        proxy_url: None,
        proxy_basic_auth: None,
        connections: 4,
        connect_timeout: LONG,
        max_age: LONG,
    }
}

fn plain() -> Client {
    Client::new(&config()).unwrap()
}

fn secure(tls: ClientTls) -> Client {
    Client::new(&ClientConfig { tls, ..config() }).unwrap()
}

async fn post(client: &Client, uri: &str) -> Result<Reply, TransportError> {
    client
        .post(
            &uri.parse().unwrap(),
            HeaderMap::new(),
            Bytes::from("body"),
            LONG,
        )
        .await
}

/// A server with TLS that reports the caller; with `ca` it requires certificates.
fn tls(authority: &Authority, ca: bool) -> ServerTls {
    let (cert_file, key_file) = authority.issue("server", &["localhost", "metrics.test"]);
    ServerTls {
        cert_file,
        key_file,
        client_ca_file: ca.then(|| authority.file("ca.crt")),
        client_crl_file: None,
        client_auth: crate::ClientAuth::Required,
        min_version: crate::tls::TlsVersion::V12,
        http2: true,
        http2_max_streams: 100,
    }
}

fn listen_tls(tls: ServerTls) -> crate::Listen {
    let mut listen = local("/");
    listen.tls = Some(tls);
    listen
}

fn https(address: SocketAddr) -> String {
    format!("https://localhost:{}/", address.port())
}

#[tokio::test]
async fn answers_come_back_and_their_connection_is_used_again() {
    let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let seen = Arc::clone(&peers);
    let (_listeners, route, _serving) = serving(
        &local("/write"),
        By(move |request: &crate::Request| {
            seen.lock().unwrap().insert(request.peer);
            assert_eq!(request.content_length(), Some(4));
            assert_eq!(request.headers["x-test"], "yes");
            assert!(request.headers.contains_key(HOST));
            answer::retry_after(StatusCode::TOO_MANY_REQUESTS, 9, &"slow down ".repeat(3000))
        }),
    );
    let client = plain();
    let uri = format!("http://{}/write", route.local_addr())
        .parse()
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-test", "yes".parse().unwrap());
    for _ in 0..5 {
        let reply = client
            .post(&uri, headers.clone(), Bytes::from("body"), LONG)
            .await
            .unwrap();
        assert_eq!(reply.status, 429);
        assert_eq!(reply.headers["retry-after"], "9");
        assert!(reply.excerpt.starts_with("slow down slow"));
        assert!(reply.excerpt.len() <= SHOWN);
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_in_many_parts_arrives_as_one() {
    // More parts than one write takes, some of them empty.
    let part = |n: u8| Bytes::from(vec![n; usize::from(n % 7) * 5_000]);
    let parts: Vec<Bytes> = (0..60).map(part).collect();
    let whole = parts.concat();
    let expected = whole.clone();
    let address = raw(move |mut stream| {
        let mut body = vec![0; expected.len()];
        let expected = expected.clone();
        async move {
            stream.read_exact(&mut body).await.unwrap();
            let status = if body == expected { 204 } else { 400 };
            let answer = format!("HTTP/1.1 {status} Done\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let uri = format!("http://{address}/").parse().unwrap();
    for body in [Parts::from(parts), Parts::from(Bytes::from(whole))] {
        let reply = plain().post(&uri, HeaderMap::new(), body, LONG).await;
        assert_eq!(reply.unwrap().status, 204);
    }
}

/// Sends `body`, and returns the answer with its body.
async fn stream(address: SocketAddr, body: impl Into<Body>) -> http::Response<Body> {
    let uri = format!("http://{address}/").parse().unwrap();
    let client = plain();
    let sent = client.request(Method::POST, &uri, HeaderMap::new(), body, LONG);
    sent.await.unwrap()
}

#[tokio::test]
async fn bodies_are_streamed_both_ways_at_once() {
    let (_listeners, route, _serving) = serving(&local("/"), Mirror);
    let (feed, body) = fed();
    let mut answer = stream(route.local_addr(), body).await.into_body();
    for piece in ["ping", "pong"] {
        feed.send(Ok(Bytes::from(piece))).await.unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(feed);
    assert!(answer.frame().await.is_none());
}

/// Answers with the body of the request.
struct Mirror;

impl crate::Handler for Mirror {
    fn handle(
        self: Arc<Self>,
        request: crate::Request,
    ) -> metrifold_base::BoxFuture<crate::Response> {
        Box::pin(async move { crate::Response::new(request.body) })
    }
}

#[tokio::test]
async fn a_connection_ends_with_an_answer_that_nobody_reads_to_its_end() {
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let address = raw(move |mut stream| {
        let told = told.clone();
        async move {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\nsome";
            stream.write_all(head).await.unwrap();
            // The end of the connection, in any form.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let answer = stream(address, Bytes::new()).await;
    let mut body = answer.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    ended.recv().await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_a_request_that_nobody_waits_for() {
    let (told, mut seen) = tokio::sync::mpsc::channel(1);
    let address = raw(move |mut stream| {
        let told = told.clone();
        async move {
            told.send("begun").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            told.send("ended").await.unwrap();
        }
    })
    .await;
    let waiting = tokio::spawn(stream(address, Bytes::new()));
    assert_eq!(seen.recv().await, Some("begun"));
    waiting.abort();
    assert_eq!(seen.recv().await, Some("ended"));
}

#[tokio::test]
async fn a_connection_is_used_again_once_a_streamed_answer_is_read() {
    let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let seen = Arc::clone(&peers);
    let (_listeners, route, _serving) = serving(
        &local("/"),
        By(move |request: &crate::Request| {
            seen.lock().unwrap().insert(request.peer);
            crate::Response::new(Body::stream(Body::from("streamed")))
        }),
    );
    let client = plain();
    let uri = format!("http://{}/", route.local_addr()).parse().unwrap();
    for _ in 0..3 {
        let sent = client.request(Method::GET, &uri, HeaderMap::new(), Body::empty(), LONG);
        let answer = sent.await.unwrap();
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "streamed"
        );
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_connection_that_is_old_is_not_used_again() {
    let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let seen = Arc::clone(&peers);
    let (_listeners, route, _serving) = serving(
        &local("/"),
        By(move |request: &crate::Request| {
            seen.lock().unwrap().insert(request.peer);
            answer::empty(StatusCode::NO_CONTENT)
        }),
    );
    let max_age = Duration::from_nanos(1);
    let client = Client::new(&ClientConfig {
        max_age,
        ..config()
    });
    let client = client.unwrap();
    let uri = format!("http://{}/", route.local_addr());
    for _ in 0..3 {
        assert_eq!(post(&client, &uri).await.unwrap().status, 204);
    }
    assert_eq!(peers.lock().unwrap().len(), 3);
}

/// A server that answers each request of its connections, and counts these.
async fn keeping(
    most: usize,
) -> (
    Uri,
    Arc<Mutex<HashSet<SocketAddr>>>,
    Arc<tokio::sync::Barrier>,
) {
    let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let together = Arc::new(tokio::sync::Barrier::new(most));
    let (seen, all) = (Arc::clone(&peers), Arc::clone(&together));
    let address = raw(move |mut stream| {
        let (seen, all) = (Arc::clone(&seen), Arc::clone(&all));
        async move {
            seen.lock().unwrap().insert(stream.peer_addr().unwrap());
            loop {
                all.wait().await;
                let answer = b"HTTP/1.1 204 Done\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
            }
        }
    })
    .await;
    let uri = format!("http://{address}/").parse().unwrap();
    (uri, peers, together)
}

#[tokio::test]
async fn as_many_idle_connections_are_kept_as_configured() {
    let (uri, peers, _together) = keeping(7).await;
    let client = plain();
    for connections in [7, 7 + 3] {
        let asked = (0..7).map(|_| {
            let (client, uri) = (client.clone(), uri.clone());
            tokio::spawn(async move {
                let sent = client.request(Method::GET, &uri, HeaderMap::new(), Body::empty(), LONG);
                assert_eq!(sent.await.unwrap().status(), 204);
            })
        });
        for asked in asked.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        // Four of seven connections were kept, as `config` says.
        assert_eq!(peers.lock().unwrap().len(), connections);
    }
}

/// A server that answers one request of each connection, and closes its sending side then if `closes`; the
/// channel tells when the client has closed the connection.
async fn answering_once(closes: bool) -> (String, tokio::sync::mpsc::Receiver<()>) {
    let (told, ended) = tokio::sync::mpsc::channel(1);
    let address = raw(move |mut stream| {
        let told = told.clone();
        async move {
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
            stream.write_all(answer).await.unwrap();
            if closes {
                stream.shutdown().await.unwrap();
            }
            assert_eq!(stream.read(&mut body).await.unwrap(), 0);
            // Nobody listens once the test has ended.
            let _ = told.send(()).await;
        }
    })
    .await;
    (format!("http://{address}/"), ended)
}

#[tokio::test]
async fn a_connection_that_its_server_closed_while_it_was_idle_gets_no_request() {
    let (uri, _ended) = answering_once(true).await;
    let client = plain();
    for _ in 0..20 {
        assert_eq!(post(&client, &uri).await.unwrap().status, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while_and_sooner_if_its_server_has_closed_it() {
    for (closes, earliest, latest) in [(false, 90, 96), (true, 0, 6)] {
        let (uri, mut ended) = answering_once(closes).await;
        let max_age = 2 * LONG;
        let client = Client::new(&ClientConfig {
            max_age,
            ..config()
        });
        let client = client.unwrap();
        assert_eq!(post(&client, &uri).await.unwrap().excerpt, "done");
        tokio::time::pause();
        let begin = Instant::now();
        ended.recv().await.unwrap();
        let took = begin.elapsed().as_secs();
        assert!((earliest..=latest).contains(&took), "{closes}: {took} s");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_request_arrives_whole() {
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let address = raw(move |mut stream| {
        let told = told.clone();
        async move {
            let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!";
            stream.write_all(answer).await.unwrap();
            // The end of the connection, in any form.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let (feed, body) = fed();
    feed.send(Ok(Bytes::from("a part"))).await.unwrap();
    let answer = stream(address, body).await;
    assert_eq!(answer.status(), 413);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "no!");
    // The rest of the request cannot follow: the connection is not used again.
    ended.recv().await.unwrap();
    drop(feed);
}

/// Reads an answer of very many small pieces, four times at once.
async fn long_answer() {
    const PIECES: usize = 20_000;
    let address = raw(|mut stream| async move {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for n in 0..PIECES {
            let piece = format!("4\r\n{n:04x}\r\n");
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(tokio::spawn(async move {
            let answer = stream(address, Bytes::new()).await;
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let expected: String = (0..PIECES).map(|n| format!("{n:04x}")).collect();
            assert!(body == expected);
        }));
    }
    for asked in asked {
        asked.await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_of_many_pieces_arrives_whole() {
    long_answer().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_answer_of_many_pieces_arrives_whole_on_several_threads() {
    long_answer().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    for head in ["content-length: 100", "transfer-encoding: chunked"] {
        let address = raw(move |mut stream| async move {
            let part = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n4\r\nsome\r\n");
            stream.write_all(part.as_bytes()).await.unwrap();
        })
        .await;
        let body = stream(address, Bytes::new()).await.into_body();
        assert!(body.collect().await.is_err(), "{head}");
    }
}

#[tokio::test]
async fn the_host_is_that_of_the_url_unless_it_is_given() {
    let (_listeners, route, _serving) = serving(
        &local("/"),
        By(|request: &crate::Request| {
            let host = request.headers[HOST].to_str().unwrap();
            answer::text(StatusCode::OK, host)
        }),
    );
    let address = route.local_addr();
    let uri = format!("http://user:secret@{address}/").parse().unwrap();
    let given = HeaderMap::from_iter([(HOST, HeaderValue::from_static("other.test"))]);
    let client = plain();
    for (headers, expected) in [
        (HeaderMap::new(), address.to_string()),
        (given, "other.test".to_owned()),
    ] {
        let reply = client.post(&uri, headers, Bytes::new(), LONG).await;
        assert_eq!(reply.unwrap().excerpt, expected);
    }
    for (url, expected) in [
        ("http://a.test:80/", "a.test"),
        ("https://a.test:443/x", "a.test"),
        ("http://a.test:443/", "a.test:443"),
        ("http://[::1]:9090/", "[::1]:9090"),
    ] {
        assert_eq!(host(&url.parse().unwrap()).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_request_whose_own_body_breaks_is_told_from_an_endpoint_that_fails() {
    let address = raw(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let (feed, body) = fed();
    let uri = format!("http://{address}/").parse().unwrap();
    let torn = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    feed.send(Err(torn)).await.unwrap();
    let client = plain();
    let sent = client.request(Method::POST, &uri, HeaderMap::new(), body, LONG);
    let error = sent.await.unwrap_err();
    assert_eq!(error.kind, TransportKind::Body, "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_it_is_worth() {
    let address = raw(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 500 Oops\r\n\r\n")
            .await
            .unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let reply = post(&plain(), &format!("http://{address}/")).await.unwrap();
    assert_eq!(reply.status, 500);
    assert_eq!(reply.excerpt, "x".repeat(SHOWN));
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let (_listeners, route, _serving) = serving(
        &local("/"),
        By(|_: &crate::Request| {
            let mut answer = answer::empty(StatusCode::TEMPORARY_REDIRECT);
            let location = "http://127.0.0.1:1/".parse().unwrap();
            answer.headers_mut().insert("location", location);
            answer
        }),
    );
    let uri = format!("http://{}/", route.local_addr());
    assert_eq!(post(&plain(), &uri).await.unwrap().status, 307);
}

#[tokio::test]
async fn a_server_that_hangs_is_a_timeout() {
    let address = raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let uri = format!("http://{address}/write?token=topsecret")
        .parse()
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, "Bearer topsecret".parse().unwrap());
    let error = plain()
        .post(&uri, headers, Bytes::new(), Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Timeout);
    assert_eq!(
        error.to_string(),
        format!("no answer from http://{address}/write within 50ms")
    );
}

#[tokio::test]
async fn an_answer_whose_body_hangs_is_an_answer() {
    let address = raw(|mut stream| async move {
        let head = b"HTTP/1.1 400 Bad\r\ncontent-length: 100\r\n\r\nreason";
        stream.write_all(head).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let uri = format!("http://{address}/").parse().unwrap();
    let reply = plain()
        .post(&uri, HeaderMap::new(), Bytes::new(), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.excerpt), (400, "reason"));
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_reset_and_nonsense_is_not() {
    let address = raw(|stream| async move { drop(stream) }).await;
    let error = post(&plain(), &format!("http://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Reset, "{error}");
    let address = raw(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    })
    .await;
    let error = post(&plain(), &format!("http://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Other, "{error}");
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_a_connect_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = post(&plain(), &format!("http://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Connect);
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_reaches_the_handler() {
    let authority = Authority::new();
    let (cert_file, key_file) = authority.issue("team-a", &["agent.test", "10.0.0.7"]);
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, true)), By(who));
    let client = secure(ClientTls {
        ca_file: Some(authority.file("ca.crt")),
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..ClientTls::default()
    });
    let reply = post(&client, &https(route.local_addr())).await.unwrap();
    assert_eq!(
        reply.excerpt,
        "Some((Some(\"team-a\"), [\"unit of team-a\"], \
         [Dns(\"agent.test\"), Ip(10.0.0.7), Uri(\"spiffe://test/team-a\")]))"
    );
}

#[tokio::test]
async fn callers_without_a_certificate_of_the_authority_are_refused() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, true)), By(who));
    let ca_file = Some(authority.file("ca.crt"));
    let nobody = secure(ClientTls {
        ca_file: ca_file.clone(),
        ..ClientTls::default()
    });
    let strangers = Authority::new();
    let (cert_file, key_file) = strangers.issue("stranger", &[]);
    let stranger = secure(ClientTls {
        ca_file,
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..ClientTls::default()
    });
    for client in [nobody, stranger] {
        let error = post(&client, &https(route.local_addr())).await.unwrap_err();
        assert!(
            matches!(error.kind, TransportKind::Tls | TransportKind::Reset),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_unless_nobody_looks() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let other = Authority::new();
    let wrong = secure(ClientTls {
        ca_file: Some(other.file("ca.crt")),
        ..ClientTls::default()
    });
    let error = post(&wrong, &https(route.local_addr())).await.unwrap_err();
    assert_eq!(error.kind, TransportKind::Tls);
    assert!(error.message.contains("set tls.ca_file"), "{error}");
    let blind = secure(ClientTls {
        insecure_skip_verify: true,
        ..ClientTls::default()
    });
    let reply = post(&blind, &https(route.local_addr())).await.unwrap();
    assert_eq!(reply.excerpt, "None");
}

#[tokio::test]
async fn the_server_name_stands_in_for_the_host() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let uri = format!("https://{}/", route.local_addr());
    let named = |name: Option<&str>| {
        secure(ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            server_name: name.map(str::to_owned),
            ..ClientTls::default()
        })
    };
    let error = post(&named(None), &uri).await.unwrap_err();
    assert_eq!(error.kind, TransportKind::Tls);
    assert!(error.message.contains("set tls.server_name"), "{error}");
    assert!(post(&named(Some("wrong.test")), &uri).await.is_err());
    let reply = post(&named(Some("metrics.test")), &uri).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_proxy_is_asked_in_the_form_that_the_endpoint_needs() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let (address, seen) = proxy(false).await;
    let client = Client::new(&ClientConfig {
        tls: ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            ..ClientTls::default()
        },
        proxy_url: Some(format!("http://{address}").parse().unwrap()),
        ..config()
    })
    .unwrap();
    let reply = post(&client, "http://far.test/write?x=y").await.unwrap();
    assert_eq!(reply.excerpt, "proxied");
    let far = https(route.local_addr());
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    let tunnel = format!("CONNECT localhost:{} HTTP/1.1", route.local_addr().port());
    let lines = ["POST http://far.test/write?x=y HTTP/1.1", &*tunnel];
    assert_eq!(*seen.lock().unwrap(), lines);
}

#[tokio::test]
async fn a_proxy_hears_its_own_password_and_the_endpoint_does_not() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let (address, seen) = proxy(false).await;
    let client = Client::new(&ClientConfig {
        tls: ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            ..ClientTls::default()
        },
        proxy_url: Some(format!("http://{address}").parse().unwrap()),
        proxy_basic_auth: Some(BasicAuth {
            username: "u".to_owned(),
            password: Some(Secret::new("p")),
            password_file: None,
        }),
        ..config()
    })
    .unwrap();
    post(&client, "http://far.test/").await.unwrap();
    let far = https(route.local_addr());
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    let tunnel = format!(
        "CONNECT localhost:{} HTTP/1.1 Basic dTpw",
        route.local_addr().port()
    );
    let lines = ["POST http://far.test/ HTTP/1.1 Basic dTpw", &*tunnel];
    assert_eq!(*seen.lock().unwrap(), lines);
}

#[tokio::test]
async fn what_an_endpoint_repeats_of_our_secrets_is_not_in_its_excerpt() {
    let _known = Secret::new("open-sesame-1");
    let address = raw(|mut stream| async move {
        let text = "you sent\nopen%2dsesame-1 and b3Blbi1zZXNhbWUtMQ==";
        let answer = format!(
            "HTTP/1.1 400 No\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let reply = post(&plain(), &format!("http://{address}/")).await.unwrap();
    assert_eq!(reply.excerpt, "you sent *** and ***==");
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_not_there_is_a_proxy_error() {
    let (address, _) = proxy(true).await;
    let through = |address: SocketAddr| {
        let proxy_url = Some(format!("http://{address}").parse().unwrap());
        Client::new(&ClientConfig {
            proxy_url,
            ..config()
        })
        .unwrap()
    };
    let error = post(&through(address), "https://far.test/")
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Proxy, "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for uri in ["https://far.test/", "http://far.test/"] {
        let error = post(&through(address), uri).await.unwrap_err();
        assert_eq!(error.kind, TransportKind::Proxy, "{error}");
        assert!(error.message.contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_bounded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(&ClientConfig {
        connect_timeout: Duration::from_millis(50),
        ..config()
    })
    .unwrap();
    let error = post(&client, &format!("https://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Connect);
    assert!(error.message.contains("not done in 50ms"), "{error}");
}

#[test]
fn tls_problems_are_found_at_their_keys() {
    let authority = Authority::new();
    let (cert_file, key_file) = authority.issue("a", &[]);
    let (_, other_key) = authority.issue("b", &[]);
    let find = |tls: &ClientTls, environment| {
        let mut problems = Problems::new(environment);
        tls.validate("tls", &mut problems);
        let paths = problems.into_list().into_iter().map(|p| p.path);
        paths.collect::<Vec<_>>().join(" ")
    };
    let good = ClientTls {
        ca_file: Some(authority.file("ca.crt")),
        cert_file: Some(cert_file.clone()),
        key_file: Some(key_file.clone()),
        server_name: Some("metrics.test".to_owned()),
        insecure_skip_verify: false,
    };
    assert_eq!(find(&good, true), "");
    let mut tls = good.clone();
    tls.key_file = None;
    assert_eq!(find(&tls, false), "tls.cert_file");
    tls.key_file = Some(other_key);
    assert_eq!(find(&tls, false), "");
    assert_eq!(find(&tls, true), "tls.key_file");
    tls.ca_file = Some(authority.file("nowhere"));
    tls.cert_file = Some(key_file.clone());
    tls.key_file = Some(cert_file.clone());
    tls.server_name = Some("not a name".to_owned());
    assert_eq!(
        find(&tls, true),
        "tls.server_name tls.ca_file tls.cert_file tls.key_file"
    );
    let server = ServerTls {
        cert_file,
        key_file: authority.file("nowhere"),
        client_ca_file: Some(key_file),
        client_crl_file: None,
        client_auth: crate::ClientAuth::Required,
        min_version: crate::tls::TlsVersion::V12,
        http2: true,
        http2_max_streams: 100,
    };
    let mut problems = Problems::new(true);
    server.validate("tls", &mut problems);
    let list = problems.into_list();
    assert_eq!(list[0].path, "tls.key_file");
    assert!(list[0].message.starts_with("cannot read"), "{list:?}");
    assert_eq!(list[1].path, "tls.client_ca_file");
}
