//! Versions of a folder, and the symbolic link to the current one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names::Wanted;
use crate::Version;
use crate::disk::{self, Disk, Lock, Stat, WriteError, found};

/// Name of a version's manifest, which lists the files that this component wrote.
pub(super) const MANIFEST: &str = ".metrifold-rules.json";
/// Version of the manifest's format.
const FORMAT: u32 = 1;
/// Maximum size of a manifest, in bytes.
const MAX_MANIFEST: u64 = 256 << 20;
/// Number of earlier versions that are kept for readers that still use them.
const KEPT_VERSIONS: usize = 2;
/// Temporary name of the new link, until it is renamed.
const NEXT_LINK: &str = "next";
/// Temporary name of a new file, until it is renamed.
const NEXT_FILE: &str = "next-file";
/// Name of the lock file, held while the folder is read or changed.
const LOCK: &str = "lock";

/// State of a file of this component when it was last written or read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) version: Version,
    pub(super) stat: Stat,
}

/// The part of a manifest that every format has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    files: BTreeMap<String, Origin>,
}

/// Tenant and file of an entry of the manifest, whose name in the folder may be cut.
#[derive(Serialize, Deserialize)]
struct Origin {
    tenant: String,
    file: String,
}

/// Renders the manifest of a version.
pub(super) fn manifest(wanted: &BTreeMap<String, Wanted<'_>>) -> String {
    let files = wanted.iter().map(|(name, file)| {
        let origin = Origin {
            tenant: file.tenant.to_owned(),
            file: file.file.to_owned(),
        };
        (name.clone(), origin)
    });
    let manifest = Manifest {
        format: FORMAT,
        files: files.collect(),
    };
    // Serialising string keys, strings and numbers to JSON cannot fail.
    serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n"
}

/// Paths of a folder and its versions.
#[derive(Debug)]
pub(super) struct Layout {
    path: PathBuf,
    parent: PathBuf,
    base: PathBuf,
    /// Name of the base folder, with which the link's target begins.
    base_name: String,
}

