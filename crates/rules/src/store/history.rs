//! What files were before, and who changed them.

use serde::{Deserialize, Serialize};

use super::{ATTEMPTS, Change, Expected, ObjectError, Place, Store, StoreError, Text};
use crate::Version;

const HISTORY: &str = "metrics/rules-history/";
/// Bytes of an entry beside its text, and what quoting adds to that at most.
const ENTRY_OVERHEAD: usize = 64 << 10;
const QUOTED: usize = 6;

/// How many of the newest notes are searched for that of what is there.
const LOOKED_AT: usize = 8;

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was written.
    Put,
    /// It was removed.
    Delete,
    /// It was given the text of an earlier version.
    Rollback,
    /// Somebody changed the object without a note, which was seen at this time.
    Outside,
}

/// A change of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names it, within its file.
    #[serde(skip)]
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Who made the change.
    pub by: String,
    /// What was done.
    pub action: Action,
    /// The version that the file had then; none if it was gone.
    pub version: Option<String>,
    /// The text that it had then.
    pub text: Option<String>,
}

impl Store {
    /// The changes of a file that are kept, the newest first.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn history(&self, place: &Place) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for id in self.entries(place)?.iter().rev().take(self.keep) {
            // Another process may have removed it meanwhile, and a damaged one costs only itself.
            if let Ok(entry) = self.entry(place, id) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// A change of a file by its name.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Absent`] if there is none of that name.
    pub fn entry(&self, place: &Place, id: &str) -> Result<Entry, StoreError> {
        const ABSENT: StoreError = StoreError::Absent("version");
        let named = id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !named {
            return Err(ABSENT);
        }
        let key = format!("{}{id}.json", folder(place)?);
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

    /// The names of a file's changes, the oldest first.
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

    /// Notes a change, and returns the key of the note.
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
        // Names sort by the order of the changes, whatever the clocks of several writers say.
        for _ in 0..ATTEMPTS {
            let newest = self.entries(place)?.pop();
            let after = newest.as_deref().and_then(moment_and_turn);
            let (moment, turn) = match after {
                Some((moment, turn)) if moment >= change.at => (moment, turn + 1),
                _ => (change.at, 0),
            };
            let key = format!("{folder}{moment:015}-{turn:06}.json");
            match self.objects.put(&key, &json, Expected::Absent) {
                Ok(()) => return Ok(key),
                Err(ObjectError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended)
    }

    /// The name of the note of what is there, which is made if it is missing: somebody changed the
    /// object without one. Of nothing, what is there may have no note.
    pub(super) fn note_of(
        &self,
        place: &Place,
        current: Option<&Text>,
        at: u64,
    ) -> Result<String, StoreError> {
        let version = current.map(|current| current.version.to_string());
        let ids = self.entries(place)?;
        // Behind it are notes of changes that are not made yet, or never were.
        for id in ids.iter().rev().take(LOOKED_AT) {
            if self
                .entry(place, id)
                .is_ok_and(|entry| entry.version == version)
            {
                return Ok(id.clone());
            }
        }
        let Some(current) = current else {
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

    /// Whether there is a note of the same content behind one, other than one's own.
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

    /// Removes the oldest changes of a file.
    pub(super) fn prune(&self, place: &Place) -> Result<(), StoreError> {
        let ids = self.entries(place)?;
        let folder = folder(place)?;
        for id in &ids[..ids.len().saturating_sub(self.keep)] {
            let key = format!("{folder}{id}.json");
            match self.objects.delete(&key, Expected::Any) {
                Ok(()) | Err(ObjectError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn folder(place: &Place) -> Result<String, StoreError> {
    // Checked as names of a file that could be written.
    place.key()?;
    Ok(format!("{HISTORY}{}/{}/", place.tenant, place.file))
}

/// The name of the note that lies there.
fn id_of(folder: &str, key: &str) -> Option<String> {
    Some(key.strip_prefix(folder)?.strip_suffix(".json")?.to_owned())
}

/// The moment in a name, and which of the changes of that moment it is.
fn moment_and_turn(id: &str) -> Option<(u64, u64)> {
    let (moment, turn) = id.split_once('-')?;
    Some((moment.parse().ok()?, turn.parse().ok()?))
}
