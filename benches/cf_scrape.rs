//! `cf_scrape` with a foundation of 5,000 instances at an interval of 15 s: the fake one of the
//! tests, with 500 applications of ten instances each behind one router, on the same machine.
//!
//! Prints the processor time per 1,000 scrapes, the peak memory, the missed intervals and the
//! requests to the Cloud Controller. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the
//! duration, and `METRIFOLD_BENCH_APPS` the number of applications.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use metrifold_testing::{CloudFoundry, until_so};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Counter, Running, cpu, free_port, metric, peak, product};

const INSTANCES: u32 = 10;
const INTERVAL: u64 = 15;

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let number = |name: &str, otherwise: u64| {
        let given = std::env::var(name).ok();
        given.and_then(|it| it.parse().ok()).unwrap_or(otherwise)
    };
    let seconds = number("METRIFOLD_BENCH_SECONDS", 60);
    let apps = number("METRIFOLD_BENCH_APPS", 500);
    let foundation = CloudFoundry::new();
    for app in 0..apps {
        let place = format!("org{}/space{}/app{app}", app % 25, app % 7);
        let route = format!("127.0.0.1/app{app}");
        foundation.push(&place, &[&route], INSTANCES);
    }
    let sink = Counter::start();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("metrifold.toml");
    let api = ([127, 0, 0, 1], free_port()).into();
    let text = format!(
        "[api]\naddress = \"{api}\"\n\
         [discovery.cf]\ntype = \"cloud_foundry\"\napi = {:?}\nusername = \"admin\"\npassword = \"geheim\"\n\
         [[discovery.cf.select]]\nprotocol = \"http\"\nrouter_port = {}\n\
         [sources.apps]\ntype = \"cf_scrape\"\ndiscovery = \"cf\"\nscrape_interval = \"{INTERVAL}s\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"apps\"]\nendpoint = \"http://{}/write\"\nprotocol = \"1.0\"\n",
        foundation.api(),
        foundation.router.address().port(),
        sink.address,
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(product())
        .args(["--log-level", "error", "-c"])
        .arg(config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Running(child);
    let pid = child.0.id();
    let targets = apps as usize * INSTANCES as usize;
    until_so("every instance has been scraped", || {
        foundation.router.count() >= targets
    });
    let (started, spent) = (Instant::now(), cpu(pid));
    let (before, asked) = (foundation.router.count(), foundation.requests());
    std::thread::sleep(Duration::from_secs(seconds));
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let spent = (cpu(pid) - spent) as f64 / 1e9;
    let scrapes = foundation.router.count() - before;
    let asked = foundation.requests() - asked;
    let missed = metric(api, "metrifold_scrapes_missed_total", "pool=\"apps\"");
    println!("{targets} instances every {INTERVAL} s, measured for {seconds} s");
    println!("scrapes                         {scrapes:>10}");
    println!(
        "CPU seconds per 1,000 scrapes   {:>10.3}",
        1000.0 * spent / scrapes as f64
    );
    println!("MiB peak (goal: at most 100)    {:>10.1}", peak(pid));
    println!("missed intervals (goal: 0)      {missed:>10}");
    println!(
        "API requests per minute         {:>10.1}",
        asked as f64 / minutes
    );
    println!("samples delivered               {:>10}", sink.samples());
}
