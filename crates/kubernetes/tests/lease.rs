//! A lease that several instances compete for: one holds it, another takes over when the holder
//! dies, and no clock is trusted.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use metrifold_base::Problems;
use metrifold_kubernetes::{Cluster, ConnectKeys, Lease, LeaseKeys, LeaseOptions};
use metrifold_testing::Kubernetes;

fn cluster(server: &Kubernetes) -> Cluster {
    let keys: ConnectKeys = toml::from_str(&format!("api_server = {:?}", server.url())).unwrap();
    keys.cluster().unwrap()
}

fn lease(server: &Kubernetes, holder: &str) -> Lease {
    let options = LeaseOptions {
        duration: Duration::from_secs(1),
        deadline: Duration::from_millis(600),
        retry: Duration::from_millis(50),
        ..LeaseOptions::new("mon", "reconciler", holder)
    };
    Lease::new(&cluster(server), options)
}

fn spec(server: &Kubernetes) -> Value {
    let lease = server
        .state()
        .object("leases", "mon", "reconciler")
        .unwrap();
    lease["spec"].clone()
}

/// Attempts until the lease is held; returns how long that took.
async fn until_held(lease: &mut Lease) -> Duration {
    let started = Instant::now();
    let leadership = lease.leadership();
    while !leadership.is_held() {
        lease.attempt().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    started.elapsed()
}

#[tokio::test]
async fn one_of_two_holds_it_and_the_other_takes_it_when_it_is_not_renewed_any_more() {
    let server = Kubernetes::new();
    let (mut one, mut two) = (lease(&server, "one"), lease(&server, "two"));
    one.attempt().await.unwrap();
    two.attempt().await.unwrap();
    assert!(one.leadership().is_held());
    assert!(!two.leadership().is_held());
    assert_eq!(spec(&server)["holderIdentity"], "one");
    // The holder dies: its own deadline passes before the other instance takes the lease.
    let (first, second) = (one.leadership(), two.leadership());
    let took = until_held(&mut two).await;
    assert!(second.is_held() && !first.is_held());
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert_eq!(spec(&server)["holderIdentity"], "two");
    assert_eq!(spec(&server)["leaseTransitions"], 1);
    // The old holder returns and sees that another instance holds the lease.
    one.attempt().await.unwrap();
    assert!(!first.is_held());
}

#[tokio::test]
async fn a_term_ends_when_another_has_held_it_and_not_when_it_was_only_late() {
    let server = Kubernetes::new();
    let (mut one, mut two) = (lease(&server, "one"), lease(&server, "two"));
    assert_eq!(one.leadership().term(), None);
    one.attempt().await.unwrap();
    let first = one.leadership().term().unwrap();
    // Nobody takes it while it is not renewed in time.
    let leadership = one.leadership();
    while leadership.is_held() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(leadership.term(), None);
    one.attempt().await.unwrap();
    assert_eq!(leadership.term(), Some(first));
    // Another takes it and gives it back, of which the first sees nothing.
    until_held(&mut two).await;
    two.release().await.unwrap();
    one.attempt().await.unwrap();
    assert!(leadership.term().unwrap() > first);
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_at_once() {
    let server = Kubernetes::new();
    let (mut one, mut two) = (lease(&server, "one"), lease(&server, "two"));
    one.attempt().await.unwrap();
    two.attempt().await.unwrap();
    one.release().await.unwrap();
    assert!(!one.leadership().is_held());
    two.attempt().await.unwrap();
    assert!(two.leadership().is_held());
    // An instance that does not hold the lease cannot release it.
    one.release().await.unwrap();
    assert_eq!(spec(&server)["holderIdentity"], "two");
}

#[tokio::test]
async fn a_clock_that_is_wrong_neither_gains_nor_loses_it() {
    let server = Kubernetes::new();
    for time in ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
        // Held by an instance whose clock is years off, and that does not renew it.
        let object = json!({
            "metadata": { "name": "reconciler", "namespace": "mon" },
            "spec": { "holderIdentity": "far", "leaseDurationSeconds": 1, "renewTime": time,
                "acquireTime": time, "leaseTransitions": 3 },
        });
        server.put("leases", object);
        let mut one = lease(&server, "one");
        one.attempt().await.unwrap();
        assert!(!one.leadership().is_held(), "{time}");
        let took = until_held(&mut one).await;
        assert!(took >= Duration::from_millis(900), "{time}: {took:?}");
    }
}

#[tokio::test]
async fn a_holder_that_reaches_nobody_stops_in_time() {
    let server = Kubernetes::new();
    let mut one = lease(&server, "one");
    one.attempt().await.unwrap();
    server.state().down = true;
    let leadership = one.leadership();
    let mut failures = 0;
    while leadership.is_held() {
        failures += usize::from(one.attempt().await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(failures > 0);
    assert!(leadership.left().is_none());
    server.state().down = false;
    until_held(&mut one).await;
}

#[tokio::test]
async fn of_two_who_take_it_at_once_one_has_it() {
    let server = Kubernetes::new();
    for round in 0..20 {
        let mut wanted = Vec::new();
        for holder in ["one", "two", "three"] {
            let mut lease = lease(&server, &format!("{holder}-{round}"));
            wanted.push(tokio::spawn(async move {
                let _ = lease.attempt().await;
                lease
            }));
        }
        let mut held = Vec::new();
        for lease in wanted {
            let lease = lease.await.unwrap();
            if lease.leadership().is_held() {
                held.push(lease);
            }
        }
        assert_eq!(held.len(), 1, "round {round}");
        held[0].release().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_holder_leaves_is_read_by_the_next_and_who_has_lost_it_leaves_nothing() {
    let server = Kubernetes::new();
    let (mut one, mut two) = (lease(&server, "one"), lease(&server, "two"));
    assert_eq!(one.notes().await.unwrap(), None);
    // There is no lease yet.
    assert!(one.write_notes("early").await.is_err());
    one.attempt().await.unwrap();
    one.write_notes("of one").await.unwrap();
    one.attempt().await.unwrap();
    assert_eq!(two.notes().await.unwrap().as_deref(), Some("of one"));
    until_held(&mut two).await;
    assert_eq!(two.notes().await.unwrap().as_deref(), Some("of one"));
    assert!(one.write_notes("late").await.is_err());
    assert!(!one.leadership().is_held());
    two.write_notes("of two").await.unwrap();
    two.release().await.unwrap();
    assert_eq!(one.notes().await.unwrap().as_deref(), Some("of two"));
}

#[tokio::test]
async fn its_keys_say_where_it_is_and_how_long_it_is_good() {
    let server = Kubernetes::new();
    let read = |text: &str| -> LeaseKeys { toml::from_str(text).unwrap() };
    let keys = read(&format!(
        "name = \"reconciler\"\nnamespace = \"mon\"\nduration = \"1500ms\"\napi_server = {:?}",
        server.url()
    ));
    let mut lease = keys.lease("one").unwrap();
    lease.attempt().await.unwrap();
    assert_eq!(lease.shown(), "mon/reconciler");
    // Whole seconds, rounded up.
    assert_eq!(spec(&server)["leaseDurationSeconds"], 2);
    assert!(lease.leadership().left().unwrap() <= Duration::from_secs(1));
    let problems = |text: &str| {
        let mut problems = Problems::new(true);
        read(text).validate(&mut problems);
        format!("{problems:?}")
    };
    for (text, why) in [
        ("name = \"A/b\"", "not the name of a Lease"),
        (
            "name = \"a\"\napi_server = \"http://k\"",
            "is required with api_server",
        ),
        (
            "name = \"a\"\nnamespace = \"../x\"",
            "not the name of a namespace",
        ),
        ("name = \"a\"\nduration = \"10ms\"", "at least 1s"),
    ] {
        let told = problems(text);
        assert!(told.contains(why), "{text}: {told}");
    }
}
