//! The providers of a configuration by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::BuildError;

use super::slot::{Slot, Targets};

/// The providers of one configuration by name.
#[derive(Clone, Debug, Default)]
pub struct Handles(Arc<BTreeMap<Arc<str>, Arc<Slot>>>);

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
