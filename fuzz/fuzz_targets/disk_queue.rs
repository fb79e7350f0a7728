//! The files of a disk queue: whatever is in them, opening and reading them ends, the accounts
//! balance, and the queue goes on.
//!
//! The input is a list of edits to the files of a sound queue: file (1), place (2), length (1),
//! bytes. An edit of a file that is not there makes it. After that, checksums are made right in the
//! files whose bits are set in the first byte.
#![no_main]

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, mpsc, Mutex};

use libfuzzer_sys::fuzz_target;

use metrifold_model::{Counts, Version};
use metrifold_model::ledger::Account;
use metrifold_queue::disk::{Append, DiskQueue, Fate, Options, SyncPolicy};
use metrifold_queue::disk::fs::{File, Fs, Mode};

const NAMES: [&str; 6] = [
    "checkpoint",
    "00000000000000000000.log",
    "00000000000000000000.ack",
    "00000000000000000003.log",
    "00000000000000000003.ack",
    "00000000000000000009.log",
];

const OPTIONS: Options = Options {
    max_bytes: 1 << 20,
    max_age: None,
    drop_oldest: false,
    sync: SyncPolicy::Batch,
};

type Node = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Node>>>);

#[derive(Debug)]
struct Open(Node);

impl Fs for Memory {
    fn lock(&self, _: &str) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut files = self.0.lock().unwrap();
        if mode == Mode::Existing && !files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let node = files.entry(name.to_owned()).or_default().clone();
        if mode == Mode::Create {
            node.lock().unwrap().clear();
        }
        Ok(Arc::new(Open(node)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let node = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.0.lock().unwrap().remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File for Open {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        let bytes = self.0.lock().unwrap();
        let bytes = bytes.get(offset as usize..).unwrap_or_default();
        Ok(bytes[..bytes.len().min(length)].to_vec())
    }

    fn write_parts_at(&self, parts: Vec<IoSlice<'_>>, offset: u64) -> io::Result<()> {
        let written: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut bytes = self.0.lock().unwrap();
        let end = offset as usize + written.len();
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[offset as usize..end].copy_from_slice(&written);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(length as usize, 0);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn let_go(&self, _end: u64) {}
}

fn open(fs: &Memory) -> Option<DiskQueue> {
    DiskQueue::open_on(Arc::new(fs.clone()), OPTIONS, |event| {
        drop(event.to_string())
    })
    .ok()
}

fn append(queue: &DiskQueue, samples: u64) {
    let (tell, hear) = mpsc::channel();
    let append = Append {
        tenant: Arc::from("tenant"),
        lane: 0,
        accepted_at: samples,
        version: Version::V1,
        counts: Some(Counts {
            samples,
            ..Counts::default()
        }),
        checked: true,
        body: vec![7; 20].into(),
    };
    let complete = Box::new(move |result: Result<_, _>| tell.send(result.is_ok()).unwrap());
    // Totals and lengths that damage has made up may leave no room.
    if queue.append(append, complete).is_ok() {
        assert!(hear.recv().unwrap());
    }
}

fn put(fs: &Memory, name: &str, bytes: Vec<u8>) {
    let node = Arc::new(Mutex::new(bytes));
    fs.0.lock().unwrap().insert(name.to_owned(), node);
}

/// The files of a queue whose id is zero, so that an input means the same in every run.
fn sound() -> Memory {
    let fs = Memory::default();
    let mut checkpoint = vec![0; 36];
    checkpoint[..8].copy_from_slice(b"MFqc\x01\0\0\0");
    mend(&mut checkpoint, 28);
    let crc = crc32c::crc32c(&checkpoint);
    checkpoint.extend(crc.to_le_bytes());
    put(&fs, "checkpoint", checkpoint);
    for _ in 0..2 {
        let queue = open(&fs).expect("a sound queue");
        (1..4).for_each(|samples| append(&queue, samples));
        let first = queue.reader().next(0).unwrap().expect("a record");
        queue.done(&first.entry, Fate::Delivered);
        queue.close();
    }
    fs
}

/// Puts the checksum of what is before it at this place.
fn mend(bytes: &mut [u8], at: usize) {
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Makes all checksums right that can be found.
fn mend_file(bytes: &mut [u8], name: &str) {
    if bytes.len() < 40 {
        return;
    }
    mend(bytes, 28);
    let seed = crc32c::crc32c(&[0; 8]);
    if name == "checkpoint" {
        let end = bytes.len() - 4;
        mend(bytes, end);
    } else if name.ends_with(".ack") {
        for entry in bytes[32..].chunks_exact_mut(32) {
            let crc = crc32c::crc32c_append(seed, &entry[4..]);
            entry[..4].copy_from_slice(&crc.to_le_bytes());
        }
    } else {
        for at in 32..bytes.len().saturating_sub(64) {
            if &bytes[at..at + 4] == b"MFr1" {
                let tenant = u16::from_le_bytes([bytes[at + 60], bytes[at + 61]]);
                let end = bytes.len().min(at + 64 + usize::from(tenant));
                let crc = crc32c::crc32c_append(seed, &bytes[at + 8..end]);
                bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
}

fn edit(fs: &Memory, mut input: &[u8]) {
    let Some((mended, rest)) = input.split_first() else {
        return;
    };
    input = rest;
    while let [file, low, high, length, rest @ ..] = input {
        let name = NAMES[usize::from(*file) % NAMES.len()];
        let length = usize::from(*length).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        input = rest;
        let place = u64::from(u16::from_le_bytes([*low, *high]));
        let file = fs.open(name, Mode::Keep).expect("in memory");
        match length {
            0 => file.set_len(place).expect("in memory"),
            _ => file.write_at(bytes, place).expect("in memory"),
        }
    }
    for (place, name) in NAMES.iter().enumerate() {
        if mended & 1 << place != 0
            && let Some(node) = fs.0.lock().unwrap().get(*name)
        {
            mend_file(&mut node.lock().unwrap(), name);
        }
    }
}

/// Numbers that no queue writes may overflow: then nothing can be said.
fn small(account: &Account) -> bool {
    account.received.samples < 1 << 40 && account.received.batches < 1 << 40
}

fuzz_target!(|input: &[u8]| {
    let fs = sound();
    edit(&fs, input);
    let Some(queue) = open(&fs) else {
        return;
    };
    append(&queue, 5);
    let mut reader = queue.reader();
    let mut last = None;
    while let Some(record) = reader.next(0).unwrap() {
        assert!(last < Some(record.entry.position), "in order");
        last = Some(record.entry.position);
        assert!(queue.done(&record.entry, Fate::Delivered));
    }
    let total = queue.snapshot().total;
    if small(&total) {
        let lost: u64 = total.dropped.values().map(|it| it.batches).sum();
        let known = total.delivered.batches + lost;
        assert!(known <= total.received.batches || !input.is_empty() && input[0] & 1 != 0);
    }
    queue.close();
    let again = open(&fs).expect("what was opened can be opened again");
    assert!(again.reader().next(0).unwrap().is_none(), "all was done");
    again.close();
});
