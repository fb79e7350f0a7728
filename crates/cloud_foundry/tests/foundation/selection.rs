//! Selection of applications, and how their instances are reached.

use super::*;

#[tokio::test]
async fn without_selectors_every_running_web_instance_is_a_target() {
    let foundation = example();
    let running = Running::new(&foundation, AS_ADMIN);
    let targets = running.targets().await;
    assert_eq!(
        urls(&targets),
        [
            "https://books.example.org/metrics 0",
            "https://cart.example.org/api/metrics 0",
            "https://quiet.example.org/metrics 0",
            "https://shop-test.example.org/metrics 0",
            "https://shop.example.org/metrics 0",
            "https://shop.example.org/metrics 1",
        ]
    );
    let second = targets
        .iter()
        .find(|it| it.address() == "shop.example.org" && it.get("cf_instance_number") == Some("1"));
    let second = second.unwrap();
    let app = second.get("__meta_cf_app_guid").unwrap();
    for (name, value) in [
        ("org_name", "prod"),
        ("space_name", "live"),
        ("app_name", "shop"),
        ("cf_instance_id", &format!("{app}:1")),
        ("instance", &format!("{app}:1")),
        ("__meta_cf_process_guid", app),
        ("__meta_cf_process_type", "web"),
        ("__meta_cf_app_label_tier", "front"),
        ("__meta_cf_route", "shop.example.org"),
        ("__meta_cf_selector", "select[0]"),
        ("__meta_cf_api", &foundation.api()),
    ] {
        assert_eq!(second.get(name), Some(value), "{name}");
    }
    assert_eq!(second.get("cf_process_id"), None);
}

#[tokio::test]
async fn selectors_take_what_they_name_and_nothing_else() {
    let foundation = example();
    let (organization, space, app) = {
        let state = foundation.state();
        let app = state.apps.iter().find(|it| it.name == "Books").unwrap();
        let organization = &state.organizations[1].guid;
        (organization.clone(), app.space.clone(), app.guid.clone())
    };
    for (keys, expected) in [
        ("", "Books cart quiet shop"),
        ("organization = \"PROD\"", "Books cart shop"),
        (
            "organization = [\"prod\", \"test\"]",
            "Books cart quiet shop",
        ),
        ("organization = \"pro\"", ""),
        ("organization_regex = \"PRO.\"", "Books cart shop"),
        ("organization_regex = \"ro\"", ""),
        (
            &format!("organization_guid = {organization:?}"),
            "quiet shop",
        ),
        ("organization = \"prod\"\nspace = \"batch\"", "Books"),
        ("space_regex = \"b.*|nothing\"", "Books"),
        (&format!("space_guid = {space:?}"), "Books"),
        ("application = \"books\"", "Books"),
        ("application = [\"cart\", \"quiet\"]", "cart quiet"),
        ("application_regex = \"(?:S|c).*\"", "cart shop"),
        ("application_regex = \"hop\"", ""),
        (&format!("application_guid = {app:?}"), "Books"),
        ("label_selector = \"tier\"", "Books shop"),
        ("label_selector = \"tier in (back, side)\"", "Books"),
        ("label_selector = \"tier!=back\"", "cart quiet shop"),
        ("bound_service = \"metrics\"", "Books"),
        (
            "bound_service = [\"metrics\", \"other\"]\nspace = \"live\"",
            "",
        ),
        ("annotations = \"prometheus.io/\"", "Books cart shop"),
        ("annotations = \"prometheus.io/\"\nopt_in = true", "cart"),
        ("organization = \"test\"\napplication = \"shop\"", "shop"),
    ] {
        let keys = format!("{AS_ADMIN}[[select]]\n{keys}");
        // Without includes, the provider joins spaces and organizations itself.
        for includes in [true, false] {
            foundation.state().manner.includes = includes;
            let running = Running::new(&foundation, &keys);
            let snapshot = running.first().await;
            assert_eq!(running.slot.status().failing.len(), 0, "{keys}");
            assert_eq!(apps(snapshot.targets()), expected, "{keys}");
        }
    }
}

