//! What stays when the platform fails, or shows less than before.

use super::*;

#[tokio::test]
async fn whatever_fails_the_targets_stay_and_are_flagged() {
    let foundation = example();
    let running = Running::new(&foundation, AS_ADMIN);
    let all = running.urls().await;
    assert_eq!(all.len(), 6);
    let calm = foundation.state().manner.clone();
    for (what, reason, trouble) in [
        (
            "down",
            "unreachable",
            (|it| it.manner.down = true) as fn(&mut metrifold_testing::cloud_foundry::State),
        ),
        ("blind", "empty", |it| it.manner.blind = true),
        ("page two of applications", "refused", |it| {
            it.manner.page = 2;
            it.manner.broken_page = Some(("/v3/apps", 2));
        }),
        ("page two of routes", "refused", |it| {
            it.manner.page = 2;
            it.manner.broken_page = Some(("/v3/routes", 2));
        }),
        ("the last page of processes", "refused", |it| {
            it.manner.page = 2;
            it.manner.broken_page = Some(("/v3/processes", 3));
        }),
    ] {
        trouble(&mut foundation.state());
        let status = running.next().await;
        assert!(status.stale, "{what}");
        assert_eq!(status.failing[0].reason.as_str(), reason, "{what}");
        assert_eq!(urls(running.slot.snapshot().targets()), all, "{what}");
        foundation.state().manner = calm.clone();
        let status = running.next().await;
        assert!(!status.stale, "{what}");
    }
    // Lists in pages of two are complete.
    foundation.state().manner.page = 2;
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(urls(running.first().await.targets()), all);
}

#[tokio::test]
async fn processes_that_cannot_be_seen_any_more_have_not_gone() {
    let foundation = example();
    // The applications stay as they were read.
    let keys = format!("{AS_ADMIN}metadata_interval = \"1h\"\n");
    let running = Running::new(&foundation, &keys);
    let all = running.urls().await;
    foundation.state().manner.blind = true;
    let status = running.next().await;
    assert!(status.stale);
    assert_eq!(status.failing[0].reason.as_str(), "empty");
    assert_eq!(urls(running.slot.snapshot().targets()), all);
}

#[tokio::test]
async fn a_list_that_is_empty_after_it_was_full_takes_no_target_away() {
    let foundation = example();
    let keys = format!(
        "{AS_ADMIN}[[select]]\norganization = \"prod\"\napplication = \"books\"\n\
         service_credentials = \"metrics\"\n\
         [[select]]\norganization_regex = \"prod|test\"\nspace = \"live\""
    );
    let calm = foundation.state().manner.clone();
    for includes in [true, false] {
        foundation.state().manner.includes = includes;
        let running = Running::new(&foundation, &keys);
        let all = running.targets().await;
        assert_eq!(all.len(), 6);
        for list in [
            "/v3/organizations",
            "/v3/spaces",
            "/v3/apps",
            "/v3/processes",
            "/v3/routes",
            "/v3/domains",
            "/v3/service_credential_bindings",
        ] {
            foundation.state().manner.blind_lists.insert(list);
            let status = running.next().await;
            assert!(status.stale, "{list} {includes}");
            assert_eq!(running.slot.snapshot().targets(), all, "{list} {includes}");
            foundation.state().manner.blind_lists.clear();
            let status = running.next().await;
            assert!(!status.stale, "{list} {includes}");
        }
        foundation.state().manner = calm.clone();
    }
    // Each object of a list may have gone while the user still sees others.
    let keys = format!("{AS_ADMIN}[[select]]\napplication = \"cart\"");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.targets().await.len(), 1);
    let route = "cart.example.org/api";
    foundation.state().route(route).destinations.clear();
    assert_eq!(running.settled().await, Vec::<String>::new());
    assert!(!running.slot.status().stale);
}

#[tokio::test]
async fn what_is_known_of_applications_is_not_read_again_because_something_else_fails() {
    let foundation = example();
    let keys = format!("{AS_ADMIN}metadata_interval = \"1h\"\n");
    let running = Running::new(&foundation, &keys);
    let all = running.urls().await;
    foundation.state().manner.broken_page = Some(("/v3/processes", 1));
    assert!(running.next().await.stale);
    foundation.controller.take();
    assert!(running.next().await.stale);
    let asked = foundation.controller.take();
    assert!(asked.len() >= 2);
    assert!(
        asked.iter().all(|it| it.path.starts_with("/v3/processes?")),
        "{asked:?}"
    );
    foundation.state().manner.broken_page = None;
    assert_eq!(running.urls().await, all);
    assert!(!running.slot.status().stale);
}

