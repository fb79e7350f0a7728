//! Requests for a reload, which are answered with its outcome.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::outcome::Report;

/// The most requests that wait for an answer. One reload answers them all.
const MAX_WAITING: usize = 64;

/// Asks for reloads. A clone asks the same.
#[derive(Clone, Debug)]
pub struct Requests(mpsc::Sender<Request>);

/// Somebody who waits for the outcome.
pub(super) type Request = oneshot::Sender<Arc<Report>>;

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many wait already.
    TooMany,
    /// The process shuts down.
    Ending,
}

impl Requests {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Asks for a reload that reads the files from now on, and waits for what comes of it.
    ///
    /// # Errors
    ///
    /// Fails when too many wait already, and when the process shuts down.
    pub async fn ask(&self) -> Result<Arc<Report>, Unanswered> {
        let (sender, outcome) = oneshot::channel();
        self.0.try_send(sender).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::TooMany,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ending,
        })?;
        outcome.await.map_err(|_| Unanswered::Ending)
    }
}
