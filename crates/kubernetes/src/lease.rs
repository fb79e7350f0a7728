//! A Lease: which of several instances may do what only one may.
//!
//! No clock is compared with another's. Whoever waits measures by its own clock how long a lease has not
//! changed, and takes it once that is longer than its holder said. The holder measures from before it
//! asked, and stops earlier than that, so that there is a time with no holder and none with two, as long
//! as clocks run equally fast. What is written carries the version that was read: of two who take a lease
//! at once, one is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_discovery::{Failure, Reason};

use crate::connect::Cluster;
use crate::transport::Health;
use crate::watch::explain_status;

/// A Lease is small: a larger answer is none.
const MAX_BYTES: usize = 1 << 20;

/// Which lease, and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// Who wants it: unlike that of any other instance.
    pub holder: String,
    /// How long others leave it alone after it was renewed.
    pub duration: Duration,
    /// How long it is held after it was renewed: shorter than `duration`.
    pub deadline: Duration,
    /// The pause between two attempts to take or to renew it.
    pub retry: Duration,
}

impl LeaseOptions {
    /// With the times that Kubernetes' own controllers have.
    pub fn new(namespace: &str, name: &str, holder: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            holder: holder.to_owned(),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Whether a lease is held at this moment. A clone says the same.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Asked before each step that only the holder may take.
    pub fn is_held(&self) -> bool {
        self.left().is_some()
    }

    /// How long it is held unless it is renewed: no step should take longer.
    pub fn left(&self) -> Option<Duration> {
        let until = (*locked(&self.0))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn set(&self, until: Option<Instant>) {
        *locked(&self.0) = until;
    }
}

/// A lease that is wanted.
pub struct Lease {
    api: Api<Object>,
    health: Health,
    options: LeaseOptions,
    leadership: Leadership,
    /// The version of another's lease, since when it is that, and how long it is good.
    observed: Option<(Option<String>, Instant, Duration)>,
}

impl Lease {
    /// A lease of a cluster; asks for nothing yet. Needs a runtime.
    pub fn new(cluster: &Cluster, options: LeaseOptions) -> Self {
        let health = Health::default();
        let client = cluster.client(health.clone(), MAX_BYTES);
        Self {
            api: Api::namespaced(client, &options.namespace),
            health,
            options,
            leadership: Leadership::default(),
            observed: None,
        }
    }

    /// What says whether it is held.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Takes or renews it again and again. `failed` hears why that could not be tried.
    pub async fn keep(&mut self, mut failed: impl FnMut(&Failure)) {
        loop {
            if let Err(failure) = self.attempt().await {
                failed(&failure);
            }
            tokio::time::sleep(self.options.retry).await;
        }
    }

    /// Takes or renews it if that may be. That another holds it is no failure.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be asked or refuses.
    pub async fn attempt(&mut self) -> Result<(), Failure> {
        // From before the request: when it takes effect is not known.
        let asked = Instant::now();
        let known = self.api.get_opt(&self.options.name).await;
        let known = known.map_err(|error| self.explain(&error))?;
        let Some(known) = known else {
            let lease = self.lease(None, ObjectMeta::default());
            let made = self.api.create(&PostParams::default(), &lease).await;
            return self.written(made.map(drop), asked);
        };
        let spec = known.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.options.holder && !holder.is_empty() && !self.has_ended(&known, &spec) {
            self.leadership.set(None);
            return Ok(());
        }
        let lease = self.lease(Some(spec), known.metadata);
        let name = &self.options.name;
        let replaced = self.api.replace(name, &PostParams::default(), &lease).await;
        self.written(replaced.map(drop), asked)
    }

    /// Gives it back, so that another need not wait for its end.
    ///
    /// # Errors
    ///
    /// Fails when the API server cannot be asked or refuses; it then ends by itself.
    pub async fn release(&mut self) -> Result<(), Failure> {
        let held = self.leadership.is_held();
        self.leadership.set(None);
        if !held {
            return Ok(());
        }
        let known = self.api.get_opt(&self.options.name).await;
        let known = known.map_err(|error| self.explain(&error))?;
        let Some(mut known) = known else {
            return Ok(());
        };
        let mut spec = known.spec.take().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.options.holder) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        known.spec = Some(spec);
        let name = &self.options.name;
        let replaced = self.api.replace(name, &PostParams::default(), &known).await;
        replaced.map(drop).map_err(|error| self.explain(&error))
    }

    /// Whether another's lease has not changed for as long as it is good.
    fn has_ended(&mut self, known: &Object, spec: &LeaseSpec) -> bool {
        let version = &known.metadata.resource_version;
        let now = Instant::now();
        match &self.observed {
            Some((seen, since, good)) if seen == version => now >= *since + *good,
            _ => {
                let seconds = spec.lease_duration_seconds.unwrap_or(0);
                let good = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                self.observed = Some((version.clone(), now, good));
                false
            }
        }
    }

    /// The lease, held by this instance.
    fn lease(&self, before: Option<LeaseSpec>, mut metadata: ObjectMeta) -> Object {
        metadata.name = Some(self.options.name.clone());
        let now = MicroTime(Timestamp::now());
        let first = before.is_none();
        let mut spec = before.unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.options.holder) {
            spec.acquire_time = Some(now.clone());
            let transitions = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(transitions + i32::from(!first));
        }
        spec.holder_identity = Some(self.options.holder.clone());
        // Rounded up: in the field there are whole seconds.
        let seconds = self.options.duration.as_millis().div_ceil(1000);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        Object {
            metadata,
            spec: Some(spec),
        }
    }

    fn written(&mut self, answer: kube::Result<()>, asked: Instant) -> Result<(), Failure> {
        match answer {
            Ok(()) => {
                self.observed = None;
                self.leadership.set(Some(asked + self.options.deadline));
                Ok(())
            }
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.leadership.set(None);
                Ok(())
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &kube::Error) -> Failure {
        let what = format!("lease {}/{}", self.options.namespace, self.options.name);
        if let kube::Error::Api(status) = error
            && let Some(failure) = explain_status(status, &what)
        {
            return failure;
        }
        let of_transport = self.health.take_failure();
        of_transport
            .unwrap_or_else(|| Failure::new(Reason::Unreachable, format!("{what}: {error}")))
    }
}
