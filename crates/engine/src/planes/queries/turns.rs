//! Turns: how many queries are asked at once, in total and of one tenant, and who is next.
//!
//! Queries that wait are in one line per tenant, and the lines take turns: a tenant that asks much
//! waits for itself, and not the others for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use metrifold_base::locked;
use metrifold_model::{Rejection, RejectionKind, Tenant};

/// How many queries are asked at once. A clone is a handle to the same.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: TurnLimits,
    state: Mutex<State>,
}

/// How many queries are asked at once, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// In total.
    pub total: usize,
    /// Of one tenant.
    pub per_tenant: usize,
    /// How many may wait, of all tenants together.
    pub waiting: usize,
}

/// The tenant of a query; none is one of its own.
type Line = Option<Tenant>;

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    /// Tenants of which some query runs or waits.
    lines: BTreeMap<Line, Waiting>,
    /// Those of which some wait, in the order of their turns.
    order: VecDeque<Line>,
}

#[derive(Debug, Default)]
struct Waiting {
    running: usize,
    queue: VecDeque<oneshot::Sender<()>>,
}

/// A query's turn. Dropping it is the next one's.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    line: Line,
}

impl Turns {
    /// Turns within these limits.
    pub fn new(limits: TurnLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            state: Mutex::default(),
        }))
    }

    /// Waits for the turn of a tenant's query.
    ///
    /// # Errors
    ///
    /// Fails when too many wait already, or it is not its turn before `deadline`.
    pub async fn turn(
        &self,
        tenant: Option<&Tenant>,
        deadline: Instant,
    ) -> Result<Turn, Rejection> {
        let shared = &self.0;
        let line = tenant.cloned();
        let limits = shared.limits;
        let waiting = {
            let mut state = locked(&shared.state);
            let busy = state.lines.get(&line).map_or(0, |it| it.running);
            if state.running < limits.total && busy < limits.per_tenant {
                return Ok(shared.begin(&mut state, line));
            }
            if state.waiting >= limits.waiting {
                drop(state);
                return Err(Rejection::unavailable(match busy < limits.per_tenant {
                    true => format!("{} queries are under way already", limits.total),
                    false => format!("{busy} queries of the tenant are under way already"),
                }));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting += 1;
            let queue = &mut state.lines.entry(line.clone()).or_default().queue;
            let first = queue.is_empty();
            queue.push_back(sender);
            if first {
                state.order.push_back(line.clone());
            }
            receiver
        };
        let mut waiter = Waiter {
            shared: shared.clone(),
            line,
            receiver: waiting,
        };
        match timeout_at(deadline, &mut waiter.receiver).await {
            // Heard already: leaving the line finds nothing to pass on.
            Ok(Ok(())) => Ok(waiter.begins()),
            Ok(Err(_)) => Err(Rejection::unavailable("the query's turn never came")),
            Err(_) => {
                let reason = "too many queries are under way: it was not this one's turn in time";
                Err(Rejection::new(RejectionKind::TimedOut, reason))
            }
        }
    }

    /// How many run, and how many wait.
    #[cfg(test)]
    fn standing(&self) -> (usize, usize) {
        let state = locked(&self.0.state);
        (state.running, state.waiting)
    }
}

impl Shared {
    fn begin(self: &Arc<Self>, state: &mut State, line: Line) -> Turn {
        state.begin(&line);
        Turn {
            shared: self.clone(),
            line,
        }
    }

    /// Ends a turn, and lets those begin whose turn it is then.
    fn end(&self, line: &Line) {
        let mut state = locked(&self.state);
        state.end(line);
        while let Some((line, sender)) = state.next(&self.limits) {
            state.begin(&line);
            if sender.send(()).is_err() {
                // It has been given up since.
                state.end(&line);
            }
        }
    }
}

impl State {
    fn begin(&mut self, line: &Line) {
        self.running += 1;
        self.lines.entry(line.clone()).or_default().running += 1;
    }

    fn end(&mut self, line: &Line) {
        self.running -= 1;
        if let Some(known) = self.lines.get_mut(line) {
            known.running -= 1;
        }
        self.tidy(line);
    }

    /// Forgets a tenant of which nothing runs and nothing waits.
    fn tidy(&mut self, line: &Line) {
        let idle = |it: &Waiting| it.running == 0 && it.queue.is_empty();
        if self.lines.get(line).is_some_and(idle) {
            self.lines.remove(line);
        }
    }

