//! Targets of a foundation: selection, routes, and what stays when the platform fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use metrifold_base::{Problems, RunError};
use metrifold_cloud_foundry::{CloudFoundryConfig, Facts};
use metrifold_discovery::{
    ProviderConfig, ProviderContext, Slot, SlotOptions, Snapshot, Status, Target,
};
use metrifold_telemetry::Telemetry;
use metrifold_testing::CloudFoundry;

/// A running provider.
struct Running {
    slot: Arc<Slot>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const AS_ADMIN: &str = "username = \"admin\"\npassword = \"geheim\"\n";

fn config(foundation: &CloudFoundry, keys: &str) -> CloudFoundryConfig {
    let metadata = match keys.contains("metadata_interval") {
        true => "",
        false => "metadata_interval = \"100ms\"\n",
    };
    let api = foundation.api();
    let text = format!("api = {api:?}\nrefresh_interval = \"150ms\"\n{metadata}{keys}");
    let config: CloudFoundryConfig = toml::from_str(&text).unwrap();
    let mut problems = Problems::new(true);
    config.validate(&mut problems);
    assert_eq!(problems.into_list(), [], "{text}");
    config
}

impl Running {
    fn new(foundation: &CloudFoundry, keys: &str) -> Self {
        Self::in_folder(foundation, keys, None)
    }

    fn in_folder(foundation: &CloudFoundry, keys: &str, folder: Option<&std::path::Path>) -> Self {
        let config = config(foundation, keys);
        let options = SlotOptions {
            type_name: "cloud_foundry".into(),
            question: config.question(),
            limits: config.limits(),
            on_empty: config.on_empty(),
            folder: folder.map(Into::into),
        };
        let provider = config.build(&ProviderContext::alone("cf")).unwrap();
        let slot = Slot::new("cf".into(), options.clone(), &Telemetry::new());
        let feed = slot.take_over(options);
        let task = tokio::spawn(metrifold_discovery::run(provider, feed));
        Self { slot, task }
    }

    /// Waits for an attempt that begins after this call.
    async fn next(&self) -> Status {
        let mut attempts = self.slot.attempts();
        let now = *attempts.borrow();
        // The attempt in progress, and one more.
        let further = attempts.wait_for(|it| *it >= now + 2);
        let waited = timeout(Duration::from_secs(30), further).await;
        waited.expect("an attempt").unwrap();
        self.slot.status()
    }

    /// The snapshot after the first attempt.
    async fn first(&self) -> Arc<Snapshot> {
        let mut attempts = self.slot.attempts();
        let first = attempts.wait_for(|it| *it >= 1);
        let waited = timeout(Duration::from_secs(30), first).await;
        waited.expect("an attempt").unwrap();
        self.slot.snapshot()
    }

    async fn targets(&self) -> Vec<Target> {
        self.next().await;
        self.slot.snapshot().targets().to_vec()
    }

    /// The URLs after applications and routes have been read again.
    async fn settled(&self) -> Vec<String> {
        self.next().await;
        self.urls().await
    }

