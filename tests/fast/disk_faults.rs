//! The program on a disk that is full, too small, read-only or taken, and on files that a crash or
//! a fault has damaged: answers to senders, deliveries, log lines.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use metrifold_testing::config::sink;
use metrifold_testing::{
    Answer, Endpoint, Metrifold, Random, Sender, Series, Volume, body, expect, until, until_so, up,
    ups,
};

const MIB: usize = 1 << 20;

fn source() -> String {
    "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\nacknowledge_timeout = \"2s\"\n"
        .to_owned()
}

/// A sample of `up`, in `bytes` that do not compress.
fn large(time: i64, bytes: usize) -> Vec<u8> {
    let mut random = Random(time as u64);
    let words = (0..bytes / 8).map(|_| format!("{:016x}", random.number()));
    let words: Vec<String> = words.collect();
    let series = Series::new("up", &[(time, time as f64)]);
    // A label has at most 16 KiB, and a series at most 128 labels.
    let labels = words.chunks(1000).enumerate();
    let series = labels.fold(series, |series, (at, words)| {
        series.label(&format!("l{at}"), &words.concat())
    });
    body(&[series])
}

/// Accepted samples in order, each once.
fn first_accepted(endpoint: &Endpoint) -> Vec<(String, i64)> {
    let mut seen = BTreeSet::new();
    let accepted = endpoint.accepted().into_iter();
    accepted.filter(|it| seen.insert(it.clone())).collect()
}

/// Waits until all samples up to `last` have arrived in order. The next one may have arrived as
/// well, if it was sent and not acknowledged.
#[track_caller]
fn expect_all(endpoint: &Endpoint, last: i64) {
    until_so(&format!("all {last} samples are there"), || {
        first_accepted(endpoint).len() >= last as usize
    });
    let mut accepted = first_accepted(endpoint);
    accepted.pop_if(|(_, time)| *time == last + 1);
    assert_eq!(accepted, ups(1..=last));
}

fn queued(child: &Metrifold) -> f64 {
    child.metric("metrifold_queue_disk_batches", &[("component_id", "must")])
}

#[track_caller]
fn expect_turned_away(answer: &Answer) {
    expect(answer, 503);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
}

/// Three sinks: a required one with a queue on disk whose endpoint is down, and two healthy ones.
struct Full {
    config: String,
    down: Endpoint,
    others: [Endpoint; 2],
    /// Time of the last acknowledged sample.
    last: i64,
}

impl Full {
    fn new(folder: &Path, sync: &str) -> Self {
        let (down, others) = (
            Endpoint::new(|_| 503),
            [Endpoint::healthy(), Endpoint::healthy()],
        );
        let keys = format!(
            "queue = {{ type = \"disk\", max_bytes = \"1GiB\", memory_bytes = \"256KiB\", {sync} }}"
        );
        let config = format!("data_dir = {folder:?}\n")
            + &source()
            + &sink("must", "a", &down.url(), &keys)
            + &sink("also_must", "a", &others[0].url(), "")
            + &sink("may", "a", &others[1].url(), "required = false");
        Self {
            config,
            down,
            others,
            last: 0,
        }
    }

    /// Sends until a request is refused.
    fn send_until_full(&mut self, sender: &mut Sender, bytes: usize) -> i64 {
        let before = self.last;
        until("a sender is turned away", || {
            let answer = sender.write(&large(self.last + 1, bytes));
            if answer.status == 204 {
                self.last += 1;
                return None;
            }
            expect_turned_away(&answer);
            Some(())
        });
        self.last - before
    }

    /// Sends the next sample, for which there is room.
    fn send(&mut self, sender: &mut Sender, bytes: usize) {
        expect(&sender.write(&large(self.last + 1, bytes)), 204);
        self.last += 1;
    }

    /// Checks that the healthy sinks deliver what the full one cannot take.
    fn expect_others_go_on(&self, sender: &mut Sender, bytes: usize) {
        let counts = self.others.each_ref().map(|other| other.accepted().len());
        for _ in 0..5 {
            expect_turned_away(&sender.write(&large(self.last + 1, bytes)));
        }
        for (other, before) in self.others.iter().zip(counts) {
            other.wait_accepted(before + 5);
        }
    }

    /// Checks that nothing has panicked, all acknowledged samples arrive in order, and nothing is
    /// left.
    fn expect_recovered(&self, child: &Metrifold) {
        self.down.now(|_| 204);
        expect_all(&self.down, self.last);
        until_so("the queue is empty", || queued(child) == 0.0);
        assert_eq!(child.metric("metrifold_component_restarts_total", &[]), 0.0);
        // A batch whose sender was told to send it again is not one that was dropped.
        let lost = child.metric(
            "metrifold_component_discarded_samples_total",
            &[("component_id", "must")],
        );
        assert_eq!(lost, 0.0);
        for other in &self.others {
            expect_all(other, self.last);
        }
    }
}

