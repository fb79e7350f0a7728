//! How changes arrive, and what failures leave.

use super::*;

#[tokio::test]
async fn a_change_of_anything_that_a_target_is_made_of_changes_it() {
    let cluster = shop();
    let with_owner = |kind: &str, name: &str| {
        let pod = pod("sales", "shop-0", "10.0.0.1", "node-1", &[("web", 8080)]);
        owned(pod, "apps/v1", kind, name)
    };
    cluster.put("pods", with_owner("ReplicaSet", "shop-abc"));
    let meta = json!({ "metadata": { "name": "shop-abc", "namespace": "sales" } });
    cluster.put("replicasets", owned(meta, "apps/v1", "Deployment", "shop"));
    cluster.put("nodes", node("node-1", "192.0.2.1"));
    cluster.put("namespaces", namespace("sales"));
    let attach = "attach_metadata = { node = true, namespace = true, deployment = true, job = true, cronjob = true }\n";
    let running = Running::new(&cluster, &format!("{SLICES}{attach}"));
    let until = async |label: &str, value: &str| {
        let what = format!("{label} is {value}");
        let label = format!("__meta_kubernetes_{label}");
        let good = |found: &Found, _: &Status| {
            let target = found.get(SHOP[0]);
            target.is_some_and(|it| it.get(&label).is_some_and(|it| it == value))
        };
        running.until(&what, good).await
    };
    let found = until("pod_deployment_name", "shop").await;
    let target = &found[SHOP[0]];
    for (name, value) in [
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_controller_name", "shop-abc"),
        ("node_name", "node-1"),
        ("node_label_kubernetes_io_arch", "amd64"),
        ("namespace_label_tenant", "a"),
        ("namespace_annotation_owner", "ops"),
    ] {
        assert_eq!(target[&format!("__meta_kubernetes_{name}")], value);
    }
    let mut renamed = node("node-1", "192.0.2.1");
    renamed["metadata"]["labels"]["zone"] = json!("b");
    cluster.put("nodes", renamed);
    until("node_label_zone", "b").await;
    let mut other = namespace("sales");
    other["metadata"]["labels"]["tenant"] = json!("b");
    cluster.put("namespaces", other);
    until("namespace_label_tenant", "b").await;
    let meta = json!({ "metadata": { "name": "shop-abc", "namespace": "sales" } });
    cluster.put(
        "replicasets",
        owned(meta, "apps/v1", "Deployment", "shop-2"),
    );
    until("pod_deployment_name", "shop-2").await;
    let mut changed = service("sales", "shop", &[("web", 80)]);
    changed["metadata"]["labels"]["team"] = json!("buyers");
    cluster.put("services", changed);
    until("service_label_team", "buyers").await;
    cluster.put("pods", with_owner("Job", "nightly-1"));
    let meta = json!({ "metadata": { "name": "nightly-1", "namespace": "sales" } });
    cluster.put("jobs", owned(meta, "batch/v1", "CronJob", "nightly"));
    let found = until("pod_cronjob_name", "nightly").await;
    assert_eq!(
        found[SHOP[0]]["__meta_kubernetes_pod_job_name"],
        "nightly-1"
    );
    cluster.delete("pods", "sales", "shop-0");
    running.until_at(&[SHOP[0], SHOP[2], SHOP[3]]).await;
    cluster.delete("endpointslices", "sales", "shop-0");
    running.until_at(&[]).await;
}

#[tokio::test]
async fn a_watch_goes_on_where_it_ended_and_lists_again_when_its_history_is_over() {
    let cluster = shop();
    let running = Running::new(
        &cluster,
        "role = \"pod\"\nwatch_timeout = \"1s\"\nport = \"web\"\n",
    );
    let lists = || {
        cluster
            .asked()
            .iter()
            .filter(|it| !it.contains("watch="))
            .count()
    };
    let watches = || {
        cluster
            .asked()
            .iter()
            .filter(|it| it.contains("watch="))
            .count()
    };
    running.until_at(&[SHOP[0], SHOP[2]]).await;
    cluster.put(
        "pods",
        pod("sales", "shop-2", "10.0.0.3", "node-1", &[("web", 8080)]),
    );
    running.until_at(&[SHOP[0], SHOP[2], "10.0.0.3:8080"]).await;
    // The watch ends on time, and further ones follow it without a new list.
    let before = watches();
    while watches() < before + 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lists(), 1);
    let page = cluster.asked()[0].clone();
    assert!(page.contains("limit=500"), "{page}");
    let watch = cluster.asked()[1].clone();
    assert!(watch.contains("allowWatchBookmarks=true"), "{watch}");
    assert!(watch.contains("timeoutSeconds=1"), "{watch}");
    for expiry in [Expiry::Status, Expiry::Event] {
        // An object is deleted while no watch is open, and then the history expires.
        let mut state = cluster.state();
        state.expiry = expiry;
        state.break_watches();
        state.delete("pods", "sales", "shop-2");
        state.compact();
        drop(state);
        running.until_at(&[SHOP[0], SHOP[2]]).await;
        cluster.put(
            "pods",
            pod("sales", "shop-2", "10.0.0.3", "node-1", &[("web", 8080)]),
        );
        running.until_at(&[SHOP[0], SHOP[2], "10.0.0.3:8080"]).await;
    }
    assert_eq!(lists(), 3);
}

