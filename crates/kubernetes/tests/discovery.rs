//! Discovery of a cluster: labels of targets, changes, and behaviour while the API server fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use metrifold_base::{Problems, RunError};
use metrifold_discovery::{ProviderConfig, ProviderContext, Slot, SlotOptions, Status};
use metrifold_kubernetes::KubernetesConfig;
use metrifold_telemetry::Telemetry;
use metrifold_testing::Authority;
use metrifold_testing::kubernetes::{
    Expiry, Kubernetes, endpoints, endpointslice, ingress, namespace, node, owned, pod, service,
};

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

type Found = BTreeMap<String, BTreeMap<String, String>>;

impl Running {
    fn new(cluster: &Kubernetes, keys: &str) -> Self {
        Self::by(&format!("api_server = {:?}\n{keys}", cluster.url()), None)
    }

    fn by(keys: &str, folder: Option<&Path>) -> Self {
        let config: KubernetesConfig = toml::from_str(keys).unwrap();
        let mut problems = Problems::new(true);
        config.validate(&mut problems);
        assert_eq!(problems.into_list(), [], "{keys}");
        let options = SlotOptions {
            type_name: "kubernetes".into(),
            question: config.question(),
            limits: config.limits(),
            on_empty: config.on_empty(),
            folder: folder.map(Into::into),
        };
        let provider = config.build(&ProviderContext::alone("k")).unwrap();
        let slot = Slot::new("k".into(), options.clone(), &Telemetry::new());
        let feed = slot.take_over(options);
        let task = tokio::spawn(metrifold_discovery::run(provider, feed));
        Self { slot, task }
    }

    /// Targets by address.
    fn found(&self) -> Found {
        let snapshot = self.slot.snapshot();
        let targets = snapshot.targets().iter().map(|target| {
            let labels = target.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
            (target.address().to_owned(), labels.collect())
        });
        targets.collect()
    }

    async fn until(&self, what: &str, good: impl Fn(&Found, &Status) -> bool) -> Found {
        let mut attempts = self.slot.attempts();
        let waited = timeout(Duration::from_secs(30), async {
            loop {
                attempts.borrow_and_update();
                let found = self.found();
                if good(&found, &self.slot.status()) {
                    return found;
                }
                attempts.changed().await.unwrap();
            }
        });
        let status = || format!("{:?} {:?}", self.found().keys(), self.slot.status());
        waited
            .await
            .unwrap_or_else(|_| panic!("{what}: {}", status()))
    }

    /// Waits until exactly these addresses are found.
    async fn until_at(&self, addresses: &[&str]) -> Found {
        let good = |found: &Found, _: &Status| found.keys().eq(addresses);
        self.until(&format!("{addresses:?}"), good).await
    }
}

const SLICES: &str = "role = \"endpointslice\"\n";

/// A service with two pods in one slice; each pod has a further port.
fn shop() -> Kubernetes {
    let cluster = Kubernetes::new();
    let ports = [("web", 8080), ("admin", 9090)];
    cluster.put("pods", pod("sales", "shop-0", "10.0.0.1", "node-1", &ports));
    cluster.put("pods", pod("sales", "shop-1", "10.0.0.2", "node-1", &ports));
    cluster.put("services", service("sales", "shop", &[("web", 80)]));
    let pods = [("shop-0", "10.0.0.1"), ("shop-1", "10.0.0.2")];
    cluster.put(
        "endpointslices",
        endpointslice("sales", "shop", 0, &pods, &[("web", 8080)]),
    );
    cluster
}

const SHOP: [&str; 4] = [
    "10.0.0.1:8080",
    "10.0.0.1:9090",
    "10.0.0.2:8080",
    "10.0.0.2:9090",
];

fn labels(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let name = match name.starts_with("__address__") || name == "instance" {
            true => name.to_owned(),
            false => format!("__meta_kubernetes_{name}"),
        };
        (name, value.to_owned())
    });
    pairs.collect()
}