#[tokio::test]
async fn instances_are_reached_as_a_selector_says() {
    let foundation = example();
    let inner = {
        let mut state = foundation.state();
        let inner = state.push("in/in/inner", &["inner.apps.inside"], 2);
        let both = state.push("in/in/both", &["both.apps.inside", "both.example.org"], 1);
        state.app(&both).annotate("my/port", "9999");
        state.app(&both).annotate("my/scheme", "http");
        let far = state.push("in/in/far", &["far.example.org"], 1);
        state.app(&far).annotate("my/port", "9999");
        state.map(&far, "far2.example.org", "web");
        state.app(&both).annotate("my/scrape_interval", "45s");
        inner
    };
    let cases = [
        (
            "application = \"shop\"\norganization = \"test\"\nprotocol = \"http\"",
            vec!["http://shop-test.example.org/metrics 0"],
        ),
        (
            "application = \"cart\"\npath = \"stats\"",
            vec!["https://cart.example.org/api/stats 0"],
        ),
        (
            "application = \"cart\"\nannotations = \"prometheus.io/\"",
            vec!["https://cart.example.org/api/actuator/prometheus 0"],
        ),
        (
            "application = \"cart\"\npath = [\"/a\", \"/b\"]",
            vec![
                "https://cart.example.org/api/a 0",
                "https://cart.example.org/api/b 0",
            ],
        ),
        (
            "application = \"books\"\nrouter_port = 8443",
            vec!["https://books.example.org:8443/metrics 0"],
        ),
        (
            "application = \"books\"\npreferred_routes = [\"nothing\", \"b\\\\.other.*\", \"books.*\"]",
            vec!["https://b.other.org/metrics 0"],
        ),
        // Patterns are case-sensitive and match the whole route.
        (
            "application = \"books\"\npreferred_routes = [\"B\\\\.other.*\", \"other\"]",
            vec!["https://books.example.org/metrics 0"],
        ),
        (
            "application = \"inner\"",
            vec![
                "http://0.inner.apps.inside:8080/metrics 0",
                "http://1.inner.apps.inside:8080/metrics 1",
            ],
        ),
        (
            "application_regex = \"inne.\"\nport = 9090\npath = \"/x\"",
            vec![
                "http://0.inner.apps.inside:9090/x 0",
                "http://1.inner.apps.inside:9090/x 1",
            ],
        ),
        (
            "application = \"both\"",
            vec!["http://0.both.apps.inside:8080/metrics 0"],
        ),
        (
            "application = \"both\"\nannotations = [\"none/\", \"my/\"]",
            vec!["http://0.both.apps.inside:9999/metrics 0"],
        ),
        (
            "application = \"both\"\nroutes = \"external\"\nannotations = \"my/\"",
            vec![],
        ),
        (
            "application = \"both\"\nroutes = \"external\"",
            vec!["https://both.example.org/metrics 0"],
        ),
        // As in Promregator, a selector's port is that of internal routes.
        (
            "application = \"both\"\nroutes = \"external\"\nport = 9999",
            vec!["https://both.example.org/metrics 0"],
        ),
        ("application = \"far\"\nannotations = \"my/\"", vec![]),
        (
            "application = \"far\"\nannotations = \"my/\"\nignore_annotations = [\"port\"]",
            vec!["https://far.example.org/metrics 0"],
        ),
        ("application = \"inner\"\nroutes = \"external\"", vec![]),
    ];
    for (keys, expected) in cases {
        let running = Running::new(&foundation, &format!("{AS_ADMIN}[[select]]\n{keys}"));
        let found = urls(running.first().await.targets());
        assert_eq!(found, expected, "{keys}");
    }
    let keys = format!("{AS_ADMIN}[[select]]\napplication = \"far\"\nannotations = \"my/\"");
    let running = Running::new(&foundation, &keys);
    running.first().await;
    let why = running.slot.status().left_out[0].why.clone();
    assert!(why.starts_with("no route leads to port 9999"), "{why}");
    foundation.state().lead("far2.example.org", 9999);
    assert_eq!(
        running.settled().await,
        ["https://far2.example.org/metrics 0"]
    );
    let keys = format!(
        "{AS_ADMIN}[[select]]\napplication = \"both\"\nannotations = \"my/\"\ninterval = \"30s\"\n\
         scrape_timeout = \"5s\"\nauthenticator = \"x\"\nname = \"mine\"\nlabels = {{ team = \"t\" }}"
    );
    let running = Running::new(&foundation, &keys);
    let snapshot = running.first().await;
    for (name, value) in [
        ("__scrape_interval__", "45s"),
        ("__scrape_timeout__", "5s"),
        ("__meta_cf_authenticator", "x"),
        ("__meta_cf_selector", "mine"),
        ("__meta_cf_route_internal", "true"),
        ("__meta_cf_app_annotation_my_port", "9999"),
        ("team", "t"),
    ] {
        assert_eq!(snapshot.targets()[0].get(name), Some(value), "{name}");
    }

    // An invalid annotation is an error.
    foundation.state().app(&inner).annotate("my/port", "none");
    let keys = format!("{AS_ADMIN}[[select]]\napplication = \"inner\"\nannotations = \"my/\"");
    let running = Running::new(&foundation, &keys);
    assert_eq!(running.first().await.targets().len(), 0);
    let left_out = running.slot.status().left_out;
    assert_eq!(left_out[0].what, "in/in/inner");
    assert_eq!(left_out[0].why, "annotation my/port is not a port");
}

