//! Objects of a store of rules in a bucket of S3, Google Cloud Storage or Azure. Knows how to reach and
//! conditionally change objects, and nothing of rules.
//!
//! A write is conditional on the object being unchanged since it was read (`If-Match`, `If-None-Match`,
//! or a generation). The service checks the condition, so that of two racing writers, in any number of
//! processes, one fails with a conflict. Not all services delete on a condition, so an object is
//! removed by overwriting it with empty content, and an empty object counts as absent. A service that
//! ignores conditions is detected before the first write (`conditions.rs`).
//!
//! Every call blocks, at most for the configured timeout, and must run on a thread that may block.

#![warn(unreachable_pub)]
// Tests may panic and print.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod conditions;
mod config;
mod connector;
mod list;
mod service;
mod url;

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use tokio::runtime::Handle;

use metrifold_base::foreign;
use metrifold_rules::store::{Expected, Listed, Object, ObjectError, Objects};

use conditions::Conditions;

pub use config::{BucketConfig, Credentials};
pub use url::{BucketUrl, Provider};

/// Number of objects that are read concurrently; reads mostly wait for the network.
const READERS: usize = 32;
/// Longest excerpt of an error in a message.
const EXCERPT: usize = 400;
/// Separator of the two parts of a stamp, which no header value contains.
const BETWEEN: char = '\n';

/// A bucket.
pub struct Bucket {
    service: Arc<dyn service::Service>,
    /// Prefix of every key: empty, or a folder with a trailing slash.
    prefix: String,
    timeout: Duration,
    runtime: Handle,
    conditions: Conditions,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Opens a bucket, without a request to it. Requests run as tasks of the runtime.
    ///
    /// # Errors
    ///
    /// Fails if credentials or addresses cannot be used.
    pub fn open(config: &BucketConfig, runtime: Handle) -> Result<Self, String> {
        Ok(Self {
            service: service::build(config).map_err(|error| told(&error))?,
            prefix: config.url.prefix().to_owned(),
            timeout: config.timeout,
            runtime,
            conditions: Conditions::new(config.conditional_writes),
        })
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        // Parsed and not escaped, since other programs must find the object under the same key.
        Ok(Path::parse(format!("{}{key}", self.prefix))?)
    }

    /// Blocks on a request, at most for the configured timeout.
    fn wait<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
        let bounded = async { tokio::time::timeout(self.timeout, asked).await };
        match self.runtime.block_on(bounded) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::AlreadyExists { .. } | Error::Precondition { .. })) => {
                Err(Failed::Changed)
            }
            Ok(Err(error)) => Err(Failed::Error(error)),
            Err(_) => Err(Failed::Timeout(self.timeout)),
        }
    }

    /// Metadata of an object; `None` if there is no object or an empty one, which counts as removed.
    fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Failed> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let asked = async { self.service.get_opts(&self.path(key)?, options).await };
        match self.wait(asked) {
            Ok(found) => Ok(Some(found.meta)),
            Err(Failed::Error(Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, key: &str, text: &[u8], mode: PutMode) -> Result<(), Failed> {
        let payload = PutPayload::from(text.to_vec());
        let options = PutOptions::from(mode);
        let asked = async {
            let path = self.path(key)?;
            self.service.put_opts(&path, payload, options).await
        };
        self.wait(asked).map(drop)
    }
}

impl Objects for Bucket {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        list::all(self, prefix, false).map_err(|failed| failed.of("list", prefix))
    }

    fn taken(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let listed = list::all(self, prefix, true).map_err(|failed| failed.of("list", prefix))?;
        Ok(listed.into_iter().map(|listed| listed.key).collect())
    }

    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError> {
        let failed = |failed: Failed| failed.of("read", key);
        let asked = async {
            let path = self.path(key)?;
            let found = self.service.get_opts(&path, GetOptions::default()).await?;
            let meta = found.meta.clone();
            // The client reads no more than the announced length, so checking it is enough.
            match meta.size > max as u64 {
                true => Ok((meta, None)),
                false => Ok((meta, Some(found.bytes().await?))),
            }
        };
        match self.wait(asked) {
            Ok((meta, _)) if meta.size == 0 => Ok(None),
            Ok((meta, None)) => Err(ObjectError::TooLarge {
                key: key.to_owned(),
                max,
                stamp: stamp_of(&meta),
            }),
            Ok((meta, Some(text))) => Ok(Some(Object {
                text: text.to_vec(),
                stamp: stamp_of(&meta),
            })),
            Err(Failed::Error(Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError> {
        let written = self.replace(key, text, expected);
        written.map_err(|failed| failed.of("write", key))
    }

    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError> {
        let deleted = match expected {
            Expected::Any => {
                let asked = async { self.service.delete(&self.path(key)?).await };
                match self.wait(asked) {
                    Err(Failed::Error(Error::NotFound { .. })) => Ok(()),
                    deleted => deleted,
                }
            }
            Expected::Stamp(_) => self.replace(key, &[], expected),
            Expected::Absent => match self.head(key) {
                Ok(Some(meta)) if meta.size > 0 => return Err(ObjectError::Changed),
                found => found.map(drop),
            },
        };
        deleted.map_err(|failed| failed.of("remove", key))
    }

    fn repeats(&self) -> bool {
        true
    }

    fn readers(&self) -> usize {
        READERS
    }
}

/// Why a request failed.
#[derive(Debug)]
enum Failed {
    /// The object does not meet the condition of the write.
    Changed,
    /// The service ignores conditions of writes.
    Unconditional,
    Error(Error),
    Timeout(Duration),
}

/// Error for a service that ignores conditions.
const UNCONDITIONAL: &str = "the service ignores the conditions of writes (If-Match and If-None-Match), \
    so that one writer would undo what another did and neither would hear of it: \
    if no other process writes there, set conditional_writes = false";

impl Failed {
    fn of(self, action: &'static str, key: &str) -> ObjectError {
        let reason = match self {
            Self::Changed => return ObjectError::Changed,
            Self::Unconditional => UNCONDITIONAL.to_owned(),
            Self::Error(error) => told(&error),
            Self::Timeout(limit) => format!("no answer within {}ms", limit.as_millis()),
        };
        ObjectError::Store {
            action,
            key: key.to_owned(),
            reason,
        }
    }
}

/// An error's message with those of its causes that it does not repeat, shortened for display.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    foreign(&text, EXCERPT)
}

/// Identifies an object's version in a condition: the `ETag` for S3 and Azure, the generation for
/// Google.
fn stamp_of(meta: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}{BETWEEN}{}", part(&meta.e_tag), part(&meta.version))
}

fn version_of(stamp: &str) -> UpdateVersion {
    let (tag, version) = stamp.split_once(BETWEEN).unwrap_or((stamp, ""));
    let part = |part: &str| (!part.is_empty()).then(|| part.to_owned());
    UpdateVersion {
        e_tag: part(tag),
        version: part(version),
    }
}
