//! Real Prometheus servers as replicas, under the load of dashboards, with one fault at a time: no
//! query fails, and the strategies choose as documented.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrifold_testing::peers::{Prometheus, Thanos, Victoria, now};
use metrifold_testing::{
    Metrifold, Process, Sender, Series, StopOnPanic, body, encode, request, until_so,
};

/// Number of clients.
const CLIENTS: usize = 8;

/// Least number of queries per phase.
const QUERIES: usize = 400;

const SCRAPES_ITSELF: &str = "global: { scrape_interval: 1s }\n\
    scrape_configs:\n  - job_name: self\n    static_configs: [{ targets: [SELF] }]\n";

fn gateway(replicas: &[&Prometheus], keys: &str) -> Metrifold {
    let urls: Vec<String> = replicas.iter().map(|it| it.url()).collect();
    gateway_to(&urls, keys)
}

fn gateway_to(urls: &[String], keys: &str) -> Metrifold {
    let endpoints = urls.iter().map(|url| format!("{{ endpoint = \"{url}\" }}"));
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nreplicas = [{endpoints}]\n\
         probe = {{ interval = \"500ms\", timeout = \"500ms\" }}\n{keys}\n"
    ))
}

/// Queries of the clients, and failures.
#[derive(Default)]
struct Seen {
    queries: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// Sends the queries of dashboards until `stop`: panels of several dashboards, by GET and by POST.
fn ask(address: SocketAddr, client: usize, seen: &Seen, stop: &AtomicBool) {
    let _guard = StopOnPanic(stop);
    let mut n = client;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let end = now();
        let expressions = [
            "up",
            "sum(rate(prometheus_http_requests_total[1m])) by (handler)",
            "{__name__=~\"go_.*\"}",
        ];
        let query = encode(expressions[n % expressions.len()]);
        let form = format!("query={query}&start={}&end={end}&step=1", end - 60.0);
        let dashboard = format!("d{}", n % 5);
        let headers = [
            ("x-dashboard-uid", &*dashboard),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let answer = match n % 2 {
            0 => request(
                "POST",
                address,
                "/api/v1/query_range",
                &headers,
                form.as_bytes(),
            ),
            _ => {
                let target = format!("/api/v1/query_range?{form}");
                request("GET", address, &target, &headers[..1], b"")
            }
        };
        let failure = match answer {
            Ok(answer) if answer.status == 200 && answer.json()["status"] == "success" => None,
            Ok(answer) => Some(format!("{}: {}", answer.status, answer.text())),
            Err(error) => Some(error.to_string()),
        };
        seen.queries.fetch_add(1, Ordering::SeqCst);
        seen.failed.lock().unwrap().extend(failure);
    }
}

/// Runs clients against `gateway` while faults happen; fails with the first failure that a client
/// sees.
#[track_caller]
fn under_load(gateway: &Metrifold, faults: impl FnOnce(&dyn Fn(&str))) -> usize {
    let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let address = gateway.ingest;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (seen, stop) = (&seen, &stop);
            scope.spawn(move || ask(address, client, seen, stop));
        }
        let guard = StopOnPanic(&stop);
        faults(&|what: &str| {
            let before = seen.queries.load(Ordering::SeqCst);
            until_so(what, || {
                seen.queries.load(Ordering::SeqCst) >= before + QUERIES
            });
            let failed = seen.failed.lock().unwrap().clone();
            assert_eq!(failed, Vec::<String>::new(), "{what}");
        });
        stop.store(true, Ordering::SeqCst);
        drop(guard);
    });
    let failed = seen.failed.into_inner().unwrap();
    assert_eq!(failed, Vec::<String>::new());
    seen.queries.into_inner()
}

fn is_up(gateway: &Metrifold, replica: &Prometheus) -> bool {
    has(gateway, "metrifold_replica_up", &replica.url())
}

fn has(gateway: &Metrifold, metric: &str, url: &str) -> bool {
    gateway.metric(metric, &[("replica", url)]) == 1.0
}

/// Lets a process run for a twentieth of the time, as on a machine that others keep busy.
fn while_slow(process: &Process, act: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                process.signal("STOP");
                std::thread::sleep(Duration::from_millis(190));
                process.signal("CONT");
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let guard = StopOnPanic(&stop);
        act();
        stop.store(true, Ordering::SeqCst);
        drop(guard);
    });
}

