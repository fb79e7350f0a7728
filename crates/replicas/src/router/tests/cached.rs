//! Range queries that are answered from memory, or asked for in parts.

use super::*;

/// A server that answers a range query with the time of each step, and counts its queries.
#[derive(Default)]
struct Clock {
    asked: AtomicUsize,
    /// Parameters of the last query.
    last: Mutex<String>,
}

impl Handler for Clock {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let n = self.asked.fetch_add(1, Ordering::SeqCst);
            let query = request.uri.query().unwrap_or_default();
            query.clone_into(&mut locked(&self.last));
            let form = metrifold_http::form::Form::parse(query).unwrap();
            let number =
                |name: &'static str| -> f64 { form.values(name).next().unwrap().parse().unwrap() };
            let (start, end, step) = (number("start"), number("end"), number("step"));
            let mut points = Vec::new();
            let mut time = start;
            while time <= end {
                points.push(format!("[{time},\"{}\"]", time * 2.0));
                time += step;
            }
            assert!(n < 1000);
            let text = format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{{\"metric\":{{}},\"values\":[{}]}}]}}}}",
                points.join(",")
            );
            Response::new(text.into())
        })
    }
}

#[tokio::test]
async fn range_queries_ask_for_what_is_not_known_and_say_the_same() {
    let clock = Arc::new(Clock::default());
    let listeners = Listeners::new();
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let route = listeners
        .route(&Listen::new(address, "/{*rest}"), "test")
        .unwrap();
    let _serving = route.serve(Arc::new(Everybody), clock.clone());
    listeners.start();
    let url = format!("http://{}", route.local_addr());
    let off = "strategy = \"first\"\nprobe.interval = \"0s\"";
    let whole = router(&format!("{off}\ncache = {{}}"), &[&url]);
    let split = format!("{off}\ncache = {{ split = \"1m\", max_parallel = 2 }}");
    let split = router(&split, &[&url]);
    let plain = router(off, &[&url]);
    let range = |start: i64, end: i64, step: i64, query: &str| {
        let target =
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}");
        Ask {
            uri: target.parse().unwrap(),
            ..ask()
        }
    };
    let mut seed = 7u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((seed >> 33) % below) as i64
    };
    let mut saved = 0;
    for number in 0..200 {
        let cached = [&whole, &split][number % 2];
        let start = 1000 + draw(50) * 10;
        let end = start + draw(40) * 10 + 3;
        let query = ["x", "rate(y[5m])", "z+offset+-1h"][draw(3) as usize];
        let step = [10, 20][draw(2) as usize];
        let before = clock.asked.load(Ordering::SeqCst);
        let (_, text, _) = asked(cached, range(start, end, step, query)).await;
        let asked_for = clock.asked.load(Ordering::SeqCst) - before;
        let (_, expected, _) = asked(&plain, range(start, end, step, query)).await;
        let points = |text: &str| -> serde_json::Value {
            let answer: serde_json::Value = serde_json::from_str(text).unwrap();
            let points = &answer["data"]["result"][0]["values"];
            // 1010 and 1010.000 are the same time.
            let point = |it: &serde_json::Value| (it[0].as_f64().unwrap() * 1000.0, it[1].clone());
            points
                .as_array()
                .unwrap()
                .iter()
                .map(point)
                .map(|(t, v)| serde_json::json!([t, v]))
                .collect()
        };
        assert_eq!(
            points(&text),
            points(&expected),
            "{query} {start} {end} {step}"
        );
        saved += usize::from(asked_for == 0);
    }
    assert!(saved > 40, "{saved} were answered from memory");
    for cached in [&whole, &split] {
        let view = cached.view().cache.unwrap();
        assert!(view.hits > 20 && view.partial > 5, "{view:?}");
    }
    // The end may lie between two steps, which Prometheus may have a warning about: it is kept.
    asked(&whole, range(5000, 5043, 10, "unknown")).await;
    let last = locked(&clock.last).clone();
    assert!(last.split('&').any(|it| it == "end=5043"), "{last}");
    // No more series than `limit` are in an answer, which parts of it do not know.
    for _ in 0..2 {
        let before = clock.asked.load(Ordering::SeqCst);
        asked(&split, range(9_000, 9_595, 10, "x&limit=1")).await;
        assert_eq!(clock.asked.load(Ordering::SeqCst), before + 1);
    }
    // Recent steps are queried every time.
    let now = crate::time::epoch_ms() / 10_000 * 10;
    for _ in 0..3 {
        let before = clock.asked.load(Ordering::SeqCst);
        asked(&whole, range(now - 100, now, 10, "fresh")).await;
        assert_eq!(clock.asked.load(Ordering::SeqCst), before + 1);
    }
    // Ten minutes are ten parts; a query with too many steps is the replica's to refuse.
    for (start, end, parts) in [(9_000, 9_595, 10), (20_000, 140_000, 1)] {
        let before = clock.asked.load(Ordering::SeqCst);
        asked(&split, range(start, end, 10, "parts")).await;
        assert_eq!(clock.asked.load(Ordering::SeqCst), before + parts);
    }
}

#[tokio::test]
async fn what_several_want_at_the_same_time_is_asked_for_once() {
    let server = serve(Box::new(|_| {
        Box::pin(async {
            let text =
                "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}";
            Response::new(text.into())
        })
    }));
    let router = router(
        "strategy = \"first\"\nprobe.interval = \"0s\"\ncache = {}",
        &[&server.url],
    );
    let range = || Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        ..ask()
    };
    // All three are in flight before the first answer.
    let (a, b, c) = tokio::join!(
        asked(&router, range()),
        asked(&router, range()),
        asked(&router, range())
    );
    assert_eq!((a.0, &a.1), (200, &b.1));
    assert_eq!(b.1, c.1);
    assert_eq!(server.asked(), 1);
    // Another tenant's query is a different query.
    let other = Ask {
        tenant: Some("other".into()),
        ..range()
    };
    assert_eq!(asked(&router, other).await.0, 200);
    assert_eq!(server.asked(), 2);
    // So is one with a header that may choose the data, and one that wants no cached answer.
    for (name, value, expected) in [
        ("x-account", "a", 3),
        ("x-account", "b", 4),
        ("x-account", "a", 4),
        ("x-prometheus-option", "a", 5),
        ("x-dashboard-uid", "d", 5),
        ("traceparent", "t", 5),
        ("cache-control", "max-age=0, no-store", 6),
        ("cache-control", "max-age=0", 6),
    ] {
        let mut ask = range();
        ask.headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(asked(&router, ask).await.0, 200);
        assert_eq!(server.asked(), expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn the_deadline_of_one_caller_is_no_failure_of_another() {
    let server = serve(Box::new(|n| {
        Box::pin(async move {
            if n == 0 {
                std::future::pending::<()>().await;
            }
            answered(200, "late")
        })
    }));
    let router = router(
        "strategy = \"random\"\nprobe.interval = \"0s\"\ncache = {}",
        &[&server.url],
    );
    let range = |secs: f64| Ask {
        uri: Uri::from_static("/api/v1/query_range?query=x&start=1&end=5&step=1"),
        deadline: Instant::now() + Duration::from_secs_f64(secs),
        ..ask()
    };
    let (short, long) = tokio::join!(asked(&router, range(0.2)), asked(&router, range(20.0)));
    assert_eq!(short.0, 504, "{}", short.1);
    assert_eq!((long.0, &*long.1), (200, "late"));
}
