//! `kill -9` at random moments: acknowledged samples arrive at every required sink, in order.
//!
//! The program runs with two sinks that have queues on disk; both endpoints flap, and one is mostly
//! down. It is killed at random moments and started again, round after round, and its ledger
//! balances after each; `METRIFOLD_CRASH_ROUNDS` sets the number of rounds. In a second run, every
//! start finds a backlog larger than what is listed at once, and the endpoint refuses disorder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use metrifold::api::ledger::{Balance, Ledgers};
use metrifold_queue::disk::{ACK_INTERVAL, DiskQueue, Options, SyncPolicy};
use metrifold_testing::{Endpoint, Metrifold, Random, Seen, Sender, body, one, until, until_so};

const SENDERS: usize = 4;
const SINKS: [&str; 2] = ["flapping", "down"];
const ROUNDS: usize = 200;

/// Record of a sender, whose samples have the times 1, 2, 3 and so on.
#[derive(Clone, Default)]
struct Progress {
    acknowledged: i64,
    /// Times of samples that may have been sent more than once.
    repeated: HashSet<i64>,
}

/// Sends until the program is gone, each sample again until it is acknowledged.
fn send(
    series: usize,
    address: SocketAddr,
    path: String,
    mut progress: Progress,
) -> JoinHandle<Progress> {
    std::thread::spawn(move || {
        let Ok(mut sender) = Sender::connect(address) else {
            return progress;
        };
        loop {
            let time = progress.acknowledged + 1;
            let body = body(&[one(&format!("s{series}"), time)]);
            match sender.try_post(&path, &[], &body) {
                Ok(answer) if answer.status == 204 => progress.acknowledged = time,
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{}", answer.text());
                    progress.repeated.insert(time);
                }
                Err(_) => {
                    progress.repeated.insert(time);
                    return progress;
                }
            }
        }
    })
}

fn config(folder: &Path, endpoints: &[Endpoint; 2]) -> String {
    let mut text = format!(
        "data_dir = {folder:?}\n[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n"
    );
    for (sink, endpoint) in SINKS.iter().zip(endpoints) {
        let url = endpoint.url();
        text += &format!(
            "[sinks.{sink}]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{url}\"\nretry = {{ min_backoff = \"5ms\", max_backoff = \"20ms\" }}\nqueue = {{ type = \"disk\", max_bytes = \"64MiB\", memory_bytes = \"64KiB\", store_after = \"10ms\" }}\n"
        );
    }
    text
}

/// Checks that a queue's ledger matches its content; returns the number of dropped batches. Opens a
/// copy, which leaves repairs of the original to the program.
fn check_ledger(folder: &Path) -> u64 {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let options = Options {
        max_bytes: 64 << 20,
        max_age: None,
        drop_oldest: false,
        sync: SyncPolicy::Batch,
    };
    let queue = DiskQueue::open(copy.path().to_path_buf(), options, |_| {}).unwrap();
    let mut reader = queue.reader();
    let read = std::iter::from_fn(|| reader.next(0).unwrap());
    let read = read.count() as u64;
    let total = queue.snapshot().total;
    let dropped: u64 = total.dropped.values().map(|tally| tally.batches).sum();
    let sum = total.delivered.batches + dropped + read;
    assert_eq!(total.received.batches, sum, "{total:?}");
    dropped
}

/// Checks that the program's own ledger balances; while it delivers, the balance may be undecided
/// at times.
fn check_balance(child: &Metrifold) {
    until_so("nothing moves for a moment", || {
        let answer = child.get("/api/v1/ledger");
        let ledgers: Ledgers = serde_json::from_slice(&answer.body).unwrap();
        let names: Vec<_> = ledgers.sinks.iter().map(|sink| &*sink.sink).collect();
        assert_eq!(names, ["down", "flapping"]);
        assert_ne!(ledgers.balances, Balance::Known(false), "{}", answer.text());
        ledgers.balances == Balance::Known(true)
    });
}

