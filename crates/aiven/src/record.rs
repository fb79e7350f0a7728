//! What was asked for and made, on disk beside the lease: whoever has the lease next goes on from there.
//! What is asked for is written down before it is asked for, so that a process that dies in between
//! leaves word of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use metrifold_base::read_text;
use metrifold_files::replace;

use crate::plan::Memory;

/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;
/// The most integrations that are remembered as made here.
const MAX_MADE: usize = 100_000;

/// The file; without one, what is remembered goes with the process.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    path: Option<PathBuf>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    /// Integrations that were made here.
    made: BTreeSet<String>,
    /// Services by project and name, and until when what was asked for them may not show.
    settling: BTreeMap<String, f64>,
    /// Projects, of whose endpoints the same holds.
    endpoints: BTreeMap<String, f64>,
}

impl Record {
    /// The record beside the file of a lease.
    pub(crate) fn beside(lease: Option<&Path>) -> Self {
        let path = lease.map(|lease| {
            let mut name = lease.as_os_str().to_owned();
            name.push(".made");
            PathBuf::from(name)
        });
        Self { path }
    }

    /// What is remembered; nothing without a file.
    pub(crate) fn read(&self) -> Result<Option<Memory>, String> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let text = match read_text(path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.is_absent() => return Ok(Some(Memory::default())),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let written: Written =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let time = |seconds: f64| {
            let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
            UNIX_EPOCH + since
        };
        Ok(Some(Memory {
            made: written.made,
            settling: written
                .settling
                .into_iter()
                .filter_map(|(what, until)| {
                    let (project, service) = what.split_once('/')?;
                    Some(((project.into(), service.into()), time(until)))
                })
                .collect(),
            endpoints: written
                .endpoints
                .into_iter()
                .map(|(project, until)| (project.into(), time(until)))
                .collect(),
        }))
    }

    /// Writes down what is to be remembered.
    pub(crate) fn write(&self, memory: &Memory) -> Result<(), String> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let seconds = |time: &SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.unwrap_or_default().as_secs_f64()
        };
        let written = Written {
            made: memory.made.iter().take(MAX_MADE).cloned().collect(),
            settling: memory
                .settling
                .iter()
                .map(|((project, service), until)| (format!("{project}/{service}"), seconds(until)))
                .collect(),
            endpoints: memory
                .endpoints
                .iter()
                .map(|(project, until)| (project.to_string(), seconds(until)))
                .collect(),
        };
        replace(path, |file| {
            serde_json::to_writer(file, &written).map_err(io::Error::from)
        })
        .map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_is_known_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::beside(Some(&folder.path().join("lease")));
        assert!(record.read().unwrap().unwrap().made.is_empty());
        let until = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let mut memory = Memory::default();
        memory.made.insert("i1".to_owned());
        memory.settling.insert(("p".into(), "s".into()), until);
        memory.endpoints.insert("p".into(), until);
        record.write(&memory).unwrap();
        let read = record.read().unwrap().unwrap();
        assert_eq!(read.made, memory.made);
        assert_eq!(read.settling, memory.settling);
        assert_eq!(read.endpoints, memory.endpoints);
        assert!(Record::beside(None).read().unwrap().is_none());
    }
}