/// A disk that other files fill, twice; a crash while it is full; then the endpoint comes back.
fn full_disk(sync: &str) {
    const REQUEST: usize = 16 << 10;
    let Some(volume) = Volume::mount(6 * MIB) else {
        return;
    };
    let mut full = Full::new(volume.path(), sync);
    volume.fill(4 * MIB);
    let mut child = Metrifold::start(&full.config);
    let mut sender = Sender::new(child.ingest);
    assert!(full.send_until_full(&mut sender, REQUEST) > 20);
    full.expect_others_go_on(&mut sender, REQUEST);
    let log = child.log();
    assert!(
        log.contains("cannot store batches sink=must error=no space left on the device"),
        "{log}"
    );

    volume.free();
    full.send(&mut sender, REQUEST);
    assert!(full.send_until_full(&mut sender, REQUEST) > 50);

    // The program starts on a full disk, with its backlog.
    child.signal("KILL");
    child.wait();
    child.start_again();
    let mut sender = until("it takes requests", || {
        std::panic::catch_unwind(|| Sender::new(child.ingest)).ok()
    });
    assert!(queued(&child) >= full.last as f64, "{}", queued(&child));
    full.expect_others_go_on(&mut sender, REQUEST);

    // Draining needs no space, and frees some.
    full.expect_recovered(&child);
    for _ in 0..10 {
        full.send(&mut sender, REQUEST);
    }
    full.expect_recovered(&child);
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
    eprintln!("{sync}: {} requests were acknowledged", full.last);
}

#[test]
fn a_full_disk_turns_senders_away_until_there_is_room() {
    full_disk("sync = \"batch\"");
}

#[test]
fn a_full_disk_turns_senders_away_if_it_is_made_durable_later_as_well() {
    full_disk("sync = \"interval\", sync_interval = \"20ms\"");
}

/// No other file has to go: the queue's own are the only ones.
#[test]
fn a_queue_that_has_filled_its_disk_alone_stores_again_once_it_is_empty() {
    const REQUEST: usize = 16 << 10;
    let Some(volume) = Volume::mount(3 * MIB) else {
        return;
    };
    let mut full = Full::new(volume.path(), "sync = \"batch\"");
    let child = Metrifold::start(&full.config);
    let mut sender = Sender::new(child.ingest);
    for _ in 0..2 {
        assert!(full.send_until_full(&mut sender, REQUEST) > 50);
        full.expect_recovered(&child);
        full.down.now(|_| 503);
        until("the disk takes batches again", || {
            let answer = sender.write(&large(full.last + 1, REQUEST));
            (answer.status == 204).then_some(())
        });
        full.last += 1;
    }
    full.expect_recovered(&child);
}

/// Writes fail with another error than that of a full disk: files may not grow above a limit. This
/// needs no privileges, so that the test runs everywhere.
fn small_files(sync: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut full = Full::new(folder.path(), sync);
    // The unit is 512 or 1,024 bytes, depending on the shell: 32 or 64 KiB.
    let limit = "trap '' XFSZ; ulimit -S -f 64";
    let mut child = Metrifold::start_after(limit, &full.config);
    let mut sender = Sender::new(child.ingest);
    // Requests that fill several segments: only the write at the end of each file fails.
    for _ in 0..100 {
        until("it fits into the next file", || {
            let answer = sender.write(&large(full.last + 1, 4 << 10));
            (answer.status == 204).then_some(())
        });
        full.last += 1;
    }
    // Requests that fit into no file.
    full.expect_others_go_on(&mut sender, 80 << 10);
    let log = child.log();
    assert!(
        log.contains("cannot store batches sink=must error=cannot write to the queue"),
        "{log}"
    );
    let raised = Command::new("prlimit")
        .args(["--fsize=unlimited:", "--pid", &child.id().to_string()])
        .status();
    assert!(raised.unwrap().success());
    full.send(&mut sender, 80 << 10);
    full.expect_recovered(&child);
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
}

#[test]
fn a_disk_that_fails_turns_senders_away_and_nothing_is_lost() {
    small_files("sync = \"batch\"");
}

#[test]
fn a_disk_that_fails_turns_senders_away_if_it_is_made_durable_later_as_well() {
    small_files("sync = \"interval\", sync_interval = \"20ms\"");
}

/// A queue of many segments, left by a killed process.
struct Left {
    folder: tempfile::TempDir,
    config: String,
    endpoint: Endpoint,
}

