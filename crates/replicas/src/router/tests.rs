//! Tests of a router with scripted servers on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use http::StatusCode;
use http_body_util::BodyExt;

use metrifold_base::BoxFuture;
use metrifold_http::{
    Client, ClientConfig, ClientTls, Credentials, Everybody, Handler, Listen, Listeners, Methods,
    Request, Route, Serving,
};

use crate::replica::Upstream;

use super::*;

mod cached;
mod merged;

/// Behaviour of a server: makes an answer from the number of earlier queries.
type Does = Box<dyn Fn(usize) -> BoxFuture<Response> + Send + Sync>;

struct Server {
    does: Mutex<Does>,
    /// Answer to its probes: status and body.
    ready: Mutex<(u16, &'static str)>,
    asked: AtomicUsize,
}

struct Served {
    server: Arc<Server>,
    url: String,
    _parts: (Listeners, Route, Serving),
}

impl Handler for Server {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            if request.uri.path().ends_with("/-/ready") {
                let (status, text) = *locked(&self.ready);
                let mut answer = Response::new(text.into());
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                return answer;
            }
            if !request.uri.path().contains("/api/v1/query") {
                return answered(404, "");
            }
            let n = self.asked.fetch_add(1, Ordering::SeqCst);
            let doing = (locked(&self.does))(n);
            doing.await
        })
    }
}

