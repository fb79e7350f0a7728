//! Requests that concern one tenant each, a bounded number of them at once.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

use metrifold_base::locked;

/// Time after which a request no longer holds up those about other tenants.
const SOON: Duration = Duration::from_secs(2);
/// Most requests that have taken longer than that, before no more are sent.
const MAX_LATE: usize = 32;

/// Runs tasks, at most `limit` concurrently, and starts no more once `take` returns `false` for a result.
pub(crate) async fn side_by_side<T: Send + 'static>(
    limit: usize,
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    mut take: impl FnMut(T) -> bool,
) {
    let (mut tasks, mut running, mut goes_on) = (tasks.into_iter(), JoinSet::new(), true);
    loop {
        while goes_on && running.len() < limit {
            let Some(task) = tasks.next() else {
                break;
            };
            running.spawn(task);
        }
        match running.join_next().await {
            Some(Ok(result)) => goes_on &= take(result),
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            // Only an aborted task ends like this, and none is aborted.
            Some(Err(_)) => goes_on = false,
            None => return,
        }
    }
}

/// Requests about one tenant each, of which those that take long hold up no others: they give up
/// their place to the next, and their results are returned by a later call.
pub(crate) struct Requests<T> {
    late: Mutex<BTreeMap<String, JoinHandle<T>>>,
}

impl<T> Default for Requests<T> {
    fn default() -> Self {
        Self {
            late: Mutex::default(),
        }
    }
}

impl<T: Send + 'static> Requests<T> {
    /// Sends a request about each tenant, unless an earlier one is still in flight, at most `limit` of
    /// them at once. Returns the results by tenant; what is missing there takes long.
    pub(crate) async fn send<F: Future<Output = T> + Send + 'static>(
        &self,
        limit: usize,
        tenants: impl IntoIterator<Item = String>,
        request: impl Fn(&str) -> F,
    ) -> BTreeMap<String, T> {
        let mut results = BTreeMap::new();
        let mut open = Vec::new();
        for tenant in tenants {
            let earlier = locked(&self.late).remove(&tenant);
            match earlier {
                Some(task) if task.is_finished() => {
                    results.extend(result(task.await).map(|result| (tenant, result)));
                }
                Some(task) => drop(locked(&self.late).insert(tenant, task)),
                None => open.push(tenant),
            }
        }
        let tasks = open.into_iter().map(|tenant| {
            let request = request(&tenant);
            async move {
                let mut task = tokio::spawn(request);
                match timeout(SOON, &mut task).await {
                    Ok(done) => (tenant, Ok(result(done))),
                    Err(_) => (tenant, Err(task)),
                }
            }
        });
        let tasks: Vec<_> = tasks.collect();
        side_by_side(limit, tasks, |(tenant, done)| match done {
            Ok(result) => {
                results.extend(result.map(|result| (tenant, result)));
                true
            }
            Err(task) => {
                let mut late = locked(&self.late);
                late.insert(tenant, task);
                late.len() < MAX_LATE
            }
        })
        .await;
        results
    }

    /// Forgets a request whose result is out of date.
    pub(crate) fn forget(&self, tenant: &str) {
        locked(&self.late).remove(tenant);
    }
}

/// The result of a task that was not aborted.
fn result<T>(done: Result<T, JoinError>) -> Option<T> {
    match done {
        Ok(result) => Some(result),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_holds_up_no_other_and_comes_later() {
        let (requests, gate) = (Requests::default(), Arc::new(Semaphore::new(0)));
        let names = |count: usize| (0..count).map(|at| format!("t{at:03}"));
        let request = |tenant: &str| {
            let (gate, tenant) = (gate.clone(), tenant.to_owned());
            async move {
                if tenant.as_str() < "t003" {
                    drop(gate.acquire().await);
                }
                tenant
            }
        };
        let soon = requests.send(2, names(10), request).await;
        assert_eq!(soon.len(), 7);
        assert_eq!(requests.send(2, names(10), request).await.len(), 7);
        gate.add_permits(1);
        tokio::time::sleep(SOON).await;
        assert_eq!(requests.send(2, names(10), request).await.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_take_long_only_some_are_in_flight() {
        let requests = Requests::default();
        let sent = Arc::new(Mutex::new(0));
        let request = |_: &str| {
            let sent = sent.clone();
            async move {
                *locked(&sent) += 1;
                std::future::pending::<()>().await;
            }
        };
        for _ in 0..3 {
            let tenants = (0..1000).map(|at| at.to_string());
            assert!(requests.send(4, tenants, request).await.is_empty());
        }
        assert!(*locked(&sent) < MAX_LATE + 4 * 4, "{}", locked(&sent));
    }
}
