//! Reconciles: makes a plan of each observation, and carries it out if configured to and leading.
//!
//! A service has at most one change in progress: a request is recorded with the lease before it is
//! sent, and no other is sent until its effect is visible or `settle` has passed.

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

/// Backoff after a refused change.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

pub(crate) struct Reconciler {
    pub(crate) config: Arc<AivenConfig>,
    pub(crate) api: Arc<Api>,
    pub(crate) account: Arc<Account>,
    pub(crate) meters: Arc<AivenMeters>,
    /// Effective mode: weaker than configured where changes are not permitted.
    pub(crate) integrate: Integrate,
    /// None for a single process, which always leads.
    pub(crate) lease: Option<Box<dyn Lease>>,
    pub(crate) record: Record,
    pub(crate) memory: Memory,
    /// The term of the lease in which this process leads; None if it does not.
    pub(crate) term: Option<u64>,
    /// Refused changes, and the earliest time of their next attempt.
    pub(crate) refused: HashMap<String, (Backoff, Instant)>,
}

/// Result of a change.
enum Outcome {
    Done(String),
    Failed(ApiError),
    /// Not attempted, for this reason.
    Waits(String),
}

impl Reconciler {
    /// Runs until dropped, or until the observer ends.
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
        if let Err(reason) = self.lead().await {
            error = Some(reason);
        }
        let before = observation.at;
        self.memory.settling.retain(|_, until| before < *until);
        self.memory.endpoints.retain(|_, until| before < *until);
        let made = self.plan(observation);
        self.meters.planned.set(made.steps.len() as f64);
        let leads = self.term.is_some();
        self.meters.leads.set(f64::from(u8::from(leads)));
        let integrate = self.integrate;
        let lease = self.lease.as_ref().map(|lease| lease.shown());
        self.account.update(|status| {
            if integrate == Integrate::DryRun {
                let known = &status.plan.steps;
                for step in made.steps.iter().filter(|step| !known.contains(step)) {
                    info!(
                        change = step.verb(),
                        what = step.what(),
                        why = step.why(),
                        "dry run: the change was not made"
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
        if integrate == Integrate::On && leads {
            self.execute(&made).await;
        }
    }

    fn plan(&mut self, observation: &Observation) -> Plan {
        if observation.failed.is_empty() && self.memory.settling.is_empty() {
            // Forgets what no longer exists.
            let services = observation.projects.iter().flat_map(|it| &it.services);
            let there: HashSet<&str> = services
                .flat_map(|service| service.integrations())
                .map(|it| it.service_integration_id.as_str())
                .collect();
            self.memory.made.retain(|id| there.contains(id.as_str()));
        }
        let plan = plan(
            &self.config,
            &observation.projects,
            &self.memory,
            observation.at,
        );
        if observation.failed.is_empty() && !self.refused.is_empty() {
            let planned: HashSet<String> = plan.steps.iter().map(Step::what).collect();
            self.refused.retain(|what, _| planned.contains(what));
        }
        plan
    }

    /// Takes the lead, or confirms it. On a new term of the lease, reads the record of the previous
    /// leader.
    async fn lead(&mut self) -> Result<(), String> {
        let before = self.term.take();
        let term = match &mut self.lease {
            // A plan depends on the record, too.
            _ if self.integrate != Integrate::On => None,
            Some(lease) => lease.holds().await?,
            None => Some(0),
        };
        let is_known = term.is_some() && term == before;
        if (term.is_some() || self.integrate != Integrate::On) && !is_known {
            self.memory = self.record.read().await?;
        }
        self.term = term;
        Ok(())
    }

    /// Makes changes, at most `max_changes`.
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
            // The lease may have been lost since the last change; a plan of an earlier term may
            // contain what another replica has done since.
            let term = self.term;
            if self.lead().await.is_err() || self.term.is_none() || self.term != term {
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
                    warn!(change = step.verb(), what, error = %error.failure, "change failed");
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
                    self.memory.endpoints.remove(project);
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
                        Outcome::Done(format!("endpoint {endpoint} existed already"))
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
                        Outcome::Done("the integration existed already".to_owned())
                    }
                    Err(error) => {
                        // A change whose answer was lost may have been made: the service gets the
                        // same time to show it as after a success.
                        if !error.may_be_done() {
                            self.memory.settling.remove(&key);
                        }
                        Outcome::Failed(error)
                    }
                };
                match self.write().await {
                    Ok(()) => outcome,
                    Err(why) => {
                        warn!(%why, "a created integration was not recorded: after a restart, it is not cleaned up");
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
                        Outcome::Done("the integration was removed already".to_owned())
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
        self.record.write(&self.memory).await
    }
}

/// A random password.
fn random() -> Result<Secret, String> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| "the system provides no random numbers".to_owned())?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(text))
}
