//! The providers and publishers of the process by name, shared by everything that shows or uses
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrifold_base::{Shared, locked};
use metrifold_discovery::Handles;

use crate::publish::Published;

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