/// Labels of every pod in these tests; an empty value stands for a missing label.
const POD: &str = "
    pod_name shop-0\n pod_ip 10.0.0.1\n pod_ready true\n pod_phase Running\n pod_node_name node-1
    pod_host_ip 192.0.2.1\n pod_uid uid-of-shop-0
    pod_label_app shop\n pod_labelpresent_app true
    pod_label_app_kubernetes_io_part_of sales\n pod_labelpresent_app_kubernetes_io_part_of true
    pod_annotation_prometheus_io_scrape true\n pod_annotationpresent_prometheus_io_scrape true
    pod_annotationpresent_empty true\n namespace sales
    pod_container_name app\n pod_container_image shop:1\n pod_container_port_protocol TCP
    pod_container_init false";

const OF_SERVICE: &str = "
    service_name shop\n service_label_team sales\n service_labelpresent_team true";

#[tokio::test]
async fn slices_have_their_ports_with_what_is_known_of_pod_and_service_and_the_pods_other_ports() {
    let cluster = shop();
    let running = Running::new(&cluster, SLICES);
    let found = running.until_at(&SHOP).await;
    let slice = "
        endpointslice_name shop-0\n endpointslice_address_type IPv4
        endpointslice_label_kubernetes_io_service_name shop
        endpointslice_labelpresent_kubernetes_io_service_name true";
    let own = "
        __address__ 10.0.0.1:8080\n pod_container_port_name web\n pod_container_port_number 8080
        endpointslice_port 8080\n endpointslice_port_name web\n endpointslice_port_protocol TCP
        endpointslice_endpoint_conditions_ready true\n endpointslice_endpoint_conditions_serving true
        endpointslice_endpoint_conditions_terminating false
        endpointslice_endpoint_node_name node-1\n endpointslice_endpoint_zone a
        endpointslice_address_target_kind Pod\n endpointslice_address_target_name shop-0";
    let expected = labels(&[POD, OF_SERVICE, slice, own].join("\n"));
    assert_eq!(found[SHOP[0]], expected);
    let further = "
        __address__ 10.0.0.1:9090\n pod_container_port_name admin\n pod_container_port_number 9090";
    let expected = labels(&[POD, OF_SERVICE, slice, further].join("\n"));
    assert_eq!(found[SHOP[1]], expected);
}

#[tokio::test]
async fn endpoints_are_told_ready_or_not() {
    let cluster = shop();
    let (ready, not) = ([("shop-0", "10.0.0.1")], [("shop-1", "10.0.0.2")]);
    cluster.put(
        "endpoints",
        endpoints("sales", "shop", &ready, &not, &[("web", 8080)]),
    );
    let running = Running::new(&cluster, "role = \"endpoints\"\n");
    let found = running.until_at(&SHOP).await;
    let own = "
        __address__ 10.0.0.1:8080\n endpoints_name shop\n endpoint_port_name web
        endpoint_port_protocol TCP\n endpoint_ready true\n endpoint_node_name node-1
        endpoint_address_target_kind Pod\n endpoint_address_target_name shop-0
        pod_container_port_name web\n pod_container_port_number 8080";
    assert_eq!(found[SHOP[0]], labels(&[POD, OF_SERVICE, own].join("\n")));
    assert_eq!(found[SHOP[2]]["__meta_kubernetes_endpoint_ready"], "false");
    let running = Running::new(
        &cluster,
        "role = \"endpoints\"\nonly_ready = true\nport = \"web\"\n",
    );
    running.until_at(&SHOP[..1]).await;
}

#[tokio::test]
async fn an_object_beyond_the_most_is_found_once_there_is_room_for_it() {
    let cluster = Kubernetes::new();
    let put = |name: &str, ip: &str| {
        cluster.put("pods", pod("sales", name, ip, "node-1", &[("web", 8080)]));
    };
    put("one", "10.0.0.1");
    put("two", "10.0.0.2");
    let running = Running::new(&cluster, "role = \"pod\"\nmax_objects = 2\n");
    running.until_at(&["10.0.0.1:8080", "10.0.0.2:8080"]).await;
    put("three", "10.0.0.3");
    let refused = |found: &Found, status: &Status| found.len() == 2 && !status.failing.is_empty();
    running.until("it is refused", refused).await;
    cluster.delete("pods", "sales", "one");
    running.until_at(&["10.0.0.2:8080", "10.0.0.3:8080"]).await;
    let well = |_: &Found, status: &Status| status.failing.is_empty();
    running.until("it is well", well).await;
}

