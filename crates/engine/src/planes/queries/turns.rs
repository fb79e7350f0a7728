//! Limits on concurrent queries, in total and for each tenant, with fair turns between tenants.
//!
//! Each tenant has a line of waiting queries, and the lines take turns: a tenant with many queries
//! delays its own and not those of others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use metrifold_base::locked;
use metrifold_model::{Rejection, RejectionKind, Tenant};

/// Limits the number of queries that run at once. A clone is a handle to the same limits.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: TurnLimits,
    state: Mutex<State>,
}

/// The most queries that run at once, and the most that wait.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Running queries in total.
    pub total: usize,
    /// Running queries of one tenant.
    pub per_tenant: usize,
    /// Waiting queries of all tenants together.
    pub waiting: usize,
}

/// The tenant of a query; queries without a tenant form a line of their own.
type Line = Option<Tenant>;

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    /// Tenants with running or waiting queries.
    lines: BTreeMap<Line, Waiting>,
    /// Lines with waiting queries, in the order of their turns.
    order: VecDeque<Line>,
}

#[derive(Debug, Default)]
struct Waiting {
    running: usize,
    queue: VecDeque<oneshot::Sender<()>>,
}

/// Permission for one query to run. Dropping it passes the turn to the next query.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    line: Line,
}

impl Turns {
    /// Limits concurrent queries to `limits`.
    pub fn new(limits: TurnLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            state: Mutex::default(),
        }))
    }

    /// Waits for the turn of a query of `tenant`.
    ///
    /// # Errors
    ///
    /// Fails when too many queries wait already, or `deadline` passes first.
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
            // The turn has been received: dropping the waiter finds none to pass on.
            Ok(Ok(())) => Ok(waiter.begins()),
            Ok(Err(_)) => Err(Rejection::unavailable("the query's turn never came")),
            Err(_) => {
                let reason = "too many queries are under way: this one has waited too long";
                Err(Rejection::new(RejectionKind::TimedOut, reason))
            }
        }
    }

    /// The number of running and of waiting queries.
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

    /// Ends a turn, and starts the queries that may run then.
    fn end(&self, line: &Line) {
        let mut state = locked(&self.state);
        state.end(line);
        while let Some((line, sender)) = state.next(&self.limits) {
            state.begin(&line);
            if sender.send(()).is_err() {
                // The query was given up in the meantime.
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

    /// Removes a tenant without running or waiting queries.
    fn tidy(&mut self, line: &Line) {
        let idle = |it: &Waiting| it.running == 0 && it.queue.is_empty();
        if self.lines.get(line).is_some_and(idle) {
            self.lines.remove(line);
        }
    }

    /// Takes the next query out of its line; `None` if no query may begin.
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
        // The line goes to the back of the order if more of its queries wait.
        if !queue.is_empty() {
            self.order.push_back(line.clone());
        }
        self.waiting -= 1;
        Some((line, sender))
    }
}

/// A query that waits in a line.
struct Waiter {
    shared: Arc<Shared>,
    line: Line,
    receiver: oneshot::Receiver<()>,
}

impl Waiter {
    /// Turns the waiter into a running query.
    fn begins(self) -> Turn {
        Turn {
            shared: self.shared.clone(),
            line: self.line.clone(),
        }
    }
}

impl Drop for Waiter {
    /// Leaves the line. A turn that arrived at the last moment is passed on.
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
        // The turn comes after the query has been dropped.
        {
            let mut gone = pin!(turns.turn(Some(&a), soon()));
            assert!(timeout_at(Instant::now(), &mut gone).await.is_err());
            drop(running);
        }
        assert_eq!(turns.standing(), (0, 0));
        turns.turn(Some(&a), soon()).await.unwrap();
    }
}