impl Layout {
    pub(super) fn new(path: &Path) -> Result<Self, WriteError> {
        let unnamed = || WriteError::Unnamed {
            path: path.to_owned(),
        };
        let absolute = std::path::absolute(path).map_err(WriteError::io("find", path))?;
        let name = absolute.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (absolute.parent(), name) else {
            return Err(unnamed());
        };
        let base_name = format!(".{name}.metrifold");
        let parent = parent.to_owned();
        // Without a trailing slash, which would follow the link.
        Ok(Self {
            path: parent.join(name),
            base: parent.join(&base_name),
            parent,
            base_name,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Temporary path of a file that will replace one in a version.
    pub(super) fn next_file(&self) -> PathBuf {
        self.base.join(NEXT_FILE)
    }

    pub(super) fn version(&self, version: u64) -> PathBuf {
        self.base.join(version.to_string())
    }

    /// Fails if the path is occupied by something that this component did not create.
    pub(super) fn check(&self) -> Result<(), WriteError> {
        let occupied = || WriteError::Occupied {
            path: self.path.clone(),
        };
        let Some(stat) = found(fs::symlink_metadata(&self.path), "look at", &self.path)? else {
            return Ok(());
        };
        if stat.is_symlink() {
            return self.target()?.map(|_| ()).ok_or_else(occupied);
        }
        let mut entries = match stat.is_dir() {
            true => fs::read_dir(&self.path).map_err(WriteError::io("list", &self.path))?,
            false => return Err(occupied()),
        };
        entries.next().map_or(Ok(()), |_| Err(occupied()))
    }

    /// The version that the link names; `None` if there is no link or a foreign one.
    fn target(&self) -> Result<Option<u64>, WriteError> {
        let target = match fs::read_link(&self.path) {
            Ok(target) => target,
            // The path is a folder and not a link; before the first set, it may be an empty one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WriteError::io("read link", &self.path)(error)),
        };
        let number = target
            .strip_prefix(&self.base_name)
            .ok()
            .and_then(Path::to_str);
        Ok(number.and_then(as_version))
    }

    /// The version that readers see; `None` if there is none.
    pub(super) fn current(&self) -> Result<Option<u64>, WriteError> {
        let Some(version) = self.target()? else {
            return Ok(None);
        };
        let folder = self.version(version);
        let stat = found(fs::metadata(&folder), "look at", &folder)?;
        Ok(stat.map(|_| version))
    }

    /// Locks the folder, and creates its base if necessary.
    pub(super) fn lock(&self, disk: &Disk) -> Result<Lock, WriteError> {
        if found(fs::metadata(&self.base), "look at", &self.base)?.is_none() {
            disk.create_dirs(&self.base)?;
        }
        self.lock_base()
    }

    /// Locks the folder; `None` if it was never written.
    pub(super) fn lock_existing(&self) -> Result<Option<Lock>, WriteError> {
        match found(fs::metadata(&self.base), "look at", &self.base)? {
            Some(_) => self.lock_base().map(Some),
            None => Ok(None),
        }
    }

    fn lock_base(&self) -> Result<Lock, WriteError> {
        Lock::take(&self.base.join(LOCK), &self.path)
    }

    fn versions(&self) -> Result<BTreeSet<u64>, WriteError> {
        let names = list(&self.base)?;
        Ok(names.iter().filter_map(|name| as_version(name)).collect())
    }

    /// Number of the next version, larger than those of all present versions.
    pub(super) fn next(&self) -> Result<u64, WriteError> {
        let last = self.versions()?.last().copied();
        Ok(last.max(self.target()?).unwrap_or(0) + 1)
    }

    /// Removes unfinished versions, and all but the newest [`KEPT_VERSIONS`] earlier ones.
    pub(super) fn clean(&self, disk: &Disk) -> Result<(), WriteError> {
        for left in [NEXT_LINK, NEXT_FILE].map(|name| self.base.join(name)) {
            if found(fs::symlink_metadata(&left), "look at", &left)?.is_some() {
                disk.remove_file(&left)?;
            }
        }
        let current = self.current()?;
        let versions = self.versions()?;
        let earlier = versions.iter().rev().filter(|one| Some(**one) < current);
        let kept: BTreeSet<_> = earlier
            .take(KEPT_VERSIONS)
            .copied()
            .chain(current)
            .collect();
        for version in versions.difference(&kept) {
            self.remove(*version, disk)?;
        }
        Ok(())
    }

    /// Removes a version that is not current, except foreign files that the current version lacks.
    pub(super) fn remove(&self, version: u64, disk: &Disk) -> Result<(), WriteError> {
        let folder = self.version(version);
        if Some(version) == self.current()?
            || found(fs::metadata(&folder), "look at", &folder)?.is_none()
        {
            return Ok(());
        }
        let own = self.own(version)?;
        let current = self.current()?.map(|version| self.version(version));
        let mut left = 0;
        for name in list(&folder)?.iter().filter(|name| *name != MANIFEST) {
            let path = folder.join(name);
            let is_elsewhere = || {
                let stat = Stat::of(&path).ok();
                let other = current
                    .as_ref()
                    .and_then(|folder| Stat::of(&folder.join(name)).ok());
                matches!((stat, other), (Some(stat), Some(other)) if stat.is_same_file(&other))
            };
            if own.contains(name) || is_elsewhere() {
                disk.remove_file(&path)?;
            } else {
                left += 1;
            }
        }
        // The manifest is removed last: until then, the remaining files are recognised as our own.
        if left == 0 {
            let manifest = folder.join(MANIFEST);
            if found(fs::metadata(&manifest), "look at", &manifest)?.is_some() {
                disk.remove_file(&manifest)?;
            }
            disk.remove_dir(&folder)?;
        }
        Ok(())
    }

    /// Names of the files of a version that this component wrote. A manifest cut short by a crash
    /// counts as empty, since the files are written after it; one of another format is an error, since
    /// its files would be taken for those of another program.
    fn own(&self, version: u64) -> Result<BTreeSet<String>, WriteError> {
        let path = self.version(version).join(MANIFEST);
        if found(fs::metadata(&path), "look at", &path)?.is_none() {
            return Ok(BTreeSet::new());
        }
        let text = disk::read(&path, MAX_MANIFEST).map_err(WriteError::io("read", &path))?;
        let head: Result<Head, _> = serde_json::from_slice(&text);
        if let Ok(Head { format }) = head
            && format != FORMAT
        {
            return Err(WriteError::Format { path, format });
        }
        let manifest: Result<Manifest, _> = serde_json::from_slice(&text);
        Ok(match manifest {
            Ok(manifest) => manifest
                .files
                .into_keys()
                .filter(|name| is_plain(name))
                .collect(),
            Err(_) => BTreeSet::new(),
        })
    }

    /// Reads the files of a version that this component wrote.
    pub(super) fn read(&self, version: u64) -> Result<BTreeMap<String, Known>, WriteError> {
        let folder = self.version(version);
        let mut known = BTreeMap::new();
        for name in self.own(version)? {
            let path = folder.join(&name);
            // Another program may have removed or replaced the file.
            let Ok(stat) = Stat::of(&path) else { continue };
            let content =
                disk::read(&path, disk::MAX_FILE).map_err(WriteError::io("read", &path))?;
            let version = Version::of(&content);
            known.insert(name, Known { version, stat });
        }
        Ok(known)
    }

    /// The foreign entries of a version. A folder or a special file among them cannot be kept by a
    /// link, and is an error.
    pub(super) fn foreign(
        &self,
        version: u64,
        is_own: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, WriteError> {
        let folder = self.version(version);
        let mut foreign = list(&folder)?;
        foreign.retain(|name| name != MANIFEST && !is_own(name));
        for name in &foreign {
            Stat::of(&folder.join(name)).map_err(|_| WriteError::Foreign {
                path: self.path.join(name),
            })?;
        }
        Ok(foreign)
    }

    /// Makes a version the current one, by replacing the link.
    pub(super) fn point_to(&self, version: u64, disk: &Disk) -> Result<(), WriteError> {
        let link = self.base.join(NEXT_LINK);
        let target = Path::new(&self.base_name).join(version.to_string());
        disk.symlink(&target, &link)?;
        let stat = found(fs::symlink_metadata(&self.path), "look at", &self.path)?;
        if stat.is_some_and(|stat| stat.is_dir()) {
            // The folder is empty: `check` refuses any other.
            disk.remove_dir(&self.path).map_err(|error| match error {
                WriteError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                    WriteError::Mounted {
                        path: self.path.clone(),
                    }
                }
                error => error,
            })?;
        }
        disk.rename(&link, &self.path)?;
        // Readers see the new set already. A failed sync means that a power cut may undo this; an error
        // would claim that the old set is still in place.
        let _ = disk.sync_dir(&self.parent);
        Ok(())
    }
}

/// Parses the name of a version's folder, without leading zeros or signs.
fn as_version(name: &str) -> Option<u64> {
    let version: u64 = name.parse().ok()?;
    (version.to_string() == name && version < u64::MAX).then_some(version)
}

/// Whether a name in a manifest is that of a visible file in the folder itself, and no path elsewhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// Lists the names in a folder; names that are not UTF-8 are converted lossily.
fn list(folder: &Path) -> Result<Vec<String>, WriteError> {
    let entries = fs::read_dir(folder).map_err(WriteError::io("list", folder))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(WriteError::io("list", folder))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}
