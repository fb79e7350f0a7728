//! The thread that writes.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};
use tokio::time::Instant;

use super::commit::{Engine, Job};
use super::{ACK_BATCH, ACK_INTERVAL, ACK_SYNC_INTERVAL, SyncPolicy};

/// What lies at least between the beginnings of two fsyncs of records: what comes meanwhile shares
/// one.
const COMMIT_INTERVAL: Duration = Duration::from_millis(2);

/// Runs until the queue is closed.
pub(super) fn run(mut engine: Engine, jobs: &Receiver<Job>, wakes: &Receiver<()>) {
    let mut batch = VecDeque::new();
    // Each is set while there is something to do, so that an idle queue sleeps.
    let (mut acks, mut ack_sync, mut sync) = (None, None, None);
    let idle = never();
    let mut committed = Instant::now();
    engine.put_aside();
    engine.tend();
    loop {
        let shared = engine.shared.clone();
        let waiting = {
            let state = shared.state();
            if state.closed {
                break;
            }
            state.acks()
        };
        if waiting >= ACK_BATCH && acks.is_none() {
            // Should it fail, the interval paces the next attempt.
            engine.flush_acks();
            acks = Some(after(ACK_INTERVAL));
        } else if waiting > 0 && acks.is_none() {
            acks = Some(after(ACK_INTERVAL));
        }
        if engine.has_unsynced_acks() && ack_sync.is_none() {
            ack_sync = Some(after(ACK_SYNC_INTERVAL));
        }
        if engine.is_unsynced() && sync.is_none() {
            // If all is to be durable from now on, what was not yet is at once.
            sync = Some(match shared.options().sync {
                SyncPolicy::Batch => after(Duration::ZERO),
                SyncPolicy::Interval(interval) => after(interval),
            });
        }
        select! {
            recv(jobs) -> job => {
                batch.extend(job);
                if shared.options().sync == SyncPolicy::Batch {
                    wait_until(committed + COMMIT_INTERVAL);
                    committed = Instant::now();
                }
                batch.extend(jobs.try_iter());
                engine.commit(&mut batch);
                if shared.state().oldest.is_none() {
                    engine.refresh_oldest();
                }
            }
            recv(wakes) -> _ => engine.tend(),
            recv(acks.as_ref().unwrap_or(&idle)) -> _ => {
                acks = None;
                engine.flush_acks();
                engine.tend();
            }
            recv(ack_sync.as_ref().unwrap_or(&idle)) -> _ => {
                ack_sync = None;
                engine.sync_acks();
            }
            recv(sync.as_ref().unwrap_or(&idle)) -> _ => {
                sync = None;
                engine.sync();
            }
        }
    }
    // Whatever was accepted before it was closed.
    batch.extend(jobs.try_iter());
    engine.commit(&mut batch);
    engine.close();
}

#[expect(clippy::disallowed_methods, reason = "the thread is the writer's own")]
fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}
