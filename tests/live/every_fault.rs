//! All faults at once, in random order: the ledgers balance, and no acknowledged sample is lost.
//!
//! The program runs with a queue of every kind, and endpoints that keep counts of their own and
//! change their behaviour all the time: they are healthy, slow, refuse large requests with 413 and
//! requests with a bad series with 400, 409 or 422, do not speak 2.0, redirect, answer every other
//! kind of 4xx and 5xx, hang, and close connections. Senders speak 1.0 and 2.0. Meanwhile the disk
//! is full at times, all sinks and sources are replaced by reloads, and the program is stopped,
//! killed and started again. `METRIFOLD_FAULTS_SEED` repeats a run and `METRIFOLD_FAULTS_SECONDS`
//! sets its length; the seed of each run is printed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrifold::api::ledger::{Balance, Ledgers};
use metrifold_testing::edits;
use metrifold_testing::series::{TYPE_1, TYPE_2, counts};
use metrifold_testing::{
    Does, Endpoint, Metrifold, Random, Reply, Seen, Sender, Series, Volume, body, body_v2, one,
    until_so,
};

const SECONDS: u64 = 60;
/// Bytes above which a request is too large for endpoints in that mood.
const LARGE: usize = 500;
const SERIES_MAX: usize = 20;
/// Paths of the sources. The first leads to queues on disk only.
const PATHS: [&str; 2] = ["stored", "all"];
/// Senders from this one on speak 2.0.
const SPEAKS_2: usize = 2;
const SENDERS: usize = 4;
const VERSION_1: (&str, &str) = ("x-prometheus-remote-write-version", "0.1.0");
const VERSION_2: (&str, &str) = ("x-prometheus-remote-write-version", "2.0.0");
/// Size of the disk, many times what the queues on disk may take.
const DISK: usize = 32 << 20;

/// Each sink, whether acknowledged samples must arrive there, and its keys.
const SINKS: [(&str, bool, &str); 6] = [
    (
        "disk",
        true,
        "queue = { type = \"disk\", max_bytes = \"1MiB\", memory_bytes = \"64KiB\", store_after = \"10ms\" }",
    ),
    (
        "disk_oldest",
        false,
        "required = false\nqueue = { type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", store_after = \"10ms\", when_full = \"drop_oldest\" }",
    ),
    (
        "disk_newest",
        false,
        "required = false\nqueue = { type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", store_after = \"10ms\", when_full = \"drop_newest\" }",
    ),
    ("memory", true, "queue = { max_bytes = \"256KiB\" }"),
    (
        "memory_oldest",
        false,
        "required = false\nqueue = { max_bytes = \"64KiB\", when_full = \"drop_oldest\" }",
    ),
    (
        "memory_newest",
        false,
        "required = false\nqueue = { max_bytes = \"64KiB\", when_full = \"drop_newest\" }",
    ),
];

/// The configuration of this number; each number changes every source and every sink.
fn config(folder: &Path, endpoints: &[Faulty], number: usize) -> String {
    let (wait, pause) = (1000 + number % 7, 10 + number % 7);
    let mut text = format!("data_dir = {folder:?}\n");
    for path in PATHS {
        text += &format!(
            "[sources.{path}]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
             path = \"/{path}/{{tenant}}\"\ncount_samples = true\nacknowledge_timeout = \"{wait}ms\"\n\
             [transforms.{path}_tenant]\ntype = \"tenant\"\ninputs = [\"{path}\"]\n\
             from = [{{ path = \"tenant\" }}]\n"
        );
    }
    for ((name, _, keys), endpoint) in SINKS.iter().zip(endpoints) {
        let inputs = match name.starts_with("disk") {
            true => "\"stored_tenant\", \"all_tenant\"",
            false => "\"all_tenant\"",
        };
        text += &format!(
            "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [{inputs}]\nendpoint = \"{}\"\n\
             conversion = {{ probe_after = \"{pause}ms\" }}\n\
             retry = {{ min_backoff = \"1ms\", max_backoff = \"{pause}ms\" }}\n{keys}\n",
            endpoint.endpoint.url()
        );
    }
    text
}

/// Behaviour of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    Slow,
    TooLarge,
    /// Answers 415 to 2.0.
    Only1,
    Says(u16),
    Closes,
    /// Waits for a second, then closes the connection.
    Hangs,
    /// Any behaviour, chosen by the number of the request.
    Mixed,
}

