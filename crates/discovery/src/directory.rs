//! The providers and publishers of the process by name, shared by everything that shows or uses
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrifold_base::{BuildError, Shared, locked};

use super::publish::Published;
use super::slot::{Slot, Targets};

/// Providers and publishers that run. A clone is a handle to the same directory.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    entries: Arc<Mutex<Entries>>,
    shared: Shared,
}

#[derive(Debug, Default)]
struct Entries {
    providers: Handles,
    published: BTreeMap<Arc<str>, Arc<Published>>,
}

/// The providers of one configuration by name.
#[derive(Clone, Debug, Default)]
pub struct Handles(Arc<BTreeMap<Arc<str>, Arc<Slot>>>);

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the providers and publishers, at a start or a reload.
    pub fn set(&self, providers: Handles, published: BTreeMap<Arc<str>, Arc<Published>>) {
        *locked(&self.entries) = Entries {
            providers,
            published,
        };
    }

    /// The providers by name.
    pub fn providers(&self) -> Handles {
        locked(&self.entries).providers.clone()
    }

    /// The publishers by name.
    pub fn published(&self) -> BTreeMap<Arc<str>, Arc<Published>> {
        locked(&self.entries).published.clone()
    }

    /// State that users of targets share, such as the outcomes of scrapes.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Handles {
    /// Handles to these providers.
    pub fn new(slots: BTreeMap<Arc<str>, Arc<Slot>>) -> Self {
        Self(Arc::new(slots))
    }

    /// All providers, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.0.values()
    }

    /// The provider with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Slot>> {
        self.0.get(name)
    }

    /// A receiver of a provider's targets.
    ///
    /// # Errors
    ///
    /// Fails when there is no provider of this name.
    pub fn targets(&self, name: &str) -> Result<Targets, BuildError> {
        let slot = self.get(name).ok_or_else(|| {
            let reason = format!("there is no provider {name:?}: declare [discovery.{name}]");
            BuildError::new("discovery", reason)
        })?;
        Ok(slot.targets())
    }
}
