//! Errors of building and of running a component.

use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

/// A boxed future that can move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a component cannot be built.
#[derive(Debug, Error)]
#[error("{what}: {reason}")]
pub struct BuildError {
    /// The key, file or address concerned.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BuildError {
    /// A build error.
    pub fn new(what: impl ToString, reason: impl ToString) -> Self {
        Self {
            what: what.to_string(),
            reason: reason.to_string(),
        }
    }
}

/// Why a component ended.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);