const MOODS: [Mood; 20] = [
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Slow,
    Mood::TooLarge,
    Mood::Only1,
    Mood::Says(503),
    Mood::Says(500),
    Mood::Says(502),
    Mood::Says(429),
    Mood::Says(401),
    Mood::Says(403),
    Mood::Says(404),
    Mood::Says(408),
    Mood::Says(425),
    Mood::Says(302),
    Mood::Says(308),
    Mood::Closes,
    Mood::Hangs,
    Mood::Mixed,
];
/// Statuses for a request with a bad series.
const REFUSALS: [u16; 3] = [400, 409, 422];

/// An endpoint with changing moods.
struct Faulty {
    endpoint: Endpoint,
    mood: Arc<AtomicUsize>,
    /// Number of accepted samples.
    taken: Arc<AtomicI64>,
    order: Order,
}

/// Order in which samples arrived.
#[derive(Default)]
struct Order {
    last: HashMap<String, i64>,
    arrived: HashSet<(String, i64)>,
}

impl Order {
    /// Checks that samples of each series arrive in order, apart from repeated ones.
    fn check(&mut self, what: &str, seen: &[Seen]) {
        for seen in seen.iter().filter(|seen| seen.accepted) {
            for series in seen.series() {
                let name = series.name();
                for time in series.times() {
                    if self.arrived.insert((name.to_owned(), time)) {
                        let last = self.last.entry(name.to_owned()).or_default();
                        assert!(time > *last, "{what}: {name} at {time} after {last}");
                        *last = time;
                    }
                }
            }
        }
    }
}

impl Faulty {
    fn new(seed: u64) -> Self {
        let mood = Arc::new(AtomicUsize::new(0));
        let now = mood.clone();
        let taken = Arc::new(AtomicI64::new(0));
        let counted = taken.clone();
        let endpoint = Endpoint::new(move |seen| {
            let mood = MOODS[now.load(Ordering::SeqCst)];
            let mood = match mood {
                Mood::Mixed => MOODS[Random(seed ^ seen.order as u64).below(MOODS.len() - 1)],
                mood => mood,
            };
            let (taken, does) = answer(mood, seen);
            if taken {
                let samples = seen.series().iter().map(|series| series.times().count());
                counted.fetch_add(samples.sum::<usize>() as i64, Ordering::SeqCst);
            }
            does
        });
        Self {
            endpoint,
            mood,
            taken,
            order: Order::default(),
        }
    }

    fn set(&self, mood: usize) {
        self.mood.store(mood, Ordering::SeqCst);
    }

    /// Accepts nothing from now on.
    fn shut(&self) {
        self.set(MOODS.iter().position(|it| *it == Mood::Says(503)).unwrap());
    }

    fn taken(&self) -> i64 {
        self.taken.load(Ordering::SeqCst)
    }
}

/// The reaction in a mood, and whether the request is accepted. All of a request is stored or nothing.
fn answer(mood: Mood, seen: &Seen) -> (bool, Does) {
    let bad = seen.series().iter().any(|it| it.name() == "bad");
    let large = mood == Mood::TooLarge && seen.body.len() > LARGE;
    let other = mood == Mood::Only1 && seen.is_v2();
    let taken = !bad && !large && !other;
    let refused = REFUSALS[seen.order % REFUSALS.len()];
    let mut well = Reply::new(match () {
        () if other => 415,
        () if large => 413,
        () if bad => refused,
        () => 204,
    });
    if seen.is_v2() && !other {
        well = well.counts(if taken { counts(seen.series()) } else { [0; 3] });
    }
    let well = Does::from(well);
    match mood {
        Mood::Well | Mood::Mixed | Mood::TooLarge | Mood::Only1 => (taken, well),
        Mood::Slow => (taken, Does::After(Duration::from_millis(5), Box::new(well))),
        Mood::Says(status @ 300..400) => {
            let elsewhere = format!("/login?from={}", seen.path);
            (
                false,
                Reply::new(status).header("location", elsewhere).into(),
            )
        }
        Mood::Says(status) => (false, status.into()),
        Mood::Closes => (false, Does::Close),
        Mood::Hangs => {
            let later = Duration::from_secs(1);
            (false, Does::After(later, Box::new(Does::Close)))
        }
    }
}