const LEFT: i64 = 60;

fn left() -> Left {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::new(|_| 503);
    // A segment has a sixteenth of this size.
    let keys = "queue = { type = \"disk\", max_bytes = \"512KiB\" }";
    let config = format!("data_dir = {:?}\n", folder.path())
        + &source()
        + &sink("must", "a", &endpoint.url(), keys);
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=LEFT {
        expect(&sender.write(&large(time, 4 << 10)), 204);
    }
    child.signal("KILL");
    drop(child);
    endpoint.now(|_| 204);
    Left {
        folder,
        config,
        endpoint,
    }
}

impl Left {
    fn queue(&self) -> PathBuf {
        self.folder.path().join("queues/must")
    }

    /// Its segments, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.queue()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let mut logs: Vec<_> = files
            .filter(|file| file.extension().is_some_and(|it| it == "log"))
            .collect();
        logs.sort();
        logs
    }
}

/// The first sequence number of a segment.
fn sequence(segment: &Path) -> i64 {
    let name = segment.file_stem().unwrap().to_str().unwrap();
    name.parse().unwrap()
}

#[test]
fn what_a_crash_left_of_a_write_is_cut_off_and_said() {
    let left = left();
    let newest = left.segments().pop().unwrap();
    let record = &fs::read(&newest).unwrap()[32..500];
    let mut file = File::options().append(true).open(&newest).unwrap();
    file.write_all(record).unwrap();
    let child = Metrifold::start(&left.config);
    expect_all(&left.endpoint, LEFT);
    until_so("the queue is empty", || queued(&child) == 0.0);
    let log = child.log();
    let name = newest.file_name().unwrap().to_str().unwrap();
    let said = format!("sink=must event={name}: cut off 468 bytes of an unfinished write");
    assert!(log.contains(&said), "{said}\n{log}");
    let lost = child.metric("metrifold_queue_disk_corrupt_batches_total", &[]);
    assert_eq!(lost, 0.0);
}

#[test]
fn a_segment_that_is_missing_costs_what_was_in_it_and_is_said() {
    let left = left();
    let segments = left.segments();
    assert!(segments.len() > 4, "{segments:?}");
    let (from, to) = (sequence(&segments[1]), sequence(&segments[2]));
    fs::remove_file(&segments[1]).unwrap();
    let child = Metrifold::start(&left.config);
    // Sequence numbers count from 0, samples from 1.
    let rest: Vec<i64> = (1..=from).chain(to + 1..=LEFT).collect();
    until_so("the queue is empty", || queued(&child) == 0.0);
    assert_eq!(first_accepted(&left.endpoint), ups(rest));
    let log = child.log();
    let name = segments[1].file_name().unwrap().to_str().unwrap();
    assert!(log.contains(&format!("{name} is missing")), "{log}");
    let must = [("component_id", "must")];
    let lost = child.metric("metrifold_queue_disk_corrupt_batches_total", &must);
    assert_eq!(lost, (to - from) as f64);
}

/// Runs a configuration that cannot start, and returns its log.
#[track_caller]
fn expect_refused(config: &str) -> String {
    let mut child = Metrifold::spawn(config, &[]);
    assert_eq!(child.wait().code(), Some(1), "{}", child.log());
    let log = child.log();
    assert!(!log.contains("metrifold runs"), "{log}");
    log
}

#[test]
fn a_folder_has_one_process_and_the_second_one_does_not_start() {
    let left = left();
    let child = Metrifold::start(&left.config);
    let log = expect_refused(&left.config);
    let said = "is in use by another process: give each process a data_dir of its own";
    assert!(log.contains(said), "{log}");
    // The first process is unaffected.
    expect(&Sender::new(child.ingest).write(&up(LEFT + 1)), 204);
    expect_all(&left.endpoint, LEFT + 1);
}

