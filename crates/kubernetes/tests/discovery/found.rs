//! Which targets are found, with which labels.

use super::*;

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