#[tokio::test]
async fn what_terminates_is_a_target_unless_only_what_is_ready_is_wanted() {
    let cluster = shop();
    let mut ending = pod("sales", "ending", "10.0.0.3", "node-1", &[("web", 8080)]);
    ending["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z");
    cluster.put("pods", ending);
    let pods = [
        ("shop-0", "10.0.0.1"),
        ("shop-1", "10.0.0.2"),
        ("ending", "10.0.0.3"),
    ];
    let mut slice = endpointslice("sales", "shop", 0, &pods, &[("web", 8080)]);
    slice["endpoints"][1]["conditions"] = json!({});
    // As of a service with publishNotReadyAddresses.
    slice["endpoints"][2]["conditions"] =
        json!({ "ready": true, "serving": true, "terminating": true });
    cluster.put("endpointslices", slice);
    let ready = ["10.0.0.1:8080", "10.0.0.2:8080"];
    let all = [&ready[..], &["10.0.0.3:8080"]].concat();
    for role in ["endpointslice", "pod"] {
        let keys = format!("role = \"{role}\"\nport = \"web\"\n");
        let found = Running::new(&cluster, &keys).until_at(&all).await;
        if role == "endpointslice" {
            let name = "__meta_kubernetes_endpointslice_endpoint_conditions_terminating";
            assert_eq!(found[all[2]][name], "true");
        }
        Running::new(&cluster, &format!("{keys}only_ready = true\n"))
            .until_at(&ready)
            .await;
    }
}

#[tokio::test]
async fn pods_have_a_target_for_each_port_and_one_without_where_a_container_has_none() {
    let cluster = shop();
    let mut other = pod("sales", "db", "2001:db8::7", "node-1", &[]);
    other["spec"]["initContainers"] =
        json!([{ "name": "init", "image": "i", "ports": [{ "containerPort": 1 }] }]);
    cluster.put("pods", other);
    cluster.put(
        "pods",
        pod("sales", "starting", "", "node-1", &[("web", 8080)]),
    );
    let running = Running::new(&cluster, "role = \"pod\"\n");
    let addresses = [&SHOP[..], &["2001:db8::7", "[2001:db8::7]:1"]].concat();
    let found = running.until_at(&addresses).await;
    let own = "
        __address__ 10.0.0.1:8080\n pod_container_id containerd://shop-0
        pod_container_port_name web\n pod_container_port_number 8080";
    assert_eq!(found[SHOP[0]], labels(&[POD, own].join("\n")));
    let init = &found["[2001:db8::7]:1"];
    assert_eq!(init["__meta_kubernetes_pod_container_init"], "true");
    assert!(!found["2001:db8::7"].contains_key("__meta_kubernetes_pod_container_port_number"));
    let running = Running::new(&cluster, "role = \"pod\"\nport = \"first_tcp\"\n");
    running
        .until_at(&[SHOP[0], SHOP[2], "[2001:db8::7]:1"])
        .await;
    let running = Running::new(&cluster, "role = \"pod\"\nport = \"9090\"\n");
    running.until_at(&[SHOP[1], SHOP[3]]).await;
}

