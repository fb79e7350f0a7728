//! An endpoint that records what it is sent and answers as it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use metrifold_codec::remote_write::messages::{v1, v2};

use super::model::{self, Series, TYPE_2};

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As a receiver of both versions: 204, and to 2.0 with exact counts of what was written.
    Honest,
    /// 415 to 2.0.
    OnlyV1,
    /// 204 to everything, as an old receiver that reads 2.0 as an empty request of 1.0.
    Swallowing,
    /// 400 with a reason.
    Refusing,
    /// As a receiver of 2.0 that finds fault with all series but the first: 400 with exact counts.
    Picky,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Captured {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Captured {
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    pub fn is_v2(&self) -> bool {
        self.header("content-type") == Some(TYPE_2)
    }

    pub fn v1(&self) -> v1::WriteRequest {
        assert!(!self.is_v2());
        v1::WriteRequest::decode(&model::decompress(&self.body)[..]).unwrap()
    }

    pub fn v2(&self) -> v2::Request {
        assert!(self.is_v2());
        v2::Request::decode(&model::decompress(&self.body)[..]).unwrap()
    }

    /// Its series, whatever its version.
    pub fn series(&self) -> Vec<Series> {
        if self.is_v2() {
            model::from_v2(&self.v2())
        } else {
            model::from_v1(&self.v1())
        }
    }
}

/// A server on a port of its own. It ends with the test.
pub struct Endpoint {
    address: SocketAddr,
    captured: Arc<Mutex<Vec<Captured>>>,
    server: JoinHandle<()>,
}

impl Endpoint {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let captured = Arc::<Mutex<Vec<Captured>>>::default();
        let log = captured.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = log.clone();
                let service = service_fn(move |request| answer(request, manner, log.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            captured,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// Takes what has arrived since the last time.
    pub fn take(&self) -> Vec<Captured> {
        std::mem::take(&mut self.captured.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the one request that has arrived since the last time.
    pub fn one(&self) -> Captured {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    manner: Manner,
    log: Arc<Mutex<Vec<Captured>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let captured = Captured {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    };
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(captured.clone());
    let plain = |status: u16, text: &'static str| {
        let body = Full::from(Bytes::from_static(text.as_bytes()));
        Response::builder().status(status).body(body).unwrap()
    };
    if snap::raw::Decoder::new()
        .decompress_vec(&captured.body)
        .is_err()
    {
        return Ok(plain(400, "body is damaged"));
    }
    Ok(match manner {
        Manner::Refusing => plain(400, "this endpoint refuses everything"),
        Manner::OnlyV1 if captured.is_v2() => plain(415, "only 1.0 is spoken here"),
        Manner::Honest | Manner::Picky if captured.is_v2() => {
            let mut series = captured.series();
            let mut response = plain(204, "");
            if manner == Manner::Picky {
                series.truncate(1);
                response = plain(400, "only the first series is liked");
            }
            let counts = model::counts(&series);
            for (kind, count) in ["samples", "histograms", "exemplars"]
                .into_iter()
                .zip(counts)
            {
                let name = format!("x-prometheus-remote-write-{kind}-written");
                let name: http::HeaderName = name.parse().unwrap();
                response.headers_mut().insert(name, count.into());
            }
            response
        }
        _ => plain(204, ""),
    })
}
