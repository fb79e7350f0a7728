//! The endpoint of one sink is down for ten minutes of load, then it comes back. Other sinks are
//! not affected, and nothing is missing in the end.
//!
//! Time is compressed: each sender sends the scrapes of ten minutes one after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use metrifold_testing::{
    Deadline, Does, Endpoint, Metrifold, PATIENCE, Random, Reply, Sender, Series, StopOnPanic,
    body, free_address, until, until_so,
};

const SENDERS: usize = 6;
/// Numbers of scrapes at an interval of 15 seconds: for two and for ten minutes.
const BEFORE: i64 = 8;
const OUTAGE: i64 = 40;
const INTERVAL: i64 = 15_000;
/// A request has 32 series with 8 KiB of random text each, so that the backlog of ten minutes
/// exceeds all memory bounds.
const SERIES: usize = 32;
const LABEL: usize = 8 << 10;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = MIB;
const IN_FLIGHT: u64 = 8 * MIB;
const DISK: u64 = 256 * MIB;
/// Space that a queue on disk takes in addition (docs/operations.md).
const BESIDES: u64 = 32 * MIB;

fn config(folder: &std::path::Path, gone: &str, other: &str) -> String {
    format!(
        r#"data_dir = {folder:?}
[sources.ingest]
type = "remote_write"
address = "INGEST"
path = "/api/{{tenant}}/write"
max_body_bytes = "1MiB"
max_decoded_bytes = "4MiB"
max_in_flight_bytes = "{IN_FLIGHT}B"
[transforms.tenant]
type = "tenant"
inputs = ["ingest"]
from = [{{ path = "tenant" }}]
[sinks.gone]
type = "remote_write"
inputs = ["tenant"]
endpoint = "{gone}"
timeout = "2s"
retry = {{ min_backoff = "5ms", max_backoff = "50ms" }}
queue = {{ type = "disk", max_bytes = "{DISK}B", memory_bytes = "{MEMORY}B" }}
[sinks.other]
type = "remote_write"
inputs = ["tenant"]
endpoint = "{other}"
queue = {{ max_bytes = "4MiB" }}
"#
    )
}

/// Series of a sender, with the random label of each.
struct Scraped {
    tenant: usize,
    labels: Vec<String>,
}

impl Scraped {
    fn new(tenant: usize) -> Self {
        let mut random = Random(tenant as u64);
        let word = |random: &mut Random| format!("{:016x}", random.number());
        let label = |_| (0..LABEL / 16).map(|_| word(&mut random)).collect();
        Self {
            tenant,
            labels: (0..SERIES).map(label).collect(),
        }
    }

    fn name(tenant: usize, series: usize) -> String {
        format!("sender{tenant}_series{series}")
    }

    fn body(&self, scrape: i64) -> Vec<u8> {
        let series = self.labels.iter().enumerate().map(|(series, label)| {
            let name = Self::name(self.tenant, series);
            Series::new(&name, &[(scrape * INTERVAL, scrape as f64)]).label("random", label)
        });
        body(&series.collect::<Vec<_>>())
    }

    /// Sends a scrape, which must be acknowledged.
    fn send(&self, sender: &mut Sender, scrape: i64) {
        let path = format!("/api/team{}/write", self.tenant);
        let answer = sender.post(&path, &[], &self.body(scrape));
        assert_eq!(answer.status, 204, "scrape {scrape}: {}", answer.text());
    }
}

/// Runs all senders until each has sent the last scrape and `end` is set. Returns the number of
/// scrapes of each. Calls `look` repeatedly meanwhile.
fn send_all(
    address: SocketAddr,
    senders: &[Scraped],
    from: i64,
    to: i64,
    end: &AtomicBool,
    mut look: impl FnMut(),
) -> Vec<i64> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = senders
            .iter()
            .map(|scraped| {
                scope.spawn(move || {
                    let _guard = StopOnPanic(end);
                    let mut sender = Sender::new(address);
                    let mut scrape = from;
                    while scrape <= to || !end.load(Ordering::SeqCst) {
                        scraped.send(&mut sender, scrape);
                        scrape += 1;
                    }
                    scrape - 1
                })
            })
            .collect();
        let _guard = StopOnPanic(end);
        let deadline = Deadline::within(3 * PATIENCE, "all senders have sent all scrapes");
        while threads.iter().any(|thread| !thread.is_finished()) {
            look();
            deadline.pause();
        }
        let sent = threads.into_iter().map(|thread| thread.join().unwrap());
        sent.collect()
    })
}

/// Times of each series in order of acceptance.
fn accepted(endpoint: &Endpoint) -> BTreeMap<String, Vec<i64>> {
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (name, time) in endpoint.accepted() {
        times.entry(name).or_default().push(time);
    }
    times
}

