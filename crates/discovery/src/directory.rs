//! The providers and publishers of the process by name, for all who show or use them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrifold_base::{BuildError, Shared, locked};

use super::publish::Published;
use super::slot::{Slot, Targets};

/// What runs. A clone is a handle to the same.
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
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows these from now on.
    pub fn set(&self, providers: Handles, published: BTreeMap<Arc<str>, Arc<Published>>) {
        *locked(&self.entries) = Entries {
            providers,
            published,
        };
    }

    /// The providers.
    pub fn providers(&self) -> Handles {
        locked(&self.entries).providers.clone()
    }

    /// What is published.
    pub fn published(&self) -> BTreeMap<Arc<str>, Arc<Published>> {
        locked(&self.entries).published.clone()
    }

    /// What those who use targets share, such as what became of scraping them.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Handles {
    /// Those by these names.
    pub fn new(slots: BTreeMap<Arc<str>, Arc<Slot>>) -> Self {
        Self(Arc::new(slots))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.0.values()
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Slot>> {
        self.0.get(name)
    }

    /// An end from which the targets of a provider can be read.
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
