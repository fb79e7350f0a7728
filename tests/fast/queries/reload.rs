//! Reloads while callers query.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use metrifold_testing::edits::{edit, post, post_expecting, unwatched};
use metrifold_testing::{
    Deadline, Does, Endpoint, Reply, Sender, StopOnPanic, expect, request, until_so,
};

use super::gateway;

/// A caller that sends queries by POST over one connection, or by GET over a new one each time.
fn querying(
    address: SocketAddr,
    kept: bool,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicUsize>,
) -> JoinHandle<()> {
    let (stop, answered) = (stop.clone(), answered.clone());
    std::thread::spawn(move || {
        let _guard = StopOnPanic(&stop);
        let mut sender = Sender::new(address);
        while !stop.load(Ordering::SeqCst) {
            let answer = match kept {
                true => sender.post("/api/v1/query", &[], b"query=up"),
                false => request("GET", address, "/api/v1/query?query=up", &[], b"").unwrap(),
            };
            expect(&answer, 200);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[test]
fn hundreds_of_reloads_cost_no_query() {
    const RELOADS: usize = 300;
    let answer = |seen: &metrifold_testing::Seen| {
        Reply::new(200).body(seen.header("x-reload").unwrap().to_owned())
    };
    let endpoints = [Endpoint::new(answer), Endpoint::new(answer)];
    let config = |reload: usize| {
        // A header changes each time, and now and then the endpoint, the sink's name and the
        // source.
        let header = format!("headers = {{ X-Reload = \"{reload}\" }}");
        let source = format!("max_concurrent = {}", 100 + reload / 5);
        let config = gateway(&source, &endpoints[reload / 2 % 2].url_of(""), &header);
        config.replace(
            "[sinks.upstream]",
            &format!("[sinks.upstream{}]", reload / 3),
        )
    };
    let gateway = unwatched(&config(0));
    let (stop, answered) = (Arc::default(), Arc::default());
    let callers =
        [true, true, false, false].map(|kept| querying(gateway.ingest, kept, &stop, &answered));
    let deadline = Deadline::new("all reloads are applied under load");
    for reload in 1..=RELOADS {
        let before = answered.load(Ordering::SeqCst);
        edit(&gateway, &config(reload));
        let outcome = post(&gateway);
        expect(&outcome, 200);
        assert!(
            outcome.text().starts_with("applied: "),
            "{}",
            outcome.text()
        );
        // From now on the new sink answers.
        let answer = request("GET", gateway.ingest, "/api/v1/query?query=up", &[], b"");
        assert_eq!(answer.unwrap().text(), reload.to_string());
        while answered.load(Ordering::SeqCst) == before && !stop.load(Ordering::SeqCst) {
            deadline.pause();
        }
    }
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().unwrap();
    }
    println!(
        "{RELOADS} reloads, {} queries",
        answered.load(Ordering::SeqCst)
    );
}

#[test]
fn a_query_that_is_under_way_ends_where_it_was_asked() {
    let old = Endpoint::new(|_| Does::Hang(Reply::new(200).body("old")));
    let new = Endpoint::new(|_| Reply::new(200).body("new"));
    let gateway = unwatched(&gateway("", &old.url_of(""), ""));
    let address = gateway.ingest;
    let query = move || request("GET", address, "/api/v1/query?query=up", &[], b"").unwrap();
    let waiting = std::thread::spawn(query);
    old.wait_requests(1);
    edit(&gateway, &super::gateway("", &new.url_of(""), ""));
    // The reload does not wait for the query.
    post_expecting(&gateway, 200, "applied: changed sinks.upstream");
    assert_eq!(query().text(), "new");
    assert!(!waiting.is_finished());
    old.release();
    assert_eq!(waiting.join().unwrap().text(), "old");
    assert_eq!((old.count(), new.count()), (1, 1));
}

#[test]
fn a_source_that_changes_answers_what_it_was_asked_before() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(200).body("late")));
    let config = |keys: &str| gateway(keys, &hanging.url_of(""), "");
    let gateway = unwatched(&config(""));
    let address = gateway.ingest;
    let waiting = std::thread::spawn(move || {
        request("GET", address, "/api/v1/query?query=up", &[], b"").unwrap()
    });
    hanging.wait_requests(1);
    edit(&gateway, &config("max_concurrent = 3"));
    post_expecting(&gateway, 200, "applied: changed sources.api");
    hanging.release();
    assert_eq!(waiting.join().unwrap().text(), "late");
    until_so("no query is under way", || {
        gateway.metric("metrifold_component_queries_in_flight", &[]) == 0.0
    });
}
