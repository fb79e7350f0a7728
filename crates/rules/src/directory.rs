//! A folder that holds the files of a [`RuleSet`], and changes atomically.
//!
//! The configured path is a symbolic link to a folder that is not changed once the link names it, as
//! Kubernetes does for its ConfigMaps: a reader that opens the path sees the old set or the new
//! one, and `kill -9` or a power cut at any moment leaves one of the two. For `/var/lib/rules`:
//!
//! ```text
//! /var/lib/rules -> .rules.metrifold/8        what readers open
//! /var/lib/.rules.metrifold/8/                the set, and a hidden list of the files in it
//! /var/lib/.rules.metrifold/{7,6}/            the sets before, for readers that are still in them
//! ```
//!
//! A new version is written beside the others: files that did not change are hard links to those of
//! the version before (their times stay), the rest is written and synced, and so is the folder.
//! Then the link is replaced by a rename, and the oldest version goes. The files of a set cannot be
//! exchanged together in a plain folder; a reader that lists the path and then opens each file by
//! it, as Prometheus does for a pattern, may still meet a change in between, and reads the new set when
//! it is reloaded after the change.
//!
//! With many files, linking all of them, or only looking at them, would dominate the cost of changing
//! one. So with `MANY` files or more, a single changed file is replaced in the current version, by a
//! rename as well; other versions keep their link to the old file. Whether other programs have changed
//! other files is noticed at the next change of another kind.
//!
//! Files that other programs put into the folder are kept, by linking them into each new version. A
//! foreign file whose name is needed, or that cannot be linked, is an error, and the old set stays.
//! Names are escaped: see [`decode_name`].
//!
//! Every call blocks, and no file is held open between calls.

mod names;
mod versions;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::disk::{self, Disk, WriteError};
use crate::file::{Checks, Limits, RuleFile, any_expr};
use crate::{Change, RuleSet, StoredFile, Tenant, TenantRules};
pub use names::decode_name;
use versions::{Known, Layout};

/// Maximum number of files that are open at once before they are synced together.
const MAX_OPEN: usize = 64;
/// Number of files from which a single changed file is replaced in the current version.
const MANY: usize = 1000;
/// Number of new files from which they are written by several threads and synced together.
const BULK: usize = if Disk::SYNCS_ALL { 500 } else { usize::MAX };
/// Maximum number of threads that write files.
const MAX_THREADS: usize = 8;

/// A folder of rules, with the last known state of its files.
#[derive(Debug)]
pub struct RulesDirectory {
    layout: Layout,
    disk: Disk,
    /// The version that was current after the last call, and the files in it that this component wrote.
    current: Option<u64>,
    known: BTreeMap<String, Known>,
    /// The set that the folder holds after a call of this process; `None` if another one changed it.
    applied: Option<RuleSet>,
    /// [`MANY`], or fewer in tests.
    many: usize,
    /// [`BULK`], or fewer in tests.
    bulk: usize,
}

/// A new file, by its name in the folder.
type New<'a> = (&'a String, &'a names::Wanted<'a>);

/// Effect of a change on the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Number of files that are new or have new content.
    pub written: usize,
    /// Number of unchanged files.
    pub unchanged: usize,
    /// Number of removed files.
    pub removed: usize,
}

impl Applied {
    /// Whether the folder's set has changed.
    pub fn is_change(&self) -> bool {
        self.written + self.removed > 0
    }
}

