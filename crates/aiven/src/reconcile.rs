//! Reconciling: makes a plan of each observation, and does what it says if it is told to and leads.
//!
//! Of one service, at most one change is under way: what was asked for is remembered, on disk as well,
//! before it is asked for, and nothing further is asked for until it shows or has had the time to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use metrifold_base::{Backoff, RunError, Secret};

use crate::accounts::{Account, Change, seconds};
use crate::api::{Api, ApiError};
use crate::config::{AivenConfig, Integrate};
use crate::lease::Lease;
use crate::meters::AivenMeters;
use crate::observe::Observation;
use crate::plan::{Memory, Plan, Step, plan};
use crate::record::Record;

/// The pauses after a change was refused.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

pub(crate) struct Reconciler {
    pub(crate) config: Arc<AivenConfig>,
    pub(crate) api: Arc<Api>,
    pub(crate) account: Arc<Account>,
    pub(crate) meters: Arc<AivenMeters>,
    /// What is done with plans; less than configured where nothing is to be changed.
    pub(crate) integrate: Integrate,
    /// None where this process is alone.
    pub(crate) lease: Option<Box<dyn Lease>>,
    pub(crate) record: Record,
    pub(crate) memory: Memory,
    pub(crate) leads: bool,
    /// What was refused, and when it may be tried again.
    pub(crate) refused: HashMap<String, (Backoff, Instant)>,
}

/// What came of a change.
enum Outcome {
    Done(String),
    Failed(ApiError),
    /// It was not tried.
    Waits(String),
}

impl Reconciler {
    /// Goes on until the future is dropped, or nothing is observed any more.
    pub(crate) async fn run(
        mut self,
        mut observed: watch::Receiver<Option<Arc<Observation>>>,
    ) -> Result<(), RunError> {
        while observed.changed().await.is_ok() {
            let observation = observed.borrow_and_update().clone();
            if let Some(observation) = observation {
                self.round(&observation).await;
            }
        }
        Ok(())
    }

    async fn round(&mut self, observation: &Observation) {
        let mut error = observation.failed.first().cloned();
        match self.leadership().await {
            Ok(leads) => self.leads = leads,
            Err(reason) => {
                self.leads = false;
                error = Some(reason);
            }
        }
        let before = observation.at;
        self.memory.settling.retain(|_, until| before < *until);
        self.memory.endpoints.retain(|_, until| before < *until);
        let made = self.plan(observation);
        self.meters.planned.set(made.steps.len() as f64);
        self.meters.leads.set(f64::from(u8::from(self.leads)));
        let integrate = self.integrate;
        let lease = self.lease.as_ref().map(|lease| lease.shown());
        let leads = self.leads;
        self.account.update(|status| {
            if integrate == Integrate::DryRun {
                let known = &status.plan.steps;
                for step in made.steps.iter().filter(|step| !known.contains(step)) {
                    info!(
                        change = step.verb(),
                        what = step.what(),
                        why = step.why(),
                        "would be changed"
                    );
                }
            }
            status.integrate = match integrate {
                Integrate::Off => "off",
                Integrate::DryRun => "dry_run",
                Integrate::On => "on",
            };
            status.leads = leads;
            status.lease = lease;
            status.error = error;
            status.show(&made, observation.at);
        });
        if integrate == Integrate::On && self.leads {
            self.execute(&made).await;
        }
    }

    fn plan(&mut self, observation: &Observation) -> Plan {
        if observation.failed.is_empty() && self.memory.settling.is_empty() {
            // What is not there any more needs not be remembered.
            let services = observation.projects.iter().flat_map(|it| &it.services);
            let there: HashSet<&str> = services
                .flat_map(|service| service.integrations())
                .map(|it| it.service_integration_id.as_str())
                .collect();
            self.memory.made.retain(|id| there.contains(id.as_str()));
        }
        plan(
            &self.config,
            &observation.projects,
            &self.memory,
            observation.at,
        )
    }

    /// Whether changes may be made here. What the one before has left is read when the lease is got.
    async fn leadership(&mut self) -> Result<bool, String> {
        if self.integrate != Integrate::On {
            // A plan goes by what is remembered, too.
            if let Some(memory) = self.record.read()? {
                self.memory = memory;
            }
            return Ok(false);
        }
        let leads = match &mut self.lease {
            Some(lease) => lease.holds().await?,
            None => true,
        };
        if leads
            && !self.leads
            && let Some(memory) = self.record.read()?
        {
            self.memory = memory;
        }
        Ok(leads)
    }

