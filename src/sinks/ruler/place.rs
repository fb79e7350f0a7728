//! The place from which a ruler reads its rules: a folder with a file for each file of a tenant, or one file with all groups.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use metrifold_engine::planes::rules::RuleSet;
use metrifold_rules::{RulesDirectory, RulesDocument, WriteError, decode_name, named_groups};

use super::client::LoadedGroup;
use super::same::Owned;

/// The configured path.
#[derive(Clone)]
pub(super) enum Place {
    Folder(PathBuf),
    File(PathBuf),
}

/// A place whose present content is known to be ours.
pub(super) enum OpenPlace {
    Folder(RulesDirectory),
    File(RulesDocument),
}

impl Place {
    pub(super) fn open(&self) -> Result<OpenPlace, WriteError> {
        Ok(match self {
            Self::Folder(path) => OpenPlace::Folder(RulesDirectory::open(path)?),
            Self::File(path) => OpenPlace::File(RulesDocument::open(path)?),
        })
    }

    /// The groups of this place among those that a ruler reports, each with its tenant, its file and its
    /// own name, if the ruler has loaded `set`.
    pub(super) fn own<'a>(&self, set: &RuleSet, loaded: Vec<LoadedGroup<'a>>) -> Vec<Owned<'a>> {
        match self {
            Self::Folder(folder) => {
                let own = loaded.into_iter().filter_map(|group| {
                    let (tenant, file) = own_file(&group.file, folder)?;
                    Some((tenant, file, group))
                });
                own.collect()
            }
            Self::File(path) => {
                let named = named_groups(set).into_iter();
                let named: HashMap<_, _> = named.map(|named| (named.name.clone(), named)).collect();
                let own = loaded.into_iter().filter_map(|mut group| {
                    if !is_same_name(Path::new(&*group.file), path) {
                        return None;
                    }
                    let named = named.get(&*group.name)?;
                    group.name = named.group.name.clone().into();
                    Some((named.tenant.to_owned(), named.file.to_owned(), group))
                });
                own.collect()
            }
        }
    }

    /// Whether [`Self::own`] finds the groups of this file, whose name in a folder is cut if it is long.
    pub(super) fn shows(&self, tenant: &str, file: &str) -> bool {
        match self {
            Self::Folder(_) => 3 * (tenant.len() + file.len()) < 180,
            Self::File(_) => true,
        }
    }

    /// Likely cause if the ruler lacks rules that were delivered, for the log.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Folder(_) => ": does it read this folder?",
            Self::File(_) => ": does it read this file?",
        }
    }
}

impl OpenPlace {
    /// Reads the rules that are there.
    pub(super) fn held(&self) -> RuleSet {
        match self {
            Self::Folder(directory) => directory.held(),
            Self::File(document) => document.held(),
        }
    }

    /// Writes a set, if it is not there already.
    pub(super) fn apply(&mut self, set: &RuleSet) -> Result<(), WriteError> {
        match self {
            Self::Folder(directory) => directory.apply(set).map(drop),
            Self::File(document) => document.apply(set).map(drop),
        }
    }
}

/// The tenant and the file of a path that the ruler reports, if it lies in the folder.
fn own_file(path: &str, folder: &Path) -> Option<(String, String)> {
    let path = Path::new(path);
    let same = is_same_name(path.parent()?, folder);
    same.then(|| decode_name(path.file_name()?.to_str()?))?
}

/// Whether both paths end in one name. The ruler may have the place mounted at another path, but hardly
/// under another name.
fn is_same_name(of_ruler: &Path, own: &Path) -> bool {
    of_ruler.file_name().is_some() && of_ruler.file_name() == own.file_name()
}
