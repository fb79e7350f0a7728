//! Ten thousand services and instances: what they cost, as the kernel counts it. The figures are printed;
//! what is asserted is that everything is found and followed.

use std::fs;
use std::time::{Duration, Instant};

use metrifold_testing::aiven::{Aiven, endpoint, service};
use metrifold_testing::consul::{Consul, instance};
use metrifold_testing::{Metrifold, until_so};

const MANY: usize = 10_000;
/// How long the program is watched while nothing changes.
const REST: Duration = Duration::from_secs(10);

/// Milliseconds of processor time that the program has used.
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
    // The kernel counts a hundred of them per second.
    ticks * 10
}

fn matched(child: &Metrifold) -> usize {
    let found = child.get("/api/v1/discovery?limit=1").json();
    usize::try_from(found["matched"].as_u64().unwrap()).unwrap()
}

/// Prints what a provider costs. `change` changes one of what there is, so that it has one target more.
fn measure(name: &str, config: &str, change: impl FnOnce()) {
    let started = Instant::now();
    let child = Metrifold::start(config);
    until_so("all are found", || matched(&child) == MANY);
    let found = started.elapsed();
    let begun = cpu(&child);
    let memory = child.memory("VmRSS");
    std::thread::sleep(REST);
    let rest = cpu(&child) - begun;
    let before = cpu(&child);
    let changed = Instant::now();
    change();
    until_so("the change is seen", || matched(&child) == MANY + 1);
    println!(
        "{name}: {MANY} targets after {found:?} and {begun} ms of processor time, {memory} KiB resident; \
         {rest} ms of processor time in {REST:?} at rest; a change seen after {:?}, with {} ms of processor time",
        changed.elapsed(),
        cpu(&child) - before
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
        let mut more = service("proj", "more", "opensearch", 1);
        more["service_uri_params"]["host"] = "more-proj.aivencloud.test".into();
        state.project().services.push(more);
    }
    for number in 0..MANY {
        aiven.integrate(&format!("s{number}"), "e1");
    }
    aiven.names.set("all-proj.aivencloud.test", &["10.0.0.1"]);
    aiven.names.set("more-proj.aivencloud.test", &["10.0.0.2"]);
    let config = format!(
        "[discovery.a]\ntype = \"aiven\"\napi = {:?}\ntoken = \"geheim\"\nprojects = [\"proj\"]\n\
         refresh_interval = \"5s\"\ndns_servers = [\"{}\"]\n",
        aiven.url(),
        aiven.names.address()
    );
    measure("aiven", &config, || aiven.integrate("more", "e1"));
}

#[test]
fn ten_thousand_instances_of_consul_are_found_and_followed() {
    let consul = Consul::new();
    let instances = |service: usize, count: usize| {
        let name = format!("s{service}");
        let one = |number: usize| {
            let id = format!("{name}-{number}");
            instance(
                &name,
                &id,
                &format!("10.1.{service}.{number}"),
                80,
                &["metrics"],
            )
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    let services = 100;
    for service in 0..services {
        consul.register(&format!("s{service}"), instances(service, MANY / services));
    }
    let config = format!(
        "[discovery.c]\ntype = \"consul\"\nserver = {:?}\nrefresh_interval = \"100ms\"\ntags = [\"metrics\"]\n",
        consul.url()
    );
    measure("consul", &config, || {
        consul.register("s7", instances(7, MANY / services + 1))
    });
}