#[tokio::test]
async fn services_nodes_and_ingresses_are_targets_of_their_own() {
    let cluster = Kubernetes::new();
    let mut balanced = service("sales", "front", &[("web", 80), ("tls", 443)]);
    balanced["spec"]["type"] = json!("LoadBalancer");
    balanced["status"]["loadBalancer"] =
        json!({ "ingress": [{ "ip": "192.0.2.7" }, { "ip": "192.0.2.8" }] });
    cluster.put("services", balanced);
    let running = Running::new(&cluster, "role = \"service\"\n");
    let found = running
        .until_at(&["front.sales.svc:443", "front.sales.svc:80"])
        .await;
    let expected = "
        __address__ front.sales.svc:80\n namespace sales\n service_name front
        service_label_team sales\n service_labelpresent_team true\n service_type LoadBalancer
        service_cluster_ip 10.96.0.10\n service_loadbalancer_ip 192.0.2.7,192.0.2.8
        service_port_name web\n service_port_number 80\n service_port_protocol TCP";
    assert_eq!(found["front.sales.svc:80"], labels(expected));
    cluster.put("nodes", node("node-1", "192.0.2.1"));
    let running = Running::new(&cluster, "role = \"node\"\n");
    let found = running.until_at(&["192.0.2.1:10250"]).await;
    let expected = "
        __address__ 192.0.2.1:10250\n instance node-1\n node_name node-1
        node_provider_id kind://node-1\n node_label_kubernetes_io_arch amd64
        node_labelpresent_kubernetes_io_arch true\n node_condition_ready true
        node_condition_memorypressure false\n node_address_Hostname node-1
        node_address_InternalIP 192.0.2.1";
    assert_eq!(found["192.0.2.1:10250"], labels(expected));
    cluster.put(
        "ingresses",
        ingress("sales", "in", "a.example", &["*.example"], &["/x"]),
    );
    cluster.put(
        "ingresses",
        ingress("sales", "out", "b.c.example", &["*.example"], &[""]),
    );
    let running = Running::new(&cluster, "role = \"ingress\"\n");
    let found = running.until_at(&["a.example", "b.c.example"]).await;
    let expected = "
        __address__ a.example\n namespace sales\n ingress_name in\n ingress_class_name nginx
        ingress_scheme https\n ingress_host a.example\n ingress_path /x";
    assert_eq!(found["a.example"], labels(expected));
    assert_eq!(
        found["b.c.example"]["__meta_kubernetes_ingress_scheme"],
        "http"
    );
    assert_eq!(found["b.c.example"]["__meta_kubernetes_ingress_path"], "/");
}

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
async fn a_token_that_is_rotated_is_read_anew_when_the_old_one_is_refused() {
    let cluster = shop();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    cluster.state().token = Some("one".to_owned());
    let auth = format!("authorization = {{ credentials_file = {file:?} }}\n");
    let running = Running::new(&cluster, &format!("{auth}{SLICES}"));
    running.until_at(&SHOP).await;
    std::fs::write(&file, "two\n").unwrap();
    let mut state = cluster.state();
    state.token = Some("two".to_owned());
    state.break_watches();
    state.delete("endpointslices", "sales", "shop-0");
    drop(state);
    running.until_at(&[]).await;
    cluster.state().token = Some("three".to_owned());
    cluster.state().break_watches();
    let refused = |_: &Found, status: &Status| {
        status
            .failing
            .iter()
            .any(|it| it.reason.as_str() == "credentials")
    };
    running.until("it is refused", refused).await;
}

