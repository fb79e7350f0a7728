//! A directory in memory that fails on request, and that loses unsynced data in a crash.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use super::super::fs::{File, Fs, Mode};

/// Effect of a fault on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The operation fails after a part of it is done.
    Fail(io::ErrorKind),
    /// A part of the operation is done, and everything after it fails until [`Simulated::reboot`].
    Crash,
}

/// Kind of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process crashes: all written data stays.
    Process,
    /// The machine loses power: this seed decides on the unsynced data that stays.
    Power(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct Node {
    current: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Disk {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    locked: bool,
    /// Whether new data fails to fit.
    full: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Simulated(Arc<Mutex<Disk>>);

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, written) => {
            let end = *offset as usize + written.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset as usize..end].copy_from_slice(written);
        }
        Change::Length(length) => bytes.resize(*length as usize, 0),
    }
}

/// A simple pseudo-random generator.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

impl Disk {
    /// Counts an operation; returns the error with which it fails, if any.
    fn step(&mut self) -> io::Result<()> {
        if self.crashed {
            return Err(io::Error::other("crashed"));
        }
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == self.operations => match fault {
                Fault::Fail(kind) => Err(kind.into()),
                Fault::Crash => {
                    self.crashed = true;
                    Err(io::Error::other("crashed"))
                }
            },
            _ => Ok(()),
        }
    }
}

impl Simulated {
    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Schedules a fault for the operation `after` operations from now.
    pub(super) fn fault(&self, after: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.fault = Some((disk.operations + after, fault));
    }

    /// Runs `look` without counting its operations or faults.
    pub(super) fn observe<T>(&self, look: impl FnOnce() -> T) -> T {
        let mut disk = self.disk();
        let (operations, fault) = (disk.operations, disk.fault.take());
        drop(disk);
        let seen = look();
        let mut disk = self.disk();
        (disk.operations, disk.fault) = (operations, fault);
        drop(disk);
        seen
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.disk().crashed
    }

    pub(super) fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// The directory after a crash. The old handle fails from now on.
    pub(super) fn reboot(&self, crash: Crash) -> Self {
        let mut disk = self.disk();
        disk.crashed = true;
        let (mut nodes, mut names) = (disk.nodes.clone(), disk.names.clone());
        if let Crash::Power(seed) = crash {
            let mut random = seed;
            let all = disk.names.keys().chain(disk.durable_names.keys());
            let all: std::collections::BTreeSet<_> = all.cloned().collect();
            for name in all {
                if next(&mut random).is_multiple_of(2) {
                    match disk.durable_names.get(&name) {
                        Some(node) => names.insert(name, *node),
                        None => names.remove(&name),
                    };
                }
            }
            for node in &mut nodes {
                let mut bytes = std::mem::take(&mut node.durable);
                // Mostly a prefix of the writes stays, sometimes an arbitrary subset.
                let scattered = next(&mut random).is_multiple_of(4);
                let kept = next(&mut random) as usize % (node.changes.len() + 1);
                for (place, change) in node.changes.iter().enumerate() {
                    let keep = match scattered {
                        true => next(&mut random).is_multiple_of(2),
                        false => place < kept,
                    };
                    if keep {
                        apply(&mut bytes, change);
                    } else if let (Change::Write(offset, written), true) =
                        (change, scattered || place == kept)
                    {
                        let torn = next(&mut random) as usize % (written.len() + 1);
                        apply(&mut bytes, &Change::Write(*offset, written[..torn].into()));
                        if next(&mut random).is_multiple_of(2) {
                            // The length was written, but not the data.
                            let end = *offset as usize + written.len();
                            bytes.resize(bytes.len().max(end), 0);
                        }
                    }
                }
                node.current = bytes;
            }
        }
        for node in &mut nodes {
            node.durable = node.current.clone();
            node.changes.clear();
        }
        Self(Arc::new(Mutex::new(Disk {
            durable_names: names.clone(),
            nodes,
            names,
            ..Disk::default()
        })))
    }

