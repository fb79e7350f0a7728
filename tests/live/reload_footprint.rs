//! Leaks of many reloads in the program, by the kernel's accounts, while senders write through it.

use metrifold_testing::edits::{post, reloads, replace, topology};
use metrifold_testing::{Endpoint, Load, Metrifold, free_address, until_so};

const RELOADS: usize = 1000;
/// Number of sinks that each reload renames.
const RENAMED: usize = 6;
/// Idle connections and threads come and go. A leak per reload would be a thousand.
const IDLE: usize = 10;
/// Most growth of memory in KiB, since freed memory is not always returned. A leak of one kibibyte
/// per renamed sink would exceed it.
const NOISE: u64 = 15_000;
/// Number of measurements: a leak grows each time, whereas peak usage, which depends on other load
/// of the machine, does not.
const ROUNDS: usize = 3;

/// Numbers of descriptors, threads and series on the metrics page.
fn counts(child: &Metrifold) -> [usize; 3] {
    let page = child.get("/metrics").text();
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    [child.listed("fd"), child.listed("task"), series]
}

#[test]
fn a_thousand_reloads_of_the_program_leave_nothing_behind() {
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let sink = |name: &str, kind: &str, n: usize| {
        let url = endpoint.url();
        format!("[sinks.{name}]\ntype = \"{kind}\"\ninputs = [\"t{n}\"]\nendpoint = \"{url}\"\n")
    };
    // Names, types and keys of components on the path of the load change.
    let config = |n: usize| {
        let kind = ["remote_write", "thanos"][n / 2 % 2];
        let renamed = (0..RENAMED).map(|at| sink(&format!("z{n}x{at}"), kind, n));
        let labels = 10 + n % 2;
        format!(
            "[sources.load]\ntype = \"remote_write\"\naddress = \"INGEST\"\nmax_labels_per_series = {labels}\n\
             [sources.a{n}]\ntype = \"remote_write\"\naddress = \"{address}\"\n\
             [transforms.t{n}]\ntype = \"relabel\"\ninputs = [\"a{n}\", \"load\"]\nrules = [{{ target_label = \"via\", replacement = \"{n}\" }}]\n\
             [sinks.page]\ntype = \"prometheus_exporter\"\ninputs = [\"t{n}\"]\naddress = \"{address}\"\npath = \"/{n}\"\nmax_series = 100\n{}{}",
            sink("same", kind, n),
            renamed.collect::<String>()
        )
    };
    let child = Metrifold::start_with(&config(0), &["--log-level", "warn,metrifold::process=info"]);
    let load = Load::start(0, &[child.ingest; 2]);
    let reload = |n: usize| {
        replace(&child, &config(n));
        let answer = post(&child);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let measure = |n: usize| {
        until_so("what was replaced is gone", || {
            let page = child.get("/metrics").text();
            let ids = page.lines().filter_map(|line| {
                let (_, rest) = line.split_once("component_id=\"")?;
                rest.split('"').next()
            });
            let mut renamed = ids.filter(|id| id.contains(|c: char| c.is_ascii_digit()));
            renamed.all(|id| id[1..].split('x').next() == Some(&n.to_string()))
        });
        (counts(&child), child.memory("VmRSS"))
    };
    // Warm-up, which fills pools and caches.
    let warm = RELOADS / 2;
    (1..=warm).for_each(&reload);
    let (before, first) = measure(warm);
    let acknowledged = load.acknowledged();
    let (mut memory, mut least, mut last) = (first, u64::MAX, warm);
    for _ in 0..ROUNDS {
        (last + 1..=last + RELOADS).for_each(&reload);
        last += RELOADS;
        let (_, after) = measure(last);
        least = least.min(after.saturating_sub(memory));
        memory = after;
        if least < NOISE {
            break;
        }
    }
    let acknowledged = load.acknowledged() - acknowledged;
    // Idle threads stay for 10 s, and idle connections for their timeout.
    until_so(&format!("there is no more than {before:?}"), || {
        let after = counts(&child);
        let pairs = before.iter().zip(after);
        pairs
            .into_iter()
            .all(|(before, after)| after <= before + IDLE)
    });
    println!(
        "{} reloads during {acknowledged} requests; descriptors, threads and series {before:?}, \
         then {:?}; memory grew by {least} KiB",
        last - warm,
        counts(&child)
    );
    assert!(least < NOISE, "memory grows by {least} KiB every time");
    assert!(acknowledged > 0);
    assert!(reloads(&child, "applied") >= RELOADS as f64);
    let components = topology(&child)["components"].as_array().unwrap().len();
    assert_eq!(components, 5 + RENAMED);
    load.stop();
}
