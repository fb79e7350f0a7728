//! The lease as a Kubernetes object. A background task renews it. The record of requested and made
//! integrations is kept in its annotation, which only the holder can write.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tracing::warn;

use metrifold_base::{BoxFuture, BuildError};
use metrifold_kubernetes::{Leadership, LeaseKeys};

use crate::lease::Lease;

/// A lease in a cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct ClusterLease(Arc<Shared>);

struct Shared {
    lease: Mutex<metrifold_kubernetes::Lease>,
    leadership: Leadership,
    shown: String,
}

/// Holds the lease and renews it until dropped.
pub(crate) struct Hold {
    lease: ClusterLease,
    renewing: Option<JoinHandle<()>>,
}

impl ClusterLease {
    /// Creates the lease client, with a holder name unique to this process. Needs a runtime.
    pub(crate) fn build(keys: &LeaseKeys) -> Result<Self, BuildError> {
        let failed = |error: BuildError| {
            BuildError::new(format!("kubernetes_lease.{}", error.what), error.reason)
        };
        // A pod's host name is its name. The suffix tells this instance from one that a reload
        // replaces.
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "metrifold".to_owned());
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
            BuildError::new("kubernetes_lease", "the system provides no random numbers")
        })?;
        let holder = format!("{host}_{:016x}", u64::from_le_bytes(bytes));
        let lease = keys.lease(&holder).map_err(failed)?;
        Ok(Self(Arc::new(Shared {
            leadership: lease.leadership(),
            shown: format!("Lease {}", lease.shown()),
            lease: Mutex::new(lease),
        })))
    }

    pub(crate) fn hold(&self) -> Hold {
        Hold {
            lease: self.clone(),
            renewing: None,
        }
    }

    /// Record written by the last holder.
    pub(crate) async fn read(&self) -> Result<Option<String>, String> {
        let notes = self.0.lease.lock().await.notes().await;
        notes.map_err(|failure| failure.text)
    }

    /// Writes the record for the next holder; fails if this process has lost the lease.
    pub(crate) async fn write(&self, text: &str) -> Result<(), String> {
        let written = self.0.lease.lock().await.write_notes(text).await;
        written.map_err(|failure| failure.text)
    }

    async fn attempt(&self) -> Result<(), String> {
        let tried = self.0.lease.lock().await.attempt().await;
        tried.map_err(|failure| failure.text)
    }

    /// Takes and renews the lease in a loop.
    async fn renew(self) {
        let pause = self.0.lease.lock().await.retry();
        let mut is_failing = false;
        loop {
            tokio::time::sleep(pause).await;
            let tried = self.attempt().await;
            if let Err(reason) = &tried
                && !is_failing
            {
                warn!(lease = self.0.shown, reason, "the lease cannot be renewed");
            }
            is_failing = tried.is_err();
        }
    }
}

impl Lease for Hold {
    fn holds(&mut self) -> BoxFuture<Result<Option<u64>, String>> {
        let lease = self.lease.clone();
        if self.renewing.is_none() {
            self.renewing = Some(tokio::spawn(lease.clone().renew()));
        }
        Box::pin(async move {
            if !lease.0.leadership.is_held() {
                lease.attempt().await?;
            }
            Ok(lease.0.leadership.term())
        })
    }

    fn shown(&self) -> String {
        self.lease.0.shown.clone()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(renewing) = self.renewing.take() else {
            return;
        };
        renewing.abort();
        // Releases the lease, so that others need not wait for its end. Without a runtime it
        // expires.
        if let Ok(runtime) = Handle::try_current() {
            let lease = self.lease.clone();
            runtime.spawn(async move {
                let released = lease.0.lease.lock().await.release().await;
                if let Err(failure) = released {
                    warn!(lease = lease.0.shown, reason = %failure, "the lease was not released: it ends by itself");
                }
            });
        }
    }
}
