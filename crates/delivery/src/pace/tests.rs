use super::*;

fn pace(least: usize, most: usize) -> Pace {
    let retry = Retry {
        min_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        max_age: Duration::from_secs(3600),
        refusals_per_second: 50,
    };
    Pace::new(least, most, retry, Gauge::noop())
}

impl Pace {
    fn limit(&self) -> usize {
        self.state().limit as usize
    }

    fn is_paused(&self) -> bool {
        let until = self.state().until;
        until.is_some_and(|until| until > Instant::now())
    }
}

/// Collects all permits that are available at once.
async fn permits(pace: &Pace) -> Vec<Permit<'_>> {
    let mut permits = Vec::new();
    while let Ok(permit) = tokio::time::timeout(Duration::ZERO, pace.permit()).await {
        permits.push(permit);
    }
    permits
}

async fn round(pace: &Pace) {
    let permits = permits(pace).await;
    let sending: Vec<_> = permits.iter().map(Permit::sending).collect();
    for _ in &sending {
        pace.succeeded(None);
    }
}

fn tenant(name: &str) -> Tenant {
    name.into()
}

#[tokio::test(start_paused = true)]
async fn connections_grow_while_all_are_busy_and_up_to_the_bound() {
    let pace = pace(1, 8);
    assert_eq!(pace.limit(), FIRST);
    for _ in 0..10 {
        round(&pace).await;
    }
    assert_eq!(pace.limit(), 8);
    assert_eq!(permits(&pace).await.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_not_needed_go_one_by_one() {
    let pace = pace(2, 8);
    for seconds in [11, 11, 11] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        let permit = pace.permit().await;
        let sending = permit.sending();
        pace.succeeded(None);
        drop(sending);
    }
    assert_eq!(pace.limit(), 2);
}

#[tokio::test(start_paused = true)]
async fn trouble_halves_them_down_to_the_bound_and_429_does_not() {
    let pace = pace(3, 100);
    for _ in 0..40 {
        round(&pace).await;
    }
    let before = pace.limit();
    assert!(before > 20, "{before}");
    pace.failed(Some(&tenant("a")), Failure::TooMuch, None);
    assert_eq!(pace.limit(), before);
    pace.failed(Some(&tenant("a")), Failure::Broken, None);
    assert_eq!(pace.limit(), before, "others may do well");
    pace.failed(Some(&tenant("a")), Failure::Broken, None);
    assert_eq!(pace.limit(), before / 2);
    for _ in 0..9 {
        pace.failed(Some(&tenant("a")), Failure::Broken, None);
    }
    assert_eq!(pace.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_tenants_pauses_grow_and_concern_nobody_else() {
    let pace = pace(1, 4);
    let pause = |name: &str| {
        let trouble = pace.failed(Some(&tenant(name)), Failure::Broken, None);
        assert!(!trouble.everybody);
        trouble.tenant.unwrap() - Instant::now()
    };
    let ms = Duration::from_millis;
    for (least, most) in [(50, 100), (100, 200), (200, 400), (400, 800), (500, 1000)] {
        let pause = pause("a");
        assert!(pause >= ms(least) && pause <= ms(most), "{pause:?}");
        assert!(!pace.is_paused());
        tokio::time::advance(ms(1000)).await;
    }
    assert!(pause("b") <= ms(100));
    tokio::time::advance(ms(1000)).await;
    pace.succeeded(Some(&tenant("a")));
    assert!(pause("a") <= ms(100), "begins anew");
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_says_when_to_come_again() {
    let pace = pace(1, 4);
    let after = Duration::from_secs(70);
    for failure in [Failure::TooMuch, Failure::Broken] {
        let trouble = pace.failed(Some(&tenant("a")), failure, Some(after));
        assert_eq!(trouble.tenant, Some(Instant::now() + after));
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_is_reached_everybody_waits_longer_and_longer() {
    let pace = pace(1, 4);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        // Failures of requests that were in flight together count once.
        for name in ["a", "b", "c"] {
            let trouble = pace.failed(Some(&tenant(name)), Failure::Unreachable, None);
            assert_eq!((trouble.everybody, trouble.tenant), (true, None));
        }
        assert!(pace.is_paused());
        drop(pace.permit().await);
        waits.push(start.elapsed());
    }
    assert!(waits[0] <= Duration::from_millis(101), "{waits:?}");
    assert!(waits[2] >= Duration::from_millis(200), "{waits:?}");
    pace.failed(None, Failure::Unreachable, None);
    assert!(pace.is_paused());
    pace.succeeded(None);
    assert!(!pace.is_paused(), "who had an answer ends it for all");
}

#[tokio::test(start_paused = true)]
async fn errors_for_one_tenant_after_the_other_are_the_endpoints() {
    let pace = pace(1, 4);
    for _ in 0..10 {
        pace.failed(Some(&tenant("a")), Failure::Broken, None);
    }
    assert!(!pace.is_paused(), "it is but one");
    let others = |count: usize| {
        for number in 0..count {
            let name = tenant(&number.to_string());
            pace.failed(Some(&name), Failure::Broken, None);
        }
    };
    others(TENANTS_IN_A_ROW - 2);
    pace.succeeded(Some(&tenant("c")));
    others(TENANTS_IN_A_ROW - 1);
    assert!(!pace.is_paused(), "somebody had an answer meanwhile");
    others(1);
    assert!(pace.is_paused());
}

#[tokio::test(start_paused = true)]
async fn no_more_tenants_are_remembered_than_there_are_to_be() {
    let pace = pace(1, 4);
    for number in 0..TENANTS_MAX + 100 {
        let name = tenant(&number.to_string());
        pace.failed(Some(&name), Failure::TooMuch, None);
    }
    assert_eq!(pace.state().tenants.len(), TENANTS_MAX);
    tokio::time::advance(LONGEST_TURN + Duration::from_secs(2)).await;
    pace.failed(Some(&tenant("new")), Failure::TooMuch, None);
    assert_eq!(pace.state().tenants.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_makes_way_for_another_one() {
    let pace = pace(1, 3);
    for _ in 0..10 {
        pace.failed(None, Failure::Broken, None);
    }
    assert_eq!(pace.limit(), 1);
    let hang = || async {
        let permit = pace.permit().await;
        let mut sending = permit.sending();
        sending.wait_for(std::future::pending::<()>()).await;
    };
    let start = Instant::now();
    let mut hanging = std::pin::pin!(async { tokio::join!(hang(), hang()) });
    let last = tokio::select! {
        biased;
        _ = &mut hanging => unreachable!("nobody answers"),
        last = pace.permit() => last,
    };
    assert_eq!(start.elapsed(), 2 * PATIENCE);
    assert!(last.holds());
    let mut sending = last.sending();
    tokio::select! {
        _ = &mut hanging => unreachable!("nobody answers"),
        () = sending.wait_for(tokio::time::sleep(2 * PATIENCE)) => {}
        _ = pace.permit() => panic!("there are no more than three"),
    }
    drop(sending);
    assert!(last.holds(), "two have made way");
    let state = pace.state();
    assert_eq!((state.sending, state.slow), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_more_tenants_an_endpoint_says_no_to_the_longer_each_pauses() {
    let pace = pace(1, 4);
    let start = Instant::now();
    let until = |name: &str, after| {
        let trouble = pace.failed(Some(&tenant(name)), Failure::TooMuch, after);
        trouble.tenant.unwrap()
    };
    let second = Some(Duration::from_secs(1));
    for number in 0..500_u32 {
        let turn = Duration::from_millis(20) * number.saturating_sub(50);
        let until = until(&number.to_string(), second);
        assert_eq!(until, start + Duration::from_secs(1) + turn);
    }
    // Requests that were in flight together share one turn.
    let again = until("0", second);
    assert_eq!(again, start + Duration::from_secs(1));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(until("alone", second), start + Duration::from_secs(21));
    for number in 0..20_000_u32 {
        until(&number.to_string(), None);
    }
    assert!(until("last", None) <= Instant::now() + LONGEST_TURN + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_told_with_whose_trouble_it_was() {
    let pace = pace(1, 4);
    let (a, b) = (tenant("a"), tenant("b"));
    let secs = |secs| tokio::time::advance(Duration::from_secs(secs));
    let recovery = |tenant: Option<&Tenant>, secs| {
        Some(Recovery {
            tenant: tenant.cloned(),
            after: Duration::from_secs(secs),
        })
    };
    assert_eq!(pace.succeeded(Some(&a)), None);
    pace.failed(Some(&a), Failure::Broken, None);
    secs(40).await;
    pace.failed(Some(&a), Failure::Broken, None);
    secs(3).await;
    assert_eq!(pace.succeeded(Some(&b)), None, "his trouble is another's");
    assert_eq!(pace.succeeded(Some(&a)), recovery(Some(&a), 43));
    assert_eq!(pace.succeeded(Some(&a)), None, "once");

    pace.failed(Some(&a), Failure::TooMuch, None);
    secs(5).await;
    assert_eq!(pace.succeeded(Some(&a)), None, "it was well");

    pace.failed(Some(&a), Failure::Unreachable, None);
    secs(7).await;
    assert_eq!(pace.succeeded(Some(&b)), recovery(None, 7));

    for number in 0..TENANTS_IN_A_ROW {
        let name = tenant(&number.to_string());
        pace.failed(Some(&name), Failure::Broken, None);
    }
    secs(9).await;
    assert_eq!(pace.succeeded(Some(&tenant("3"))), recovery(None, 9));
    assert_eq!(pace.succeeded(Some(&tenant("4"))), None, "that is known");

    pace.failed(None, Failure::Broken, None);
    secs(2).await;
    assert_eq!(pace.succeeded(None), recovery(None, 2));
}
