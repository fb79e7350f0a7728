//! The edge into a sink of queries: it holds the answerer that is attached at the moment.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use metrifold_base::{BoxFuture, locked};
use metrifold_model::ledger::Tally;
use metrifold_model::{Rejection, RejectionKind};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{self, Drain, Ending};

use super::answer::Bounded;
use super::{Answer, Answerer, Query};

/// The edge into a sink of queries.
pub struct Edge {
    id: Arc<str>,
    metrics: ComponentMetrics,
    attached: ArcSwapOption<Attached>,
    /// Number of the latest attachment. Locked while an answerer is attached or detached.
    turn: Mutex<u64>,
    /// Whether an answerer has ever been attached.
    started: watch::Sender<bool>,
}

/// The longest that a query waits for a sink that is being started: a reload routes queries to a
/// new sink just before it starts.
const START_TIME: Duration = Duration::from_secs(1);

/// A turn that belongs to no answerer.
const NOBODY: u64 = 0;

struct Attached {
    answerer: Arc<dyn Answerer>,
    turn: u64,
}

/// The sink's end of the edge, with which it attaches its answerer.
pub struct Input(Arc<Edge>);

/// An attached answerer. Dropping this detaches it; queries are refused until another one is
/// attached. A sink that was told to stop calls [`Serving::retire`] instead.
#[must_use = "dropping it detaches the answerer at once"]
pub struct Serving {
    edge: Arc<Edge>,
    turn: u64,
}

impl Edge {
    /// An edge into the sink named `id`.
    pub(crate) fn new(id: Arc<str>, metrics: ComponentMetrics) -> Self {
        Self {
            id,
            metrics,
            attached: ArcSwapOption::empty(),
            turn: Mutex::new(NOBODY),
            started: watch::Sender::new(false),
        }
    }

    /// The attached answerer. Waits for it if none has ever been attached.
    async fn attached(&self, deadline: Instant) -> Option<Arc<Attached>> {
        if let Some(attached) = self.attached.load_full() {
            return Some(attached);
        }
        let mut started = self.started.subscribe();
        let deadline = deadline.min(Instant::now() + START_TIME);
        // Even after a timeout, the answerer that is attached now is used.
        let _ = timeout_at(deadline, started.wait_for(|started| *started)).await;
        self.attached.load_full()
    }

    /// Lets the sink answer a query before its deadline. `kept` is held until the body of the
    /// answer has ended.
    pub(super) async fn ask<K>(&self, query: Query, kept: K) -> Result<Answer, Rejection>
    where
        K: Send + Unpin + 'static,
    {
        let meters = self.metrics.queries();
        let under_way = meters.begin();
        let started = Instant::now();
        // One timer for the head and the body of the answer.
        let mut deadline = Box::pin(sleep_until(query.deadline));
        let answer = match self.attached(query.deadline).await {
            Some(attached) => {
                let answerer = attached.answerer.clone();
                self.contained(answerer, query, &mut deadline).await
            }
            None => {
                let reason = format!("sink {} does not answer at the moment", self.id);
                Err(Rejection::unavailable(reason))
            }
        };
        meters.head_after(started.elapsed());
        match answer {
            Ok(answer) => {
                self.metrics.succeeded();
                self.metrics.query_answered(answer.status().as_str());
                let kept = (kept, under_way);
                Ok(answer.map(|body| Bounded::new(body, deadline, kept).into_body()))
            }
            Err(rejection) => {
                self.metrics.query_answered("<error>");
                self.metrics.failed(rejection.kind.as_str(), &rejection);
                Err(rejection)
            }
        }
    }

    /// Awaits an answer. A panic or a timeout becomes a rejection of the query.
    async fn contained(
        &self,
        answerer: Arc<dyn Answerer>,
        query: Query,
        deadline: &mut Pin<Box<Sleep>>,
    ) -> Result<Answer, Rejection> {
        let panicked = |_| {
            let reason = format!("sink {} panicked on the query", self.id);
            Rejection::new(RejectionKind::Internal, reason)
        };
        let answering = catch_unwind(AssertUnwindSafe(|| answerer.answer(query)));
        let mut answering = pin!(answering.map_err(panicked)?);
        std::future::poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx)));
            match polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic)))) {
                Poll::Pending if deadline.as_mut().poll(cx).is_ready() => {
                    let reason = format!("sink {} did not answer in time", self.id);
                    Poll::Ready(Err(Rejection::new(RejectionKind::TimedOut, reason)))
                }
                answer => answer,
            }
        })
        .await
    }
}

impl Input {
    /// Attaches the answerer for the sink's queries, replacing any other.
    pub fn serve(&self, answerer: Arc<dyn Answerer>) -> Serving {
        let mut turn = locked(&self.0.turn);
        *turn += 1;
        let attached = Attached {
            answerer,
            turn: *turn,
        };
        self.0.attached.store(Some(Arc::new(attached)));
        self.0.started.send_replace(true);
        Serving {
            edge: self.0.clone(),
            turn: *turn,
        }
    }
}

impl Serving {
    /// Ends without detaching the answerer, when its sink has been told to stop: queries that are
    /// on their way here during a reload are still answered. The answerer is dropped with the edge.
    pub fn retire(mut self) {
        self.turn = NOBODY;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _turn = locked(&self.edge.turn);
        let attached = self.edge.attached.load();
        if attached.as_ref().is_some_and(|it| it.turn == self.turn) {
            self.edge.attached.store(None);
        }
    }
}

impl planes::Edge for Edge {
    type Input = Input;

    fn input(self: &Arc<Self>) -> Input {
        Input(self.clone())
    }

    fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    /// Queries in flight at the predecessor stay there.
    fn take_over(&self, _predecessor: Option<&Self>) {}

    /// Queries are accepted from any source.
    fn wired(&self, _sources: &BTreeSet<Arc<str>>) {}
}

impl Drain for Edge {
    /// Queries in flight hold a stage, and the stages are waited for: nothing is left to close.
    fn close(&self, _ending: Ending) {}

    fn store(self: Arc<Self>, _deadline: Instant) -> BoxFuture<()> {
        Box::pin(async {})
    }

    fn secure(self: Arc<Self>, _deadline: Instant) -> BoxFuture<()> {
        Box::pin(async {})
    }

    fn left(&self) -> Tally {
        Tally::default()
    }

    fn abandon(&self) {}

    fn shut(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