/// For one endpoint: all acknowledged samples arrived, first deliveries are in order, and a
/// repeated sample was sent again or had arrived shortly before a kill.
fn check_arrivals(what: &str, seen: &[Seen], senders: &[Progress], kills: &[SystemTime]) {
    let mut first: HashMap<(&str, i64), SystemTime> = HashMap::new();
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.accepted) {
        for series in seen.series() {
            for time in series.times() {
                let name = series.name();
                let Some(before) = first.get(&(name, time)).copied() else {
                    first.insert((name, time), seen.time);
                    let last = last.entry(name).or_default();
                    assert_eq!(time, *last + 1, "{what}: {name} is out of order");
                    *last = time;
                    continue;
                };
                let sender: usize = name[1..].parse().unwrap();
                if senders[sender].repeated.contains(&time) {
                    continue;
                }
                // Generous, for a busy machine.
                let window = 20 * ACK_INTERVAL;
                let excused = kills
                    .iter()
                    .any(|kill| *kill + window > before && before + window > *kill);
                assert!(
                    excused,
                    "{what}: {name} at {time} came again long after it had come"
                );
            }
        }
    }
    for (series, sender) in senders.iter().enumerate() {
        let acknowledged = sender.acknowledged;
        let last = last.get(&*format!("s{series}")).copied().unwrap_or(0);
        assert!(
            last >= acknowledged,
            "{what}: s{series} was acknowledged up to {acknowledged} and arrived up to {last}"
        );
    }
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let rounds = std::env::var("METRIFOLD_CRASH_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let works = [true, false].map(|works| Arc::new(AtomicBool::new(works)));
    let endpoints = works.clone().map(|works| {
        Endpoint::new(move |_| match works.load(Ordering::SeqCst) {
            true => 204,
            false => 503,
        })
    });
    let config = config(folder.path(), &endpoints);
    let mut random = Random(4);
    let mut progress: [Progress; SENDERS] = Default::default();
    let mut kills = Vec::new();
    for _ in 0..rounds {
        let child = Metrifold::start(&config);
        check_balance(&child);
        let senders = progress.iter().enumerate().map(|(series, progress)| {
            let path = "/api/v1/write".into();
            send(series, child.ingest, path, progress.clone())
        });
        let senders: Vec<_> = senders.collect();
        let end = Instant::now() + Duration::from_micros(random.number() % 200_000);
        while Instant::now() < end {
            let left = end - Instant::now();
            sleep(left.min(Duration::from_millis(1 + random.number() % 40)));
            works[0].store(random.chance(70), Ordering::SeqCst);
            works[1].store(random.chance(10), Ordering::SeqCst);
        }
        child.signal("KILL");
        kills.push(SystemTime::now());
        for (series, sender) in senders.into_iter().enumerate() {
            progress[series] = sender.join().unwrap();
        }
        drop(child);
        for sink in SINKS {
            assert_eq!(check_ledger(&folder.path().join("queues").join(sink)), 0);
        }
    }
    for works in &works {
        works.store(true, Ordering::SeqCst);
    }
    let child = Metrifold::start(&config);
    until_so("everything is delivered", || {
        let queued = |sink| {
            let labels = [("component_id", sink)];
            child.metric("metrifold_queue_disk_batches", &labels)
                + child.metric("metrifold_queue_batches", &labels)
        };
        SINKS.iter().all(|sink| queued(*sink) == 0.0)
    });
    check_balance(&child);
    child.signal("TERM");
    let mut child = child;
    assert!(child.wait().success(), "{}", child.log());
    let acknowledged = progress.clone().map(|sender| sender.acknowledged);
    assert!(
        acknowledged.iter().all(|last| *last > 0),
        "{acknowledged:?}"
    );
    for (sink, endpoint) in SINKS.iter().zip(&endpoints) {
        check_arrivals(sink, &endpoint.seen(), &progress, &kills);
        assert_eq!(check_ledger(&folder.path().join("queues").join(sink)), 0);
    }
    // The test is worthless if the endpoints got nothing.
    let arrived = until("both endpoints were asked", || {
        let least = endpoints.iter().map(|endpoint| endpoint.count()).min()?;
        (least > 0).then_some(least)
    });
    eprintln!("{rounds} rounds, acknowledged {acknowledged:?}, at least {arrived} requests");
}

