//! Requests with the data of several senders: one of them must not cost the others anything.

use std::net::Ipv4Addr;

use super::*;

/// A batch of one series, from an address of its own for each first letter.
fn of_peer(name: &str) -> Batch {
    let mut batch = named(&[name]);
    let mut origin = Origin::internal("test".into());
    origin.peer = Some(Ipv4Addr::new(10, 0, 0, name.as_bytes()[0]).into());
    let body = batch.body(Version::V1).unwrap();
    let mut batch = Batch::from_body(Version::V1, body, Limits::default(), Arc::new(origin));
    batch.count().unwrap();
    batch
}

/// A sink whose endpoint fails once, so that batches queue up, and then answers what `verdict` says
/// of requests with a series `bad`.
fn with_verdict(verdict: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Running {
    Running::new(
        move |asked, number| match asked.names.iter().any(|name| name == "bad") {
            _ if number == 0 => failed(Failure::Broken),
            true => verdict(asked),
            false => Answer::Stored,
        },
    )
}

/// Sends all at once, and returns what each sender hears.
async fn send_all(running: &Running, names: &[&str]) -> Vec<Outcome> {
    let waiters: Vec<_> = names
        .iter()
        .map(|name| running.feed.send(of_peer(name)))
        .collect();
    let mut outcomes = Vec::new();
    for mut waiter in waiters {
        outcomes.push(waiter.verdict().await);
    }
    outcomes
}

fn mixed(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| asked.names.len() > 1).count()
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_share_a_request() {
    let running = with_verdict(|_| refused(RefusalClass::Content));
    let outcomes = send_all(&running, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    assert_eq!(outcomes, vec![Outcome::Delivered; 8]);
    let asked = running.asked();
    assert!(mixed(&asked) > 0, "{asked:?}");
    assert!(asked.len() < 8, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn each_sender_hears_what_became_of_its_own() {
    for verdict in [
        refused(RefusalClass::Content),
        Answer::Partly("endpoint answered 409".into(), None),
    ] {
        let running = with_verdict(move |_| verdict.clone());
        let names = ["a", "b", "bad", "d", "e", "f"];
        for round in 0..2 {
            let outcomes = send_all(&running, &names).await;
            for (name, outcome) in names.iter().zip(&outcomes) {
                let fine = *outcome == Outcome::Delivered;
                assert_eq!(fine, *name != "bad", "{round}, {name}: {outcome:?}");
            }
        }
        // One request showed it, and for a while everybody is sent alone.
        let asked = running.asked();
        assert_eq!(mixed(&asked[1..]), 1, "{asked:?}");
        tokio::time::sleep(Duration::from_secs(61)).await;
        let before = running.asked().len();
        let outcomes = send_all(&running, &["x"; 12]).await;
        assert_eq!(outcomes, vec![Outcome::Delivered; 12]);
        assert!(mixed(&running.asked()[before..]) > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_makes_the_endpoint_fail_holds_up_nobody_else() {
    let running = with_verdict(|_| failed(Failure::ServerError));
    let start = Instant::now();
    let bad = running.feed.send(of_peer("bad"));
    let outcomes = send_all(&running, &["a", "c", "d", "e", "f", "g"]).await;
    assert_eq!(
        outcomes,
        vec![Outcome::Delivered; 6],
        "{:?}",
        running.asked()
    );
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let asked = running.asked();
    assert!(mixed(&asked[1..]) <= 1, "{asked:?}");
    drop(bad);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_be_sent_again_has_one_sender() {
    let running = Running::of(false, |asked, number| {
        match asked.names.iter().any(|name| name == "bad") {
            _ if number == 0 => failed(Failure::Broken),
            true => refused(RefusalClass::Whole),
            false => Answer::Stored,
        }
    });
    let outcomes = send_all(&running, &["a", "bad", "c"]).await;
    let fine: Vec<_> = outcomes
        .iter()
        .map(|it| *it == Outcome::Delivered)
        .collect();
    assert_eq!(fine, [true, false, true]);
    assert_eq!(mixed(&running.asked()), 0);
    let bad = running.asked();
    let bad = bad.iter().filter(|asked| asked.names == ["bad"]);
    assert!(bad.count() <= 2, "after the failure of the endpoint");
}
