//! The acknowledgement: reports to a source the outcome of a batch in the required sinks.
//!
//! A source makes an [`Ack`] and its [`Waiter`]. For each required sink that a batch, or a part of
//! it, goes to, the fan-out draws a [`Ticket`]. When the `Ack` and all tickets are dropped, the
//! waiter receives the worst outcome. A ticket that is dropped without a report counts as failed:
//! whichever task dies, the sender is told to retry, and never that the batch was stored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{Counts, Rejection};

/// Outcome of a batch in one sink, or in all required ones together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has the whole batch.
    Delivered,
    /// The sink has the batch except these exemplars, and its endpoint reports success.
    Lacks(Counts),
    /// The sink does not have the batch, or not all of it.
    Rejected {
        /// Reason, and whether a retry can help.
        rejection: Rejection,
        /// Counts of the lost part; `None` if they are unknown.
        lost: Option<Counts>,
    },
}

/// Condition for an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Every required sink has delivered the batch or has it on disk.
    Stored,
    /// Every required sink has delivered the batch.
    Delivered,
}

#[derive(Debug)]
struct Shared {
    until: Until,
    worst: Mutex<Outcome>,
    done: Option<oneshot::Sender<Outcome>>,
    abandoned: Arc<AtomicBool>,
}

impl Shared {
    fn report(&self, outcome: Outcome) {
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        worst.join(outcome);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let worst = self.worst.get_mut().unwrap_or_else(PoisonError::into_inner);
        let worst = std::mem::replace(worst, Outcome::Delivered);
        if let Some(done) = self.done.take() {
            // Sending fails if the waiter is gone, and then the outcome does not matter.
            let _ = done.send(worst);
        }
    }
}

impl Outcome {
    /// Rank of the outcome. A failure that may pass outranks a refusal: told of the refusal, the
    /// sender would drop a batch that another sink still lacks.
    fn rank(&self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Lacks(_) => 1,
            Self::Rejected { rejection, .. } if !rejection.may_retry() => 2,
            Self::Rejected { .. } => 3,
        }
    }

    /// The lost counts; `None` if they are unknown.
    fn lost(&self) -> Option<Counts> {
        match self {
            Self::Delivered => Some(Counts::default()),
            Self::Lacks(lost) => Some(*lost),
            Self::Rejected { lost, .. } => *lost,
        }
    }

    fn may_pass(&self) -> bool {
        matches!(self, Self::Rejected { rejection, .. } if rejection.may_retry())
    }

    /// Sets this outcome to the worse of both. The losses of two sinks or two parts are added: if
    /// both lost the same series, the stored counts are understated, never overstated.
    pub fn join(&mut self, other: Self) {
        let sum = self
            .lost()
            .zip(other.lost())
            .map(|(lost, more)| lost + more);
        // For a batch that the sender sends again, other losses do not matter.
        let adds_up = self.may_pass() == other.may_pass();
        if other.rank() > self.rank() {
            *self = other;
        }
        match self {
            Self::Lacks(lost) => *lost = sum.unwrap_or(*lost),
            Self::Rejected { lost, .. } if adds_up => *lost = sum,
            Self::Delivered | Self::Rejected { .. } => {}
        }
    }

    /// A rejection of the whole batch for its content.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Rejection::invalid(reason).into()
    }

    /// A failure that may pass, without a time for the retry.
    pub fn failed(reason: impl Into<String>) -> Self {
        Rejection::unavailable(reason).into()
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected {
            rejection,
            lost: None,
        }
    }
}

/// Draws tickets; to be dropped when no more sinks will be added.
#[derive(Clone, Debug)]
pub struct Ack(Arc<Shared>);

impl Ack {
    /// Makes an acknowledgement and its waiter.
    pub fn new(until: Until) -> (Self, Waiter) {
        let (done, verdict) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            until,
            worst: Mutex::new(Outcome::Delivered),
            done: Some(done),
            abandoned: abandoned.clone(),
        };
        (Self(Arc::new(shared)), Waiter { verdict, abandoned })
    }

    /// Draws a ticket for the sink named `sink`.
    pub fn ticket(&self, sink: Arc<str>) -> Ticket {
        Ticket {
            shared: self.0.clone(),
            sink,
            reported: false,
        }
    }
}

/// A required sink's promise to report an outcome.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    sink: Arc<str>,
    reported: bool,
}

