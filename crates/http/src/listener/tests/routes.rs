//! Which request reaches which handler.

use super::*;

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
        ("OPTIONS", 405, "\"send GET, HEAD or PUT\""),
        ("BREW", 405, "\"send GET, HEAD or PUT\""),
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
