//! A Kubernetes Lease: elects one of several instances.
//!
//! No clock is compared with another machine's. A waiting instance measures by its own clock how
//! long the lease has been unchanged, and takes it after the duration that the holder wrote. The
//! holder measures from before its request and stops earlier, so that at times there is no holder
//! but never two, as long as clocks run at equal speed. A write carries the version that was read:
//! if two instances take a lease at once, one is refused. A holder can leave a text for the next
//! one in an annotation; writing it renews the lease, so that an instance that has lost the lease
//! is refused.

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

/// Largest accepted answer, in bytes: a Lease is small.
const MAX_BYTES: usize = 1 << 20;

/// Annotation with the text for the next holder.
const NOTES: &str = "metrifold/notes";

/// Name, holder and times of a lease.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this instance; must be unique.
    pub holder: String,
    /// Time without a renewal after which others may take the lease.
    pub duration: Duration,
    /// Time after a renewal for which this instance considers itself the holder; less than
    /// `duration`.
    pub deadline: Duration,
    /// Pause between two attempts to take or renew the lease.
    pub retry: Duration,
}

impl LeaseOptions {
    /// Uses the times of Kubernetes' own controllers.
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

/// Tells whether the lease is held now. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// When it is lost unless it is renewed; `None` if it is not held.
    until: Option<Instant>,
    /// Number of times that this process has acquired the lease.
    term: u64,
}

impl Leadership {
    /// Whether the lease is held. Check this before each step reserved for the holder.
    pub fn is_held(&self) -> bool {
        self.left().is_some()
    }

    /// Time until the lease is lost unless renewed; a step should take no longer. None if it is not
    /// held.
    pub fn left(&self) -> Option<Duration> {
        let until = locked(&self.0).until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The number of the term for which the lease is held; None if it is not held. As long as the
    /// number stays the same, no other instance has held the lease.
    pub fn term(&self) -> Option<u64> {
        self.left()?;
        Some(locked(&self.0).term)
    }

    fn lose(&self) {
        locked(&self.0).until = None;
    }

    fn hold(&self, until: Instant, is_new: bool) {
        let mut held = locked(&self.0);
        held.until = Some(until);
        held.term += u64::from(is_new);
    }
}

/// An instance's attempt to hold a lease.
pub struct Lease {
    api: Api<Object>,
    health: Health,
    options: LeaseOptions,
    leadership: Leadership,
    /// Whether another instance may have held the lease since it was last held here.
    is_new: bool,
    /// Version of another holder's lease, when it was first seen, and the duration written in it.
    observed: Option<(Option<String>, Instant, Duration)>,
}

impl Lease {
    /// Creates the client of a lease without sending a request. Needs a runtime.
    pub fn new(cluster: &Cluster, options: LeaseOptions) -> Self {
        let health = Health::default();
        let client = cluster.client(health.clone(), MAX_BYTES);
        Self {
            api: Api::namespaced(client, &options.namespace),
            health,
            options,
            leadership: Leadership::default(),
            is_new: true,
            observed: None,
        }
    }

    /// The lease as `NAMESPACE/NAME`.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.options.namespace, self.options.name)
    }

    /// Pause between two attempts to take or renew the lease.
    pub fn retry(&self) -> Duration {
        self.options.retry
    }

    /// Handle that tells whether the lease is held.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Takes or renews the lease if possible. A lease held by another instance is not an error.
    ///
    /// # Errors
    ///
    /// Fails when the API server is unreachable or refuses the request.
    pub async fn attempt(&mut self) -> Result<(), Failure> {
        // Before the request: the time at which it takes effect is unknown.
        let asked = Instant::now();
        let known = self.api.get_opt(&self.options.name).await;
        let known = known.map_err(|error| self.explain(&error))?;
        let Some(known) = known else {
            self.is_new = true;
            let lease = self.lease(None, ObjectMeta::default());
            let made = self.api.create(&PostParams::default(), &lease).await;
            return self.written(made.map(drop), asked);
        };
        let spec = known.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        self.is_new |= holder != self.options.holder;
        if holder != self.options.holder && !holder.is_empty() && !self.has_ended(&known, &spec) {
            self.leadership.lose();
            return Ok(());
        }
        let lease = self.lease(Some(spec), known.metadata);
        let name = &self.options.name;
        let replaced = self.api.replace(name, &PostParams::default(), &lease).await;
        self.written(replaced.map(drop), asked)
    }

    /// Releases the lease, so that others need not wait for it to expire.
    ///
    /// # Errors
    ///
    /// Fails when the API server is unreachable or refuses; the lease then expires.
    pub async fn release(&mut self) -> Result<(), Failure> {
        let held = self.leadership.is_held();
        self.leadership.lose();
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

    /// Text left by the last holder; None if there is no lease or no text.
    ///
    /// # Errors
    ///
    /// Fails when the API server is unreachable or refuses the request.
    pub async fn notes(&self) -> Result<Option<String>, Failure> {
        let known = self.api.get_opt(&self.options.name).await;
        let known = known.map_err(|error| self.explain(&error))?;
        let annotations = known.and_then(|known| known.metadata.annotations);
        Ok(annotations.and_then(|mut all| all.remove(NOTES)))
    }

    /// Leaves a text for the next holder, and renews the lease.
    ///
    /// # Errors
    ///
    /// Fails when the API server is unreachable or refuses, and when another instance holds the
    /// lease.
    pub async fn write_notes(&mut self, notes: &str) -> Result<(), Failure> {
        let asked = Instant::now();
        let known = self.api.get_opt(&self.options.name).await;
        let known = known.map_err(|error| self.explain(&error))?;
        let holder = |known: &Object| known.spec.as_ref()?.holder_identity.clone();
        let own = known.filter(|known| holder(known).as_ref() == Some(&self.options.holder));
        let Some(mut known) = own else {
            return Err(self.lost());
        };
        let annotations = known.metadata.annotations.get_or_insert_default();
        annotations.insert(NOTES.to_owned(), notes.to_owned());
        let lease = self.lease(known.spec.take(), known.metadata);
        let name = &self.options.name;
        let replaced = self.api.replace(name, &PostParams::default(), &lease).await;
        self.written(replaced.map(drop), asked)?;
        match self.leadership.is_held() {
            true => Ok(()),
            false => Err(self.lost()),
        }
    }

    fn lost(&self) -> Failure {
        self.leadership.lose();
        let what = format!("lease {} is not held any more", self.shown());
        Failure::new(Reason::Refused, what)
    }

    /// Whether another holder's lease has been unchanged for its whole duration.
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

    /// The Lease object with this instance as holder.
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
        // Rounded up: the field holds whole seconds.
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
                let until = asked + self.options.deadline;
                self.leadership
                    .hold(until, std::mem::take(&mut self.is_new));
                Ok(())
            }
            // Another instance was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.leadership.lose();
                Ok(())
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn explain(&self, error: &kube::Error) -> Failure {
        let what = format!("lease {}", self.shown());
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