#[tokio::test]
async fn namespaces_are_watched_one_by_one_and_one_that_is_forbidden_keeps_no_other() {
    let cluster = Kubernetes::new();
    for (space, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        cluster.put("pods", pod(space, "p", ip, "node-1", &[("web", 1)]));
    }
    let running = Running::new(&cluster, "role = \"pod\"\nnamespaces = [\"a\", \"c\"]\n");
    running.until_at(&["10.0.0.1:1", "10.0.0.3:1"]).await;
    assert!(cluster.asked().iter().all(|it| it.contains("/namespaces/")));
    cluster.state().forbidden.insert("nodes".to_owned());
    let attach = "role = \"pod\"\nattach_metadata = { node = true }\n";
    let running = Running::new(&cluster, attach);
    let refused = |_: &Found, status: &Status| !status.failing.is_empty();
    let found = running.until("nodes are refused", refused).await;
    // The joined objects are unknown; targets without their labels would be different targets.
    assert!(found.is_empty());
    let failing = running.slot.status().failing;
    assert_eq!(&*failing[0].source, "watch of node");
    assert!(failing[0].text.contains("forbidden"), "{}", failing[0].text);
    cluster.state().forbidden.clear();
    cluster.put("nodes", node("node-1", "192.0.2.1"));
    running
        .until_at(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"])
        .await;
}

#[tokio::test]
async fn selectors_are_the_api_server_s_to_apply() {
    let cluster = shop();
    let mut other = pod("sales", "legacy", "10.0.0.9", "node-2", &[("web", 8080)]);
    other["metadata"]["labels"] = json!({ "app": "old" });
    cluster.put("pods", other.clone());
    let selected = "role = \"pod\"\nport = \"web\"\nselectors = [{ role = \"pod\", label = \"app in (shop,cart),!legacy\", field = \"spec.nodeName=node-1\" }]\n";
    let running = Running::new(&cluster, selected);
    running.until_at(&[SHOP[0], SHOP[2]]).await;
    // An object that begins to match is added, one that no longer matches is removed.
    other["metadata"]["labels"]["app"] = json!("cart");
    other["spec"]["nodeName"] = json!("node-1");
    cluster.put("pods", other.clone());
    running.until_at(&[SHOP[0], SHOP[2], "10.0.0.9:8080"]).await;
    other["metadata"]["labels"]["legacy"] = json!("yes");
    cluster.put("pods", other);
    running.until_at(&[SHOP[0], SHOP[2]]).await;
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

#[tokio::test]
async fn a_kubeconfig_says_where_and_as_whom() {
    let authority = Authority::new();
    let cluster = Kubernetes::tls(authority.server(Some(&authority.ca())));
    cluster.put(
        "pods",
        pod("sales", "shop-0", "10.0.0.1", "node-1", &[("web", 8080)]),
    );
    cluster.state().token = Some("geheim".to_owned());
    let (cert, key) = authority.issue("user");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "geheim").unwrap();
    let data = |file: &Path| STANDARD.encode(std::fs::read(file).unwrap());
    let file = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
         clusters:\n- name: c\n  cluster: {{server: '{}', certificate-authority-data: {}}}\n\
         users:\n- name: u\n  user: {{client-certificate-data: {}, client-key-data: {}, tokenFile: token}}\n\
         contexts:\n- name: x\n  context: {{cluster: c, user: u}}\n",
        cluster.url(),
        data(&authority.ca()),
        data(&cert),
        data(&key)
    );
    std::fs::write(&file, text).unwrap();
    let keys = format!("kubeconfig_file = {file:?}\ncontext = \"x\"\nrole = \"pod\"\n");
    let running = Running::by(&keys, None);
    running.until_at(&[SHOP[0]]).await;
    // An exec plugin can supply the token.
    let helper = folder.path().join("helper");
    let answer = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"geheim"}}"#;
    std::fs::write(&helper, answer).unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace(
        "tokenFile: token",
        &format!("exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: [{helper:?}]}}"),
    );
    std::fs::write(&file, text).unwrap();
    let running = Running::by(&keys, None);
    running.until_at(&[SHOP[0]]).await;
}

#[test]
fn what_cannot_be_is_refused_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("kubeconfig");
    std::fs::write(&broken, "current-context: x\nsecret-word: [").unwrap();
    for (keys, key, message) in [
        (
            "role = \"pod\"\nselectors = [{ role = \"service\" }]",
            "selectors[0].role",
            "does not apply",
        ),
        (
            "role = \"pod\"\nselectors = [{ role = \"pod\" }, { role = \"pod\" }]",
            "selectors[1].role",
            "already",
        ),
        (
            "role = \"node\"\nnamespaces = [\"a\"]",
            "namespaces",
            "no namespace",
        ),
        (
            "role = \"pod\"\nnamespaces = [\"a/../b\"]",
            "namespaces[0]",
            "not the name",
        ),
        (
            "role = \"pod\"\napi_server = \"http://h\"\nown_namespace = true",
            "own_namespace",
            "within a cluster",
        ),
        (
            "role = \"pod\"\nauthorization = { credentials = \"x\" }",
            "authorization",
            "api_server",
        ),
        (
            "role = \"pod\"\ncontext = \"x\"",
            "context",
            "kubeconfig_file",
        ),
        ("role = \"node\"\nport = \"web\"", "port", "endpoints"),
        (
            "role = \"service\"\nonly_ready = true",
            "only_ready",
            "pods",
        ),
        (
            "role = \"pod\"\nwatch_timeout = \"100ms\"",
            "watch_timeout",
            "1s",
        ),
        (
            &format!("role = \"pod\"\nkubeconfig_file = {broken:?}"),
            "kubeconfig_file",
            "no kubeconfig",
        ),
    ] {
        let config: KubernetesConfig = toml::from_str(keys).unwrap();
        let mut problems = Problems::new(true);
        config.validate(&mut problems);
        let problems = problems.into_list();
        let found = problems.iter().find(|it| it.path == key);
        let found = found.unwrap_or_else(|| panic!("{keys}: {problems:?}"));
        assert!(found.message.contains(message), "{keys}: {}", found.message);
        assert!(!format!("{problems:?}").contains("secret-word"));
    }
}