fn answered(status: u16, text: &'static str) -> Response {
    let mut answer = Response::new(text.into());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// A server that answers immediately.
fn answers(status: u16, text: &'static str) -> Does {
    Box::new(move |_| Box::pin(async move { answered(status, text) }))
}

/// A server that never answers.
fn hangs() -> Does {
    Box::new(|_| Box::pin(std::future::pending()))
}

/// A server whose answers break off.
fn breaks() -> Does {
    Box::new(|_| {
        let broken = Broken(0);
        Box::pin(async move { Response::new(Body::stream(broken)) })
    })
}

/// A stream of one piece and an error.
struct Broken(usize);

impl http_body::Body for Broken {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>> {
        self.0 += 1;
        std::task::Poll::Ready(Some(match self.0 {
            1 => Ok(http_body::Frame::data("half".into())),
            _ => Err(std::io::Error::other("broken")),
        }))
    }
}

fn serve(does: Does) -> Served {
    let server = Arc::new(Server {
        does: Mutex::new(does),
        ready: Mutex::new((200, "Prometheus Server is Ready.\n")),
        asked: AtomicUsize::new(0),
    });
    let listeners = Listeners::new();
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listen = Listen::new(address, "/{*rest}").methods(Methods::GET.and(Methods::POST));
    let route = listeners.route(&listen, "test").unwrap();
    let serving = route.serve(Arc::new(Everybody), server.clone());
    listeners.start();
    Served {
        url: format!("http://{}", route.local_addr()),
        server,
        _parts: (listeners, route, serving),
    }
}

impl Served {
    fn now(&self, does: Does) {
        *locked(&self.server.does) = does;
    }

    fn asked(&self) -> usize {
        self.server.asked.load(Ordering::SeqCst)
    }
}

fn upstream() -> Arc<Upstream> {
    metrifold_http::install_crypto_provider();
    let config = ClientConfig {
        tls: ClientTls::default(),
        proxy_url: None,
        proxy_basic_auth: None,
        connections: 16,
        connect_timeout: Duration::from_secs(1),
        max_age: Duration::from_secs(60),
    };
    Arc::new(Upstream {
        client: Client::new(&config).unwrap(),
        credentials: Credentials::build(None, None, None).unwrap(),
        headers: HeaderMap::new(),
    })
}

/// Keys from TOML.
fn keys(text: &str) -> RoutingKeys {
    toml::from_str(text).unwrap()
}

fn router(text: &str, urls: &[&str]) -> Arc<Router> {
    let router = Router::new("r".into(), keys(text), &Telemetry::new()).unwrap();
    let upstream = upstream();
    let replica = |url: &&str| Replica::new(url, 1, upstream.clone()).unwrap();
    router.set(urls.iter().map(replica).collect());
    Arc::new(router)
}

fn ask() -> Ask {
    Ask {
        method: Method::GET,
        uri: Uri::from_static("/api/v1/query?query=up"),
        headers: HeaderMap::new(),
        body: Body::empty(),
        tenant: None,
        peer: Some([10, 0, 0, 1].into()),
        cookies: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

/// The status and text of an answer, and the replica that it names.
async fn asked(router: &Arc<Router>, ask: Ask) -> (u16, String, String) {
    match router.clone().ask(ask).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            let served = head.headers.get("x-served-by");
            let served = served.map(|it| it.to_str().unwrap().to_owned());
            let text = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(text.to_vec()).unwrap();
            (head.status.as_u16(), text, served.unwrap_or_default())
        }
        Err(rejection) => {
            let status = metrifold_http::rejection::status(rejection.kind);
            (status.as_u16(), rejection.reason, String::new())
        }
    }
}

/// Runs a test while the router probes, once each replica has been probed.
async fn probed<T>(router: &Arc<Router>, test: impl Future<Output = T>) -> T {
    tokio::select! {
        () = router.probe() => unreachable!("probes do not end"),
        done = async {
            let mut changed = router.changed.subscribe();
            while router.view().replicas.iter().any(|it| it.probes.is_empty()) {
                changed.changed().await.unwrap();
            }
            test.await
        } => done,
    }
}

fn nobody() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

#[tokio::test]
async fn a_query_is_answered_though_one_of_two_is_dead_or_always_fails() {
    let good = serve(answers(200, "good"));
    let failing = serve(answers(502, "bad"));
    let dead = nobody();
    for bad in [&*failing.url, &*dead] {
        let text = "strategy = \"random\"\nretry.budget_percent = 100\nmax_fails = 0";
        let router = router(text, &[bad, &good.url]);
        probed(&router, async {
            for _ in 0..50 {
                let (status, text, served) = asked(&router, ask()).await;
                assert_eq!((status, &*text, &*served), (200, "good", &*good.url));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn retries_stop_at_their_number_and_at_the_budget_and_the_last_word_is_passed_on() {
    let failing = [(); 4].map(|()| serve(answers(502, "the reason")));
    let urls: Vec<&str> = failing.iter().map(|it| &*it.url).collect();
    let all = || -> usize { failing.iter().map(Served::asked).sum() };
    let router = router(
        "retry.budget_start = 3\nretry.budget_percent = 0\nmax_fails = 0",
        &urls,
    );
    probed(&router, async {
        for (attempts, expected) in [(3, 3), (2, 5), (1, 6), (1, 7)] {
            let (status, text, _) = asked(&router, ask()).await;
            assert_eq!((status, &*text), (502, "the reason"));
            assert_eq!(all(), expected, "{attempts} attempts");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_query_is_no_failure_of_the_replica() {
    let odd = serve(Box::new(|_| {
        Box::pin(async {
            let mut answer = answered(503, "{\"errorType\":\"timeout\"}");
            let json = HeaderValue::from_static("application/json");
            answer
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, json);
            answer
        })
    }));
    let other = serve(answers(200, "other"));
    let router = router("affinity = []", &[&odd.url]);
    probed(&router, async {
        assert_eq!(asked(&router, ask()).await.0, 503);
        odd.now(answers(422, "bad query"));
        assert_eq!(asked(&router, ask()).await.0, 422);
        odd.now(answers(503, "Service Unavailable"));
        router.set(
            [&odd.url, &other.url]
                .map(|url| Replica::new(url, 1, upstream()).unwrap())
                .into(),
        );
    })
    .await;
    probed(&router, async {
        for _ in 0..10 {
            assert_eq!(
                asked(&router, ask()).await.0,
                200,
                "not ready: another is asked"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_at_its_beginning_is_asked_for_elsewhere() {
    let broken = serve(breaks());
    let good = serve(answers(200, "good"));
    let router = router(
        "retry.budget_percent = 100\nmax_fails = 0",
        &[&broken.url, &good.url],
    );
    probed(&router, async {
        for _ in 0..20 {
            assert_eq!(asked(&router, ask()).await.1, "good");
        }
    })
    .await;
    assert!(broken.asked() > 0);
}

#[tokio::test]
async fn a_query_that_hangs_is_sent_elsewhere_once_probes_fail() {
    let hanging = serve(hangs());
    let good = serve(answers(200, "good"));
    let text =
        "strategy = \"most_data\"\nprobe = { interval = \"20ms\", timeout = \"1s\", fall = 1 }";
    let router = router(text, &[&hanging.url, &good.url]);
    probed(&router, async {
        let waiting = asked(&router, ask());
        let failing = async {
            while hanging.asked() == 0 {
                tokio::task::yield_now().await;
            }
            *locked(&hanging.server.ready) = (503, "Service Unavailable");
        };
        let ((status, text, _), ()) = tokio::join!(waiting, failing);
        assert_eq!((status, &*text), (200, "good"));
    })
    .await;
    let counts = router.view().replicas[0].counts;
    assert_eq!((counts.retries, counts.in_flight), (1, 0));
}

#[tokio::test]
async fn a_slow_query_is_hedged_once_and_the_slow_one_is_given_up() {
    let slow = serve(hangs());
    let fast = serve(answers(200, "fast"));
    let text = "strategy = \"most_data\"\nhedge = { min_delay = \"1ms\", max_delay = \"5ms\" }\n\
                retry.budget_start = 1\nretry.budget_percent = 0";
    let router = router(text, &[&slow.url, &fast.url]);
    probed(&router, async {
        let (status, text, served) = asked(&router, ask()).await;
        assert_eq!((status, &*text, &*served), (200, "fast", &*fast.url));
        // The budget is used up: the next query waits for the slow replica.
        let late = Ask {
            deadline: Instant::now() + Duration::from_millis(100),
            ..ask()
        };
        assert_eq!(asked(&router, late).await.0, 504);
    })
    .await;
    let counts = router.view().replicas[0].counts;
    assert_eq!(
        (counts.hedges, counts.requests, counts.in_flight),
        (1, 2, 0)
    );
    assert_eq!(fast.asked(), 1);
}

#[tokio::test]
async fn a_retry_goes_to_neither_of_two_that_have_failed_the_query() {
    let late = || -> Does {
        Box::new(|_| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                answered(502, "bad")
            })
        })
    };
    let failing = [(); 2].map(|()| serve(late()));
    let good = serve(answers(200, "good"));
    let text = "strategy = \"random\"\naffinity = []\nmax_fails = 0\n\
                hedge = { min_delay = \"1ms\", max_delay = \"1ms\" }\n\
                retry = { max = 1, budget_percent = 100, budget_start = 100 }";
    let router = router(text, &[&failing[0].url, &failing[1].url, &good.url]);
    probed(&router, async {
        for _ in 0..30 {
            let (status, text, _) = asked(&router, ask()).await;
            assert_eq!((status, &*text), (200, "good"));
        }
    })
    .await;
}

#[tokio::test]
async fn first_retries_as_caddy_does_and_says_why_there_is_none() {
    let dead = nobody();
    let good = serve(answers(500, "its own error"));
    let text = "strategy = \"first\"\nretry = { interval = \"1ms\", duration = \"500ms\" }\n\
                probe = { interval = \"1h\" }";
    // Before a probe finds out, the dead replica gets requests until five have failed.
    let router = router(text, &[&dead, &good.url]);
    let (status, text, _) = asked(&router, ask()).await;
    assert_eq!(
        (status, &*text),
        (500, "its own error"),
        "a status is an answer"
    );
    let counts = router.view().replicas[0].counts;
    assert_eq!((counts.requests, counts.failures), (5, 5));
    assert_eq!(asked(&router, ask()).await.0, 500);
    assert_eq!(
        router.view().replicas[0].counts.requests,
        5,
        "it is left alone"
    );
    let none = super::tests::router("strategy = \"first\"\nretry.duration = \"0s\"", &[]);
    let (status, reason, _) = asked(&none, ask()).await;
    assert_eq!((status, &*reason), (502, "sink r: no replica is known"));
}

#[tokio::test]
async fn a_hung_replica_delays_neither_the_others_nor_their_probes() {
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = format!("http://{}", hung.local_addr().unwrap());
    let good = serve(answers(200, "good"));
    let text = "probe = { interval = \"10ms\", timeout = \"30s\" }";
    let router = router(text, &[&hung, &good.url]);
    let done = async {
        // The second is probed repeatedly while the first has not answered once.
        let mut changed = router.changed.subscribe();
        while router.view().replicas[1].probes.len() < 5 {
            changed.changed().await.unwrap();
        }
        assert_eq!(asked(&router, ask()).await.1, "good");
        assert_eq!(router.view().replicas[0].probes.len(), 0);
    };
    tokio::select! {
        () = router.probe() => unreachable!("probes do not end"),
        () = done => {}
    }
}

#[tokio::test]
async fn cookies_dashboards_and_addresses_keep_a_caller_at_its_replica() {
    let servers = [(); 4].map(|()| serve(answers(200, "x")));
    let urls: Vec<&str> = servers.iter().map(|it| &*it.url).collect();
    let text = "affinity = [\"dashboard\", \"cookie\", \"source_address\"]\ntrusted_hops = 1";
    let router = router(text, &urls);
    probed(&router, async {
        let of = |name: &'static str, value: String| {
            let mut ask = ask();
            ask.headers.insert(name, value.parse().unwrap());
            ask
        };
        for name in ["x-dashboard-uid", "x-forwarded-for"] {
            let mut owners = BTreeMap::new();
            for n in 0..60 {
                let value = || format!("10.1.1.{}", n % 20);
                let (.., served) = asked(&router, of(name, value())).await;
                let owner = owners.entry(n % 20).or_insert(served.clone());
                assert_eq!(*owner, served, "{name} {n}");
            }
        }
    })
    .await;
    // A query without affinity gets a cookie, which then binds.
    let router = super::tests::router("affinity = [\"cookie\"]", &urls);
    probed(&router, async {
        let answer = router.clone().ask(ask()).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let (pair, _) = cookie.split_once(';').unwrap();
        let pair = HeaderValue::from_str(pair).unwrap();
        let served = answer.headers()["x-served-by"].clone();
        for _ in 0..20 {
            let again = Ask {
                cookies: vec![pair.clone()],
                ..ask()
            };
            let answer = router.clone().ask(again).await.unwrap();
            assert_eq!(answer.headers()["x-served-by"], served);
            assert!(answer.headers().get("set-cookie").is_none());
        }
    })
    .await;
    let page = router.mpp_metrics();
    assert!(
        page.contains("mpp_affinity_hits{type=\"cookie\"} 20\n"),
        "{page}"
    );
    assert!(page.contains("mpp_selected_backends 4\n"), "{page}");
}

#[tokio::test]
async fn bodies_up_to_the_limit_are_sent_again_and_larger_ones_pass_once() {
    let echo = || -> Does { answers(200, "taken") };
    let good = serve(echo());
    let dead = nobody();
    let text = "strategy = \"first\"\nretry = { interval = \"1ms\", max_body_bytes = \"1KiB\" }\n\
                probe = { interval = \"1h\" }";
    for (length, status) in [(1024, 200), (1025, 502)] {
        let router = router(text, &[&dead, &good.url]);
        let post = Ask {
            method: Method::POST,
            body: Body::stream(Body::from(vec![b'x'; length])),
            ..ask()
        };
        assert_eq!(asked(&router, post).await.0, status, "{length}");
    }
}

#[tokio::test]
async fn federation_keeps_to_one_replica() {
    let replicas = [serve(answers(200, "x 1")), serve(answers(200, "x 2"))];
    let router = router("", &[&replicas[0].url, &replicas[1].url]);
    let ask = || Ask {
        uri: Uri::from_static("/federate?match[]=x"),
        ..ask()
    };
    probed(&router, async {
        let (_, first, _) = asked(&router, ask()).await;
        for _ in 0..20 {
            assert_eq!(asked(&router, ask()).await.1, first);
        }
    })
    .await;
}

#[tokio::test]
async fn the_status_page_shows_each_replica_and_its_reason() {
    let good = serve(answers(200, "good"));
    let dead = nobody();
    let router = router("probe.fall = 1", &[&good.url, &dead]);
    let page = probed(&router, async { router.status_page() }).await;
    for part in [
        &*good.url,
        &dead,
        "not available",
        "selected",
        "random",
        "Connection refused",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let view = serde_json::to_value(router.view()).unwrap();
    assert_eq!(view["replicas"][0]["selected"], true);
    assert_eq!(view["replicas"][1]["available"], false);
}