    /// Takes whose turn it is from its line; none as long as nobody may begin.
    fn next(&mut self, limits: &TurnLimits) -> Option<(Line, oneshot::Sender<()>)> {
        if self.running >= limits.total {
            return None;
        }
        let lines = &self.lines;
        let may = |line: &Line| {
            lines
                .get(line)
                .is_some_and(|it| it.running < limits.per_tenant)
        };
        let at = self.order.iter().position(may)?;
        let line = self.order.remove(at)?;
        let queue = &mut self.lines.get_mut(&line)?.queue;
        let sender = queue.pop_front()?;
        // Behind the others, if more of it wait.
        if !queue.is_empty() {
            self.order.push_back(line.clone());
        }
        self.waiting -= 1;
        Some((line, sender))
    }
}

/// Somebody in a line.
struct Waiter {
    shared: Arc<Shared>,
    line: Line,
    receiver: oneshot::Receiver<()>,
}

impl Waiter {
    /// It is its turn.
    fn begins(self) -> Turn {
        Turn {
            shared: self.shared.clone(),
            line: self.line.clone(),
        }
    }
}

impl Drop for Waiter {
    /// Leaves the line, or passes a turn on that came at the last moment.
    fn drop(&mut self) {
        self.receiver.close();
        if self.receiver.try_recv().is_ok() {
            self.shared.end(&self.line);
            return;
        }
        let mut state = locked(&self.shared.state);
        let Some(known) = state.lines.get_mut(&self.line) else {
            return;
        };
        let before = known.queue.len();
        known.queue.retain(|sender| !sender.is_closed());
        let (left, empty) = (before - known.queue.len(), known.queue.is_empty());
        state.waiting -= left;
        if empty {
            let line = &self.line;
            state.order.retain(|it| it != line);
        }
        state.tidy(&self.line);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.end(&self.line);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    fn turns(total: usize, per_tenant: usize, waiting: usize) -> Turns {
        Turns::new(TurnLimits {
            total,
            per_tenant,
            waiting,
        })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn tenant(name: &str) -> Tenant {
        name.into()
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_however_many_queries_one_of_them_has() {
        let turns = turns(1, 1, 100);
        let running = turns.turn(Some(&tenant("a")), soon()).await.unwrap();
        let order = Mutex::new(Vec::new());
        let query = async |name: &str| {
            let turn = turns.turn(Some(&tenant(name)), soon()).await.unwrap();
            locked(&order).push(name.to_owned());
            drop(turn);
        };
        let many = async {
            tokio::join!(
                query("a"),
                query("a"),
                query("a"),
                query("b"),
                query("c"),
                query("b")
            );
        };
        let start = async {
            while turns.standing() != (1, 6) {
                tokio::task::yield_now().await;
            }
            drop(running);
        };
        tokio::join!(many, start);
        assert_eq!(order.into_inner().unwrap(), ["a", "b", "c", "a", "b", "a"]);
        assert_eq!(turns.standing(), (0, 0));
        assert!(locked(&turns.0.state).lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_at_its_limit_waits_while_others_go_on() {
        let turns = turns(10, 2, 1);
        let a = tenant("a");
        let first = turns.turn(Some(&a), soon()).await.unwrap();
        let _second = turns.turn(Some(&a), soon()).await.unwrap();
        let _other = turns.turn(None, soon()).await.unwrap();
        let mut third = pin!(turns.turn(Some(&a), soon()));
        assert!(timeout_at(Instant::now(), &mut third).await.is_err());
        let fourth = turns.turn(Some(&a), soon()).await.unwrap_err();
        assert_eq!(fourth.kind, RejectionKind::Unavailable);
        assert_eq!(
            fourth.reason,
            "2 queries of the tenant are under way already"
        );
        drop(first);
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_the_line_makes_room_and_takes_no_turn() {
        let turns = turns(1, 1, 1);
        let a = tenant("a");
        let running = turns.turn(Some(&a), soon()).await.unwrap();
        {
            let mut gone = pin!(turns.turn(Some(&a), soon()));
            assert!(timeout_at(Instant::now(), &mut gone).await.is_err());
            assert_eq!(turns.standing(), (1, 1));
        }
        assert_eq!(turns.standing(), (1, 0));
        let late = turns
            .turn(Some(&a), Instant::now() + Duration::from_secs(1))
            .await;
        assert_eq!(late.unwrap_err().kind, RejectionKind::TimedOut);
        // Its turn comes, and nobody takes it.
        {
            let mut gone = pin!(turns.turn(Some(&a), soon()));
            assert!(timeout_at(Instant::now(), &mut gone).await.is_err());
            drop(running);
        }
        assert_eq!(turns.standing(), (0, 0));
        turns.turn(Some(&a), soon()).await.unwrap();
    }
}