    /// URLs of the targets, each with its instance number.
    async fn urls(&self) -> Vec<String> {
        urls(&self.targets().await)
    }
}

fn urls(targets: &[Target]) -> Vec<String> {
    let mut urls: Vec<String> = targets
        .iter()
        .map(|it| {
            let [scheme, path, number] =
                ["__scheme__", "__metrics_path__", "cf_instance_number"].map(|it2| it.get(it2));
            let (scheme, path) = (scheme.unwrap(), path.unwrap());
            format!("{scheme}://{}{path} {}", it.address(), number.unwrap())
        })
        .collect();
    urls.sort();
    urls
}

fn apps(targets: &[Target]) -> String {
    let mut names: Vec<&str> = targets
        .iter()
        .map(|it| it.get("app_name").unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

/// Two organizations, three spaces, and applications with routes, labels, annotations and a service.
fn example() -> CloudFoundry {
    let foundation = CloudFoundry::new();
    let mut state = foundation.state();
    let shop = state.push("prod/live/shop", &["shop.example.org"], 2);
    state.app(&shop).label("tier", "front");
    let cart = state.push("prod/live/cart", &["cart.example.org/api"], 1);
    state.app(&cart).annotate("prometheus.io/scrape", "true");
    state
        .app(&cart)
        .annotate("prometheus.io/path", "/actuator/prometheus");
    let books = state.push("prod/batch/Books", &["books.example.org", "b.other.org"], 1);
    state.app(&books).label("tier", "back");
    state.push("test/live/shop", &["shop-test.example.org"], 1);
    let quiet = state.push("test/live/quiet", &["quiet.example.org"], 1);
    state.app(&quiet).annotate("prometheus.io/scrape", "false");
    state.bindings.push(("metrics".to_owned(), books));
    drop(state);
    foundation
}

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

/// The labels of each target's series.
fn shown(targets: &[Target]) -> Vec<BTreeMap<&str, &str>> {
    let shown = |it: &&str| !it.starts_with("__");
    let each = targets.iter();
    each.map(|it| it.iter().filter(|(name, _)| shown(name)).collect())
        .collect()
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

#[tokio::test]
async fn tokens_are_got_in_every_way_and_renewed_once_for_all() {
    let foundation = example();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let passcode = foundation.state().passcode();
    let refresh = foundation.state().refresh_token();
    let with_file = format!("refresh_token_file = {file:?}\n");
    std::fs::write(&file, refresh).unwrap();
    for (keys, grant) in [
        (AS_ADMIN.to_owned(), "password"),
        (format!("{AS_ADMIN}origin = \"ldap\"\n"), "password"),
        (
            "grant = \"client_credentials\"\nclient_id = \"reader\"\nclient_secret = \"client-geheim\"\n".to_owned(),
            "client_credentials",
        ),
        (format!("grant = \"refresh_token\"\n{with_file}"), "refresh_token"),
        // The refresh token that replaced the first one.
        (format!("grant = \"refresh_token\"\n{with_file}"), "refresh_token"),
        (format!("grant = \"passcode\"\npasscode = {passcode:?}\n"), "password"),
    ] {
        foundation.uaa.take();
        let running = Running::new(&foundation, &keys);
        assert_eq!(running.first().await.targets().len(), 6, "{keys}");
        let asked = foundation.uaa.only();
        let form = String::from_utf8(asked.body.clone()).unwrap();
        assert!(form.contains(&format!("grant_type={grant}")), "{form}");
        assert_eq!(form.contains("login_hint=%7B%22origin%22%3A%22ldap%22%7D"), keys.contains("origin"));
        // All tokens are revoked: one renewal, by the refresh token if there is one.
        foundation.state().revoke_tokens();
        assert_eq!(running.urls().await.len(), 6, "{keys}");
        let again = foundation.uaa.take();
        let forms = again.iter().map(|it| String::from_utf8_lossy(&it.body).into_owned());
        let forms: Vec<String> = forms.collect();
        assert_eq!(forms.len(), 1, "{keys} {forms:?}");
        let by_refresh = forms[0].contains("grant_type=refresh_token");
        assert_eq!(by_refresh, grant != "client_credentials", "{forms:?}");
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_spent_gives_way_to_the_password() {
    let foundation = example();
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.urls().await.len(), 6);
    foundation.state().revoke_tokens();
    foundation.state().revoke_refresh_tokens();
    assert_eq!(running.urls().await.len(), 6);
    assert!(!running.slot.status().stale);
    assert_eq!(
        foundation.uaa.count(),
        3,
        "password, refresh token, password"
    );

    // A token revoked in the midst of a refresh.
    foundation.state().manner.revoked_in = Some(1);
    assert_eq!(running.urls().await.len(), 6);
    assert!(!running.slot.status().stale);
}

#[tokio::test]
async fn credentials_that_are_refused_are_told_of() {
    let foundation = example();
    let running = Running::new(&foundation, "username = \"admin\"\npassword = \"wrong\"\n");
    running.first().await;
    let failure = &running.slot.status().failing[0];
    assert_eq!(failure.reason.as_str(), "credentials");
    assert!(failure.text.contains("Bad credentials"), "{}", failure.text);
    assert!(!failure.text.contains("wrong"));
}

#[tokio::test]
async fn uaa_is_found_where_old_platforms_say_it() {
    let foundation = example();
    foundation.state().manner.without_links = true;
    let running = Running::new(&foundation, AS_ADMIN);
    assert_eq!(running.first().await.targets().len(), 6);
}

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
