//! Ten thousand services and instances: resource usage from the kernel's accounts. The numbers are
//! printed; asserted is only that everything is found and followed.

use std::fs;
use std::time::{Duration, Instant};

use metrifold_testing::aiven::{Aiven, endpoint, service};
use metrifold_testing::consul::{Consul, instance};
use metrifold_testing::kubernetes::{self, endpointslice, pod};
use metrifold_testing::{Kubernetes, Metrifold, until_so};

const MANY: usize = 10_000;
/// Services of Kubernetes and Consul, each with a hundredth of all targets.
const SERVICES: usize = 100;
const IN_SERVICE: usize = MANY / SERVICES;
/// Duration of the measurement while nothing changes.
const REST: Duration = Duration::from_secs(10);
/// Pause between two changes: longer than the time within which changes are reported together.
const APART: Duration = Duration::from_millis(200);

/// Processor time of the program in milliseconds.
fn cpu(child: &Metrifold) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|it| it.parse::<u64>().unwrap())
        .sum();
    // The kernel counts a hundred ticks per second.
    ticks * 10
}

/// Number of targets with this text in their labels.
fn matched(child: &Metrifold, text: &str) -> usize {
    let found = child.get(&format!("/api/v1/discovery?limit=1&search={text}"));
    usize::try_from(found.json()["matched"].as_u64().unwrap()).unwrap()
}

/// Numbers of changes to measure.
struct Changes {
    /// Changes of which each is awaited.
    awaited: usize,
    /// Changes whose processor time is taken together, without a request for their outcome.
    counted: usize,
}

/// Prints the cost of a provider. `change` changes one target, and returns a text that its labels
/// have from then on; `finish` gets the last of these texts.
fn measure(
    name: &str,
    config: &str,
    changes: &Changes,
    change: impl Fn(usize) -> String,
    finish: impl FnOnce(&str),
) {
    let started = Instant::now();
    let child = Metrifold::start(config);
    until_so("all are found", || matched(&child, "") == MANY);
    let found = started.elapsed();
    let begun = cpu(&child);
    let memory = child.memory("VmRSS");
    std::thread::sleep(REST);
    let rest = cpu(&child) - begun;
    println!(
        "{name}: {MANY} targets after {found:?} and {begun} ms of processor time, {memory} KiB resident; \
         {rest} ms of processor time in {REST:?} at rest"
    );
    let mut waited = Vec::new();
    let mut last = String::new();
    for number in 0..changes.awaited {
        let changed = Instant::now();
        last = change(number);
        until_so("the change is seen", || matched(&child, &last) == 1);
        waited.push(changed.elapsed());
        std::thread::sleep(APART);
    }
    waited.sort();
    let (median, longest) = (waited[waited.len() / 2], waited[waited.len() - 1]);
    println!(
        "{name}: a change of one target is seen after {median:?} (median), {longest:?} (longest)"
    );
    if changes.counted > 0 {
        let before = cpu(&child);
        for number in 0..changes.counted {
            last = change(changes.awaited + number);
            std::thread::sleep(APART);
        }
        let each = (cpu(&child) - before) as f64 / changes.counted as f64;
        until_so("the last change is seen", || matched(&child, &last) == 1);
        println!("{name}: a change of one target takes {each:.1} ms of processor time");
    }
    finish(&last);
    println!(
        "{name}: {} KiB resident in the end, {} KiB at most",
        child.memory("VmRSS"),
        child.memory("VmHWM")
    );
}

#[test]
fn ten_thousand_services_of_aiven_are_found_and_followed() {
    let aiven = Aiven::new();
    {
        let mut state = aiven.state();
        state.project().endpoints.push(endpoint("e1", "metrifold"));
        for number in 0..MANY {
            let mut it = service("proj", &format!("s{number}"), "opensearch", 1);
            it["service_uri_params"]["host"] = "all-proj.aivencloud.test".into();
            state.project().services.push(it);
        }
    }
    for number in 0..MANY {
        aiven.integrate(&format!("s{number}"), "e1");
    }
    aiven.names.set("all-proj.aivencloud.test", &["10.0.0.1"]);
    let config = format!(
        "[discovery.a]\ntype = \"aiven\"\napi = {:?}\ntoken = \"geheim\"\nprojects = [\"proj\"]\n\
         refresh_interval = \"5s\"\ndns_servers = [\"{}\"]\n",
        aiven.url(),
        aiven.names.address()
    );
    let changes = Changes {
        awaited: 3,
        counted: 0,
    };
    let change = |number: usize| {
        let plan = format!("another-plan-{number}");
        aiven.state().service(&format!("s{number}"))["plan"] = plan.clone().into();
        plan
    };
    measure(
        "aiven, refreshed every 5 s",
        &config,
        &changes,
        change,
        |_| {},
    );
}

