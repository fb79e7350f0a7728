//! Requests for a reload, which are answered with its outcome.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::outcome::Report;

/// The most requests that wait for a report. One reload answers them all.
const MAX_WAITING: usize = 64;

/// Handle to request reloads. A clone asks the same reloader.
#[derive(Clone, Debug)]
pub struct Requests(mpsc::Sender<Request>);

/// A requester that waits for the report.
pub(super) type Request = oneshot::Sender<Arc<Report>>;

/// Reason why a request got no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many requests wait already.
    TooMany,
    /// The process shuts down.
    Ending,
}

impl Requests {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Requests a reload that reads the files from now on, and waits for its report.
    ///
    /// # Errors
    ///
    /// Fails when too many requests wait already, or when the process shuts down.
    pub async fn ask(&self) -> Result<Arc<Report>, Unanswered> {
        let (sender, outcome) = oneshot::channel();
        self.0.try_send(sender).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::TooMany,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ending,
        })?;
        outcome.await.map_err(|_| Unanswered::Ending)
    }
}
