//! What a provider shares with sources besides targets: resource usage of instances, and credentials
//! of applications.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use metrifold_base::locked;
use metrifold_http::Credentials;

use crate::usage::Usages;

/// Facts about the instances of a foundation besides their labels.
#[derive(Debug)]
pub struct Facts {
    /// Resource usage. `None` if it is not measured.
    pub usages: Option<Arc<Usages>>,
    /// Credentials of applications.
    pub bindings: Arc<Bindings>,
}

/// Credentials in the bindings of applications to service instances, by the GUID of the binding.
#[derive(Default)]
pub struct Bindings(Mutex<HashMap<String, Result<Credentials, String>>>);

impl Bindings {
    /// The credentials of a binding, or the reason why they cannot be used. `None` if they have not
    /// been read.
    pub fn get(&self, binding: &str) -> Option<Result<Credentials, String>> {
        locked(&self.0).get(binding).cloned()
    }

    pub(crate) fn put(&self, binding: String, credentials: Result<Credentials, String>) {
        locked(&self.0).insert(binding, credentials);
    }

    /// Drops all bindings but these.
    pub(crate) fn retain(&self, bindings: &HashSet<String>) {
        locked(&self.0).retain(|binding, _| bindings.contains(binding));
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").finish_non_exhaustive()
    }
}
