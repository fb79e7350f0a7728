//! Requests that concern one tenant each, a bounded number of them at once.

use std::panic::resume_unwind;

use tokio::task::JoinSet;

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