/// A store that takes samples in order of time alone, as Prometheus does: it stores what it can of a
/// request, and answers 400 if a sample is older than the newest of its series.
#[derive(Default)]
struct Strict {
    newest: HashMap<String, i64>,
    stored: HashSet<(String, i64)>,
    /// Samples that came too late and had not come before.
    refused: Vec<(String, i64)>,
    /// Samples that came again behind newer ones.
    repeated: usize,
}

impl Strict {
    fn write(&mut self, seen: &Seen) -> u16 {
        let mut status = 204;
        for series in seen.series() {
            for time in series.times() {
                let sample = (series.name().to_owned(), time);
                let newest = self.newest.entry(sample.0.clone()).or_insert(i64::MIN);
                if time >= *newest {
                    *newest = time;
                    self.stored.insert(sample);
                    continue;
                }
                status = 400;
                match self.stored.contains(&sample) {
                    true => self.repeated += 1,
                    false => self.refused.push(sample),
                }
            }
        }
        status
    }
}

#[test]
fn after_kills_with_a_large_backlog_an_endpoint_that_refuses_disorder_misses_nothing() {
    const CONNECTIONS: usize = 16;
    const TENANTS: usize = 4;
    /// More than are listed at once.
    const BACKLOG: f64 = 6000.0;
    const ROUNDS: usize = 30;
    let rounds = std::env::var("METRIFOLD_CRASH_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let works = Arc::new(AtomicBool::new(false));
    let store = Arc::new(Mutex::new(Strict::default()));
    let endpoint = {
        let (works, store) = (works.clone(), store.clone());
        Endpoint::new(move |seen| match works.load(Ordering::SeqCst) {
            true => store.lock().unwrap().write(seen),
            false => 503,
        })
    };
    let config = format!(
        "data_dir = {:?}\n\
         [sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\npath = \"/{{tenant}}\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"a\"]\nfrom = [{{ path = \"tenant\" }}]\n\
         [sinks.strict]\ntype = \"remote_write\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n\
         retry = {{ min_backoff = \"5ms\", max_backoff = \"20ms\" }}\n\
         queue = {{ type = \"disk\", max_bytes = \"64MiB\", memory_bytes = \"64KiB\", store_after = \"10ms\" }}\n",
        folder.path(),
        endpoint.url()
    );
    let mut random = Random(5);
    let mut progress = vec![Progress::default(); CONNECTIONS];
    let mut largest = 0.0_f64;
    let on_disk = |child: &Metrifold| {
        let labels = [("component_id", "strict")];
        child.metric("metrifold_queue_disk_batches", &labels)
    };
    for _ in 0..rounds {
        let child = Metrifold::start(&config);
        let senders = progress.iter().enumerate().map(|(series, progress)| {
            let path = format!("/t{}", series % TENANTS);
            send(series, child.ingest, path, progress.clone())
        });
        let senders: Vec<_> = senders.collect();
        until_so("the backlog is large", || on_disk(&child) > BACKLOG);
        largest = largest.max(on_disk(&child));
        // A part of it is delivered, while more arrives; the process dies in the middle or later.
        works.store(true, Ordering::SeqCst);
        sleep(Duration::from_micros(random.number() % 200_000));
        if random.chance(50) {
            works.store(false, Ordering::SeqCst);
            sleep(Duration::from_micros(random.number() % 50_000));
        }
        child.signal("KILL");
        for (series, sender) in senders.into_iter().enumerate() {
            progress[series] = sender.join().unwrap();
        }
        works.store(false, Ordering::SeqCst);
        drop(child);
        check_ledger(&folder.path().join("queues/strict"));
    }
    works.store(true, Ordering::SeqCst);
    let mut child = Metrifold::start(&config);
    until_so("everything is delivered", || on_disk(&child) == 0.0);
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
    let store = store.lock().unwrap();
    assert_eq!(store.refused, [], "they came too late");
    let mut acknowledged = 0;
    for (series, sender) in progress.iter().enumerate() {
        for time in 1..=sender.acknowledged {
            acknowledged += 1;
            let sample = (format!("s{series}"), time);
            assert!(store.stored.contains(&sample), "{sample:?} is lost");
        }
    }
    eprintln!(
        "{rounds} rounds, backlogs up to {largest}, {acknowledged} acknowledged samples, {} repeated",
        store.repeated
    );
}
