//! What the rest of the process may know of providers of this kind: what scraping needs, and plans.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use metrifold_base::{Secret, locked};

use crate::plan::Plan;

/// The most that is listed of what a plan leaves alone.
const MAX_LEFT: usize = 1000;
/// The most changes that are remembered.
const MAX_DONE: usize = 100;

/// The providers of this kind by name.
#[derive(Default)]
pub struct Accounts(Mutex<BTreeMap<Arc<str>, Weak<Account>>>);

/// What is known of a provider.
pub(crate) struct Account {
    access: watch::Sender<Access>,
    plan: watch::Sender<PlanStatus>,
}

/// What nodes ask for, and how they are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether all projects have been read once.
    pub complete: bool,
    /// Users by the ids of endpoints.
    pub users: BTreeMap<String, User>,
    /// Certificate authorities by project, in PEM.
    pub authorities: BTreeMap<String, String>,
}

/// A user that nodes ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

/// Hears of changes of what nodes ask for.
pub struct Accessing {
    _account: Arc<Account>,
    access: watch::Receiver<Access>,
}

/// What there is to tell of a provider's plan.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlanStatus {
    /// What is done with plans: `off`, `dry_run` or `on`.
    pub integrate: &'static str,
    /// Whether this replica makes the changes.
    pub leads: bool,
    /// What decides on that, if there are several replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Why no changes are made now, if something is wrong.
    pub error: Option<String>,
    /// When what the plan goes by was observed.
    pub observed: Option<f64>,
    /// The plan; of what is left alone, the first.
    pub plan: Plan,
    /// How much is left alone.
    pub left_count: usize,
    /// The last changes, the newest first.
    pub done: VecDeque<Change>,
}

/// A change that was made, or tried.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// When, in seconds since the epoch.
    pub time: f64,
    /// What was done.
    pub change: &'static str,
    /// With which project or service.
    pub what: String,
    /// Why.
    pub why: String,
    /// What came of it.
    pub outcome: String,
}

impl Accounts {
    /// What is known of the provider of this name, as long as somebody holds it.
    pub(crate) fn account(&self, name: &Arc<str>) -> Arc<Account> {
        let mut accounts = locked(&self.0);
        accounts.retain(|_, account| account.strong_count() > 0);
        if let Some(known) = accounts.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let account = Arc::new(Account {
            access: watch::Sender::new(Access::default()),
            plan: watch::Sender::new(PlanStatus::default()),
        });
        accounts.insert(name.clone(), Arc::downgrade(&account));
        account
    }

    /// What nodes of this provider's services ask for, if it is of this kind.
    pub fn access(&self, name: &str) -> Option<Accessing> {
        let account = locked(&self.0).get(name).and_then(Weak::upgrade)?;
        Some(Accessing {
            access: account.access.subscribe(),
            _account: account,
        })
    }

    /// The plan of a provider, once there is one.
    pub async fn planned(&self, name: &str) -> PlanStatus {
        let mut plan = self.account(&name.into()).plan.subscribe();
        let planned = plan.wait_for(|plan| plan.observed.is_some()).await;
        match planned.ok().map(|plan| plan.clone()) {
            Some(plan) => plan,
            // Whoever makes plans has ended, and says so itself.
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
    /// What is known now.
    pub fn now(&mut self) -> Access {
        self.access.borrow_and_update().clone()
    }

    /// Waits until something else is known.
    pub async fn changed(&mut self) {
        if self.access.changed().await.is_err() {
            // It is held here, so that this cannot be.
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

/// A time as JSON and gauges show it.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
