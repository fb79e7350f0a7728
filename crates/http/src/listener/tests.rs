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
async fn two_routes_share_a_listener_and_other_paths_are_unknown() {
    let listeners = Listeners::new();
    let one = listeners.route(&local("/one"), "a").unwrap();
    let two = listeners.route(&local("/two/{x}"), "b").unwrap();
    assert_eq!(one.local_addr(), two.local_addr());
    let _serving = (
        one.serve(Arc::new(Everybody), Arc::new(Word("1"))),
        two.serve(Arc::new(Everybody), Arc::new(Word("2"))),
    );
    listeners.start();
    listeners.start();
    let mut caller = Caller::new(&one).await;
    assert!(caller.get("/one").await.1.ends_with("\n1\n"));
    assert!(caller.get("/two/x").await.1.ends_with("\n2\n"));
    assert_eq!(caller.get("/three").await.0, 404);
    assert_eq!(caller.get("/one/").await.0, 404);
    assert_eq!(caller.get("/two/").await.0, 404);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_told_which_it_has() {
    let listeners = Listeners::new();
    let get = local("/a/{x}").methods(Methods::GET);
    let get = listeners.route(&get, "a").unwrap();
    let put = local("/a/{x}").methods(Methods::PUT);
    let put = listeners.route(&put, "b").unwrap();
    let _serving = (
        get.serve(Arc::new(Everybody), Arc::new(Word("got"))),
        put.serve(Arc::new(Everybody), Arc::new(Word("put"))),
    );
    listeners.start();
    let mut caller = Caller::new(&get).await;
    for (method, status, what) in [
        ("GET", 200, "got\n"),
        ("PUT", 200, "put\n"),
        ("POST", 405, "\r\nallow: GET, HEAD, PUT\r\n"),
        ("OPTIONS", 405, "\"send GET\""),
        ("BREW", 405, "\"send GET\""),
    ] {
        let request = format!("{method} /a/b HTTP/1.1\r\nhost: x\r\n\r\n");
        caller.send(&request).await;
        let (answered, text) = caller.answer().await;
        assert_eq!(answered, status, "{method}");
        assert!(text.contains(what), "{method}: {text}");
    }
    caller.send("HEAD /a/b HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        assert_ne!(caller.0.read_buf(&mut text).await.unwrap(), 0);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("content-length: 4\r\n"), "{text}");
}

#[tokio::test]
async fn access_is_decided_before_a_handler_runs() {
    /// Admits callers that name themselves.
    struct Named;
    impl Access for Named {
        fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
            Box::pin(async move {
                let name = head.headers.get("name").ok_or_else(|| {
                    let reason = format!("{} {} needs a name", head.method, head.uri);
                    Refusal::from(Rejection::new(RejectionKind::Forbidden, reason))
                })?;
                let subject = name.to_str().unwrap();
                let named = head.params.iter().map(|(_, value)| Membership {
                    name: Arc::from(&**value),
                    tenant: Arc::from(&**value),
                });
                Ok(metrifold_model::Caller {
                    identity: Some(Arc::new(Identity {
                        tenants: named.take(1).collect(),
                        subject: Some(subject.into()),
                        groups: Arc::default(),
                        proof: Proof::Token,
                    })),
                    certificate: None,
                })
            })
        }
    }
    #[derive(Default)]
    struct Counts(std::sync::atomic::AtomicUsize);
    impl Handler for Counts {
        fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
            Box::pin(async move {
                let (caller, turned_away) = (&request.caller, &self.0);
                let text = format!(
                    "{} of {} after {turned_away:?}",
                    caller.subject().unwrap(),
                    caller.tenant().unwrap(),
                );
                answer::text(StatusCode::OK, &text)
            })
        }
        fn refused(&self, status: StatusCode) {
            assert_eq!(status, 403);
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let listeners = Listeners::new();
    let route = listeners.route(&local("/{tenant}/write"), "test").unwrap();
    let _serving = route.serve(Arc::new(Named), Arc::new(Counts::default()));
    listeners.start();
    let mut caller = Caller::new(&route).await;
    let (status, text) = caller.get("/acme/write?x=y").await;
    assert_eq!(status, 403);
    assert!(text.contains("GET /acme/write?x=y needs a name"), "{text}");
    let named = "GET /acme/write HTTP/1.1\r\nhost: x\r\nname: ann\r\n\r\n";
    caller.send(named).await;
    let (status, text) = caller.answer().await;
    assert_eq!(status, 200);
    assert!(text.ends_with("ann of acme after 1\n"), "{text}");
}

#[tokio::test]
async fn a_detached_route_asks_to_come_again_and_a_dropped_one_is_unknown() {
    let listeners = Listeners::new();
    let one = listeners.route(&local("/one"), "a").unwrap();
    let two = listeners.route(&local("/two"), "b").unwrap();
    listeners.start();
    let mut caller = Caller::new(&one).await;
    let (status, text) = caller.get("/one").await;
    assert_eq!(status, 503);
    assert!(text.contains("retry-after: 1\r\n"), "{text}");
    let serving = one.serve(Arc::new(Everybody), Arc::new(Word("1")));
    assert_eq!(caller.get("/one").await.0, 200);
    drop(serving);
    assert_eq!(caller.get("/one").await.0, 503);
    let address = one.local_addr();
    drop(one);
    assert_eq!(caller.get("/one").await.0, 404);
    drop(two);
    assert!(caller.is_closed().await);
    std::net::TcpListener::bind(address).expect("the port is free at once");
}

#[tokio::test]
async fn paths_that_can_be_read_in_two_ways_reach_no_handler() {
    let (_listeners, route, _serving) = serving(&local("/a/{tenant}/write"), Echo(LONG));
    let mut caller = Caller::new(&route).await;
    for path in [
        "/a//write",
        "/a/./write",
        "/a/../write",
        "/a/x%2fy/write",
        "/a/%2e%2e/write",
        "/a/%2E./write",
        "/a/x%5cy/write",
        "/a/%zz/write",
        "/a/%ff/write",
        "//a/x/write",
        "/a/x/../y/write",
    ] {
        let (status, text) = caller.get(path).await;
        assert_eq!(status, 400, "{path}: {text}");
    }
    for path in [
        "/a/x/y/write",
        "/A/x/write",
        "/a/x/write/",
        "/a/x%252fy/writ",
    ] {
        assert_eq!(caller.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_successor_takes_over_and_its_predecessor_takes_nothing_away() {
    let listeners = Listeners::new();
    let old = listeners.route(&local("/a/{x}"), "in").unwrap();
    let old_serving = old.serve(Arc::new(Everybody), Arc::new(Word("old")));
    listeners.start();
    let mut caller = Caller::new(&old).await;
    let new = listeners.route(&local("/a/{renamed}"), "in2").unwrap();
    assert!(caller.get("/a/b").await.1.ends_with("old\n"));
    let _new_serving = new.serve(Arc::new(Everybody), Arc::new(Word("new")));
    assert!(caller.get("/a/b").await.1.ends_with("new\n"));
    drop(old_serving);
    drop(old);
    assert!(caller.get("/a/b").await.1.ends_with("new\n"));
}

#[tokio::test]
async fn a_successor_that_is_never_served_leaves_no_trace() {
    let listeners = Listeners::new();
    let old = listeners.route(&local("/a"), "in").unwrap();
    let _serving = old.serve(Arc::new(Everybody), Arc::new(Word("old")));
    listeners.start();
    let mut limits = local("/a");
    limits.max_connections = Some(7);
    drop(listeners.route(&limits, "in").unwrap());
    let mut caller = Caller::new(&old).await;
    assert!(caller.get("/a").await.1.ends_with("old\n"));
}

#[tokio::test]
async fn routes_that_contradict_each_other_are_refused() {
    let listeners = Listeners::new();
    let _route = listeners.route(&local("/a/{x}"), "first").unwrap();
    let error = listeners.route(&local("/a/{y}"), "second").unwrap_err();
    assert!(error.to_string().contains("\"first\""), "{error}");
    let mut other = local("/b");
    other.header_timeout = Duration::from_secs(1);
    let error = listeners.route(&other, "second").unwrap_err();
    assert!(error.to_string().contains("header_timeout"), "{error}");
    assert!(listeners.route(&local("/b//c"), "second").is_err());
    assert!(local("/a/{x}").collides(&local("/a/{y}")));
    let put = |path| local(path).methods(Methods::PUT);
    assert!(!local("/a/{x}").collides(&put("/a/{x}")));
    assert!(local("/a/{x}").collides(&put("/a/{y}")));
    assert!(!local("/a/{*x}").collides(&local("/a/b/{c}")));
    assert!(!local("/a/{x}").collides(&local("/a/b")));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Listeners::new()
        .route(&Listen::new(address, "/"), "test")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{address}: cannot listen: another process or component has this address")
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_answered_while_it_is_still_being_sent() {
    let (_listeners, route, _serving) = serving(&local("/"), Echo(LONG));
    let mut caller = Caller::new(&route).await;
    let length = 1 << 20;
    caller
        .send(&format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
    // The answer must arrive although these bytes are never read.
    caller.send(&"x".repeat(length)).await;
    assert_eq!(caller.answer().await.0, 413);
    let mut caller = Caller::new(&route).await;
    let chunk = format!("41\r\n{}\r\n0\r\n\r\n", "x".repeat(65));
    caller
        .send(&format!(
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
        ))
        .await;
    assert_eq!(caller.answer().await.0, 413);
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_closed() {
    let mut listen = local("/");
    listen.header_timeout = Duration::from_millis(20);
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    assert!(Caller::new(&route).await.is_closed().await);
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_its_connection_and_no_idle_one() {
    let mut listen = local("/");
    listen.header_timeout = Duration::from_secs(1);
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    let mut slow = Caller::new(&route).await;
    let mut idle = Caller::new(&route).await;
    assert_eq!(idle.get("/").await.0, 200);
    assert_eq!(slow.get("/").await.0, 200);
    slow.send("GET / HTTP/1.1\r\nhost:").await;
    assert!(slow.is_closed().await);
    assert_eq!(idle.get("/").await.0, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let mut listen = local("/");
    listen.idle_timeout = Duration::from_millis(20);
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    let mut caller = Caller::new(&route).await;
    assert_eq!(caller.get("/").await.0, 200);
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn a_connection_whose_first_head_came_late_is_idle_no_longer_than_others() {
    let mut listen = local("/");
    listen.header_timeout = Duration::from_millis(200);
    listen.idle_timeout = Duration::from_millis(300);
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    let mut caller = Caller::new(&route).await;
    // The deadline of the first head must not apply to the idle connection later.
    caller.send("GET / HTTP/1.1\r\n").await;
    let silent = tokio::time::timeout(Duration::from_millis(20), caller.0.readable());
    assert!(silent.await.is_err());
    caller.send("host: x\r\n\r\n").await;
    assert_eq!(caller.answer().await.0, 200);
    let closed = tokio::time::timeout(Duration::from_secs(20), caller.is_closed());
    assert!(closed.await.expect("it is closed long before"));
}

#[tokio::test]
async fn a_body_that_does_not_end_is_answered_and_its_connection_closed() {
    let (_listeners, route, _serving) = serving(&local("/"), Echo(Duration::from_millis(20)));
    let mut caller = Caller::new(&route).await;
    caller
        .send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nslow")
        .await;
    let (status, text) = caller.answer().await;
    assert_eq!(status, 400);
    assert!(text.contains("did not arrive in time"), "{text}");
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn a_caller_that_takes_no_answer_is_cut() {
    let mut listen = local("/");
    listen.idle_timeout = Duration::from_millis(20);
    let answer = vec![b'x'; 64 << 20];
    let answer = bytes::Bytes::from(answer);
    let (listeners, route, _serving) = serving(
        &listen,
        By(move |_: &Request| Response::new(answer.clone().into())),
    );
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    caller.0.readable().await.unwrap();
    // The answer is never read, and yet the connection ends.
    assert_eq!(listeners.shutdown(LONG).await, 0);
}

#[tokio::test]
async fn a_caller_that_closed_its_side_still_gets_its_answer() {
    let gate = Arc::new(Gate::default());
    let listeners = Listeners::new();
    let route = listeners.route(&local("/"), "test").unwrap();
    let _serving = route.serve(Arc::new(Everybody), Arc::clone(&gate) as Arc<dyn Handler>);
    listeners.start();
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    caller.0.shutdown().await.unwrap();
    gate.entered.notified().await;
    gate.open.notify_one();
    assert_eq!(caller.answer().await.0, 200);
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn a_body_that_a_half_closed_caller_left_incomplete_breaks_off() {
    struct Patient;
    impl Handler for Patient {
        fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
            Arc::new(Echo(LONG)).handle(request)
        }
        fn answers_half_closed(&self) -> bool {
            true
        }
    }
    let (_listeners, route, _serving) = serving(&local("/"), Patient);
    let mut caller = Caller::new(&route).await;
    caller
        .send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nslow")
        .await;
    caller.0.shutdown().await.unwrap();
    let (status, text) = caller.answer().await;
    assert_eq!(status, 400);
    assert!(text.contains("closed before the end"), "{text}");
}

/// Never answers, and signals when a request begins and when it is dropped.
#[derive(Default)]
struct Waits {
    entered: Notify,
    dropped: Arc<Notify>,
}

impl Handler for Waits {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        let told = Told(Arc::clone(&self.dropped));
        Box::pin(async move {
            self.entered.notify_one();
            std::future::pending::<()>().await;
            drop(told);
            answer::empty(StatusCode::OK)
        })
    }
}

struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_what_its_request_waits_for() {
    let waits = Arc::new(Waits::default());
    let listeners = Listeners::new();
    let route = listeners.route(&local("/"), "test").unwrap();
    let _serving = route.serve(Arc::new(Everybody), Arc::clone(&waits) as Arc<dyn Handler>);
    listeners.start();
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let mut caller = Caller::new(&route).await;
        caller.send(request).await;
        waits.entered.notified().await;
        drop(caller);
        waits.dropped.notified().await;
    }
}

/// Answers with bodies that a test feeds.
struct Streams(tokio::sync::mpsc::Sender<tokio::sync::mpsc::Sender<io::Result<bytes::Bytes>>>);

impl Handler for Streams {
    fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let (feed, body) = fed();
            self.0.send(feed).await.unwrap();
            Response::new(body)
        })
    }
}

#[tokio::test]
async fn an_answer_is_sent_while_it_is_made_and_no_faster_than_it_is_taken() {
    let (feeds, mut fed) = tokio::sync::mpsc::channel(1);
    let mut listen = local("/");
    listen.idle_timeout = Duration::from_millis(50);
    let (_listeners, route, _serving) = serving(&listen, Streams(feeds));
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let feed = fed.recv().await.unwrap();
    // Waiting for the next piece does not count as idle.
    let cut = tokio::time::timeout(Duration::from_millis(200), feed.closed());
    assert!(cut.await.is_err(), "cut as idle while it is answered");
    let mut text = Vec::new();
    for piece in ["first", "second"] {
        feed.send(Ok(piece.into())).await.unwrap();
        while !String::from_utf8_lossy(&text).contains(piece) {
            assert_ne!(caller.0.read_buf(&mut text).await.unwrap(), 0);
        }
    }
    // A caller that does not read stops the feed, whose answer is then cut.
    let piece = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let mut sent = 0;
    while feed.send(Ok(piece.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "nobody reads, and yet {sent} MiB are taken");
    }
    assert!(sent > 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let (feeds, mut fed) = tokio::sync::mpsc::channel(1);
    let (_listeners, route, _serving) = serving(&local("/"), Streams(feeds));
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let feed = fed.recv().await.unwrap();
    feed.send(Ok("some".into())).await.unwrap();
    feed.send(Err(io::Error::other("torn"))).await.unwrap();
    let mut text = Vec::new();
    // A reset is a valid end as well.
    let _ = caller.0.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_is_answered_ends_the_answer() {
    let (feeds, mut fed) = tokio::sync::mpsc::channel(1);
    let (_listeners, route, _serving) = serving(&local("/"), Streams(feeds));
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let feed = fed.recv().await.unwrap();
    feed.send(Ok("some".into())).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"some\r\n") {
        assert_ne!(caller.0.read_buf(&mut text).await.unwrap(), 0);
    }
    drop(caller);
    feed.closed().await;
}

#[tokio::test]
async fn a_connection_whose_answer_was_streamed_serves_the_next_request() {
    let (feeds, mut fed) = tokio::sync::mpsc::channel(1);
    let (_listeners, route, _serving) = serving(&local("/"), Streams(feeds));
    let mut caller = Caller::new(&route).await;
    for _ in 0..2 {
        caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let feed = fed.recv().await.unwrap();
        feed.send(Ok("some".into())).await.unwrap();
        drop(feed);
        let mut text = Vec::new();
        while !text.ends_with(b"0\r\n\r\n") {
            assert_ne!(caller.0.read_buf(&mut text).await.unwrap(), 0);
        }
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
async fn connections_above_the_limit_wait_while_all_others_are_busy() {
    let mut listen = local("/");
    listen.max_connections = Some(1);
    let gate = Arc::new(Gate::default());
    let listeners = Listeners::new();
    let route = listeners.route(&listen, "test").unwrap();
    let _serving = route.serve(Arc::new(Everybody), Arc::clone(&gate) as Arc<dyn Handler>);
    listeners.start();
    let mut first = Caller::new(&route).await;
    let get = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    first.send(get).await;
    gate.entered.notified().await;
    let mut second = Caller::new(&route).await;
    second.send(get).await;
    let early = tokio::time::timeout(LOOKS, gate.entered.notified());
    assert!(early.await.is_err(), "two are served where one may be");
    gate.open.notify_one();
    assert_eq!(first.answer().await.0, 200);
    // The first connection is idle now, and must yield its slot to the second.
    gate.entered.notified().await;
    gate.open.notify_one();
    assert_eq!(second.answer().await.0, 200);
    assert!(first.is_closed().await);
}

/// Time for several polls of an accept loop that waits for a slot.
const LOOKS: Duration = Duration::from_millis(100);

#[tokio::test]
async fn no_number_of_callers_that_ask_nothing_keeps_others_out() {
    let mut listen = local("/");
    listen.max_connections = Some(4);
    listen.header_timeout = LONG;
    listen.idle_timeout = LONG;
    let (_listeners, route, _serving) = serving(&listen, Word("1"));
    let mut kept = Caller::new(&route).await;
    assert_eq!(kept.get("/").await.0, 200);
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut caller = Caller::new(&route).await;
        caller.send("GET / HT").await;
        silent.push(caller);
    }
    for _ in 0..20 {
        let limit = Duration::from_secs(10);
        let answered = tokio::time::timeout(limit, async {
            let mut caller = Caller::new(&route).await;
            let status = caller.get("/").await.0;
            (caller, status)
        });
        let (_, status) = answered
            .await
            .expect("an answer long before header_timeout");
        assert_eq!(status, 200);
    }
    // It is idle and has sent a request: silent connections are evicted before it.
    assert_eq!(kept.get("/").await.0, 200);
    assert!(silent[0].is_closed().await);
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

#[tokio::test]
async fn a_target_is_a_path_and_has_one_host() {
    let host = |request: &Request| {
        let host = request.headers["host"].to_str().unwrap();
        answer::text(StatusCode::OK, &format!("{host} {}", request.uri))
    };
    let (_listeners, route, _serving) = serving(&local("/a"), By(host));
    let mut caller = Caller::new(&route).await;
    for (head, status, text) in [
        ("GET /a?b HTTP/1.1\r\nhost: x:1", 200, "x:1 /a?b"),
        ("GET http://x/a?b HTTP/1.1\r\nhost: x", 400, "absolute"),
        ("GET http://y/other HTTP/1.1\r\nhost: x", 400, "absolute"),
        ("GET /a/../a HTTP/1.1\r\nhost: x", 400, "dot segment"),
        ("GET /a HTTP/1.1\r\nhost: x\r\nhost: y", 400, "repeated"),
        ("GET /a HTTP/1.1\r\nhost: x y", 400, "malformed"),
        ("GET /a HTTP/1.1\r\naccept: x", 400, "missing"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1", 400, "no path"),
        ("OPTIONS * HTTP/1.1\r\nhost: x", 400, ""),
    ] {
        caller.send(&format!("{head}\r\n\r\n")).await;
        let (answered, told) = caller.answer().await;
        assert_eq!(answered, status, "{head}: {told}");
        assert!(told.contains(text), "{head}: {told}");
    }
}

#[tokio::test]
async fn shutdown_finishes_requests_that_are_under_way() {
    let gate = Arc::new(Gate::default());
    let listeners = Listeners::new();
    let route = listeners.route(&local("/"), "test").unwrap();
    let _serving = route.serve(Arc::new(Everybody), Arc::clone(&gate) as Arc<dyn Handler>);
    listeners.start();
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    gate.entered.notified().await;
    let mut silent = Caller::new(&route).await;
    let end = tokio::spawn({
        let listeners = listeners.clone();
        async move { listeners.shutdown(Duration::from_secs(60)).await }
    });
    // Connections without a request close before the one with a request.
    assert!(silent.is_closed().await);
    assert!(!end.is_finished());
    gate.open.notify_one();
    let (status, text) = caller.answer().await;
    assert_eq!(status, 200);
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert!(caller.is_closed().await);
    drop(caller);
    drop(silent);
    assert_eq!(end.await.unwrap(), 0);
    assert!(TcpStream::connect(route.local_addr()).await.is_err());
    assert!(listeners.route(&local("/"), "test").is_err());
}

#[tokio::test]
async fn events_keep_no_listener_from_closing() {
    let (tell, events) = tokio::sync::mpsc::channel(1);
    let events = std::sync::Mutex::new(Some(events));
    let (listeners, route, _serving) = serving(
        &local("/"),
        By(move |_: &Request| answer::events(events.lock().unwrap().take().unwrap())),
    );
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (name, data) = ("test", "one".to_owned());
    tell.send(crate::Event { name, data }).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"data: one\n\n\r\n") {
        assert_ne!(caller.0.read_buf(&mut text).await.unwrap(), 0);
    }
    assert_eq!(listeners.shutdown(LONG).await, 0);
    caller.0.read_to_end(&mut text).await.unwrap();
    assert!(text.ends_with(b"0\r\n\r\n"));
    tell.closed().await;
}

#[tokio::test]
async fn shutdown_cuts_and_counts_what_does_not_end() {
    let gate = Arc::new(Gate::default());
    let listeners = Listeners::new();
    let route = listeners.route(&local("/"), "test").unwrap();
    let _serving = route.serve(Arc::new(Everybody), Arc::clone(&gate) as Arc<dyn Handler>);
    listeners.start();
    let mut caller = Caller::new(&route).await;
    caller.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    gate.entered.notified().await;
    assert_eq!(listeners.shutdown(Duration::from_millis(10)).await, 1);
    assert!(caller.is_closed().await);
}

#[tokio::test]
async fn a_handler_may_own_its_route() {
    struct Owner(Route);
    impl Handler for Owner {
        fn handle(self: Arc<Self>, _: Request) -> BoxFuture<Response> {
            Box::pin(async { answer::empty(StatusCode::NO_CONTENT) })
        }
    }
    let listeners = Listeners::new();
    let owner = Arc::new(Owner(listeners.route(&local("/"), "test").unwrap()));
    let address = owner.0.local_addr();
    let serving = owner
        .0
        .serve(Arc::new(Everybody), Arc::clone(&owner) as Arc<dyn Handler>);
    drop(owner);
    drop(serving);
    std::net::TcpListener::bind(address).expect("the port is free");
}

#[test]
fn limits_of_nothing_and_odd_paths_are_problems() {
    let mut listen = local("api");
    listen.max_connections = Some(0);
    listen.idle_timeout = Duration::ZERO;
    let mut problems = Problems::new(false);
    listen.validate(&mut problems);
    let paths: Vec<String> = problems.into_list().into_iter().map(|p| p.path).collect();
    assert_eq!(paths, ["path", "max_connections", "idle_timeout"]);
}
