//! The ways on which rules come to a ruler: by a folder that it reads, or pushed to its API.

use std::sync::Arc;

use metrifold_engine::planes::rules::RuleSet;
use metrifold_model::Tenant;
use metrifold_rules::Group;

use super::client::LoadedGroup;
use super::install::Installer;
use super::push::Pusher;

/// The most groups that are known to be refused.
pub(super) const MAX_REFUSED: usize = 1000;

/// What came of bringing a set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The ruler had it.
    Same,
    /// The ruler has it, but for the groups that it refuses.
    Loaded,
    /// It is not known what the ruler has.
    Failed(String),
}

/// A group that the ruler does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) tenant: Tenant,
    pub(super) file: Arc<str>,
    pub(super) group: Group,
    pub(super) reason: String,
}

/// What a ruler says of what it has.
pub(super) struct Heard {
    /// The tenants of which it was asked; none if of all.
    pub(super) asked: Option<Vec<Tenant>>,
    /// Groups, each with its tenant and file.
    pub(super) groups: Vec<(String, String, LoadedGroup)>,
    /// A group that it should have and has not.
    pub(super) missing: Option<String>,
}

/// How a ruler gets its rules.
pub(super) enum Way {
    Folder(Installer),
    Push(Pusher),
}

impl Way {
    /// Brings a set.
    pub(super) async fn install(&mut self, set: &RuleSet) -> Outcome {
        match self {
            Self::Folder(installer) => installer.install(set).await,
            Self::Push(pusher) => pusher.install(set).await,
        }
    }

    /// What the ruler has taken.
    pub(super) fn good(&self) -> Option<&RuleSet> {
        match self {
            Self::Folder(installer) => installer.good(),
            Self::Push(pusher) => pusher.good(),
        }
    }

    /// The groups that it does not take.
    pub(super) fn refused(&self) -> &[Refused] {
        match self {
            Self::Folder(installer) => installer.refused(),
            Self::Push(pusher) => pusher.refused(),
        }
    }

    /// Takes nothing of what was brought for brought.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Folder(installer) => installer.forget(),
            Self::Push(pusher) => pusher.forget(),
        }
    }

    /// What may be the cause when it does not have what was brought.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Folder(_) => ": does it read this folder?",
            Self::Push(_) => ", though it has taken it",
        }
    }

    /// Asks the ruler what it has.
    pub(super) async fn look(&mut self) -> Result<Heard, String> {
        match self {
            Self::Folder(installer) => installer.look().await,
            Self::Push(pusher) => pusher.look().await,
        }
    }
}