/// Kill, restart with an empty store, pause, slowness: for each of the replicas in turn.
#[track_caller]
fn faults_cost_no_query(mut replicas: Vec<Prometheus>, keys: &str) {
    let all: Vec<&Prometheus> = replicas.iter().collect();
    let gateway = gateway(&all, keys);
    until_so("all are up", || all.iter().all(|it| is_up(&gateway, it)));
    let queries = under_load(&gateway, |goes_on| {
        goes_on("without a fault");
        for replica in &mut replicas {
            replica.process.kill();
            goes_on("one is killed");
            replica.start_empty();
            goes_on("it starts with nothing");
            until_so("it is back", || is_up(&gateway, replica));
            goes_on("it is back");
            replica.process.signal("STOP");
            goes_on("it is paused");
            until_so("its probes fail", || !is_up(&gateway, replica));
            goes_on("its probes fail");
            replica.process.signal("CONT");
            until_so("it is awake", || is_up(&gateway, replica));
            goes_on("it is awake");
            while_slow(&replica.process, || goes_on("it is slow"));
            goes_on("it is fast again");
        }
    });
    println!("{queries} queries, none failed");
}

#[test]
fn no_query_fails_through_single_faults_of_debian_s_prometheis() {
    let replicas = (0..3).map(|_| Prometheus::start(SCRAPES_ITSELF)).collect();
    let keys = "strategy = \"random\"\nhedge = { max_delay = \"300ms\" }\n\
                retry = { budget_percent = 100, budget_start = 100 }";
    faults_cost_no_query(replicas, keys);
}

#[test]
#[ignore = "needs a Prometheus 3, which `make live` builds"]
fn no_query_fails_through_single_faults_of_prometheis_3() {
    let replicas = (0..3)
        .map(|_| Prometheus::start_3(SCRAPES_ITSELF))
        .collect();
    let keys = "strategy = \"covering\"\nhedge = { max_delay = \"300ms\" }\n\
                retry = { budget_percent = 100, budget_start = 100 }";
    faults_cost_no_query(replicas, keys);
}

#[test]
fn first_fails_over_and_back_and_most_data_leaves_who_lost_its_data() {
    let mut first = Prometheus::start(SCRAPES_ITSELF);
    let second = Prometheus::start(SCRAPES_ITSELF);
    let served = |gateway: &Metrifold| -> Option<String> {
        let answer = request("GET", gateway.ingest, "/api/v1/query?query=up", &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-served-by").map(str::to_owned)
    };
    until_so("both have data", || {
        [&first, &second]
            .iter()
            .all(|it| it.value("count_over_time(up[1m])", now()) > Some(5.0))
    });
    let failover = gateway(&[&first, &second], "strategy = \"first\"");
    let most = gateway(&[&first, &second], "strategy = \"most_data\"");
    until_so("the first is asked", || {
        served(&failover) == Some(first.url())
    });
    first.process.kill();
    until_so("the second is asked", || {
        served(&failover) == Some(second.url())
    });
    first.start_empty();
    until_so("the first is asked again", || {
        served(&failover) == Some(first.url())
    });
    until_so("the one with data is asked", || {
        is_up(&most, &first) && served(&most) == Some(second.url())
    });
}

/// Servers that do not report which data they have: a query tells how far back it goes.
#[test]
#[ignore = "needs a Thanos, which `make live` builds"]
fn thanos_and_victoriametrics_are_replicas_like_any_other() {
    let (victoria, thanos) = (Victoria::start(), Thanos::start());
    let end = now() as i64;
    let writes = [victoria.write_url(), thanos.write_url()];
    for url in &writes {
        let (address, path) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        let mut sender = Sender::new(address.parse().unwrap());
        let headers = [("THANOS-TENANT", "t")];
        // `minimum_history` queries for `up`.
        for at in (end - 1200..=end).step_by(30) {
            let up = Series::new("up", &[(at * 1000, 7.0)]).label("job", "j");
            let answer = sender.post(&format!("/{path}"), &headers, &body(&[up]));
            assert!([200, 204].contains(&answer.status), "{}", answer.text());
        }
    }
    let urls = [victoria.url(), thanos.url()];
    // VictoriaMetrics shows the newest samples later.
    let target = format!("/api/v1/query?query=max(up)&time={}", end - 120);
    let found = |address: SocketAddr| {
        let answer = request("GET", address, &target, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["data"]["result"][0]["value"][1] == "7"
    };
    for url in &urls {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        until_so("it has the data", || found(address));
    }
    for strategy in [
        "random",
        "minimum_history",
        "most_data",
        "least_loaded",
        "covering",
        "merge",
    ] {
        let history = match strategy {
            "minimum_history" => "minimum_history = \"10m\"\n",
            _ => "",
        };
        let keys = format!("strategy = \"{strategy}\"\n{history}affinity = []");
        let gateway = gateway_to(&urls, &keys);
        let alone = strategy == "most_data";
        until_so("all that the strategy can select are selected", || {
            urls.iter().all(|url| {
                has(&gateway, "metrifold_replica_up", url)
                    && (alone || has(&gateway, "metrifold_replica_selected", url))
            })
        });
        for _ in 0..20 {
            assert!(found(gateway.ingest), "{strategy}");
        }
    }
}