impl RulesDirectory {
    /// Opens a folder: removes leftovers of a crash and reads the present files. Neither the folder nor
    /// its parents need to exist; they are created when a set is applied.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        Self::open_on(path, Disk::default())
    }

    fn open_on(path: &Path, disk: Disk) -> Result<Self, WriteError> {
        let mut directory = Self {
            layout: Layout::new(path)?,
            disk,
            current: None,
            known: BTreeMap::new(),
            applied: None,
            many: MANY,
            bulk: BULK,
        };
        directory.layout.check()?;
        if let Some(_lock) = directory.layout.lock_existing()? {
            directory.refresh(true)?;
        }
        Ok(directory)
    }

    /// The configured path, absolute.
    pub fn path(&self) -> &Path {
        self.layout.path()
    }

    /// Reads the rules that this component wrote to the folder. Unreadable files, and files whose names
    /// were cut, are left out.
    pub fn held(&self) -> RuleSet {
        let folder = self.layout.path();
        let checks = Checks {
            thanos: true,
            limits: Limits::OWN,
            ..Checks::new(&any_expr)
        };
        let mut held = RuleSet::default();
        for name in self.known.keys() {
            let Some((tenant, file)) = decode_name(name) else {
                continue;
            };
            let text = disk::read(&folder.join(name), disk::MAX_FILE).unwrap_or_default();
            let Ok(parsed) = RuleFile::parse(&text, &checks) else {
                continue;
            };
            let stored = Arc::new(StoredFile::new(parsed.file));
            let rules = match held.get(&tenant) {
                Some(rules) => rules.with_file(file.into(), stored),
                None => TenantRules::new([(Arc::from(file), stored)]),
            };
            held = held.with(tenant.into(), Arc::new(rules));
        }
        held
    }

    /// Writes a set to the folder. After a failure the folder holds the previous set.
    pub fn apply(&mut self, set: &RuleSet) -> Result<Applied, WriteError> {
        self.layout.check()?;
        let _lock = self.layout.lock(&self.disk)?;
        self.refresh(false)?;
        // A file that cannot be replaced is reported by the pass over all files.
        let applied = match self.replace_changed(set) {
            Ok(Some(applied)) => applied,
            Ok(None) | Err(_) => self.apply_all(set)?,
        };
        self.applied = Some(set.clone());
        Ok(applied)
    }

    /// Replaces the only file that differs from the set that was applied last, if there are many. No
    /// other file is looked at.
    fn replace_changed(&mut self, set: &RuleSet) -> Result<Option<Applied>, WriteError> {
        let applied = self.applied.as_ref();
        let (Some(current), Some((tenant, file, stored))) =
            (self.current, applied.and_then(|it| only_change(it, set)))
        else {
            return Ok(None);
        };
        // A name has two spellings, by whether another differs from it only in case.
        let names = [false, true].map(|capitals| names::encode(&tenant, &file, capitals));
        let known = names
            .iter()
            .find_map(|name| Some((name, self.known.get(name)?)));
        let Some((name, known)) = known.filter(|_| self.known.len() >= self.many) else {
            return Ok(None);
        };
        let path = self.layout.version(current).join(name);
        if disk::Stat::of(&path)? != known.stat {
            return Ok(None);
        }
        self.replace(current, name, &stored)?;
        Ok(Some(Applied {
            written: 1,
            unchanged: self.known.len() - 1,
            removed: 0,
        }))
    }

    fn apply_all(&mut self, set: &RuleSet) -> Result<Applied, WriteError> {
        let wanted = names::plan(set);
        let same = self.unchanged(&wanted);
        let gone = self.known.keys().filter(|name| !wanted.contains_key(*name));
        let applied = Applied {
            written: wanted.len() - same.len(),
            unchanged: same.len(),
            removed: gone.count(),
        };
        if !applied.is_change() && self.current.is_some() {
            return Ok(applied);
        }
        // If the file cannot be replaced, a new version is written, whose error names the obstacle.
        if self
            .replace_one(&wanted, &same, applied)
            .is_ok_and(|done| done)
        {
            return Ok(applied);
        }
        let foreign = self.foreign()?;
        if let Some(name) = foreign.iter().find(|name| wanted.contains_key(*name)) {
            return Err(WriteError::Foreign {
                path: self.layout.path().join(name),
            });
        }
        let next = self.layout.next()?;
        match self.write(next, &wanted, &same, &foreign) {
            Ok(known) => {
                self.known = known;
                self.current = Some(next);
                // The set is in place; leftovers that cannot be removed now are removed before the next
                // change.
                let _ = self.layout.clean(&self.disk);
                Ok(applied)
            }
            Err(error) => {
                let _ = self.layout.remove(next, &self.disk);
                Err(error)
            }
        }
    }

    /// Replaces a file in the current version, if it is the only change among many files. Returns
    /// whether it did.
    fn replace_one(
        &mut self,
        wanted: &BTreeMap<String, names::Wanted<'_>>,
        same: &BTreeMap<String, Known>,
        applied: Applied,
    ) -> Result<bool, WriteError> {
        let Some(current) = self.current else {
            return Ok(false);
        };
        if wanted.len() < self.many || applied.written != 1 || applied.removed > 0 {
            return Ok(false);
        }
        let changed = wanted.iter().find(|(name, _)| !same.contains_key(*name));
        // A new file is not in the version's manifest, so a new version is needed.
        let Some((name, file)) = changed.filter(|(name, _)| self.known.contains_key(*name)) else {
            return Ok(false);
        };
        self.replace(current, name, file.stored())?;
        Ok(true)
    }

    /// Replaces a file in the current version.
    fn replace(&mut self, current: u64, name: &str, stored: &StoredFile) -> Result<(), WriteError> {
        let next = self.layout.next_file();
        let (text, version) = stored.text();
        let written = self.disk.create(&next, text.as_bytes())?;
        let stat = written.stat()?;
        self.disk.sync(&[written])?;
        let folder = self.layout.version(current);
        self.disk.rename(&next, &folder.join(name))?;
        // Readers see the new set already; a failed sync only means that a power cut may undo it.
        let _ = self.disk.sync_dir(&folder);
        self.known.insert(name.to_owned(), Known { version, stat });
        Ok(())
    }

    /// Removes leftovers, and reads the files again if another process changed the current version.
    fn refresh(&mut self, all: bool) -> Result<(), WriteError> {
        self.layout.clean(&self.disk)?;
        let current = self.layout.current()?;
        if all || current != self.current {
            self.known = match current {
                Some(version) => self.layout.read(version)?,
                None => BTreeMap::new(),
            };
            self.current = current;
            self.applied = None;
        }
        Ok(())
    }

    /// Files of the current version that have the wanted content and were not modified by others.
    fn unchanged(&self, wanted: &BTreeMap<String, names::Wanted<'_>>) -> BTreeMap<String, Known> {
        let Some(version) = self.current else {
            return BTreeMap::new();
        };
        let folder = self.layout.version(version);
        let is_unchanged = |name: &str, known: &Known| {
            let version = wanted.get(name).map(names::Wanted::version);
            version == Some(known.version)
                && disk::Stat::of(&folder.join(name)).ok() == Some(known.stat)
        };
        self.known
            .iter()
            .filter(|(name, known)| is_unchanged(name, known))
            .map(|(name, known)| (name.clone(), *known))
            .collect()
    }

    /// Files that other programs put into the current version.
    fn foreign(&self) -> Result<Vec<String>, WriteError> {
        match self.current {
            Some(version) => self
                .layout
                .foreign(version, |name| self.known.contains_key(name)),
            None => Ok(Vec::new()),
        }
    }

    /// Links a foreign file into a version. The system refuses that for files of other users to which
    /// this process may not write.
    fn keep(&self, old: &Path, new: &Path) -> Result<(), WriteError> {
        self.disk.hard_link(old, new).map_err(|error| match error {
            WriteError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                WriteError::Foreign {
                    path: self.path().join(new.file_name().unwrap_or_default()),
                }
            }
            error => error,
        })
    }

    /// Writes new files to a version, and syncs each.
    fn create(&self, folder: &Path, new: &[New<'_>]) -> Result<Vec<(String, Known)>, WriteError> {
        let mut created = Vec::with_capacity(new.len());
        for batch in new.chunks(MAX_OPEN) {
            let mut open = Vec::with_capacity(batch.len());
            for file in batch {
                let (written, known) = self.create_one(folder, *file)?;
                open.push(written);
                created.push(known);
            }
            self.disk.sync(&open)?;
        }
        Ok(created)
    }

    /// Writes many new files to a version, and syncs them together.
    fn create_in_bulk(
        &self,
        folder: &Path,
        new: &[New<'_>],
    ) -> Result<Vec<(String, Known)>, WriteError> {
        let opened = self.disk.open_dir(folder)?;
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let share = new.len().div_ceil(threads.min(MAX_THREADS)).max(1);
        let create = |share: &[New<'_>]| {
            let created = share.iter().map(|file| self.create_one(folder, *file));
            let known = created.map(|created| created.map(|(_, known)| known));
            known.collect::<Result<Vec<_>, WriteError>>()
        };
        let created = thread::scope(|scope| {
            let shares = new.chunks(share);
            let threads: Vec<_> = shares.map(|share| scope.spawn(|| create(share))).collect();
            // All are awaited, though one failed.
            let created = threads.into_iter().map(|thread| match thread.join() {
                Ok(created) => created,
                // Continues in the caller, as without threads.
                Err(panic) => resume_unwind(panic),
            });
            created.collect::<Vec<_>>()
        });
        let created = created.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.disk.sync_all(&opened, folder)?;
        Ok(created.into_iter().flatten().collect())
    }

    fn create_one(
        &self,
        folder: &Path,
        (name, file): New<'_>,
    ) -> Result<(disk::Written, (String, Known)), WriteError> {
        let (text, version) = file.text();
        let written = self.disk.create(&folder.join(name), text.as_bytes())?;
        let stat = written.stat()?;
        Ok((written, (name.clone(), Known { version, stat })))
    }

    /// Writes a version and makes it the current one.
    fn write(
        &self,
        next: u64,
        wanted: &BTreeMap<String, names::Wanted<'_>>,
        same: &BTreeMap<String, Known>,
        foreign: &[String],
    ) -> Result<BTreeMap<String, Known>, WriteError> {
        let folder = self.layout.version(next);
        self.disk.create_dir(&folder)?;
        // The manifest comes first, so that leftovers of a crash are recognised as our own.
        let manifest = versions::manifest(wanted);
        let path = folder.join(versions::MANIFEST);
        let manifest = self.disk.create(&path, manifest.as_bytes())?;
        self.disk.sync(&[manifest])?;
        self.disk.sync_dir(&folder)?;
        let old = self.current.map(|version| self.layout.version(version));
        let mut known = BTreeMap::new();
        let mut new = Vec::new();
        for (name, file) in wanted {
            let path = folder.join(name);
            if let (Some(old), Some(same)) = (&old, same.get(name))
                // The file is written again if the file system has no hard links, or the file too many.
                && self.disk.hard_link(&old.join(name), &path).is_ok()
            {
                known.insert(name.clone(), *same);
                continue;
            }
            new.push((name, file));
        }
        known.extend(match new.len() < self.bulk {
            true => self.create(&folder, &new)?,
            false => self.create_in_bulk(&folder, &new)?,
        });
        if let Some(old) = old {
            for name in foreign {
                self.keep(&old.join(name), &folder.join(name))?;
            }
        }
        self.disk.sync_dir(&folder)?;
        self.disk.sync_dir(self.layout.base())?;
        self.layout.point_to(next, &self.disk)?;
        Ok(known)
    }
}

/// The only file that differs between two sets, with its tenant and name, if it is in both.
fn only_change(before: &RuleSet, after: &RuleSet) -> Option<(Tenant, Arc<str>, Arc<StoredFile>)> {
    let mut changes = before.diff(after);
    let Change { tenant, old, new } = changes.pop()?;
    let (old, new) = (old?, new?);
    if !changes.is_empty() || old.files().len() != new.files().len() {
        return None;
    }
    let mut changed = new
        .files()
        .filter(|(name, file)| old.file(name) != Some(*file));
    let (name, file) = changed.next()?;
    let is_only = changed.next().is_none() && old.file(name).is_some();
    is_only.then(|| (tenant, name.clone(), file.clone()))
}

#[cfg(test)]
mod tests;