#[test]
fn ten_thousand_instances_of_consul_are_found_and_followed() {
    let consul = Consul::new();
    // The instances of a service, of which one has another tag.
    let instances = |service: usize, other: &str| {
        let name = format!("s{service}");
        let one = |number: usize| {
            let id = format!("{name}-{number}");
            let address = format!("10.1.{service}.{number}");
            let tags = match number {
                7 => &["metrics", other][..],
                _ => &["metrics"],
            };
            instance(&name, &id, &address, 80, tags)
        };
        (0..IN_SERVICE).map(one).collect::<Vec<_>>()
    };
    for service in 0..SERVICES {
        consul.register(&format!("s{service}"), instances(service, "first"));
    }
    let config = format!(
        "[discovery.c]\ntype = \"consul\"\nserver = {:?}\nrefresh_interval = \"100ms\"\ntags = [\"metrics\"]\n",
        consul.url()
    );
    let changes = Changes {
        awaited: 20,
        counted: 50,
    };
    let change = |number: usize| {
        let (service, tag) = (number % SERVICES, format!("tag-{number}-"));
        consul.register(&format!("s{service}"), instances(service, &tag));
        tag
    };
    measure("consul", &config, &changes, change, |_| {});
}

/// A pod behind a service, with a version among its labels.
fn versioned(service: usize, number: usize, version: &str) -> serde_json::Value {
    let name = format!("p-{service}-{number}");
    let address = format!("10.{service}.{number}.1");
    let mut object = pod("shop", &name, &address, "node-1", &[("web", 8080)]);
    object["metadata"]["labels"]["version"] = version.into();
    object
}

fn cluster() -> Kubernetes {
    let cluster = Kubernetes::new();
    for service in 0..SERVICES {
        let named: Vec<(String, String)> = (0..IN_SERVICE)
            .map(|number| {
                cluster.put("pods", versioned(service, number, "first"));
                (
                    format!("p-{service}-{number}"),
                    format!("10.{service}.{number}.1"),
                )
            })
            .collect();
        let pods: Vec<_> = named
            .iter()
            .map(|(name, address)| (name.as_str(), address.as_str()))
            .collect();
        let name = format!("s-{service}");
        cluster.put(
            "services",
            kubernetes::service("shop", &name, &[("web", 80)]),
        );
        let slice = endpointslice("shop", &name, 0, &pods, &[("web", 8080)]);
        cluster.put("endpointslices", slice);
    }
    cluster
}

fn measure_cluster(name: &str, more: &str, finish: impl FnOnce(&str)) {
    let cluster = cluster();
    let config = format!(
        "{more}\n[discovery.k]\ntype = \"kubernetes\"\nrole = \"endpointslice\"\napi_server = {:?}\n",
        cluster.url()
    );
    let changes = Changes {
        awaited: 20,
        counted: 50,
    };
    let change = |number: usize| {
        let version = format!("version-{number}-");
        let at = (number * 7 % SERVICES, number % IN_SERVICE);
        cluster.put("pods", versioned(at.0, at.1, &version));
        version
    };
    measure(name, &config, &changes, change, finish);
}

#[test]
fn ten_thousand_endpoints_of_kubernetes_are_found_and_followed() {
    measure_cluster("kubernetes", "", |_| {});
}

#[test]
fn ten_thousand_endpoints_of_kubernetes_are_kept_and_published() {
    let place = tempfile::tempdir().unwrap();
    let (data, file) = (place.path().join("data"), place.path().join("targets.json"));
    let more = format!("data_dir = {data:?}\n[publish.p]\ndiscovery = \"k\"\nfile = {file:?}\n");
    measure_cluster("kubernetes, kept and published", &more, |last| {
        until_so("the last change is published", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains(last))
        });
    });
}