fn expected(sent: &[i64]) -> BTreeMap<String, Vec<i64>> {
    let series = sent.iter().enumerate().flat_map(|(tenant, &last)| {
        let times: Vec<i64> = (1..=last).map(|scrape| scrape * INTERVAL).collect();
        (0..SERIES).map(move |series| (Scraped::name(tenant, series), times.clone()))
    });
    series.collect()
}

/// An endpoint that is healthy, goes down for ten minutes, and comes back.
fn outage(gone: &str, leave: impl FnOnce(Endpoint) -> Option<Endpoint>) {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let endpoint = Endpoint::at(address, |_| 204);
    let other = Endpoint::healthy();
    let child = Metrifold::start(&config(folder.path(), &endpoint.url(), &other.url()));
    let senders: Vec<_> = (0..SENDERS).map(Scraped::new).collect();
    let ended = AtomicBool::new(true);
    let labels = [("component_id", "gone")];
    let on_disk = || child.metric("metrifold_queue_disk_batches", &labels);

    let sent = send_all(child.ingest, &senders, 1, BEFORE, &ended, || {});
    // Batches that are slow to deliver go to disk, so that their senders are answered before they
    // arrive.
    until_so("all of it is there before the outage", || {
        accepted(&endpoint) == expected(&sent) && on_disk() == 0.0
    });
    let memory = child.memory("VmHWM");

    let before = endpoint.accepted().len();
    let left = leave(endpoint);
    let (mut queue, mut disk) = (0.0_f64, 0.0_f64);
    let mut look = || {
        queue = queue.max(child.metric("metrifold_queue_bytes", &labels));
        disk = disk.max(child.metric("metrifold_queue_disk_bytes", &labels));
    };
    let last = BEFORE + OUTAGE;
    let sent = send_all(child.ingest, &senders, BEFORE + 1, last, &ended, &mut look);
    // Both sinks acknowledged every sender, at which time the healthy endpoint had everything.
    assert_eq!(accepted(&other), expected(&sent), "while it is gone");
    let backlog = (SENDERS as i64 * OUTAGE) as f64;
    assert_eq!(on_disk(), backlog, "while it is gone");

    // The endpoint comes back, and its backlog grows meanwhile.
    let (endpoint, before) = match left {
        Some(endpoint) => {
            endpoint.now(|_| 204);
            (endpoint, 0)
        }
        None => (Endpoint::at(address, |_| 204), before),
    };
    ended.store(false, Ordering::SeqCst);
    let sent = send_all(child.ingest, &senders, last + 1, last + 2, &ended, || {
        look();
        let arrived = endpoint.accepted().len() + before;
        // All scrapes sent during the outage have arrived.
        if arrived >= SENDERS * SERIES * last as usize {
            ended.store(true, Ordering::SeqCst);
        }
    });
    until("the queue is empty", || (on_disk() == 0.0).then_some(()));
    let mut expected_there = expected(&sent);
    assert_eq!(accepted(&other), expected_there, "the other sink");
    if before > 0 {
        // Its predecessor got the first scrapes.
        for times in expected_there.values_mut() {
            times.drain(..BEFORE as usize);
        }
    }
    assert_eq!(accepted(&endpoint), expected_there, "the one that was gone");

    let grown = child.memory("VmHWM").saturating_sub(memory) * 1024;
    eprintln!(
        "{gone}: {} samples, of which {} while it was gone and {} while it caught up; \
         at most {:.1} MiB on disk and {:.2} in memory; the process grew by {:.1} from {:.1}",
        sent.iter().sum::<i64>() * SERIES as i64,
        backlog * SERIES as f64,
        sent.iter().map(|last_sent| last_sent - last).sum::<i64>() * SERIES as i64,
        disk / MIB as f64,
        queue / MIB as f64,
        grown as f64 / MIB as f64,
        memory as f64 / 1024.0,
    );
    let ceiling = MEMORY + IN_FLIGHT + BESIDES;
    assert!(disk > ceiling as f64, "a backlog that could be in memory");
    assert!(disk <= DISK as f64, "{disk} bytes on disk");
    assert!(queue <= MEMORY as f64, "{queue} bytes in memory");
    assert!(grown < ceiling, "grew by {grown} bytes");
    for sink in ["gone", "other"] {
        let discarded = child.metric(
            "metrifold_component_discarded_batches_total",
            &[("component_id", sink)],
        );
        assert_eq!(discarded, 0.0, "{sink}");
    }
}

#[test]
fn nobody_listens_for_ten_minutes() {
    outage("nobody listens", |endpoint| {
        drop(endpoint);
        None
    });
}

#[test]
fn an_endpoint_is_busy_for_ten_minutes() {
    outage("busy", |endpoint| {
        endpoint.now(|_| 503);
        Some(endpoint)
    });
}

#[test]
fn an_endpoint_says_nothing_for_ten_minutes() {
    outage("hangs", |endpoint| {
        // Never released: the sink's requests time out.
        endpoint.now(|_| Does::Hang(Reply::new(503)));
        Some(endpoint)
    });
}
