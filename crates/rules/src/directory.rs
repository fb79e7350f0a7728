//! A folder that holds exactly a [`RuleSet`], changed whole or not at all.
//!
//! The configured path is a symbolic link to a folder that is never changed once the link names it,
//! as Kubernetes does for its ConfigMaps: a reader that opens the path sees the old set or the new
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
//! it, as Prometheus does for a pattern, may still meet a change in between and is told to read
//! again by whoever reloads it after a change.
//!
//! Files that others put into the folder are kept: they are linked into each new version. A file of
//! theirs whose name is needed, or that cannot be linked, is an error, and the old set stays. Names
//! are escaped: see [`decode_name`].
//!
//! Everything here blocks, and nothing is held open between calls.

mod disk;
mod error;
mod names;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::file::{Checks, RuleFile};
use crate::{RuleSet, StoredFile, TenantRules};
use disk::Disk;
pub use error::DirectoryError;
pub use names::decode_name;
use versions::{Known, Layout};

/// How many files are open at most before they are synced together.
const MAX_OPEN: usize = 64;

/// A folder and what is known of its files.
#[derive(Debug)]
pub struct RulesDirectory {
    layout: Layout,
    disk: Disk,
    /// The version that was current when it was looked at last, and its own files.
    current: Option<u64>,
    known: BTreeMap<String, Known>,
}

/// What a change did to the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files that are new or have new content.
    pub written: usize,
    /// Files that stayed as they were.
    pub unchanged: usize,
    /// Files that are gone.
    pub removed: usize,
}

impl Applied {
    /// Whether readers see another set than before.
    pub fn is_change(&self) -> bool {
        self.written + self.removed > 0
    }
}

impl RulesDirectory {
    /// Looks at a folder, removes what a crash has left beside it and reads what is in it. The
    /// folder need not exist, nor those above it; it is made when a set is applied.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_on(path, Disk::default())
    }

    fn open_on(path: &Path, disk: Disk) -> Result<Self, DirectoryError> {
        let mut directory = Self {
            layout: Layout::new(path)?,
            disk,
            current: None,
            known: BTreeMap::new(),
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

    /// What was written here and is in the folder, as far as it can be read. A file whose name was
    /// cut is left out.
    pub fn held(&self) -> RuleSet {
        let folder = self.layout.path();
        let checks = Checks {
            thanos: true,
            ..Checks::new(&|_| Ok(Vec::new()))
        };
        let mut held = RuleSet::default();
        for name in self.known.keys() {
            let Some((tenant, file)) = decode_name(name) else {
                continue;
            };
            let text = fs::read(folder.join(name)).unwrap_or_default();
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

    /// Makes the folder hold the set. If that fails, it holds what it held before.
    pub fn apply(&mut self, set: &RuleSet) -> Result<Applied, DirectoryError> {
        self.layout.check()?;
        let _lock = self.layout.lock(&self.disk)?;
        self.refresh(false)?;
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
        let foreign = self.foreign()?;
        if let Some(name) = foreign.iter().find(|name| wanted.contains_key(*name)) {
            return Err(DirectoryError::Foreign {
                path: self.layout.path().join(name),
            });
        }
        let next = self.layout.next()?;
        match self.write(next, &wanted, &same, &foreign) {
            Ok(known) => {
                self.known = known;
                self.current = Some(next);
                // The set is in place; what cannot be removed now is removed before the next change.
                let _ = self.layout.clean(&self.disk);
                Ok(applied)
            }
            Err(error) => {
                let _ = self.layout.remove(next, &self.disk);
                Err(error)
            }
        }
    }

    /// Removes what is left over, and reads the files anew if somebody else changed the version.
    fn refresh(&mut self, all: bool) -> Result<(), DirectoryError> {
        self.layout.clean(&self.disk)?;
        let current = self.layout.current()?;
        if all || current != self.current {
            self.known = match current {
                Some(version) => self.layout.read(version)?,
                None => BTreeMap::new(),
            };
            self.current = current;
        }
        Ok(())
    }

    /// The files of the current version that are as they were left and as they are wanted.
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

    /// The files in the current version that others have put there.
    fn foreign(&self) -> Result<Vec<String>, DirectoryError> {
        match self.current {
            Some(version) => self
                .layout
                .foreign(version, |name| self.known.contains_key(name)),
            None => Ok(Vec::new()),
        }
    }

    /// Links a file of somebody else into a version. The system refuses that for files of other
    /// users which this process may not write to.
    fn keep(&self, old: &Path, new: &Path) -> Result<(), DirectoryError> {
        self.disk.hard_link(old, new).map_err(|error| match error {
            DirectoryError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                DirectoryError::Foreign {
                    path: self.path().join(new.file_name().unwrap_or_default()),
                }
            }
            error => error,
        })
    }

    /// Writes a version and makes it the current one.
    fn write(
        &self,
        next: u64,
        wanted: &BTreeMap<String, names::Wanted<'_>>,
        same: &BTreeMap<String, Known>,
        foreign: &[String],
    ) -> Result<BTreeMap<String, Known>, DirectoryError> {
        let folder = self.layout.version(next);
        self.disk.create_dir(&folder)?;
        // First, so that whatever a crash leaves behind is known as our own.
        let manifest = versions::manifest(wanted);
        let path = folder.join(versions::MANIFEST);
        let manifest = self.disk.create(&path, manifest.as_bytes())?;
        self.disk.sync(vec![manifest])?;
        self.disk.sync_dir(&folder)?;
        let old = self.current.map(|version| self.layout.version(version));
        let mut known = BTreeMap::new();
        let mut written = Vec::new();
        for (name, file) in wanted {
            let path = folder.join(name);
            if let (Some(old), Some(same)) = (&old, same.get(name))
                // File systems without hard links, and files with too many, are written anew.
                && self.disk.hard_link(&old.join(name), &path).is_ok()
            {
                known.insert(name.clone(), *same);
                continue;
            }
            written.push(self.disk.create(&path, file.text().as_bytes())?);
            let stat = disk::Stat::of(&path)?;
            let version = file.version();
            known.insert(name.clone(), Known { version, stat });
            if written.len() == MAX_OPEN {
                self.disk.sync(std::mem::take(&mut written))?;
            }
        }
        self.disk.sync(written)?;
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

#[cfg(test)]
mod tests;
