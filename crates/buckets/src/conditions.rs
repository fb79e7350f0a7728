//! Conditional writes, and the probe that finds out whether a service honours their conditions.
//!
//! A service that ignores the condition headers reports success for a write that it should have
//! refused, so that both of two racing writers believe that they won. So before its first conditional
//! write, a bucket probes an object that exists for this purpose alone: it creates the object twice,
//! and updates a version that never existed. The service must refuse both.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::{Error, PutMode, UpdateVersion};

use metrifold_base::locked;
use metrifold_rules::store::Expected;

use super::{Bucket, Failed, stamp_of, version_of};

/// Key of the object for the probe of conditions.
const KEY: &str = "metrics/rules-conditions";
const TEXT: &[u8] =
    b"Metrifold asks to write this on conditions that do not hold, to see whether the service refuses.\n";

/// Serialises the writers that use no conditions, over all stores of this process, while they read,
/// compare and write.
static TURN: Mutex<()> = Mutex::new(());

/// The arbiter of racing writes.
pub(super) enum Conditions {
    /// The service; the flag is set once the probe has succeeded.
    Service(AtomicBool),
    /// This process, with a lock: no other process may write.
    Process,
}

impl Conditions {
    pub(super) fn new(of_service: bool) -> Self {
        match of_service {
            true => Self::Service(AtomicBool::new(false)),
            false => Self::Process,
        }
    }
}

impl Bucket {
    /// Writes an object, if its state is the expected one.
    pub(super) fn replace(
        &self,
        key: &str,
        text: &[u8],
        expected: Expected<'_>,
    ) -> Result<(), Failed> {
        if expected == Expected::Any {
            return self.write(key, text, PutMode::Overwrite);
        }
        match &self.conditions {
            Conditions::Service(is_known) => {
                if !is_known.load(Ordering::Relaxed) {
                    self.try_conditions()?;
                    is_known.store(true, Ordering::Relaxed);
                }
                self.replace_on_condition(key, text, expected)
            }
            Conditions::Process => {
                let _turn = locked(&TURN);
                let found = self.head(key)?.filter(|meta| meta.size > 0);
                let found = found.map(|meta| stamp_of(&meta));
                let is_expected = match expected {
                    Expected::Stamp(stamp) => found.as_deref() == Some(stamp),
                    _ => found.is_none(),
                };
                match is_expected {
                    true => self.write(key, text, PutMode::Overwrite),
                    false => Err(Failed::Changed),
                }
            }
        }
    }

    fn replace_on_condition(
        &self,
        key: &str,
        text: &[u8],
        expected: Expected<'_>,
    ) -> Result<(), Failed> {
        let Expected::Stamp(stamp) = expected else {
            return match self.write(key, text, PutMode::Create) {
                Err(Failed::Changed) => match self.head(key)? {
                    // An empty object counts as removed, and is overwritten.
                    Some(meta) if meta.size == 0 => {
                        let version = version_of(&stamp_of(&meta));
                        self.write(key, text, PutMode::Update(version))
                    }
                    _ => Err(Failed::Changed),
                },
                written => written,
            };
        };
        match self.write(key, text, PutMode::Update(version_of(stamp))) {
            // Another program deleted the object.
            Err(Failed::Error(Error::NotFound { .. })) => Err(Failed::Changed),
            written => written,
        }
    }

    /// Probes the service; fails if it makes a write that its condition forbids.
    fn try_conditions(&self) -> Result<(), Failed> {
        // Makes sure that the object exists, whichever process creates it.
        match self.write(KEY, TEXT, PutMode::Create) {
            Ok(()) | Err(Failed::Changed) => {}
            Err(failed) => return Err(failed),
        }
        let never = UpdateVersion {
            e_tag: Some("\"0\"".to_owned()),
            version: Some("1".to_owned()),
        };
        for mode in [PutMode::Create, PutMode::Update(never)] {
            match self.write(KEY, TEXT, mode) {
                Err(Failed::Changed) => {}
                Ok(()) | Err(Failed::Error(Error::NotImplemented { .. })) => {
                    return Err(Failed::Unconditional);
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }
}
