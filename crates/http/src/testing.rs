//! Test helpers: certificates, and servers that misbehave on demand.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use metrifold_base::BoxFuture;

use super::{
    Body, Everybody, Handler, Listen, Listeners, Methods, Request, Response, Route, Serving, answer,
};

/// An authority and its certificates, as files.
pub(super) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues a certificate for DNS names and IP addresses; returns the files of certificate and
    /// key.
    pub(super) fn issue(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, format!("unit of {name}"));
        params.subject_alt_names.push(SanType::URI(
            format!("spiffe://test/{name}").try_into().unwrap(),
        ));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
        );
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

pub(super) fn local(path: &str) -> Listen {
    Listen::new(([127, 0, 0, 1], 0).into(), path).methods(Methods::GET.and(Methods::POST))
}

/// Serves a handler on one path.
pub(super) fn serving(
    listen: &Listen,
    handler: impl Handler + 'static,
) -> (Listeners, Route, Serving) {
    let listeners = Listeners::new();
    let route = listeners.route(listen, "test").unwrap();
    let serving = route.serve(Arc::new(Everybody), Arc::new(handler));
    listeners.start();
    (listeners, route, serving)
}

/// Answers with a function.
pub(super) struct By<F>(pub(super) F);

impl<F: Fn(&Request) -> Response + Send + Sync + 'static> Handler for By<F> {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move { (self.0)(&request) })
    }
}

/// Answers with the caller's address and certificate.
pub(super) fn who(request: &Request) -> Response {
    let certificate = request.caller.certificate.as_deref();
    let certificate = certificate.map(|found| {
        (
            &found.common_name,
            &found.organizational_units,
            &found.alternative_names,
        )
    });
    answer::text(StatusCode::OK, &format!("{certificate:?}"))
}

/// A server that reads a head and then calls `then`.
pub(super) async fn raw<F, R>(then: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            tokio::spawn(then(stream));
        }
    });
    address
}

/// A proxy for both forms, and the request lines that it received. With `refuse` it refuses
/// tunnels.
pub(super) async fn proxy(refuse: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(proxied(BufReader::new(stream), Arc::clone(&seen), refuse));
            }
        }
    });
    (address, seen)
}

async fn proxied(mut stream: BufReader<TcpStream>, seen: Arc<Mutex<Vec<String>>>, refuse: bool) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0);
    }
    let line = head.lines().next().unwrap().to_owned();
    let shown = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name.eq_ignore_ascii_case("proxy-authorization")).then_some(value)
    });
    let shown = shown.map(|value| format!(" {value}")).unwrap_or_default();
    seen.lock().unwrap().push(format!("{line}{shown}"));
    let Some(target) = line.strip_prefix("CONNECT ") else {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nproxied";
        stream.write_all(answer.as_bytes()).await.unwrap();
        return;
    };
    if refuse {
        let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    let target = target.split(' ').next().unwrap();
    let mut far = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // The test judges how the connection ends.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
}

/// A body that a test feeds, and a channel that closes when the body is dropped.
pub(super) fn fed() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (feed, pieces) = mpsc::channel(1);
    (feed, Body::stream(Fed(pieces)))
}

struct Fed(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
