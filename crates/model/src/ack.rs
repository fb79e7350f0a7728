//! The acknowledgement: a source learns what became of a batch in the sinks that it must reach.
//!
//! A source makes an [`Ack`] and its [`Waiter`]. For each required sink that a batch, or a part
//! of it, goes to, the fan-out draws a [`Ticket`]. When the `Ack` and all tickets are gone, the
//! waiter has the worst outcome. A ticket that is dropped without a word counts as failed:
//! whatever dies, the sender is told to try again rather than that all is well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{Counts, Rejection};

/// What became of a batch in one sink, or in all required ones together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Delivered,
    /// The sink has it, but for these exemplars, and its far end says that all is well.
    Lacks(Counts),
    /// The sink has not got it, or not all of it.
    Rejected {
        /// Why, and whether sending it again can help.
        rejection: Rejection,
        /// What is lost of it; none if nobody knows.
        lost: Option<Counts>,
    },
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Every required sink has delivered the batch or has it on disk.
    Stored,
    /// Every required sink has delivered it.
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
            // An error says that the waiter is gone: then nobody wants to know.
            let _ = done.send(worst);
        }
    }
}

impl Outcome {
    /// A failure that may pass must win over a refusal: told of the refusal, the sender would
    /// drop what another sink still lacks.
    fn rank(&self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Lacks(_) => 1,
            Self::Rejected { rejection, .. } if !rejection.may_retry() => 2,
            Self::Rejected { .. } => 3,
        }
    }

    /// What is lost; none if nobody knows.
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

    /// Makes it the worst of both. What two sinks, or two parts, have lost is added up: if it is
    /// the same series, less is claimed to be stored than is, and never more.
    pub fn join(&mut self, other: Self) {
        let sum = self
            .lost()
            .zip(other.lost())
            .map(|(lost, more)| lost + more);
        // Of what the sender is to send again, it does not matter what else is lost.
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

    /// A refusal of the whole for its content, as far as anybody knows.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Rejection::invalid(reason).into()
    }

    /// A failure that may pass, without a time to try again.
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

/// Draws tickets; drop it when no more sinks will be added.
#[derive(Clone, Debug)]
pub struct Ack(Arc<Shared>);

impl Ack {
    /// An acknowledgement and the end that awaits it.
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

    /// A promise of the sink named `sink` to report.
    pub fn ticket(&self, sink: Arc<str>) -> Ticket {
        Ticket {
            shared: self.0.clone(),
            sink,
            reported: false,
        }
    }
}

/// One required sink's promise to report an outcome.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    sink: Arc<str>,
    reported: bool,
}

impl Ticket {
    /// Says what became of the batch.
    pub fn report(mut self, mut outcome: Outcome) {
        self.reported = true;
        if let Outcome::Rejected { rejection, .. } = &mut outcome {
            rejection.reason = format!("{}: {}", self.sink, rejection.reason);
        }
        self.shared.report(outcome);
    }

    /// One more promise of the same sink, for a part of the batch.
    pub fn another(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            sink: self.sink.clone(),
            reported: false,
        }
    }

    /// Whether it is enough for the sender that the batch is on disk.
    pub fn until_stored(&self) -> bool {
        self.shared.until == Until::Stored
    }

    /// Whether the sender has been told to send the batch again, or is gone: what is still to be
    /// delivered for it would be delivered twice.
    pub fn abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.reported {
            let reason = format!("{}: gave the batch up", self.sink);
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
    /// The worst outcome among all required sinks, once all tickets are in.
    pub async fn verdict(&mut self) -> Outcome {
        // The sender's side always sends before it goes.
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
        assert_eq!(verdict, Outcome::failed("a: gave the batch up"));
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
