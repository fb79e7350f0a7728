//! Senders that speak HTTP/2 over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use metrifold_testing::series::TYPE_1;
use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, body, one, up};

fn gateway(authority: &Authority, endpoint: &Endpoint, more: &str) -> Metrifold {
    let (cert, key) = authority.issue("server");
    Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         tls = {{ cert_file = {cert:?}, key_file = {key:?}{more} }}\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n",
        endpoint.url(),
    ))
}

type Http2 = SendRequest<Full<Bytes>>;

/// Connects and negotiates HTTP/2 by ALPN; none if the server does not offer it.
async fn connect(address: SocketAddr, authority: &Authority) -> Option<Http2> {
    let mut tls = (*authority.client(None)).clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream);
    let stream = stream.await.unwrap();
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return None;
    }
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    Some(sender)
}

async fn write(mut sender: Http2, address: SocketAddr, body: Vec<u8>) -> (u16, String) {
    let request = Request::post(format!("https://{address}/api/v1/write"))
        .header("content-type", TYPE_1)
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

#[test]
fn a_sender_writes_in_http_2_over_one_connection_and_others_in_http_1() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let gateway = gateway(&authority, &endpoint, "");
    let address = gateway.ingest;
    run(async {
        let sender = connect(address, &authority).await;
        let sender = sender.expect("it is spoken");
        let writes = (0..20).map(|n| {
            let body = body(&[one(&format!("series{n}"), 1)]);
            tokio::spawn(write(sender.clone(), address, body))
        });
        for write in writes.collect::<Vec<_>>() {
            let (status, text) = write.await.unwrap();
            assert_eq!(status, 204, "{text}");
        }
        let (status, text) = write(sender, address, b"no snappy".to_vec()).await;
        assert_eq!(status, 400, "{text}");
    });
    let accepted = endpoint.accepted().into_iter();
    let names: std::collections::BTreeSet<_> = accepted.map(|(name, _)| name).collect();
    assert_eq!(names.len(), 20);
    let mut sender = Sender::tls(address, &authority.client(None));
    assert_eq!(sender.write(&up(1)).status, 204);
}

#[test]
fn it_is_not_spoken_where_it_is_switched_off() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let gateway = gateway(&authority, &endpoint, ", http2 = false");
    let spoken = run(connect(gateway.ingest, &authority));
    assert!(spoken.is_none());
    let mut sender = Sender::tls(gateway.ingest, &authority.client(None));
    assert_eq!(sender.write(&up(1)).status, 204);
}
