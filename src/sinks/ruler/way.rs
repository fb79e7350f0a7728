//! Delivery of rules to a ruler: through a folder or a file that it reads, or by pushing to its API.

use std::sync::Arc;

use metrifold_engine::planes::rules::{Joined, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::Group;

use super::install::Installer;
use super::push::Pusher;

/// Maximum number of refused groups that are remembered.
pub(super) const MAX_REFUSED: usize = 1000;

/// Outcome of delivering a set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The ruler had the set already.
    Same,
    /// The ruler has the set, without the groups that it refuses.
    Loaded,
    /// The ruler has the set, without the rules of some tenants, of which one failed for this reason.
    Partly(String),
    /// The delivery failed, and the ruler's rules are unknown.
    Failed(String),
}

/// A group that the ruler refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) tenant: Tenant,
    pub(super) file: Arc<str>,
    pub(super) group: Group,
    pub(super) reason: String,
}

/// A ruler's answer to the question which rules it has.
pub(super) struct Heard {
    /// The tenants that were asked for; `None` means all.
    pub(super) asked: Option<Vec<Tenant>>,
    /// The groups that it has in the version that it accepted last.
    pub(super) groups: Vec<Said>,
    /// Name of a group that the ruler accepted and does not have, or not in this version.
    pub(super) missing: Option<String>,
    /// Why the state of a tenant could not be read, if all others could.
    pub(super) unheard: Option<String>,
}

/// What a ruler says about a group.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) tenant: String,
    pub(super) file: String,
    pub(super) group: String,
    pub(super) last_evaluation: Option<String>,
    pub(super) error: Option<String>,
}

/// The means by which a ruler gets its rules.
pub(super) enum Way {
    Files(Installer),
    Push(Pusher),
}

impl Way {
    /// Delivers a set. Tenants in conflict stay as they are.
    pub(super) async fn install(&mut self, joined: &Joined) -> Outcome {
        match self {
            Self::Files(installer) => installer.install(joined).await,
            Self::Push(pusher) => pusher.install(joined).await,
        }
    }

    /// The last set that the ruler accepted.
    pub(super) fn good(&self) -> Option<&RuleSet> {
        match self {
            Self::Files(installer) => installer.good(),
            Self::Push(pusher) => pusher.good(),
        }
    }

    /// The groups that the ruler refuses.
    pub(super) fn refused(&self) -> &[Refused] {
        match self {
            Self::Files(installer) => installer.refused(),
            Self::Push(pusher) => pusher.refused(),
        }
    }

    /// Has the next delivery repeat what the ruler lacks, whatever was delivered before.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Files(installer) => installer.forget(),
            // A push finds the tenants whose groups the ruler lacks by reading them in turn.
            Self::Push(_) => {}
        }
    }

    /// Removes the rules of tenants that belong to other rulers, if the ruler keeps those of each tenant
    /// itself; a folder or a file holds no others anyway.
    pub(super) fn disown(&mut self, tenants: Vec<Tenant>) {
        match self {
            Self::Files(_) => {}
            Self::Push(pusher) => pusher.disown(tenants),
        }
    }

    /// Likely cause if the ruler lacks rules that were delivered, for the log.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Files(installer) => installer.hint(),
            Self::Push(_) => ", though it accepted the group",
        }
    }

    /// Reads the ruler's loaded groups.
    pub(super) async fn look(&mut self) -> Result<Heard, String> {
        match self {
            Self::Files(installer) => installer.look().await,
            Self::Push(pusher) => pusher.look().await,
        }
    }
}