/// Acknowledged requests of a sender: time and number of series.
#[derive(Clone, Debug, Default)]
struct Progress {
    time: i64,
    acknowledged: Vec<(i64, usize)>,
}

fn name(sender: usize, series: usize) -> String {
    // A long name, so that a request of several series is large.
    format!(
        "s{sender}_{series}_of_a_sender_with_names_that_do_not_compress_{}",
        series * 7919 % 997
    )
}

/// Sends until stopped or the program is gone, each request again until it is acknowledged or
/// refused.
fn send(
    sender: usize,
    child: &Metrifold,
    mut progress: Progress,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Progress> {
    let address = child.ingest;
    let path = format!("/{}/t{sender}", PATHS[sender % PATHS.len()]);
    let (media_type, version) = match sender < SPEAKS_2 {
        true => (TYPE_1, VERSION_1),
        false => (TYPE_2, VERSION_2),
    };
    let headers = [("content-type", media_type), version];
    std::thread::spawn(move || {
        let Ok(mut connection) = Sender::connect(address) else {
            return progress;
        };
        while !stop.load(Ordering::SeqCst) {
            let time = progress.time + 1;
            let count = 1 + random.below(SERIES_MAX);
            let mut series: Vec<Series> =
                (0..count).map(|it| one(&name(sender, it), time)).collect();
            if random.chance(3) {
                series.insert(random.below(count + 1), one("bad", time));
            }
            let body = match sender < SPEAKS_2 {
                true => body(&series),
                false => body_v2(&series),
            };
            loop {
                match connection.try_post(&path, &headers, &body) {
                    Ok(answer) if answer.status == 204 => {
                        progress.acknowledged.push((time, count));
                        break;
                    }
                    Ok(answer) if answer.status == 400 => break,
                    Ok(answer) => {
                        assert!([429, 503].contains(&answer.status), "{}", answer.text());
                        if stop.load(Ordering::SeqCst) {
                            return progress;
                        }
                    }
                    Err(_) => return progress,
                }
            }
            progress.time = time;
        }
        progress
    })
}

/// The ledgers once they balance; they must never be known not to.
fn ledgers(child: &Metrifold) -> Option<Ledgers> {
    let answer = child.get("/api/v1/ledger");
    let ledgers: Ledgers = serde_json::from_slice(&answer.body).unwrap();
    assert_ne!(ledgers.balances, Balance::Known(false), "{}", answer.text());
    (ledgers.balances == Balance::Known(true)).then_some(ledgers)
}

fn delivered(ledgers: &Ledgers, sink: &str) -> i64 {
    let sink = ledgers.sinks.iter().find(|it| it.sink == sink).unwrap();
    let delivered = sink.total.delivered;
    assert_eq!(delivered.uncounted_batches, 0, "{}", sink.sink);
    delivered.samples
}

/// Per sink, delivered samples by the ledger and accepted ones by the endpoint, at a moment without
/// traffic.
fn standstill(child: &Metrifold, endpoints: &[Faulty]) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    until_so("nothing moves", || {
        let counts = || -> Vec<i64> { endpoints.iter().map(Faulty::taken).collect() };
        let before = counts();
        let Some(ledgers) = ledgers(child) else {
            return false;
        };
        let delivered = SINKS.iter().map(|(sink, ..)| delivered(&ledgers, sink));
        found = delivered.zip(before.clone()).collect();
        before == counts()
    });
    found
}

/// Waits until nothing is queued.
fn until_empty(child: &Metrifold) {
    until_so("everything is delivered", || {
        ledgers(child).is_some_and(|ledgers| {
            let queued = ledgers.sinks.iter().map(|sink| sink.total.queued.batches);
            queued.sum::<i64>() == 0
        })
    });
}

