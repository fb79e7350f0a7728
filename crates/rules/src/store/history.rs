//! History of the files: former texts, and who changed them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ATTEMPTS, Change, ENTRY, Expected, ObjectError, Place, Store, StoreError, Text};
use crate::Version;

const HISTORY: &str = "metrics/rules-history/";
/// Maximum size of an entry without its text, in bytes, and the maximum factor by which JSON escapes
/// enlarge the text.
const ENTRY_OVERHEAD: usize = 64 << 10;
const QUOTED: usize = 6;

/// Number of the newest entries that are searched for the entry of the file's current version.
const LOOKED_AT: usize = 8;

/// Kind of a change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The file was written.
    Put,
    /// The file was removed.
    Delete,
    /// The text of an earlier version was restored.
    Rollback,
    /// Another program changed the object without an entry; the time is that of its discovery.
    Outside,
}

/// A change of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// ID of the change, unique within its file.
    #[serde(skip)]
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Name of the caller who made the change; empty if unknown.
    pub by: String,
    /// Kind of the change.
    pub action: Action,
    /// Version of the file after the change; `None` if it was removed.
    pub version: Option<String>,
    /// Text of the file after the change; `None` if it was removed.
    pub text: Option<String>,
}

impl Store {
    /// Reads the kept changes of a file, newest first, without their texts.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn history(&self, place: &Place) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for id in self.entries(place)?.iter().rev().take(self.keep) {
            // Another process may have pruned the entry meanwhile; a damaged entry is skipped.
            if let Ok(entry) = self.entry(place, id) {
                entries.push(Entry {
                    text: None,
                    ..entry
                });
            }
        }
        Ok(entries)
    }

    /// Reads the change that gave a file a version; `None` if it is not among the newest.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn entry_of(&self, place: &Place, version: Version) -> Result<Option<Entry>, StoreError> {
        let version = Some(version.to_string());
        let ids = self.entries(place)?;
        let newest = ids.iter().rev().take(LOOKED_AT);
        let mut entries = newest.filter_map(|id| self.entry(place, id).ok());
        Ok(entries.find(|entry| entry.version == version))
    }

    /// Reads a change of a file by its ID.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Absent`] if there is no such change.
    pub fn entry(&self, place: &Place, id: &str) -> Result<Entry, StoreError> {
        const ABSENT: StoreError = StoreError::Absent("version");
        let named = id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !named {
            return Err(ABSENT);
        }
        let key = format!("{}{id}{ENTRY}", folder(place)?);
        let max = self
            .max_bytes
            .saturating_mul(QUOTED)
            .saturating_add(ENTRY_OVERHEAD);
        let object = self.objects.get(&key, max)?.ok_or(ABSENT)?;
        let entry = serde_json::from_slice(&object.text).map_err(|_| ABSENT)?;
        Ok(Entry {
            id: id.to_owned(),
            ..entry
        })
    }

    /// Lists the IDs of a file's changes, oldest first.
    fn entries(&self, place: &Place) -> Result<Vec<String>, StoreError> {
        let folder = folder(place)?;
        let listed = self.objects.list(&folder)?;
        let ids = listed
            .iter()
            .filter_map(|listed| id_of(&folder, &listed.key));
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Writes an entry for a change, and returns its key.
    pub(super) fn note(
        &self,
        place: &Place,
        text: Option<&[u8]>,
        change: Change<'_>,
    ) -> Result<String, StoreError> {
        let entry = Entry {
            id: String::new(),
            at: change.at,
            by: change.by.to_owned(),
            action: change.action,
            version: text.map(|text| Version::of(text).to_string()),
            text: text.map(|text| String::from_utf8_lossy(text).into_owned()),
        };
        let json = serde_json::to_vec_pretty(&entry).map_err(|error| ObjectError::Store {
            action: "write",
            key: place.file.clone(),
            reason: error.to_string(),
        })?;
        let folder = folder(place)?;
        // IDs sort in the order of the changes, even if the clocks of several writers differ.
        for _ in 0..ATTEMPTS {
            let newest = self.entries(place)?.pop();
            let after = newest.as_deref().and_then(moment_and_turn);
            let (moment, turn) = match after {
                Some((moment, turn)) if moment >= change.at => (moment, turn + 1),
                _ => (change.at, 0),
            };
            let key = format!("{folder}{moment:015}-{turn:06}{ENTRY}");
            match self.objects.put(&key, &json, Expected::Absent) {
                Ok(()) => return Ok(key),
                Err(ObjectError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended)
    }

    /// The ID of the entry for the current state of a file. A missing entry, as after a change by
    /// another program, is added. For a file without an entry that is absent or too large, the ID is that
    /// of the newest entry, or empty.
    pub(super) fn note_of(
        &self,
        place: &Place,
        current: Option<&Text>,
        at: u64,
    ) -> Result<String, StoreError> {
        let version = current.map(|current| current.version.to_string());
        let ids = self.entries(place)?;
        // Newer entries may belong to changes that are not made yet, or never will be.
        for id in ids.iter().rev().take(LOOKED_AT) {
            if self
                .entry(place, id)
                .is_ok_and(|entry| entry.version == version)
            {
                return Ok(id.clone());
            }
        }
        // A text that was not read cannot be kept.
        let Some(current) = current.filter(|current| !current.is_too_large) else {
            return Ok(ids.last().cloned().unwrap_or_default());
        };
        let change = Change {
            by: "",
            at,
            action: Action::Outside,
        };
        let key = self.note(place, Some(&current.text), change)?;
        Ok(id_of(&folder(place)?, &key).unwrap_or_default())
    }

    /// Whether another writer added an entry of the same content after a given one.
    pub(super) fn is_noted_by_others(
        &self,
        place: &Place,
        text: Option<&[u8]>,
        after: &str,
        own: &str,
    ) -> Result<bool, StoreError> {
        let version = text.map(|text| Version::of(text).to_string());
        let own = id_of(&folder(place)?, own);
        let ids = self.entries(place)?;
        let mut others = ids
            .iter()
            .filter(|id| id.as_str() > after && Some(*id) != own.as_ref());
        Ok(others.any(|id| {
            self.entry(place, id)
                .is_ok_and(|entry| entry.version == version)
        }))
    }

    /// Removes the oldest entries of a file, beyond the number to keep.
    pub(super) fn prune(&self, place: &Place) -> Result<(), StoreError> {
        let ids = self.entries(place)?;
        let folder = folder(place)?;
        for id in &ids[..ids.len().saturating_sub(self.keep)] {
            let key = format!("{folder}{id}{ENTRY}");
            match self.objects.delete(&key, Expected::Any) {
                Ok(()) | Err(ObjectError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Store {
    /// Removes the history of a tenant's removed files, beyond the number of these to keep, beginning with
    /// the file that was removed first.
    pub(super) fn prune_removed(&self, tenant: &str) -> Result<(), StoreError> {
        let folder = format!("{HISTORY}{tenant}/");
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for listed in self.objects.list(&folder)? {
            let file = listed.key.strip_prefix(&folder);
            if let Some((file, _)) = file.and_then(|file| file.split_once('/')) {
                keys.entry(file.to_owned()).or_default().push(listed.key);
            }
        }
        // Listed afterwards, so that a file that was created since is not taken for a removed one.
        for name in self.names(tenant)? {
            keys.remove(&name);
        }
        let mut removed: Vec<_> = keys.into_values().collect();
        // The names of entries sort by time, and are equally long.
        removed.sort_by_cached_key(|keys| {
            let names = keys.iter().filter_map(|key| key.rsplit('/').next());
            std::cmp::Reverse(names.max().map(str::to_owned))
        });
        for key in removed.iter().skip(self.keep_removed).flatten() {
            match self.objects.delete(key, Expected::Any) {
                Ok(()) | Err(ObjectError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn folder(place: &Place) -> Result<String, StoreError> {
    // Checks the names as for a file.
    place.key()?;
    Ok(format!("{HISTORY}{}/{}/", place.tenant, place.file))
}

/// The ID of the entry at a key.
fn id_of(folder: &str, key: &str) -> Option<String> {
    Some(key.strip_prefix(folder)?.strip_suffix(ENTRY)?.to_owned())
}

/// The time in an ID, in milliseconds, and the number that tells apart changes of the same time.
fn moment_and_turn(id: &str) -> Option<(u64, u64)> {
    let (moment, turn) = id.split_once('-')?;
    Some((moment.parse().ok()?, turn.parse().ok()?))
}
