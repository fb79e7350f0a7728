//! Tests of the client against servers on the loopback interface.

mod connections;
mod failures;
mod proxies;
mod secured;

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
