//! Callers that are slow, silent or gone half-way: their time and bytes are bounded.

use super::*;

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
