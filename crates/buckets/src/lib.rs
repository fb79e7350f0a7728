//! Objects of a store of rules in a bucket of S3, Google Cloud Storage or Azure. Knows how each is
//! reached and changed on a condition, and nothing of rules.
//!
//! A change is made on the condition that the object is what it was when it was read (`If-Match`,
//! `If-None-Match`, a generation), which these services decide: of two writers that race, in any
//! number of processes, one hears of the other. They do not all remove an object on a condition, so
//! that is done by giving it an empty content, which everywhere counts as no object.
//!
//! Everything here blocks, for the time that is configured at most, and must be called on a thread
//! that may.

#![warn(unreachable_pub)]
// Tests may do all of this.
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

pub use config::{BucketConfig, Credentials};
pub use url::{BucketUrl, Provider};

/// How many objects are read at once: each waits for the network.
const READERS: usize = 32;
/// How much is told of an error.
const EXCERPT: usize = 400;
/// What stands between the two parts of a stamp; no header holds it.
const BETWEEN: char = '\n';

/// A bucket.
pub struct Bucket {
    service: Arc<dyn service::Service>,
    /// What stands in front of every key: empty, or a folder with its slash.
    prefix: String,
    timeout: Duration,
    runtime: Handle,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A bucket that is reached so, by tasks of that runtime. Nothing is asked of it yet.
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
        })
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        // As it is: what is written must be found under the same name by everybody else.
        Ok(Path::parse(format!("{}{key}", self.prefix))?)
    }

    /// Waits for something, for as long as it may take.
    fn wait<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
        let bounded = async { tokio::time::timeout(self.timeout, asked).await };
        match self.runtime.block_on(bounded) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failed::Error(error)),
            Err(_) => Err(Failed::Timeout(self.timeout)),
        }
    }

    /// What is known of an object; none if it is empty, as one is that was removed.
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

    /// Gives an object a content, if it is as expected.
    fn replace(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), Failed> {
        match expected {
            Expected::Any => self.write(key, text, PutMode::Overwrite),
            Expected::Stamp(stamp) => self.write(key, text, PutMode::Update(version_of(stamp))),
            Expected::Absent => match self.write(key, text, PutMode::Create) {
                Err(Failed::Error(error @ Error::AlreadyExists { .. })) => {
                    match self.head(key)? {
                        // One that was removed.
                        Some(meta) if meta.size == 0 => {
                            let version = version_of(&stamp_of(&meta));
                            self.write(key, text, PutMode::Update(version))
                        }
                        _ => Err(Failed::Error(error)),
                    }
                }
                written => written,
            },
        }
    }
}

impl Objects for Bucket {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        list::all(self, prefix).map_err(|failed| failed.of("list", prefix))
    }

    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError> {
        let failed = |failed: Failed| failed.of("read", key);
        let asked = async {
            let path = self.path(key)?;
            let found = self.service.get_opts(&path, GetOptions::default()).await?;
            let meta = found.meta.clone();
            // The length that the service announces is all that is read.
            match meta.size > max as u64 {
                true => Ok((meta, None)),
                false => Ok((meta, Some(found.bytes().await?))),
            }
        };
        match self.wait(asked) {
            Ok((meta, _)) if meta.size == 0 => Ok(None),
            Ok((_, None)) => Err(ObjectError::TooLarge {
                key: key.to_owned(),
                max,
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

/// Why the service did not do it.
#[derive(Debug)]
enum Failed {
    Error(Error),
    Timeout(Duration),
}

impl Failed {
    fn of(self, action: &'static str, key: &str) -> ObjectError {
        let reason = match self {
            Self::Error(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                return ObjectError::Changed;
            }
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

/// An error with its causes, fit to be shown. They repeat each other.
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

/// What a condition names an object by: S3 and Azure its `ETag`, Google its generation.
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
