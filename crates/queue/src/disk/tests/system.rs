//! The queue with its writer thread on a real file system.

use std::io;
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;

fn open(folder: &TempDir, options: Options) -> Result<DiskQueue, OpenError> {
    DiskQueue::open(folder.path().join("queue"), options, |event| {
        panic!("{event}");
    })
}

fn put(queue: &DiskQueue, append: Append) -> mpsc::Receiver<Result<Entry, AppendError>> {
    let (tell, hear) = mpsc::channel();
    let complete = Box::new(move |result| tell.send(result).unwrap());
    queue.append(append, complete).unwrap();
    hear
}

#[test]
fn what_was_appended_is_there_when_it_is_opened_again() {
    for sync in [
        SyncPolicy::Batch,
        SyncPolicy::Interval(Duration::from_millis(1)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { sync, ..options() };
        let queue = open(&folder, options).unwrap();
        let completed: Vec<_> = (1..50)
            .map(|samples| put(&queue, append("a", samples, 5000)))
            .collect();
        let entries: Vec<_> = completed
            .iter()
            .map(|hear| hear.recv().unwrap().unwrap())
            .collect();
        for entry in &entries[..30] {
            assert!(queue.done(entry, Fate::Delivered));
        }
        let stats = queue.stats();
        assert!(stats.bytes > 49 * 5000 && stats.fsyncs > 0 && stats.writes > 0);
        queue.close();

        let queue = open(&folder, options).unwrap();
        let mut reader = queue.reader();
        let read = std::iter::from_fn(|| reader.next(0).unwrap());
        let read: Vec<_> = read.map(|record| record.entry).collect();
        assert_eq!(read, entries[30..]);
        let total = queue.snapshot().total;
        assert_eq!(total.delivered.batches, 30);
        assert_eq!(total.queued().batches, 19);
        let one = reader.read(entries[40].position, 0).unwrap().unwrap();
        assert_eq!((&one.entry, one.body.len()), (&entries[40], 5000));
        queue.close();
    }
}

#[test]
fn a_directory_has_one_queue_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder, options()).unwrap();
    let second = open(&folder, options());
    assert!(matches!(second, Err(OpenError::Locked)));
    queue.close();
    open(&folder, options()).unwrap().close();
}

#[test]
fn what_was_accepted_before_it_was_closed_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder, options()).unwrap();
    let completed: Vec<_> = (1..20)
        .map(|samples| put(&queue, append("a", samples, 100)))
        .collect();
    queue.close();
    for hear in completed {
        assert!(hear.recv().unwrap().is_ok());
    }
}

#[tokio::test]
async fn whoever_waits_for_room_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        max_bytes: MIN_BYTES,
        ..options()
    };
    let queue = open(&folder, options).unwrap();
    let mut reader = queue.reader();
    let mut waited = 0;
    for _ in 0..300 {
        let (mut append, mut complete) = (append("a", 1, 5000), Box::new(|_| {}) as Completion);
        loop {
            let room = queue.room();
            tokio::pin!(room);
            room.as_mut().enable();
            match queue.append(append, complete) {
                Ok(()) => break,
                Err(Refused::Full(again, later) | Refused::Busy(again, later)) => {
                    (append, complete) = (again, later);
                }
                Err(refused) => panic!("{refused}"),
            }
            waited += 1;
            while let Some(record) = reader.next(0).unwrap() {
                queue.done(&record.entry, Fate::Delivered);
            }
            room.await;
        }
    }
    assert!(waited > 0);
    queue.close();
    let there = std::fs::read_dir(folder.path().join("queue")).unwrap();
    let bytes: u64 = there.map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= MIN_BYTES);
}

#[test]
fn a_tenant_who_fills_the_queue_leaves_room_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder, options()).unwrap();
    let fill = |tenant: &str| {
        let mut taken = 0;
        loop {
            let complete = Box::new(|_: Result<Entry, AppendError>| ());
            match queue.append(append(tenant, 1, 1000), complete) {
                Ok(()) => taken += 1,
                Err(Refused::Busy(..)) => std::thread::yield_now(),
                Err(Refused::Full(..)) => return taken,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let (loud, calm, third) = (fill("loud"), fill("calm"), fill("third"));
    assert!(
        loud > 5 * calm && calm > 0 && third > 0,
        "{loud} {calm} {third}"
    );
    queue.close();
}

#[tokio::test]
async fn a_reader_hears_of_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder, options()).unwrap();
    let mut reader = queue.reader();
    for samples in 1..10 {
        let filled = queue.filled();
        tokio::pin!(filled);
        filled.as_mut().enable();
        assert!(reader.next(0).unwrap().is_none());
        let _ = put(&queue, append("a", samples, 10)).recv();
        filled.await;
        let record = reader.next(0).unwrap().unwrap();
        assert_eq!(record.entry.tally().samples, samples);
    }
    queue.close();
}