#[tokio::test]
async fn a_process_whose_states_cannot_be_read_holds_up_no_other() {
    let foundation = CloudFoundry::new();
    foundation.state().manner.embeds = false;
    let [ill, well] = ["ill", "well"]
        .map(|name| foundation.push(&format!("o/s/{name}"), &[&format!("{name}.example.org")], 2));
    foundation.state().process(&ill).set(1, "CRASHED");
    // One request per refresh: whichever comes first must not stay first.
    let keys = format!("{AS_ADMIN}max_stats_requests = 1\n");
    let running = Running::new(&foundation, &keys);
    let until_these = async |expected: &[&str]| {
        let found = timeout(Duration::from_secs(30), async {
            while running.urls().await != expected {}
        });
        found.await.unwrap_or_else(|_| panic!("{expected:?}"));
    };
    let [ill_0, well_0, well_1] = [
        "ill.example.org/metrics 0",
        "well.example.org/metrics 0",
        "well.example.org/metrics 1",
    ]
    .map(|it| format!("https://{it}"));
    until_these(&[&ill_0, &well_0, &well_1]).await;
    for status in [500, 503] {
        foundation.state().manner.broken_stats = [(ill.clone(), status)].into();
        foundation.state().process(&well).set(1, "CRASHED");
        until_these(&[&ill_0, &well_0]).await;
        foundation.state().process(&well).set(1, "RUNNING");
        until_these(&[&ill_0, &well_0, &well_1]).await;
        let seen = running.slot.status();
        assert!(!seen.stale);
        let error = seen.last_error.unwrap();
        assert_eq!(error.reason.as_str(), "refused");
        assert!(error.text.contains(&status.to_string()), "{}", error.text);
        assert!(error.text.contains("of 1 processes"), "{}", error.text);
    }
    // A further instance counts as running, and the crashed one stays so.
    foundation.state().process(&ill).scale(3);
    let ill_2 = "https://ill.example.org/metrics 2";
    until_these(&[&ill_0, ill_2, &well_0, &well_1]).await;
    // A failure that concerns all requests fails the refresh.
    foundation.state().manner.broken_stats = [(ill, 429)].into();
    let mut attempts = running.slot.attempts();
    let stale = timeout(Duration::from_secs(30), async {
        while !running.slot.status().stale {
            attempts.changed().await.unwrap();
        }
    });
    stale.await.unwrap();
}

#[tokio::test]
async fn usage_of_a_process_that_cannot_be_measured_keeps_no_other_from_being_measured() {
    let foundation = CloudFoundry::new();
    let [ill, well] = ["ill", "well"]
        .map(|name| foundation.push(&format!("o/s/{name}"), &[&format!("{name}.example.org")], 1));
    foundation.state().manner.broken_stats = [(ill.clone(), 500)].into();
    let keys = format!("{AS_ADMIN}max_stats_requests = 1\nstats_interval = \"100ms\"\n");
    let running = Running::new(&foundation, &keys);
    running.first().await;
    let facts: Arc<Facts> = running.slot.targets().beside().unwrap();
    let usages = facts.usages.clone().unwrap();
    let measured = timeout(Duration::from_secs(30), async {
        while usages.gauges(&well, 0).is_empty() {
            running.next().await;
        }
    });
    measured.await.unwrap();
    assert!(usages.gauges(&ill, 0).is_empty());
}

#[tokio::test]
async fn what_was_known_outlives_a_restart_while_the_platform_is_down() {
    let foundation = example();
    let folder = tempfile::tempdir().unwrap();
    let folder = Some(folder.path());
    let all = {
        let running = Running::in_folder(&foundation, AS_ADMIN, folder);
        let all = running.urls().await;
        let slot = running.slot.clone();
        tokio::task::spawn_blocking(move || slot.flush())
            .await
            .unwrap();
        all
    };
    foundation.state().manner.down = true;
    let running = Running::in_folder(&foundation, AS_ADMIN, folder);
    assert_eq!(running.urls().await, all);
    let status = running.slot.status();
    assert!(status.stale && status.inherited);
    // Another user may see nothing yet: the targets stay.
    foundation.state().manner.down = false;
    foundation.state().manner.blind = true;
    assert_eq!(running.urls().await, all);
    foundation.state().manner.blind = false;
    assert_eq!(running.urls().await, all);
    assert!(!running.slot.status().stale);
}
