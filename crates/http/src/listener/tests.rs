//! Tests of the listener over real connections.

mod crowds;
mod routes;
mod shutdown;
mod slow_callers;
mod streams;

use std::io;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use metrifold_model::{Identity, Membership, Proof};
use metrifold_model::{Rejection, RejectionKind};

use super::*;
use crate::access::{Access, Admission, Head, Refusal};
use crate::testing::{By, fed, local, serving};
use crate::{Everybody, answer, body};

/// Echoes a request, whose body may take this long.
struct Echo(Duration);

impl Handler for Echo {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let length = request.content_length();
            let params: Vec<String> = request
                .params
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            match body::read(request.body, length, 64, self.0).await {
                Ok(body) => answer::text(
                    StatusCode::OK,
                    &format!("[{}] {}", params.join(","), String::from_utf8_lossy(&body)),
                ),
                Err(body::BodyError::TooLarge { .. }) => {
                    answer::text(StatusCode::PAYLOAD_TOO_LARGE, "too large")
                }
                Err(error) => answer::text(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        })
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Answers with a word.
struct Word(&'static str);

impl Handler for Word {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async move { answer::text(StatusCode::OK, self.0) })
    }
}

/// Signals that it has a request, and answers once it is opened.
#[derive(Default)]
struct Gate {
    entered: Notify,
    open: Notify,
}

impl Handler for Gate {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            self.entered.notify_one();
            self.open.notified().await;
            answer::text(StatusCode::OK, "through the gate")
        })
    }

    fn answers_half_closed(&self) -> bool {
        true
    }
}

struct Panics;

impl Handler for Panics {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async { panic!("on purpose") })
    }
}

/// A caller that speaks HTTP by hand.
struct Caller(TcpStream);

impl Caller {
    async fn new(route: &Route) -> Self {
        Self(TcpStream::connect(route.local_addr()).await.unwrap())
    }

    async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        self.answer().await
    }

    /// Reads one answer: status and body.
    async fn answer(&mut self) -> (u16, String) {
        let mut text = Vec::new();
        let read = |text: &[u8]| -> Option<(u16, String)> {
            let text = std::str::from_utf8(text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            (body.len() >= length).then(|| (head[9..12].parse().unwrap(), text.to_owned()))
        };
        loop {
            if let Some(answer) = read(&text) {
                return answer;
            }
            assert_ne!(
                self.0.read_buf(&mut text).await.unwrap(),
                0,
                "no answer: {text:?}"
            );
        }
    }

    /// Whether the server closes or resets the connection without further data.
    async fn is_closed(&mut self) -> bool {
        let mut text = Vec::new();
        match self.0.read_to_end(&mut text).await {
            Ok(_) => text.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (_listeners, route, _serving) = serving(&local("/a/{tenant}/write"), Echo(LONG));
    let mut caller = Caller::new(&route).await;
    for body in ["one", "two"] {
        caller
            .send(&format!(
                "POST /a/team%20a/write?x=y HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n{body}"
            ))
            .await;
        let (status, text) = caller.answer().await;
        assert_eq!(status, 200);
        assert!(
            text.ends_with(&format!("[tenant=team a] {body}\n")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_handler_is_called_without_a_connection() {
    let body = Body::from("body");
    let request = Request::new(Method::POST, Uri::from_static("/a"), body);
    assert_eq!(request.content_length(), Some(4));
    let answer = Arc::new(Echo(LONG)).handle(request).await;
    let limit = Duration::from_secs(1);
    let body = body::read(answer.into_body(), None, 100, limit).await;
    assert_eq!(body.unwrap(), "[] body\n");
}

#[tokio::test]
async fn a_handler_that_panics_costs_one_connection() {
    let listeners = Listeners::new();
    let bad = listeners.route(&local("/bad"), "a").unwrap();
    let good = listeners.route(&local("/good"), "b").unwrap();
    let _serving = (
        bad.serve(Arc::new(Everybody), Arc::new(Panics)),
        good.serve(Arc::new(Everybody), Arc::new(Word("1"))),
    );
    listeners.start();
    let mut other = Caller::new(&good).await;
    assert_eq!(other.get("/good").await.0, 200);
    let mut caller = Caller::new(&bad).await;
    caller.send("GET /bad HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(caller.is_closed().await);
    assert_eq!(other.get("/good").await.0, 200);
    assert_eq!(Caller::new(&good).await.get("/good").await.0, 200);
}

#[tokio::test]
async fn a_connection_that_is_old_ends_with_its_next_answer() {
    let mut listen = local("/");
    listen.max_age = Duration::from_nanos(1);
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    let mut caller = Caller::new(&route).await;
    let (status, text) = caller.get("/").await;
    assert_eq!(status, 200);
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert!(caller.is_closed().await);
}
