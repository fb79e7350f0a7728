//! A real Prometheus behind the program, queried by real tools and through many reloads. `make
//! test` installs Prometheus and promtool.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metrifold_testing::edits::{edit, post_expecting, unwatched};
use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::{
    Deadline, Metrifold, StopOnPanic, encode, expect, fetch, request, run, until, until_so,
};

const RELOADS: usize = 1000;

/// A Prometheus that has scraped itself a few times, and a time within that.
fn scraped() -> (Prometheus, f64) {
    let prometheus = Prometheus::start(
        "global: { scrape_interval: 1s }\n\
         scrape_configs:\n  - job_name: self\n    static_configs: [{ targets: [SELF] }]\n",
    );
    let time = until("Prometheus has scraped itself", || {
        let time = now();
        let scrapes = prometheus.value("count_over_time(up[1m])", time);
        (scrapes > Some(4.0)).then_some(time)
    });
    // Later scrapes do not change the data up to that time.
    until_so("time passes", || now() > time + 1.5);
    (prometheus, time - 0.5)
}

fn gateway(prometheus: &Prometheus, sink: &str) -> String {
    let endpoint = prometheus.url();
    format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/prom\"\n\
         [sinks.prometheus]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{endpoint}\"\n{sink}\n"
    )
}

/// promtool's output by lines, sorted for series, whose order is undefined.
#[track_caller]
fn promtool(arguments: &[String]) -> Vec<String> {
    let output = run(Command::new("promtool").arg("query").args(arguments));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn promtool_hears_through_metrifold_what_prometheus_says() {
    let (prometheus, time) = scraped();
    let metrifold = Metrifold::start(&gateway(&prometheus, ""));
    let through = format!("http://{}/prom", metrifold.ingest);
    let (start, end) = (time as u64 - 3, time as u64);
    let questions = |server: &str| -> Vec<Vec<String>> {
        let words = |text: &str| {
            text.split(' ')
                .map(|it| it.replace("SERVER", server))
                .collect()
        };
        let mut questions: Vec<Vec<String>> = Vec::new();
        for expression in [
            r#"{job="self"}"#,
            "rate(prometheus_http_requests_total[5s])",
            "1/0",
            r#"{__name__=~"go_.+"}[5s]"#,
        ] {
            let mut instant: Vec<String> = words(&format!("instant --time={time} SERVER"));
            instant.push(expression.to_owned());
            questions.push(instant);
        }
        for expression in ["up", r#"{__name__=~"prometheus_.*"}"#] {
            let mut range: Vec<String> = words(&format!(
                "range --start={start} --end={end} --step=1s SERVER"
            ));
            range.push(expression.to_owned());
            questions.push(range);
        }
        questions.push(words(
            "series --match=up --match={__name__=~\"go_.*\"} SERVER",
        ));
        questions.push(words("labels SERVER __name__"));
        questions.push(words("labels SERVER job"));
        questions
    };
    let (direct, gateway) = (questions(&prometheus.url()), questions(&through));
    let mut lines = 0;
    for (direct, gateway) in direct.iter().zip(&gateway) {
        let expected = promtool(direct);
        assert!(!expected.is_empty(), "{direct:?}");
        assert_eq!(promtool(gateway), expected, "{gateway:?}");
        lines += expected.len();
    }
    println!("{} questions, {lines} lines", direct.len());
    let answered = [("component_id", "prometheus"), ("code", "200")];
    let answered = metrifold.metric("metrifold_component_queries_total", &answered);
    assert_eq!(answered, direct.len() as f64);

    // Queries that Prometheus refuses are refused in the same words.
    for query in ["query=up{", "query=sum(", "query=up&time=never", ""] {
        let target = format!("/api/v1/query?{}", query.replace('{', "%7B"));
        let expected = fetch(prometheus.address, &target).unwrap();
        let answer = fetch(metrifold.ingest, &format!("/prom{target}")).unwrap();
        assert_eq!((answer.status, answer.text()), (400, expected.text()));
    }
}

#[test]
fn a_thousand_reloads_cost_no_query() {
    let (prometheus, time) = scraped();
    let config = |reload: usize| {
        let header = format!("headers = {{ X-Reload = \"{reload}\" }}");
        gateway(&prometheus, &header)
    };
    let metrifold = unwatched(&config(0));
    let address = metrifold.ingest;
    let expression = encode(r#"sort(count by (__name__) ({job="self"}))"#);
    let target = format!("/api/v1/query?query={expression}&time={time}");
    let data = |answer: metrifold_testing::Answer| {
        expect(&answer, 200);
        let mut lines: Vec<_> = answer.json()["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        lines.sort_unstable();
        lines
    };
    let expected = data(fetch(prometheus.address, &target).unwrap());
    assert!(expected.len() > 100, "{}", expected.len());
    let target = format!("/prom{target}");
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let _guard = StopOnPanic(&stop);
                while !stop.load(Ordering::SeqCst) {
                    let answer = request("GET", address, &target, &[], b"").unwrap();
                    assert_eq!(data(answer), expected);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _guard = StopOnPanic(&stop);
        for reload in 1..=RELOADS {
            // Each reload happens under load, or the test has found a failure.
            let before = answered.load(Ordering::SeqCst);
            let deadline = Deadline::new("another query is answered");
            edit(&metrifold, &config(reload));
            post_expecting(&metrifold, 200, "applied: changed sinks.prometheus");
            while answered.load(Ordering::SeqCst) == before && !stop.load(Ordering::SeqCst) {
                deadline.pause();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let answered = answered.into_inner();
    println!("{RELOADS} reloads, {answered} queries");
    let counted = metrifold.metric(
        "metrifold_component_queries_total",
        &[("component_id", "prometheus"), ("code", "200")],
    );
    assert!(answered >= RELOADS);
    assert!(counted >= answered as f64, "{counted} of {answered}");
}