#[tokio::test]
async fn a_bookmark_spares_a_list() {
    let cluster = shop();
    let running = Running::new(&cluster, "role = \"pod\"\nport = \"web\"\n");
    running.until_at(&[SHOP[0], SHOP[2]]).await;
    let waits = async |what: &str, good: &dyn Fn() -> bool| {
        let waited = timeout(Duration::from_secs(30), async {
            while !good() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{what}: {:?}", cluster.asked()));
    };
    waits("a watch", &|| cluster.watches() == 1).await;
    // Many writes to objects that the provider does not watch.
    for _ in 0..5 {
        cluster.put(
            "configmaps",
            json!({ "metadata": { "name": "c", "namespace": "x" } }),
        );
    }
    let mut state = cluster.state();
    state.bookmark();
    drop(state);
    let mut state = cluster.state();
    state.compact();
    drop(state);
    // By then the bookmark has been read: the next event follows it.
    cluster.put(
        "pods",
        pod("sales", "shop-2", "10.0.0.3", "node-1", &[("web", 8080)]),
    );
    running.until_at(&[SHOP[0], SHOP[2], "10.0.0.3:8080"]).await;
    let before = cluster.asked().len();
    cluster.state().break_watches();
    waits("another watch", &|| cluster.asked().len() > before).await;
    let last = cluster.asked().pop().unwrap();
    assert!(last.contains("watch="), "{last}");
}

#[tokio::test]
async fn an_outage_leaves_the_targets_and_its_end_is_noticed_without_any_change() {
    let cluster = shop();
    let running = Running::new(&cluster, SLICES);
    running.until_at(&SHOP).await;
    cluster.state().down = true;
    cluster.state().break_watches();
    let failing = |_: &Found, status: &Status| status.failing.len() == 3;
    let found = running.until("three watches fail", failing).await;
    assert!(found.keys().eq(SHOP));
    let status = running.slot.status();
    assert!(status.stale);
    assert_eq!(status.failing[0].reason.as_str(), "unreachable");
    cluster.state().down = false;
    let well = |_: &Found, status: &Status| status.failing.is_empty() && !status.stale;
    let found = running.until("none fails", well).await;
    assert!(found.keys().eq(SHOP));
}

#[tokio::test]
async fn what_was_known_before_a_restart_stays_until_the_list_says_otherwise() {
    let cluster = shop();
    let folder = tempfile::tempdir().unwrap();
    let keys = format!("api_server = {:?}\n{SLICES}", cluster.url());
    let running = Running::by(&keys, Some(folder.path()));
    running.until_at(&SHOP).await;
    running.slot.flush();
    drop(running);
    cluster.state().down = true;
    let running = Running::by(&keys, Some(folder.path()));
    let failing = |_: &Found, status: &Status| !status.failing.is_empty();
    let found = running.until("it fails", failing).await;
    assert!(found.keys().eq(SHOP));
    let mut state = cluster.state();
    state.down = false;
    state.delete("endpointslices", "sales", "shop-0");
    drop(state);
    running.until_at(&[]).await;
    let well = |_: &Found, status: &Status| !status.stale && status.failing.is_empty();
    running.until("it is well", well).await;
}

#[tokio::test]
async fn a_list_in_pages_is_taken_whole_and_one_that_is_too_large_not_at_all() {
    let cluster = Kubernetes::new();
    for number in 0..1100 {
        let (name, ip) = (
            format!("p{number}"),
            format!("10.0.{}.{}", number / 250, number % 250),
        );
        cluster.put("pods", pod("a", &name, &ip, "node-1", &[("web", 1)]));
    }
    let running = Running::new(&cluster, "role = \"pod\"\n");
    running
        .until("1100 targets", |found, _| found.len() == 1100)
        .await;
    let pages = cluster
        .asked()
        .iter()
        .filter(|it| it.contains("continue="))
        .count();
    assert_eq!(pages, 2);
    // The history is over between two pages: the list begins again, and no half of it is taken.
    cluster.state().expiring_pages = 2;
    let running = Running::new(&cluster, "role = \"pod\"\n");
    let whole = |found: &Found, _: &Status| !found.is_empty();
    let found = running.until("a list", whole).await;
    assert_eq!(found.len(), 1100);
    assert_eq!(cluster.state().expiring_pages, 0);
    assert!(running.slot.status().failing.is_empty());
    let running = Running::new(&cluster, "role = \"pod\"\nmax_objects = 1000\n");
    let refused = |_: &Found, status: &Status| !status.failing.is_empty();
    let found = running.until("it is refused", refused).await;
    assert!(found.is_empty());
    assert_eq!(
        running.slot.status().failing[0].reason.as_str(),
        "too_large"
    );
    let running = Running::new(&cluster, "role = \"pod\"\nmax_targets = 1099\n");
    let found = running.until("it is refused", refused).await;
    assert!(found.is_empty());
    assert_eq!(running.slot.status().failing.len(), 1);
    cluster.delete("pods", "a", "p7");
    let well = |found: &Found, status: &Status| found.len() == 1099 && status.failing.is_empty();
    running.until("it is well", well).await;
    let running = Running::new(&cluster, "role = \"pod\"\nmax_answer_bytes = \"100KiB\"\n");
    running.until("it is refused", refused).await;
    assert_eq!(
        running.slot.status().failing[0].reason.as_str(),
        "too_large"
    );
}
