//! A file that holds all groups of a [`RuleSet`], and changes atomically, for rulers that read one file.
//!
//! ```text
//! # Rules of all tenants, written by Metrifold in format 1. Changes made here are replaced.
//! groups:
//!   # metrifold: {"tenant":"team-a","file":"alerts.yaml","group":"node"}
//!   - name: node
//!     rules: …
//! ```
//!
//! The first line says whose file it is: any other file that is not empty is an error and stays, and so
//! is a symbolic link, which a rename would replace instead of the file that it leads to. The comment in
//! front of a group names its tenant, file and group, of which the name may have been
//! [changed](named_groups). Groups stand in the order of tenants and files, and as in their file;
//! a file without groups leaves no trace.
//!
//! A new text is written to a hidden file beside the path, synced, and renamed; the folder is synced
//! as well. So a reader sees the old text or the new one, and `kill -9` or a power cut at any moment
//! leaves one of the two. Nothing is written if the file has the text already, so that it keeps its
//! time; what others have changed in it is replaced at the next call.
//!
//! Every call blocks, and no file is held open between calls.

mod names;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_base::read_text;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, Lock, WriteError, found};
use crate::file::{Checks, Group, Limits, RuleFile, any_expr};
use crate::write::{is_printable, write_group};
use crate::{RuleSet, StoredFile, Tenant, TenantRules};
pub use names::{NamedGroup, named_groups};

/// Beginning of the first line, before the number of the format.
const HEADER: &str = "# Rules of all tenants, written by Metrifold in format ";
const FORMAT: u32 = 1;
/// Beginning of the line in front of a group, before its [`Note`].
const NOTE: &str = "  # metrifold: ";
/// Maximum size of a file whose rules are read back, in bytes.
const MAX_HELD: u64 = 1 << 30;

/// A file with the rules of all tenants.
#[derive(Debug)]
pub struct RulesDocument {
    path: PathBuf,
    parent: PathBuf,
    /// Temporary path of a new text, until it is renamed.
    next: PathBuf,
    /// Path of the lock file, held while the file is changed.
    lock: PathBuf,
    disk: Disk,
}

/// Where a group comes from.
#[derive(Serialize, Deserialize)]
struct Note<'a> {
    tenant: Cow<'a, str>,
    file: Cow<'a, str>,
    group: Cow<'a, str>,
}

impl RulesDocument {
    /// Opens a file, and removes leftovers of a crash. Neither the file nor its folder needs to exist;
    /// they are created when a set is applied.
    pub fn open(path: &Path) -> Result<Self, WriteError> {
        Self::open_on(path, Disk::default())
    }

    fn open_on(path: &Path, disk: Disk) -> Result<Self, WriteError> {
        let absolute = std::path::absolute(path).map_err(WriteError::io("find", path))?;
        let name = absolute.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (absolute.parent(), name) else {
            return Err(WriteError::Unnamed {
                path: path.to_owned(),
            });
        };
        let document = Self {
            path: parent.join(name),
            // No pattern for rule files matches these.
            next: parent.join(format!(".{name}.metrifold-new")),
            lock: parent.join(format!(".{name}.metrifold-lock")),
            parent: parent.to_owned(),
            disk,
        };
        document.size()?;
        if found(fs::metadata(&document.lock), "look at", &document.lock)?.is_some() {
            let _lock = document.lock()?;
            document.clean()?;
        }
        Ok(document)
    }

    /// Reads the rules in the file. Unreadable groups are left out.
    pub fn held(&self) -> RuleSet {
        match self.size() {
            Ok(Some(_)) => read(&read_text(&self.path, MAX_HELD).unwrap_or_default()),
            _ => RuleSet::default(),
        }
    }

    /// Writes a set to the file; returns whether the file has changed. After a failure the file holds
    /// the previous set.
    pub fn apply(&self, set: &RuleSet) -> Result<bool, WriteError> {
        if found(fs::metadata(&self.parent), "look at", &self.parent)?.is_none() {
            self.disk.create_dirs(&self.parent)?;
        }
        let _lock = self.lock()?;
        self.clean()?;
        let text = text(set);
        let present = match self.size()? {
            Some(size) if size == text.len() as u64 => disk::read(&self.path, size).ok(),
            _ => None,
        };
        if present.is_some_and(|present| present == text.as_bytes()) {
            return Ok(false);
        }
        let written = self.write(&text);
        if written.is_err() {
            // A temporary file that cannot be removed now is removed before the next change.
            let _ = self.clean();
        }
        written.map(|()| true)
    }

