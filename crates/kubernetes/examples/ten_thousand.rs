//! Measures discovery of 10,000 endpoints: time to the first target, memory, one change, idle time.
//!
//! The API server runs in a process of its own, so that only discovery is measured.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use metrifold_discovery::{ProviderConfig, ProviderContext, Slot, SlotOptions};
use metrifold_kubernetes::KubernetesConfig;
use metrifold_telemetry::Telemetry;
use metrifold_testing::kubernetes::{Kubernetes, endpointslice, pod, service};

const SLICES: usize = 100;
const IN_SLICE: usize = 100;
const CHANGES: usize = 200;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        _ => tokio::runtime::Runtime::new().unwrap().block_on(follow()),
    }
}

fn ip(slice: usize, number: usize) -> String {
    format!("10.{}.{}.1", slice, number)
}

fn put_pod(cluster: &Kubernetes, slice: usize, number: usize, version: usize) {
    let name = format!("p-{slice}-{number}");
    let mut object = pod(
        "shop",
        &name,
        &ip(slice, number),
        "node-1",
        &[("web", 8080)],
    );
    object["metadata"]["labels"]["version"] = version.to_string().into();
    cluster.put("pods", object);
}

/// Runs the API server. Each line on stdin changes one pod.
fn serve() {
    let cluster = Kubernetes::new();
    for slice in 0..SLICES {
        let named: Vec<(String, String)> = (0..IN_SLICE)
            .map(|number| (format!("p-{slice}-{number}"), ip(slice, number)))
            .collect();
        for number in 0..IN_SLICE {
            put_pod(&cluster, slice, number, 0);
        }
        let service_name = format!("s-{slice}");
        let pods: Vec<_> = named
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        cluster.put("services", service("shop", &service_name, &[("web", 80)]));
        let slice = endpointslice("shop", &service_name, 0, &pods, &[("web", 8080)]);
        cluster.put("endpointslices", slice);
    }
    println!("{}", cluster.url());
    for (at, _) in std::io::stdin().lines().enumerate() {
        put_pod(&cluster, at * 7 % SLICES, at % IN_SLICE, at + 1);
    }
}

/// Resident memory in MiB.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
    kib / 1024.0
}

/// Processor time of all threads so far.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn follow() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let keys = format!("role = \"endpointslice\"\napi_server = {:?}\n", url.trim());
    let config: KubernetesConfig = toml::from_str(&keys).unwrap();
    let options = SlotOptions {
        type_name: "kubernetes".into(),
        question: config.question(),
        limits: config.limits(),
        on_empty: config.on_empty(),
        folder: None,
    };
    let before = memory();
    let started = Instant::now();
    let provider = config.build(&ProviderContext::alone("k")).unwrap();
    let slot = Slot::new("k".into(), options.clone(), &Telemetry::new());
    let feed = slot.take_over(options);
    let mut targets = slot.targets();
    let task = tokio::spawn(metrifold_discovery::run(provider, feed));
    while targets.snapshot().targets().is_empty() {
        targets.changed().await;
    }
    let found = targets.snapshot().targets().len();
    println!(
        "{found} targets after {:?}, {:?} of processor time",
        started.elapsed(),
        processor()
    );
    println!("{:.1} MiB for them", memory() - before);
    let (cpu, mut waited) = (processor(), Vec::new());
    for _ in 0..CHANGES {
        let older = targets.snapshot();
        // Longer than the interval in which changes are reported together.
        tokio::time::sleep(Duration::from_millis(120)).await;
        let started = Instant::now();
        writeln!(stdin, "change").unwrap();
        targets.changed().await;
        waited.push(started.elapsed());
        let changes = targets.snapshot().changes_since(&older);
        assert_eq!((changes.added.len(), changes.removed.len()), (1, 1));
    }
    let cpu = (processor() - cpu).as_secs_f64() * 1e3 / CHANGES as f64;
    waited.sort();
    println!(
        "a change of one of them: {cpu:.1} ms of processor time, told after {:?} (median), {:?} (p99)",
        waited[CHANGES / 2],
        waited[CHANGES * 99 / 100]
    );
    let cpu = processor();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("10 s at rest: {:?} of processor time", processor() - cpu);
    println!("{:.1} MiB in the end", memory() - before);
    task.abort();
    drop(slot);
    drop(stdin);
    let _ = child.wait();
}