    /// Names and contents of all files except the lock.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let disk = self.disk();
        let names = disk.names.iter().filter(|(name, _)| *name != "lock");
        names
            .map(|(name, node)| (name.clone(), disk.nodes[*node].current.clone()))
            .collect()
    }

    pub(super) fn with_files(files: &[(String, Vec<u8>)]) -> Self {
        let fs = Self::default();
        let mut disk = fs.disk();
        for (place, (name, bytes)) in files.iter().enumerate() {
            disk.nodes.push(Node {
                current: bytes.clone(),
                durable: bytes.clone(),
                changes: Vec::new(),
            });
            disk.names.insert(name.clone(), place);
        }
        disk.durable_names = disk.names.clone();
        drop(disk);
        fs
    }

    fn handle(&self, node: usize) -> Arc<dyn File> {
        Arc::new(Handle {
            disk: self.0.clone(),
            node,
        })
    }
}

#[derive(Debug)]
struct Lock(Arc<Mutex<Disk>>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.lock().unwrap().locked = false;
    }
}

impl Fs for Simulated {
    fn lock(&self, _: &str) -> io::Result<Box<dyn Any + Send>> {
        let mut disk = self.disk();
        disk.step()?;
        if std::mem::replace(&mut disk.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.0.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.step()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.step()?;
        if let Some(node) = disk.names.get(name).copied() {
            if mode == Mode::Create {
                let node = &mut disk.nodes[node];
                node.current.clear();
                node.changes.push(Change::Length(0));
            }
            return Ok(self.handle(node));
        }
        if mode == Mode::Existing {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.nodes.push(Node::default());
        let node = disk.nodes.len() - 1;
        disk.names.insert(name.to_owned(), node);
        Ok(self.handle(node))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let node = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let removed = disk.names.remove(name);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    disk: Arc<Mutex<Disk>>,
    node: usize,
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let was_crashed = disk.crashed;
        let stepped = disk.step();
        let (full, operations) = (disk.full, disk.operations);
        let node = &mut disk.nodes[self.node];
        let change = match (&stepped, change) {
            _ if was_crashed => return stepped,
            // A failed write has written an arbitrary part of its bytes.
            (Err(_), Change::Write(offset, bytes)) => {
                let mut random = operations ^ bytes.len() as u64;
                next(&mut random);
                let done = next(&mut random) as usize % (bytes.len() + 1);
                Change::Write(offset, bytes[..done].into())
            }
            (Err(_), Change::Length(_)) => return stepped,
            (Ok(()), change) => change,
        };
        if let (true, Change::Write(offset, bytes)) = (full, &change) {
            let there = node.current.len() as u64;
            if offset + bytes.len() as u64 > there {
                let fits = there.saturating_sub(*offset) as usize;
                let part = Change::Write(*offset, bytes[..fits].into());
                apply(&mut node.current, &part);
                node.changes.push(part);
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        apply(&mut node.current, &change);
        node.changes.push(change);
        stepped
    }
}

impl File for Handle {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut disk = self.disk.lock().unwrap();
        disk.step()?;
        let bytes = &disk.nodes[self.node].current;
        let bytes = bytes.get(offset as usize..).unwrap_or_default();
        Ok(bytes[..bytes.len().min(length)].to_vec())
    }

    fn write_parts_at(&self, parts: Vec<IoSlice<'_>>, offset: u64) -> io::Result<()> {
        let bytes = parts.iter().flat_map(|part| part.iter().copied());
        self.change(Change::Write(offset, bytes.collect()))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }

    fn length(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock().unwrap();
        disk.step()?;
        Ok(disk.nodes[self.node].current.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        if disk.crashed {
            return disk.step();
        }
        let stepped = disk.step();
        let node = &mut disk.nodes[self.node];
        if stepped.is_ok() {
            let changes = std::mem::take(&mut node.changes);
            for change in &changes {
                apply(&mut node.durable, change);
            }
        } else {
            // After a failed sync, the pages count as clean and no later sync writes them.
            node.changes.clear();
        }
        stepped
    }

    fn let_go(&self, _end: u64) {}
}
