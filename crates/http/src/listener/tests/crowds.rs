//! More callers than connections.

use super::*;

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
    // The kept connection is idle and has sent a request: silent ones are evicted before it.
    assert_eq!(kept.get("/").await.0, 200);
    assert!(silent[0].is_closed().await);
}