impl Ticket {
    /// Reports the outcome of the batch.
    pub fn report(mut self, mut outcome: Outcome) {
        self.reported = true;
        if let Outcome::Rejected { rejection, .. } = &mut outcome {
            rejection.reason = format!("{}: {}", self.sink, rejection.reason);
        }
        self.shared.report(outcome);
    }

    /// Draws another ticket for the same sink, for a part of the batch.
    pub fn another(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            sink: self.sink.clone(),
            reported: false,
        }
    }

    /// Whether the acknowledgement only waits until the batch is on disk.
    pub fn until_stored(&self) -> bool {
        self.shared.until == Until::Stored
    }

    /// Whether the sender has been told to send the batch again, or has disconnected: the batch
    /// would be delivered twice.
    pub fn abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.reported {
            let reason = format!("{}: dropped the batch without a result", self.sink);
            self.shared.report(Outcome::failed(reason));
        }
    }
}

/// Awaits the outcome. Dropping it abandons the batch.
#[derive(Debug)]
pub struct Waiter {
    verdict: oneshot::Receiver<Outcome>,
    abandoned: Arc<AtomicBool>,
}

impl Waiter {
    /// The worst outcome of all required sinks, once all tickets are dropped.
    pub async fn verdict(&mut self) -> Outcome {
        // The other side always sends before it is dropped.
        (&mut self.verdict)
            .await
            .unwrap_or_else(|_| Outcome::failed("acknowledgement was lost"))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worst_outcome_wins_and_names_its_sink() {
        let (ack, mut waiter) = Ack::new(Until::Stored);
        let [a, b, c] = ["a", "b", "c"].map(|sink| ack.ticket(sink.into()));
        drop(ack);
        b.report(Outcome::failed("connection refused"));
        a.report(Outcome::rejected("status 400"));
        c.report(Outcome::Delivered);
        let verdict = waiter.verdict().await;
        assert_eq!(verdict, Outcome::failed("b: connection refused"));
    }

    #[test]
    fn what_several_have_lost_is_added_up_and_unknown_if_one_does_not_know() {
        let lost = |samples| Outcome::Rejected {
            rejection: Rejection::invalid("status 400"),
            lost: Some(Counts {
                samples,
                ..Counts::default()
            }),
        };
        let mut worst = Outcome::Delivered;
        worst.join(lost(2));
        worst.join(Outcome::Delivered);
        worst.join(lost(3));
        assert_eq!(worst, lost(5));
        worst.join(Outcome::rejected("status 409"));
        assert_eq!(worst, Outcome::rejected("status 400"));
        worst.join(Outcome::failed("timeout"));
        worst.join(lost(1));
        assert_eq!(worst, Outcome::failed("timeout"));
    }

    #[test]
    fn exemplars_that_are_lacking_are_no_refusal_and_add_to_one() {
        let exemplars = |exemplars| Counts {
            exemplars,
            ..Counts::default()
        };
        let mut worst = Outcome::Lacks(exemplars(1));
        worst.join(Outcome::Delivered);
        worst.join(Outcome::Lacks(exemplars(2)));
        assert_eq!(worst, Outcome::Lacks(exemplars(3)));
        let refused = |lost| Outcome::Rejected {
            rejection: Rejection::invalid("status 400"),
            lost: Some(lost),
        };
        worst.join(refused(exemplars(4)));
        worst.join(Outcome::Lacks(exemplars(1)));
        assert_eq!(worst, refused(exemplars(8)));
    }

    #[tokio::test]
    async fn a_ticket_dropped_without_a_word_counts_as_failed() {
        let (ack, mut waiter) = Ack::new(Until::Stored);
        drop(ack.ticket("a".into()));
        drop(ack);
        let verdict = waiter.verdict().await;
        assert_eq!(
            verdict,
            Outcome::failed("a: dropped the batch without a result")
        );
    }

    #[tokio::test]
    async fn without_tickets_a_batch_is_delivered() {
        let (ack, mut waiter) = Ack::new(Until::Stored);
        drop(ack);
        assert_eq!(waiter.verdict().await, Outcome::Delivered);
    }

    #[test]
    fn a_waiter_that_goes_away_abandons_the_batch() {
        let (ack, waiter) = Ack::new(Until::Stored);
        let ticket = ack.ticket("a".into());
        assert!(!ticket.abandoned());
        drop(waiter);
        assert!(ticket.abandoned());
    }
}
