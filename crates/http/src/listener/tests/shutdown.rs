//! The end of a listener with requests under way.

use super::*;

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
