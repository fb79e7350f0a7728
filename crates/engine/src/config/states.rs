//! States of the files that a configuration names, and the running configuration, which reading takes
//! over from. All keys that name the same file see the same state of it.

use std::path::Path;
use std::sync::Arc;

use metrifold_files::{Fingerprint, NamedFiles};

use super::{Config, Tables};

/// States that were taken, each once per reading of the configuration.
#[derive(Default)]
pub(crate) struct States<'a> {
    /// States that were taken just before the configuration is read.
    known: Option<&'a NamedFiles>,
    /// Tables of the running configuration.
    pub(crate) before: Option<&'a Tables>,
    /// States of the files that the configuration names.
    pub(crate) named: NamedFiles,
}

/// The files that a table names, with their states.
pub(crate) type Named = Arc<[(Arc<Path>, Fingerprint)]>;

impl<'a> States<'a> {
    /// States beside a running configuration, with the states of its files.
    pub(crate) fn beside(running: Option<(&'a Config, &'a NamedFiles)>) -> Self {
        let known = running.map(|(_, known)| known);
        Self {
            known,
            before: running.map(|(config, _)| &config.tables),
            named: NamedFiles::with_capacity(known.map_or(0, NamedFiles::len)),
        }
    }

    /// The state of a file, which the configuration names.
    pub(crate) fn of(&mut self, file: &Path) -> (Arc<Path>, Fingerprint) {
        if let Some((file, state)) = self.named.get_key_value(file) {
            return (file.clone(), *state);
        }
        let known = self.known.and_then(|known| known.get_key_value(file));
        let (file, state) = match known {
            Some((file, state)) => (file.clone(), *state),
            None => (file.into(), Fingerprint::of_file(file)),
        };
        self.named.insert(file.clone(), state);
        (file, state)
    }

    /// The states of several files.
    pub(crate) fn of_all<'f, T: FromIterator<(Arc<Path>, Fingerprint)>>(
        &mut self,
        files: impl IntoIterator<Item = &'f Path>,
    ) -> T {
        files.into_iter().map(|file| self.of(file)).collect()
    }
}
