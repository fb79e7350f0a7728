//! State of the providers of this kind that the rest of the process reads: credentials for
//! scraping, and plans.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use metrifold_base::{Secret, locked};

use crate::plan::{Memory, Plan};

/// Most skipped services that a plan's status lists.
const MAX_LEFT: usize = 1000;
/// Most changes in a plan's status.
const MAX_DONE: usize = 100;

/// Providers of this kind, by name.
#[derive(Default)]
pub struct Accounts(Mutex<BTreeMap<Arc<str>, Weak<Account>>>);

/// Shared state of one provider.
pub(crate) struct Account {
    access: watch::Sender<Access>,
    plan: watch::Sender<PlanStatus>,
    /// Requests of a provider without a lease. They outlive a reload, in which the new provider
    /// takes the account over.
    memory: Mutex<Memory>,
}

/// Credentials that nodes require, and authorities that verify the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether all projects have been read at least once.
    pub complete: bool,
    /// Users, by id of the integration endpoint.
    pub users: BTreeMap<String, User>,
    /// Certificate authorities by project, in PEM.
    pub authorities: BTreeMap<String, String>,
}

/// User of an integration endpoint, with which nodes are scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name of the user.
    pub name: String,
    /// Password of the user.
    pub password: Secret,
}

/// Watches a provider's credentials and authorities.
pub struct Accessing {
    _account: Arc<Account>,
    access: watch::Receiver<Access>,
}

/// Status of a provider's plan.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlanStatus {
    /// Whether planned changes are only shown (`off`), logged (`dry_run`) or made (`on`).
    pub integrate: &'static str,
    /// Whether this replica makes the changes.
    pub leads: bool,
    /// The lease that elects the leading replica; None for a single process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// The fault that prevents changes now; None if there is none.
    pub error: Option<String>,
    /// Time of the observation that the plan is based on, in seconds since the epoch.
    pub observed: Option<f64>,
    /// The plan; its list of skipped services is cut.
    pub plan: Plan,
    /// Number of skipped services.
    pub left_count: usize,
    /// Last changes, newest first.
    pub done: VecDeque<Change>,
}

/// A change that was made or attempted.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Time of the change, in seconds since the epoch.
    pub time: f64,
    /// Kind of the change.
    pub change: &'static str,
    /// Project or service that was changed.
    pub what: String,
    /// Reason for the change.
    pub why: String,
    /// Result of the attempt.
    pub outcome: String,
}

impl Accounts {
    /// State of the provider with this name; created on first use, dropped with its last holder.
    pub(crate) fn account(&self, name: &Arc<str>) -> Arc<Account> {
        let mut accounts = locked(&self.0);
        accounts.retain(|_, account| account.strong_count() > 0);
        if let Some(known) = accounts.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let account = Arc::new(Account {
            access: watch::Sender::new(Access::default()),
            plan: watch::Sender::new(PlanStatus::default()),
            memory: Mutex::default(),
        });
        accounts.insert(name.clone(), Arc::downgrade(&account));
        account
    }

    /// Watches the credentials of this provider; None if it is of another kind.
    pub fn access(&self, name: &str) -> Option<Accessing> {
        let account = locked(&self.0).get(name).and_then(Weak::upgrade)?;
        Some(Accessing {
            access: account.access.subscribe(),
            _account: account,
        })
    }

    /// Waits for the first plan of a provider and returns its status.
    pub async fn planned(&self, name: &str) -> PlanStatus {
        let mut plan = self.account(&name.into()).plan.subscribe();
        let planned = plan.wait_for(|plan| plan.observed.is_some()).await;
        match planned.ok().map(|plan| plan.clone()) {
            Some(plan) => plan,
            // The provider has ended, and reports that itself.
            None => std::future::pending().await,
        }
    }

    /// The plans of all providers.
    pub fn plans(&self) -> BTreeMap<Arc<str>, PlanStatus> {
        let accounts = locked(&self.0);
        let held = accounts
            .iter()
            .filter_map(|(name, it)| Some((name.clone(), it.upgrade()?)));
        held.map(|(name, account)| (name, account.plan.borrow().clone()))
            .collect()
    }
}

impl Accessing {
    /// Current credentials and authorities.
    pub fn now(&mut self) -> Access {
        self.access.borrow_and_update().clone()
    }

    /// Waits until they change.
    pub async fn changed(&mut self) {
        if self.access.changed().await.is_err() {
            // Cannot happen: `self` holds the account.
            std::future::pending::<()>().await;
        }
    }
}

impl Account {
    pub(crate) fn set_access(&self, access: Access) {
        self.access.send_if_modified(|known| {
            let changed = *known != access;
            *known = access;
            changed
        });
    }

    pub(crate) fn memory(&self) -> Memory {
        locked(&self.memory).clone()
    }

    pub(crate) fn set_memory(&self, memory: Memory) {
        *locked(&self.memory) = memory;
    }

    pub(crate) fn update(&self, update: impl FnOnce(&mut PlanStatus)) {
        self.plan.send_modify(update);
    }
}

impl PlanStatus {
    pub(crate) fn show(&mut self, plan: &Plan, at: SystemTime) {
        self.left_count = plan.left.len();
        self.plan = plan.clone();
        self.plan.left.truncate(MAX_LEFT);
        self.observed = Some(seconds(at));
    }

    pub(crate) fn did(&mut self, change: Change) {
        self.done.push_front(change);
        self.done.truncate(MAX_DONE);
    }
}

/// A time in seconds since the epoch, for JSON and gauges.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
