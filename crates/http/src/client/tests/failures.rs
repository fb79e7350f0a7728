//! Failures, and how the kinds of them are told apart.

use super::*;

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