/// A file system of 1 MiB; `None` where mounting is not permitted.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        let status = mount.arg(folder.path()).output().ok()?.status;
        status.success().then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut unmount = std::process::Command::new("umount");
        let _ = unmount.arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_smaller_than_the_queue_fails_appends_until_something_is_done() {
    let Some(disk) = Tmpfs::mount() else {
        // Another test simulates this.
        return;
    };
    let options = Options {
        max_bytes: 16 * MIB,
        ..options()
    };
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    let listener = move |event: Event| heard.lock().unwrap().push(event.to_string());
    let queue = DiskQueue::open(disk.0.path().join("queue"), options, listener).unwrap();
    let mut completed = 0;
    let error = loop {
        match put(&queue, append("a", 1, 20_000)).recv().unwrap() {
            Ok(_) => completed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::NoSpace), "{error}");
    let mut reader = queue.reader();
    let mut read = 0;
    while let Some(record) = reader.next(0).unwrap() {
        assert!(queue.done(&record.entry, Fate::Delivered));
        read += 1;
    }
    assert_eq!(read, completed);
    queue.close();
    // All records are done: closing has freed the space.
    let queue = DiskQueue::open(disk.0.path().join("queue"), options, |_| {}).unwrap();
    assert!(put(&queue, append("a", 1, 20_000)).recv().unwrap().is_ok());
    assert_eq!(queue.snapshot().total.delivered.batches, completed);
    queue.close();
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue");
    std::fs::write(&file, "not a directory").unwrap();
    let error = open(&folder, options()).unwrap_err();
    assert!(error.to_string().contains(&*file.to_string_lossy()));
    let OpenError::Io { source, .. } = error else {
        panic!("{error}");
    };
    assert_ne!(source.kind(), io::ErrorKind::NotFound);
}

/// The result of an append to the queue.
fn try_put(queue: &DiskQueue) -> Result<(), String> {
    let result = put(queue, append("a", 1, 5000)).recv().unwrap();
    result.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_directory_that_disappears_is_missed_though_nothing_is_appended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    let (heard, told) = crossbeam_channel::unbounded();
    let listener = move |event: Event| heard.send(event.to_string()).unwrap();
    let queue = DiskQueue::open(path.clone(), options(), listener).unwrap();
    try_put(&queue).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let event = told.recv_timeout(std::time::Duration::from_secs(60));
    assert!(event.unwrap().contains("moved or removed"));
    queue.close();
}

#[test]
fn a_directory_that_was_moved_or_removed_takes_nothing_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("queue"), folder.path().join("aside"));
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    let listener = move |event: Event| heard.lock().unwrap().push(event.to_string());
    let queue = DiskQueue::open(path.clone(), options(), listener).unwrap();
    try_put(&queue).unwrap();
    let told = || std::mem::take(&mut *events.lock().unwrap()).join("; ");

    std::fs::rename(&path, &aside).unwrap();
    assert!(try_put(&queue).unwrap_err().contains("put it back"));
    assert!(told().contains("moved or removed"));
    // A new directory in its place is a different one.
    std::fs::create_dir(&path).unwrap();
    assert!(try_put(&queue).is_err());
    let mut reader = queue.reader();
    assert!(reader.next(0).is_err(), "it is not lost");
    assert!(!queue.give_up(Position(0)));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    try_put(&queue).unwrap();
    assert!(reader.next(0).unwrap().is_some());

    // If only the files are removed, their records are lost, but new appends succeed.
    for file in std::fs::read_dir(&path).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert!(try_put(&queue).is_err());
    assert!(told().contains("removed"));
    try_put(&queue).unwrap();

    std::fs::remove_dir_all(&path).unwrap();
    assert!(try_put(&queue).is_err());
    queue.close();
}
