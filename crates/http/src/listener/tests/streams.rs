//! Answers that are streamed, and callers that hang up meanwhile.

use super::*;

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