#[test]
fn a_healthy_disk_drops_the_oldest_of_what_it_cannot_hold_and_for_no_other_reason() {
    const LAST: i64 = 300;
    // One lane has one request in flight, with the batches that 64 KiB of memory hold.
    const UNDER_WAY: usize = 16;
    for (max_bytes, body_bytes) in [
        ("256KiB", 4 << 10),
        ("4MiB", 64 << 10),
        ("64MiB", 512 << 10),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::new(|_| 503);
        let keys = format!(
            "required = false\nqueue = {{ type = \"disk\", max_bytes = \"{max_bytes}\", memory_bytes = \"64KiB\", when_full = \"drop_oldest\" }}"
        );
        let data = format!("data_dir = {:?}\n", folder.path());
        let config = data + &source() + &sink("must", "a", &endpoint.url(), &keys);
        let child = Metrifold::start(&config);
        let mut sender = Sender::new(child.ingest);
        for time in 1..=LAST {
            expect(&sender.write(&large(time, body_bytes)), 204);
        }
        let samples = |what: &str, reason: &str| {
            let name = format!("metrifold_ledger_{what}_samples_total");
            let reasons = [("reason", reason)];
            let labels = if reason.is_empty() {
                &[][..]
            } else {
                &reasons[..]
            };
            child.metric(&name, labels)
        };
        until_so("all of it was received", || {
            samples("received", "") == LAST as f64
        });
        assert!(samples("dropped", "") > 0.0, "{max_bytes} hold all of it");
        endpoint.now(|_| 204);
        until_so("what is left arrives", || {
            let arrived = first_accepted(&endpoint).len() as f64;
            arrived + samples("dropped", "") == LAST as f64
        });
        // The newest batches remain, except for those in flight when room was needed.
        let arrived: Vec<i64> = first_accepted(&endpoint).iter().map(|it| it.1).collect();
        assert!(arrived.is_sorted(), "{max_bytes}: {arrived:?}");
        let newest = (1..=LAST)
            .rev()
            .zip(arrived.iter().rev())
            .take_while(|(time, arrived)| time == *arrived);
        let newest = newest.count();
        assert!(newest > 0, "{max_bytes}: {arrived:?}");
        assert!(
            arrived.len() - newest <= UNDER_WAY,
            "{max_bytes}: {arrived:?}"
        );
        let dropped = samples("dropped", "");
        assert_eq!(samples("dropped", "queue_full"), dropped, "{}", child.log());
    }
}

#[test]
fn nothing_is_acknowledged_while_the_data_folder_is_moved_or_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, aside) = (folder.path().join("data"), folder.path().join("aside"));
    let endpoint = Endpoint::new(|_| 503);
    let keys = "queue = { type = \"disk\" }";
    let config =
        format!("data_dir = {data:?}\n") + &source() + &sink("must", "a", &endpoint.url(), keys);
    let mut child = Metrifold::start(&config);
    let write = |child: &Metrifold, time| Sender::new(child.ingest).write(&up(time));
    for time in 1..=20 {
        expect(&write(&child, time), 204);
    }
    fs::rename(&data, &aside).unwrap();
    expect(&write(&child, 21), 503);
    child.until_logged("moved or removed");
    fs::rename(&aside, &data).unwrap();
    until_so("the folder is back", || write(&child, 21).status == 204);
    child.signal("KILL");
    child.wait();
    endpoint.now(|_| 204);
    child.start_again();
    expect_all(&endpoint, 21);
    until_so("all of it is done", || queued(&child) == 0.0);

    endpoint.now(|_| 503);
    expect(&write(&child, 22), 204);
    fs::remove_dir_all(&data).unwrap();
    expect(&write(&child, 23), 503);
    child.signal("KILL");
    child.wait();
    // The removed batches are lost; new acknowledged ones are not.
    child.start_again();
    expect(&write(&child, 24), 204);
    child.signal("KILL");
    child.wait();
    endpoint.now(|_| 204);
    child.start_again();
    until_so("it arrives", || {
        endpoint.accepted().contains(&("up".to_owned(), 24))
    });
}

#[test]
fn a_folder_that_cannot_be_written_to_is_not_opened() {
    let left = left();
    // A file in place of the queue's folder, which not even root can open as one.
    let aside = left.folder.path().join("aside");
    fs::rename(left.queue(), &aside).unwrap();
    fs::write(left.queue(), "").unwrap();
    let log = expect_refused(&left.config);
    assert!(log.contains("must") && log.contains("cannot "), "{log}");
    fs::remove_file(left.queue()).unwrap();

    if let Some(volume) = Volume::mount(4 * MIB) {
        let queues = volume.path().join("queues/must");
        fs::create_dir_all(&queues).unwrap();
        for file in fs::read_dir(&aside).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), queues.join(file.file_name())).unwrap();
        }
        volume.read_only(true);
        let folder = format!("{:?}", left.folder.path());
        let config = left
            .config
            .replace(&folder, &format!("{:?}", volume.path()));
        let log = expect_refused(&config);
        assert!(log.contains("Read-only file system"), "{log}");
        volume.read_only(false);
        drop(Metrifold::start(&config));
    }

    // The queue is unchanged.
    let _ = fs::remove_dir_all(left.queue());
    fs::rename(&aside, left.queue()).unwrap();
    left.endpoint.now(|_| 204);
    let child = Metrifold::start(&left.config);
    expect_all(&left.endpoint, LEFT);
    drop(child);
}