#[tokio::test]
async fn a_route_to_several_types_of_processes_needs_the_process() {
    let foundation = CloudFoundry::new();
    {
        let mut state = foundation.state();
        let alone = state.push("o/s/alone", &["alone.example.org"], 1);
        state.deploy(&alone, "worker", 1);
        let two = state.push("o/s/two", &["two.example.org"], 1);
        state.deploy(&two, "worker", 1);
        state.map(&two, "two.example.org", "worker");
        // Another application has GUIDs of its own.
        let blue = state.push("o/s/blue", &["both.example.org"], 1);
        let green = state.push("o/s/green", &["both.example.org"], 1);
        assert_ne!(blue, green);
    }
    let running = Running::new(&foundation, AS_ADMIN);
    let snapshot = running.first().await;
    let targets = snapshot.targets().iter();
    let by_process: BTreeMap<_, _> = targets
        .map(|it| (it.get("app_name").unwrap(), it.get("__meta_cf_by_process")))
        .collect();
    let expected = [
        ("alone", None),
        ("blue", None),
        ("green", None),
        ("two", Some("true")),
    ];
    assert_eq!(by_process, expected.into());
}

#[tokio::test]
async fn a_wildcard_route_is_asked_at_a_host_of_its_own_if_there_is_no_other() {
    let foundation = CloudFoundry::new();
    let guid = foundation.push("o/s/wild", &["*.wild.example.org/api"], 1);
    let running = Running::new(&foundation, AS_ADMIN);
    let expected = format!("https://{guid}.wild.example.org/api/metrics 0");
    assert_eq!(urls(running.first().await.targets()), [expected]);
    foundation.state().map(&guid, "tame.example.org", "web");
    let settled = running.settled().await;
    assert_eq!(settled, ["https://tame.example.org/metrics 0"]);
}

#[tokio::test]
async fn several_paths_of_an_instance_are_told_apart_and_several_selectors_share_nothing() {
    let foundation = example();
    let keys = "[[select]]\napplication = \"shop\"\norganization = \"test\"\npath = [\"/a\", \"/b\"]\n\
                [[select]]\norganization = \"test\"\npath = \"/a\"";
    let running = Running::new(&foundation, &format!("{AS_ADMIN}{keys}"));
    let snapshot = running.first().await;
    assert_eq!(
        urls(snapshot.targets()),
        [
            "https://quiet.example.org/a 0",
            "https://shop-test.example.org/a 0",
            "https://shop-test.example.org/b 0",
        ]
    );
    let paths = snapshot
        .targets()
        .iter()
        .filter_map(|it| it.get("metrics_path"));
    let paths: Vec<&str> = paths.collect();
    assert_eq!(paths, ["/a", "/b"]);
}

#[tokio::test]
async fn targets_of_one_instance_have_different_labels_whichever_selectors_found_them() {
    let foundation = example();
    let inner = ["inner.apps.inside", "inner.example.org"];
    foundation.push("in/in/inner", &inner, 1);
    for (keys, expected) in [
        // Two paths of two selectors.
        (
            "[[select]]\napplication = \"cart\"\npath = \"/a\"\n\
             [[select]]\napplication = [\"cart\", \"books\"]\npath = \"/b\"",
            vec![
                ("Books", None, None),
                ("cart", Some("/api/a"), None),
                ("cart", Some("/api/b"), None),
            ],
        ),
        // Two ways to the same path.
        (
            "[[select]]\napplication = \"inner\"\nroutes = \"internal\"\n\
             [[select]]\napplication = \"inner\"\nroutes = \"external\"",
            vec![
                (
                    "inner",
                    Some("/metrics"),
                    Some("http://0.inner.apps.inside:8080/metrics"),
                ),
                (
                    "inner",
                    Some("/metrics"),
                    Some("https://inner.example.org/metrics"),
                ),
            ],
        ),
    ] {
        let running = Running::new(&foundation, &format!("{AS_ADMIN}{keys}"));
        let snapshot = running.first().await;
        let shown = shown(snapshot.targets());
        let mut found: Vec<_> = shown
            .iter()
            .map(|it| {
                let get = |name: &str| it.get(name).copied();
                (it["app_name"], get("metrics_path"), get("metrics_url"))
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{keys}");
        let different: BTreeSet<_> = shown.iter().collect();
        assert_eq!(different.len(), shown.len(), "{shown:?}");
    }
}
