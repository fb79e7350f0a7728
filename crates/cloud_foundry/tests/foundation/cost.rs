//! Number of requests, and the pace that the platform asks for.

use super::*;

#[tokio::test]
async fn a_refresh_costs_few_requests_and_fewer_between_those_of_metadata() {
    let foundation = CloudFoundry::new();
    for number in 0..300 {
        let route = format!("a{number}.example.org");
        foundation.push(&format!("o{}/s/a{number}", number % 7), &[&route], 2);
    }
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.first().await.targets().len(), 600);
    let asked = foundation.asked();
    let lists: Vec<&String> = asked
        .iter()
        .filter(|it| it.contains("per_page=5000"))
        .collect();
    assert_eq!(
        lists[0],
        "/v3/apps?per_page=5000&page=1&include=space.organization"
    );
    assert_eq!(lists[1], "/v3/routes?per_page=5000&page=1&include=domain");
    assert_eq!(lists[2], "/v3/service_route_bindings?per_page=5000&page=1");
    assert_eq!(
        lists[3],
        "/v3/processes?per_page=5000&page=1&embed=process_instances&types=web"
    );

    drop(running);

    // Between reads of the metadata, a refresh is one request, until an application is added.
    let keys = format!("{AS_ADMIN}metadata_interval = \"1h\"\n");
    let running = Running::new(&foundation, &keys);
    running.next().await;
    foundation.controller.take();
    running.next().await;
    let asked = foundation.controller.take();
    assert!(asked.len() >= 2);
    assert!(
        asked.iter().all(|it| it.path.starts_with("/v3/processes?")),
        "{asked:?}"
    );
    foundation.push("o1/s/new", &["new.example.org"], 1);
    assert_eq!(running.targets().await.len(), 601);
    let guid = foundation.state().apps[0].guid.clone();
    foundation.state().process(&guid).scale(3);
    assert_eq!(running.targets().await.len(), 602);
    drop(running);

    // A narrow selector leads to narrow requests.
    foundation.controller.take();
    let keys = format!("{AS_ADMIN}[[select]]\norganization = \"o3\"\napplication = \"a3\"");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.first().await.targets().len(), 2);
    let asked = foundation.controller.take().into_iter().map(|it| it.path);
    let asked: Vec<String> = asked.collect();
    let narrow = |list: &str, by: &str| {
        let list = format!("/v3/{list}?");
        let found = asked.iter().find(|it| it.starts_with(&list)).unwrap();
        assert!(found.contains(by), "{found}");
    };
    narrow("organizations", "names=o3");
    narrow("apps", "organization_guids=");
    narrow("routes", "app_guids=");
    narrow("processes", "app_guids=");
}

#[tokio::test]
async fn platforms_that_ignore_what_they_do_not_support_are_read_as_well() {
    let foundation = CloudFoundry::new();
    foundation.push("o/s/a", &["a.example.org", "a.apps.inside"], 2);
    let running = Running::new(&foundation, AS_ADMIN);
    let all = running.urls().await;
    assert_eq!(all.len(), 2);
    drop(running);
    foundation.state().manner.lax = true;
    for status in [None, Some(400), Some(404), Some(405), Some(501)] {
        foundation.state().manner.no_route_bindings = status;
        let running = Running::new(&foundation, AS_ADMIN);
        assert_eq!(running.urls().await, all, "{status:?}");
        assert!(running.slot.status().last_error.is_none());
    }
    // A list that fails is one that the platform has.
    foundation.state().manner.no_route_bindings = Some(500);
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.first().await.targets().len(), 0);
    assert!(running.slot.status().last_error.is_some());
}

#[tokio::test]
async fn without_states_in_lists_few_processes_are_asked_for_theirs() {
    let foundation = CloudFoundry::new();
    foundation.state().manner.embeds = false;
    let mut guids = Vec::new();
    for number in 0..30 {
        let route = format!("a{number}.example.org");
        guids.push(foundation.push(&format!("o/s/a{number}"), &[&route], 1));
    }
    let keys = format!("{AS_ADMIN}max_stats_requests = 10\n");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.first().await.targets().len(), 30);
    let stats = |asked: Vec<String>| asked.iter().filter(|it| it.ends_with("/stats")).count();
    assert_eq!(stats(foundation.asked()), 10);
    // Changed processes are requested first.
    foundation.state().process(&guids[29]).scale(2);
    foundation.state().process(&guids[29]).set(1, "CRASHED");
    let targets = running.targets().await;
    assert_eq!(targets.len(), 30);
}

#[tokio::test]
async fn without_states_in_lists_processes_are_listed_at_each_refresh_whatever_the_limit() {
    let foundation = CloudFoundry::new();
    // 4 requests in each 150 ms.
    let (limit, minute) = (1600, Duration::from_secs(60));
    {
        let mut state = foundation.state();
        state.manner.embeds = false;
        state.manner.published_limit = Some((limit, 1));
        state.manner.rate_limit = Some(limit);
        state.manner.window = minute;
        for number in 0..30 {
            let route = format!("a{number}.example.org");
            state.push(&format!("o/s/a{number}"), &[&route], 1);
        }
    }
    let last = foundation.state().apps[29].guid.clone();
    let keys = format!("{AS_ADMIN}rate_limit_share = 100\nmetadata_interval = \"1h\"\n");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.first().await.targets().len(), 30);
    running.next().await;
    let mut attempts = running.slot.attempts();
    let before = *attempts.borrow();
    foundation.controller.take();
    foundation.state().process(&last).scale(3);
    let further = attempts.wait_for(|it| *it >= before + 6);
    timeout(Duration::from_secs(30), further)
        .await
        .unwrap()
        .unwrap();
    let paths = foundation.controller.take().into_iter().map(|it| it.path);
    let (stats, lists): (Vec<String>, Vec<String>) = paths.partition(|it| it.ends_with("/stats"));
    assert!(lists.len() >= 5, "{lists:?}");
    // Some per refresh; those in progress at either end are counted as well.
    assert!(stats.len() + 1 >= lists.len(), "{stats:?}");
    assert!(stats.len() <= 3 * (lists.len() + 1), "{stats:?}");
    assert_eq!(running.slot.snapshot().targets().len(), 32);
    // In the course of time all are asked for.
    foundation.state().process(&last).set(2, "CRASHED");
    let crashed = timeout(Duration::from_secs(30), async {
        while running.targets().await.len() != 31 {}
    });
    crashed.await.unwrap();
}

#[tokio::test]
async fn a_platform_that_asks_for_a_pause_gets_it() {
    let foundation = example();
    foundation.state().manner.rate_limit = Some(4);
    let running = Running::new(
        &foundation,
        "rate_limit_share = 100\nusername = \"admin\"\npassword = \"geheim\"\n",
    );
    let all = urls(running.first().await.targets());
    assert_eq!(all.len(), 6);
    // The limit is published: the next refresh would exceed it, and waits for its reset.
    let before = foundation.requests();
    let mut attempts = running.slot.attempts();
    attempts.borrow_and_update();
    let early = timeout(Duration::from_secs(1), attempts.changed()).await;
    assert!(early.is_err(), "nothing is asked");
    assert_eq!(foundation.requests(), before);

    // Other clients have used up the limit.
    foundation.state().manner.rate_limit = Some(1);
    let running = Running::new(&foundation, AS_ADMIN);
    running.first().await;
    let status = running.slot.status();
    assert_eq!(status.failing[0].reason.as_str(), "refused");
    assert!(
        status.failing[0].text.contains("CF-RateLimitExceeded"),
        "{:?}",
        status.failing
    );
}