#[test]
fn under_all_faults_at_once_the_books_are_right_and_nothing_acknowledged_is_lost() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|it| it.parse::<u64>().unwrap())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("METRIFOLD_FAULTS_SEED").unwrap_or(now.as_nanos() as u64);
    let seconds = number("METRIFOLD_FAULTS_SECONDS").unwrap_or(SECONDS);
    eprintln!("METRIFOLD_FAULTS_SEED={seed}");
    let mut random = Random(seed);
    let volume = Volume::mount(DISK);
    let folder = tempfile::tempdir().unwrap();
    let folder = volume.as_ref().map_or(folder.path(), Volume::path);
    let mut endpoints: Vec<Faulty> = SINKS.iter().map(|_| Faulty::new(random.number())).collect();
    let mut progress: [Progress; SENDERS] = Default::default();
    endpoints.iter().for_each(Faulty::shut);
    // A shutdown should not wait long for queues in memory with failing endpoints.
    let limit = ["--shutdown-limit", "500ms"];
    let mut child = Metrifold::start_with(&config(folder, &endpoints, 0), &limit);
    let mut base = standstill(&child, &endpoints);
    let [mut rounds, mut kills, mut stops, mut compared, mut reloads] = [0; 5];
    let (mut full, mut fills) = (false, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        rounds += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(sender, progress)| {
                let (progress, random) = (progress.clone(), Random(random.number()));
                send(sender, &child, progress, random, stop.clone())
            })
            .collect();
        let until = Instant::now() + Duration::from_millis(100 + random.number() % 1500);
        while Instant::now() < until {
            endpoints[random.below(endpoints.len())].set(random.below(MOODS.len()));
            match &volume {
                Some(volume) if full && random.chance(30) => {
                    volume.free();
                    full = false;
                }
                Some(volume) if !full && random.chance(5) => {
                    volume.fill_up();
                    full = true;
                    fills += 1;
                }
                _ => {}
            }
            if random.chance(5) {
                reloads += 1;
                edits::replace(&child, &config(folder, &endpoints, reloads));
                let answer = edits::post(&child);
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            sleep(Duration::from_millis(1 + random.number() % 40));
        }
        let ends = random.below(3);
        if ends == 0 {
            child.signal("KILL");
            child.wait();
            kills += 1;
        }
        stop.store(true, Ordering::SeqCst);
        if let (Some(volume), true) = (&volume, full) {
            volume.free();
            full = false;
        }
        for (sender, handle) in senders.into_iter().enumerate() {
            progress[sender] = handle.join().unwrap();
        }
        if ends > 0 && random.chance(50) {
            // A partly delivered batch on disk counts as queued in the ledger, so that ledger and
            // endpoint can only be compared when nothing is queued.
            endpoints.iter().for_each(|it| it.set(0));
            until_empty(&child);
            let now = standstill(&child, &endpoints);
            let delivered = now.iter().zip(&base).map(|(now, was)| now.0 - was.0);
            let taken = now.iter().zip(&base).map(|(now, was)| now.1 - was.1);
            let (delivered, taken): (Vec<i64>, Vec<i64>) = (delivered.collect(), taken.collect());
            assert_eq!(delivered, taken, "by the ledger, and by the endpoints");
            compared += 1;
        }
        endpoints.iter().for_each(Faulty::shut);
        if ends > 0 {
            standstill(&child, &endpoints);
        }
        if ends == 1 {
            child.signal("TERM");
            // The exit code is 1 if a queue in memory lost data.
            let code = child.wait().code();
            assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", child.log());
            stops += 1;
        }
        if ends < 2 {
            child.start_again();
            base = standstill(&child, &endpoints);
        }
        for ((sink, ..), faulty) in SINKS.iter().zip(&mut endpoints) {
            let seen = faulty.endpoint.take();
            faulty.order.check(sink, &seen);
        }
    }
    endpoints.iter().for_each(|it| it.set(0));
    until_empty(&child);
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
    let mut acknowledged = 0;
    for ((sink, required, _), faulty) in SINKS.iter().zip(&mut endpoints) {
        let seen = faulty.endpoint.take();
        faulty.order.check(sink, &seen);
        let taken: HashSet<_> = faulty.endpoint.accepted().into_iter().collect();
        for (sender, progress) in progress.iter().enumerate() {
            let stored_only = PATHS[sender % PATHS.len()] == "stored";
            if !required || (stored_only && *sink == "memory") {
                continue;
            }
            for (time, count) in &progress.acknowledged {
                for series in 0..*count {
                    acknowledged += 1;
                    let sample = (name(sender, series), *time);
                    assert!(taken.contains(&sample), "{sink}: {sample:?} is lost");
                }
            }
        }
    }
    assert!(acknowledged > 0);
    eprintln!(
        "{rounds} rounds, {kills} kills, {stops} stops, {reloads} reloads, {fills} times a full disk, {compared} comparisons, {acknowledged} acknowledged samples"
    );
}
