//! The writer thread.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};
use tokio::time::Instant;

use super::commit::{Engine, Job};
use super::{ACK_BATCH, ACK_INTERVAL, ACK_SYNC_INTERVAL, SyncPolicy};

/// Minimum time between the beginnings of two fsyncs of records: records that arrive meanwhile
/// share one.
const COMMIT_INTERVAL: Duration = Duration::from_millis(2);

/// Interval at which a queue that holds records looks for its directory. Otherwise, nobody would
/// know that acknowledged records are gone before the next one comes.
const LOOK_INTERVAL: Duration = match cfg!(test) {
    true => Duration::from_millis(50),
    false => Duration::from_secs(10),
};

/// Runs until the queue is closed.
pub(super) fn run(mut engine: Engine, jobs: &Receiver<Job>, wakes: &Receiver<()>) {
    let mut batch = VecDeque::new();
    // Each timer is set only while it has work, so that an idle queue sleeps.
    let (mut acks, mut ack_sync, mut sync, mut look) = (None, None, None, None);
    let idle = never();
    let mut committed = Instant::now();
    engine.put_aside();
    engine.tend();
    loop {
        let shared = engine.shared.clone();
        let (waiting, holds) = {
            let state = shared.state();
            if state.closed {
                break;
            }
            (state.acks(), state.oldest.is_some())
        };
        if holds && look.is_none() {
            look = Some(after(LOOK_INTERVAL));
        }
        if waiting >= ACK_BATCH && acks.is_none() {
            // If this fails, the interval paces the next attempt.
            engine.flush_acks();
            acks = Some(after(ACK_INTERVAL));
        } else if waiting > 0 && acks.is_none() {
            acks = Some(after(ACK_INTERVAL));
        }
        if engine.has_unsynced_acks() && ack_sync.is_none() {
            ack_sync = Some(after(ACK_SYNC_INTERVAL));
        }
        if engine.is_unsynced() && sync.is_none() {
            // If the policy has changed to `Batch`, older records become durable at once.
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
            recv(look.as_ref().unwrap_or(&idle)) -> _ => {
                look = None;
                engine.look();
            }
        }
    }
    // Appends that were accepted before the queue was closed.
    batch.extend(jobs.try_iter());
    engine.commit(&mut batch);
    engine.close();
}

#[expect(clippy::disallowed_methods, reason = "the thread is the writer's own")]
fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}
