//! What changes on the platform: instances, deployments, routes, processes.

use super::*;

#[tokio::test]
async fn instances_come_and_go_with_what_the_platform_says_of_them() {
    let foundation = CloudFoundry::new();
    let shop = foundation.push("o/s/shop", &["shop.example.org"], 2);
    for embeds in [true, false] {
        foundation.state().manner.embeds = embeds;
        foundation.state().process(&shop).scale(2);
        // Applications and routes are read at every refresh.
        let keys = format!("{AS_ADMIN}metadata_interval = \"150ms\"\n");
        let running = Running::new(&foundation, &keys);
        assert_eq!(running.settled().await.len(), 2);

        foundation.state().process(&shop).scale(4);
        assert_eq!(running.settled().await.len(), 4);
        foundation.state().process(&shop).set(1, "CRASHED");
        foundation.state().process(&shop).set(3, "STARTING");
        assert_eq!(
            running.settled().await,
            [
                "https://shop.example.org/metrics 0",
                "https://shop.example.org/metrics 2"
            ]
        );
        let status = running.slot.status();
        let left_out: Vec<_> = status
            .left_out
            .iter()
            .map(|it| (&*it.what, &*it.why))
            .collect();
        assert_eq!(
            left_out,
            [
                ("o/s/shop web 1", "it is crashed"),
                ("o/s/shop web 3", "it is starting")
            ]
        );
        assert!(!status.stale);
        foundation.state().process(&shop).set(1, "RUNNING");
        foundation.state().process(&shop).scale(2);
        assert_eq!(running.settled().await.len(), 2);

        // Applications of which none runs are an answer: no targets stay.
        foundation.state().app(&shop).state = "STOPPED";
        assert_eq!(running.settled().await.len(), 0);
        assert!(!running.slot.status().stale);
        foundation.state().app(&shop).state = "STARTED";
        assert_eq!(running.settled().await.len(), 2);
        foundation
            .state()
            .route("shop.example.org")
            .destinations
            .clear();
        assert_eq!(running.settled().await.len(), 0);
        let why = &running.slot.status().left_out[0].why;
        assert!(why.starts_with("no route leads to it"), "{why}");
        foundation.state().map(&shop, "shop2.example.org", "web");
        foundation.state().map(&shop, "shop.example.org", "web");
        assert_eq!(
            running.settled().await[0],
            "https://shop.example.org/metrics 0"
        );
        foundation
            .state()
            .route("shop2.example.org")
            .destinations
            .clear();
    }
}

#[tokio::test]
async fn a_rolling_deployment_shows_both_processes_and_ends_with_the_new_one() {
    let foundation = CloudFoundry::new();
    let shop = foundation.push("o/s/shop", &["shop.example.org", "shop.apps.inside"], 2);
    let running = Running::new(&foundation, AS_ADMIN);
    let before = running.targets().await;
    let new = foundation.state().deploy(&shop, "web", 1);
    let during = running.targets().await;
    // The old targets keep their identifying labels.
    let identity = |target: &Target| -> BTreeMap<String, String> {
        let shown = target.iter().filter(|(name, _)| !name.starts_with("__"));
        shown
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let by_process = |process: &str, targets: &[Target]| -> Vec<BTreeMap<String, String>> {
        let of = targets
            .iter()
            .filter(|it| it.get("__meta_cf_process_guid") == Some(process));
        of.map(identity).collect()
    };
    assert_eq!(by_process(&shop, &during), by_process(&shop, &before));
    let added = by_process(&new, &during);
    assert_eq!(added.len(), 1);
    assert_eq!(added[0]["cf_process_id"], new);
    assert_eq!(added[0]["cf_instance_id"], format!("{shop}:0"));
    assert!(
        during
            .iter()
            .all(|it| it.get("__meta_cf_by_process") == Some("true"))
    );
    assert_eq!(during.len(), 3);

    foundation.state().retire(&shop);
    foundation.state().process(&new).scale(2);
    let after = running.targets().await;
    assert_eq!(by_process(&new, &after), by_process(&shop, &before));
    assert!(
        after
            .iter()
            .all(|it| it.get("__meta_cf_by_process").is_none())
    );

    // By an internal route, an instance number leads to one instance only.
    foundation.state().deploy(&shop, "web", 3);
    let keys = format!("{AS_ADMIN}[[select]]\nroutes = \"internal\"");
    let running = Running::new(&foundation, &keys);
    assert_eq!(
        urls(running.first().await.targets()),
        [0, 1, 2].map(|it| format!("http://{it}.shop.apps.inside:8080/metrics {it}"))
    );
}

#[tokio::test]
async fn a_route_service_that_loses_the_header_is_avoided_or_told_of() {
    let foundation = CloudFoundry::new();
    let shop = foundation.push("o/s/shop", &["a.example.org", "b.example.org"], 2);
    foundation.state().route("a.example.org").service = true;
    let running = Running::new(&foundation, AS_ADMIN);
    let by_b = [
        "https://b.example.org/metrics 0",
        "https://b.example.org/metrics 1",
    ];
    assert_eq!(running.urls().await, by_b);
    foundation.state().route("b.example.org").service = true;
    assert_eq!(running.urls().await, Vec::<String>::new());
    let why = &running.slot.status().left_out[0].why;
    assert!(
        why.contains("a.example.org goes through a route service"),
        "{why}"
    );
    // A single instance needs no header.
    foundation.state().process(&shop).scale(1);
    assert_eq!(running.urls().await, ["https://a.example.org/metrics 0"]);
}

#[tokio::test]
async fn other_processes_are_reached_by_routes_to_them() {
    let foundation = CloudFoundry::new();
    let shop = foundation.push("o/s/shop", &["shop.example.org"], 1);
    let worker = foundation.state().deploy(&shop, "worker", 2);
    let keys = format!("{AS_ADMIN}[[select]]\nprocesses = [\"web\", \"worker\", \"clock\"]");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.urls().await, ["https://shop.example.org/metrics 0"]);
    let left_out = running.slot.status().left_out;
    let left_out: Vec<_> = left_out.iter().map(|it| &*it.what).collect();
    assert_eq!(left_out, ["o/s/shop worker", "o/s/shop clock"]);
    foundation
        .state()
        .map(&shop, "worker.apps.inside", "worker");
    let targets = running.targets().await;
    assert_eq!(
        urls(&targets),
        [
            "http://0.worker.apps.inside:8080/metrics 0",
            "http://1.worker.apps.inside:8080/metrics 1",
            "https://shop.example.org/metrics 0",
        ]
    );
    let first = targets
        .iter()
        .find(|it| it.address().starts_with("0.worker"))
        .unwrap();
    assert_eq!(first.get("cf_process_type"), Some("worker"));
    assert_eq!(first.get("__meta_cf_process_guid"), Some(&*worker));
}