    /// Makes changes, as many as may be made at once.
    async fn execute(&mut self, plan: &Plan) {
        let mut endpoints: HashMap<Arc<str>, String> = HashMap::new();
        let mut left = self.config.max_changes;
        for step in &plan.steps {
            if left == 0 {
                return;
            }
            let what = step.what();
            let waits = self.refused.get(&what);
            if waits.is_some_and(|(_, until)| Instant::now() < *until) {
                continue;
            }
            // It may have been lost since the last change.
            if !matches!(self.leadership().await, Ok(true)) {
                self.leads = false;
                return;
            }
            let outcome = self.perform(step, &mut endpoints).await;
            let (text, goes_on) = match outcome {
                Outcome::Waits(why) => {
                    self.account.update(|status| status.error = Some(why));
                    continue;
                }
                Outcome::Done(text) => {
                    self.refused.remove(&what);
                    info!(
                        change = step.verb(),
                        what,
                        why = step.why(),
                        outcome = text,
                        "changed"
                    );
                    (text, true)
                }
                Outcome::Failed(error) => {
                    self.meters.change_failures.increment(1);
                    let backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                    let known = self.refused.entry(what.clone());
                    let (backoff, until) = known.or_insert((backoff, Instant::now()));
                    *until = Instant::now() + backoff.next_pause();
                    warn!(change = step.verb(), what, error = %error.failure, "change has failed");
                    let text = error.failure.text.clone();
                    self.account
                        .update(|status| status.error = Some(text.clone()));
                    (text, !error.is_general())
                }
            };
            left -= 1;
            self.account.update(|status| {
                status.did(Change {
                    time: seconds(SystemTime::now()),
                    change: step.verb(),
                    what,
                    why: step.why().to_owned(),
                    outcome: text,
                });
            });
            if !goes_on {
                return;
            }
        }
    }

    async fn perform(&mut self, step: &Step, endpoints: &mut HashMap<Arc<str>, String>) -> Outcome {
        let until = SystemTime::now() + self.config.settle.0;
        match step {
            Step::CreateEndpoint {
                project, endpoint, ..
            } => {
                let password = match &self.config.endpoint_password {
                    Some(password) => password.clone(),
                    None => match random() {
                        Ok(password) => password,
                        Err(why) => return Outcome::Waits(why),
                    },
                };
                self.memory.endpoints.insert(project.clone(), until);
                if let Err(why) = self.write().await {
                    return Outcome::Waits(why);
                }
                let username = self.config.endpoint_username.clone();
                let made = self
                    .api
                    .create_endpoint(project, endpoint, &username, &password)
                    .await;
                match made {
                    Ok(id) => {
                        endpoints.insert(project.clone(), id.clone());
                        Outcome::Done(format!("endpoint {id} was created"))
                    }
                    Err(error) if error.is_there_already() => {
                        Outcome::Done("it was there already".to_owned())
                    }
                    Err(error) => {
                        if !error.may_be_done() {
                            self.memory.endpoints.remove(project);
                            let _ = self.write().await;
                        }
                        Outcome::Failed(error)
                    }
                }
            }
            Step::Integrate {
                project,
                service,
                endpoint,
                ..
            } => {
                let Some(endpoint) = endpoint.as_ref().or(endpoints.get(project)).cloned() else {
                    return Outcome::Waits(format!("project {project} has no endpoint yet"));
                };
                let key = (project.clone(), service.clone());
                self.memory.settling.insert(key.clone(), until);
                if let Err(why) = self.write().await {
                    self.memory.settling.remove(&key);
                    return Outcome::Waits(why);
                }
                let outcome = match self.api.integrate(project, service, &endpoint).await {
                    Ok(integration) => {
                        self.meters.created.increment(1);
                        let id = integration.service_integration_id;
                        self.memory.made.insert(id.clone());
                        Outcome::Done(format!("integration {id} was created"))
                    }
                    Err(error) if error.is_there_already() => {
                        Outcome::Done("it was there already".to_owned())
                    }
                    Err(error) => {
                        // What may have been done is waited for as if it had been.
                        if !error.may_be_done() {
                            self.memory.settling.remove(&key);
                        }
                        Outcome::Failed(error)
                    }
                };
                match self.write().await {
                    Ok(()) => outcome,
                    Err(why) => {
                        warn!(%why, "what was made cannot be written down");
                        outcome
                    }
                }
            }
            Step::Remove {
                project,
                service,
                integration,
                ..
            } => {
                let key = (project.clone(), service.clone());
                self.memory.settling.insert(key.clone(), until);
                let outcome = match self.api.remove(project, integration).await {
                    Ok(()) => Outcome::Done(format!("integration {integration} was removed")),
                    Err(error) if error.is_missing() => {
                        Outcome::Done("it was gone already".to_owned())
                    }
                    Err(error) => {
                        self.memory.settling.remove(&key);
                        Outcome::Failed(error)
                    }
                };
                if matches!(outcome, Outcome::Done(_)) {
                    self.memory.made.remove(integration);
                    let _ = self.write().await;
                }
                outcome
            }
        }
    }

    async fn write(&self) -> Result<(), String> {
        let (record, memory) = (self.record.clone(), self.memory.clone());
        let written = tokio::task::spawn_blocking(move || record.write(&memory));
        written.await.map_err(|error| error.to_string())?
    }
}

/// A password that nobody knows.
fn random() -> Result<Secret, String> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "there is no randomness".to_owned())?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(text))
}
