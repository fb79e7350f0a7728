//! Which connections are used again, and when they are closed.

use super::*;

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
async fn a_request_whose_kept_connection_breaks_is_sent_again_if_it_may_be() {
    for (method, body, expected) in [
        (Method::GET, "", Some(200)),
        (Method::POST, "", None),
        (Method::GET, "a body", None),
    ] {
        let seen = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&seen);
        // Each connection takes one request and a half.
        let address = raw(move |mut stream| {
            let counted = Arc::clone(&counted);
            async move {
                *counted.lock().unwrap() += 1;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
            }
        })
        .await;
        let client = plain();
        let uri = format!("http://{address}/").parse().unwrap();
        let send = |method: &Method, body: &'static str| {
            let body = Body::from(body);
            client.request(method.clone(), &uri, HeaderMap::new(), body, LONG)
        };
        drop(send(&Method::GET, "").await.unwrap());
        let answer = send(&method, body).await;
        let status = answer.as_ref().map(|it| it.status().as_u16());
        assert_eq!(status.ok(), expected, "{method} {body:?}: {answer:?}");
        // A new connection that breaks is a failure.
        assert_eq!(*seen.lock().unwrap(), 1 + u32::from(expected.is_some()));
    }
}

#[tokio::test]
async fn headers_that_are_no_headers_do_not_make_an_answer_useless() {
    for odd in [
        "X-Long: a\r\n b",
        "X-Blank : a",
        "X No: a",
        "X\u{e4}: a",
        "no colon",
    ] {
        let address = raw(move |mut stream| async move {
            let head = format!("HTTP/1.1 200 OK\r\n{odd}\r\ncontent-length: 4\r\n\r\ntext");
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
        })
        .await;
        let uri = format!("http://{address}/").parse().unwrap();
        let client = plain();
        let answer = client.request(Method::GET, &uri, HeaderMap::new(), Body::empty(), LONG);
        let answer = answer
            .await
            .unwrap_or_else(|error| panic!("{odd}: {error}"));
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "text", "{odd}");
    }
}
