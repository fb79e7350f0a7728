//! Record of requested and made integrations, kept with the lease (in a file or an annotation) so
//! that the next leader continues from it. Without a lease it is kept in the process, so that a
//! reload continues from it. A request is recorded before it is sent, so that a crash in between
//! leaves a trace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use metrifold_base::read_text;
use metrifold_files::replace;

use crate::accounts::Account;
use crate::plan::Memory;

/// Largest record file, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Most created integrations that are remembered: in a file, and in a Kubernetes object, whose
/// annotations share 256 KiB.
const MAX_MADE: usize = 100_000;
#[cfg(feature = "kubernetes")]
const MAX_MADE_IN_LEASE: usize = 4_000;

/// Storage of the record.
#[derive(Clone)]
pub(crate) enum Record {
    /// In memory only: lost with the process.
    Process(Arc<Account>),
    File(PathBuf),
    #[cfg(feature = "kubernetes")]
    Lease(crate::cluster::ClusterLease),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    /// Ids of created integrations.
    made: BTreeSet<String>,
    /// Services by project and name, and until when a request may be invisible in the API.
    settling: BTreeMap<String, f64>,
    /// The same for the endpoints of projects.
    endpoints: BTreeMap<String, f64>,
}

impl Record {
    /// The record beside a lease file.
    pub(crate) fn beside(lease: &Path) -> Self {
        let mut name = lease.as_os_str().to_owned();
        name.push(".made");
        Self::File(PathBuf::from(name))
    }

    /// Reads the stored record; empty if there is none yet.
    pub(crate) async fn read(&self) -> Result<Memory, String> {
        match self {
            Self::Process(account) => Ok(account.memory()),
            Self::File(path) => {
                let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                match read_text(path, MAX_BYTES) {
                    Ok(text) => Memory::parse(&text).map_err(|it| failed(&it)),
                    Err(error) if error.is_absent() => Ok(Memory::default()),
                    Err(error) => Err(failed(&error)),
                }
            }
            #[cfg(feature = "kubernetes")]
            Self::Lease(lease) => match lease.read().await? {
                Some(text) => Memory::parse(&text)
                    .map_err(|error| format!("the annotation of the lease: {error}")),
                None => Ok(Memory::default()),
            },
        }
    }

    /// Stores the record.
    pub(crate) async fn write(&self, memory: &Memory) -> Result<(), String> {
        match self {
            Self::Process(account) => {
                account.set_memory(memory.clone());
                Ok(())
            }
            Self::File(path) => {
                let (path, written) = (path.clone(), memory.written(MAX_MADE));
                let replaced = tokio::task::spawn_blocking(move || {
                    let replaced = replace(&path, |file| {
                        serde_json::to_writer(file, &written).map_err(io::Error::from)
                    });
                    replaced.map_err(|error| format!("{}: {error}", path.display()))
                });
                replaced.await.map_err(|error| error.to_string())?
            }
            #[cfg(feature = "kubernetes")]
            Self::Lease(lease) => {
                let text = serde_json::to_string(&memory.written(MAX_MADE_IN_LEASE));
                lease.write(&text.map_err(|error| error.to_string())?).await
            }
        }
    }
}

impl Memory {
    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let written: Written = serde_json::from_str(text)?;
        let time = |seconds: f64| {
            let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
            UNIX_EPOCH + since
        };
        Ok(Self {
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
        })
    }

    /// Serialised form, with at most `most` created integrations.
    fn written(&self, most: usize) -> Written {
        let seconds = |time: &SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.unwrap_or_default().as_secs_f64()
        };
        Written {
            made: self.made.iter().take(most).cloned().collect(),
            settling: self
                .settling
                .iter()
                .map(|((project, service), until)| (format!("{project}/{service}"), seconds(until)))
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(project, until)| (project.to_string(), seconds(until)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_is_known_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::beside(&folder.path().join("lease"));
        assert!(record.read().await.unwrap().made.is_empty());
        let until = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let mut memory = Memory::default();
        memory.made.insert("i1".to_owned());
        memory.settling.insert(("p".into(), "s".into()), until);
        memory.endpoints.insert("p".into(), until);
        record.write(&memory).await.unwrap();
        let read = record.read().await.unwrap();
        assert_eq!(read.made, memory.made);
        assert_eq!(read.settling, memory.settling);
        assert_eq!(read.endpoints, memory.endpoints);
    }
}