    fn write(&self, text: &str) -> Result<(), WriteError> {
        let written = self.disk.create(&self.next, text.as_bytes())?;
        self.disk.sync(&[written])?;
        let renamed = self.disk.rename(&self.next, &self.path);
        renamed.map_err(|error| match error {
            WriteError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                WriteError::MountedFile {
                    path: self.path.clone(),
                }
            }
            error => error,
        })?;
        // Readers see the new set already. A failed sync means that a power cut may undo this; an error
        // would claim that the old set is still in place.
        let _ = self.disk.sync_dir(&self.parent);
        Ok(())
    }

    fn lock(&self) -> Result<Lock, WriteError> {
        Lock::take(&self.lock, &self.path)
    }

    /// Removes the temporary file that a crash or a failure has left.
    fn clean(&self) -> Result<(), WriteError> {
        match found(fs::symlink_metadata(&self.next), "look at", &self.next)? {
            Some(_) => self.disk.remove_file(&self.next),
            None => Ok(()),
        }
    }

    /// The size of the file; `None` if it is absent or empty. Fails if this component did not write it.
    fn size(&self) -> Result<Option<u64>, WriteError> {
        let path = || self.path.clone();
        let Some(stat) = found(fs::symlink_metadata(&self.path), "look at", &self.path)? else {
            return Ok(None);
        };
        if stat.is_symlink() {
            return Err(WriteError::Link { path: path() });
        }
        if !stat.is_file() {
            return Err(WriteError::Foreign { path: path() });
        }
        if stat.len() == 0 {
            return Ok(None);
        }
        match self.format().map_err(WriteError::io("read", &self.path))? {
            Some(FORMAT) => Ok(Some(stat.len())),
            Some(format) => Err(WriteError::FileFormat {
                path: path(),
                format,
            }),
            None => Err(WriteError::Foreign { path: path() }),
        }
    }

    /// The format in the first line; `None` if another program wrote the file.
    fn format(&self) -> io::Result<Option<u32>> {
        /// Maximum number of digits of a format.
        const DIGITS: u64 = 9;
        let mut start = Vec::new();
        let file = File::open(&self.path)?;
        file.take(HEADER.len() as u64 + DIGITS)
            .read_to_end(&mut start)?;
        let start = String::from_utf8_lossy(&start);
        let format = start.strip_prefix(HEADER).and_then(|rest| {
            let mut words = rest.split(|c: char| !c.is_ascii_digit());
            words.next()?.parse().ok()
        });
        Ok(format)
    }
}

/// The text of a set.
fn text(set: &RuleSet) -> String {
    let mut text = format!("{HEADER}{FORMAT}. Changes made here are replaced.\n");
    let groups = named_groups(set);
    text.push_str(match groups.is_empty() {
        true => "groups: []\n",
        false => "groups:\n",
    });
    for named in &groups {
        let note = Note {
            tenant: named.tenant.into(),
            file: named.file.into(),
            group: (&*named.group.name).into(),
        };
        text.push_str(NOTE);
        push_json(&mut text, &note);
        text.push('\n');
        write_group(&mut text, &named.name, named.group);
    }
    text
}

/// Appends a note on one line, with escapes for all characters that a YAML parser may take for a line
/// break or refuse, so that no name can end the comment that it stands in.
fn push_json(text: &mut String, note: &Note<'_>) {
    // Serialising strings to JSON cannot fail.
    for c in serde_json::to_string(note).unwrap_or_default().chars() {
        match is_printable(c) {
            true => text.push(c),
            // All of them have four digits.
            false => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
}

/// Reads a text. No line within a group begins as a note does, since it is indented further.
fn read(text: &str) -> RuleSet {
    let checks = Checks {
        thanos: true,
        limits: Limits::OWN,
        ..Checks::new(&any_expr)
    };
    let mut tenants: BTreeMap<Tenant, BTreeMap<Arc<str>, Vec<Group>>> = BTreeMap::new();
    for part in text.split(&format!("\n{NOTE}")).skip(1) {
        let Some((note, group)) = part.split_once('\n') else {
            continue;
        };
        let Ok(note) = serde_json::from_str::<Note<'_>>(note) else {
            continue;
        };
        let Ok(parsed) = RuleFile::parse(format!("groups:\n{group}\n").as_bytes(), &checks) else {
            continue;
        };
        let Ok([mut group]) = <[Group; 1]>::try_from(parsed.file.groups) else {
            continue;
        };
        group.name = note.group.into_owned();
        let files = tenants.entry(note.tenant.into()).or_default();
        let groups = files.entry(note.file.into()).or_default();
        // Others may have copied a group.
        if groups.iter().all(|other| other.name != group.name) {
            groups.push(group);
        }
    }
    let stored = |groups| Arc::new(StoredFile::new(RuleFile { groups }));
    tenants
        .into_iter()
        .map(|(tenant, files)| {
            let files = files.into_iter();
            let files = files.map(|(file, groups)| (file, stored(groups)));
            (tenant, Arc::new(TenantRules::new(files)))
        })
        .collect()
}

#[cfg(test)]
mod tests;
