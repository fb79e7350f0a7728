//! Restarts with a backlog of any size, in any mix of lanes, of a sink whose queue may be on disk or in
//! memory from one life to the next.

use metrifold_queue::disk::{Append, DiskQueue};
use metrifold_queue::now_millis;

use super::*;

fn random(state: &mut u64, bound: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % bound
}

/// Leaves a backlog: first of one lane, then of all lanes.
async fn leave(folder: &Path, next: &mut BTreeMap<u8, u64>, state: &mut u64) {
    let config: Declared =
        toml::from_str("required = true\nqueue = { type = \"disk\", sync = \"interval\" }")
            .unwrap();
    let disk = DiskQueue::open(folder.into(), config.queue.disk(true), |_| {}).unwrap();
    let first = random(state, 300);
    for place in 0..first + random(state, 300) {
        let sender = if place < first {
            0
        } else {
            random(state, 4) as u8
        };
        let number = next.entry(sender).or_default();
        let mut batch = batch(sender, *number);
        *number += 1;
        let append = Append {
            tenant: batch.tenant().cloned().unwrap_or_default(),
            lane: lane(&batch, None).id,
            accepted_at: now_millis(),
            version: Version::V1,
            counts: None,
            checked: false,
            body: batch.body(Version::V1).unwrap(),
        };
        let complete = Box::new(|result: Result<_, _>| drop(result.unwrap()));
        disk.append(append, complete).unwrap();
    }
    tokio::task::spawn_blocking(move || disk.close())
        .await
        .unwrap();
}

/// The part of the test that one process runs.
struct Life {
    edge: Arc<Edge>,
    under_way: Vec<Run>,
}

impl Life {
    /// Sends the next batch of a random sender.
    fn push(&self, next: &mut BTreeMap<u8, u64>, state: &mut u64) {
        let sender = random(state, 4) as u8;
        let number = next.entry(sender).or_default();
        if self.edge.push(batch(sender, *number), None).is_none() {
            *number += 1;
        }
    }

    /// Receives available runs, and delivers some of them; returns false if nothing is left.
    async fn deliver(&mut self, delivered: &mut BTreeMap<u8, Vec<u64>>, state: &mut u64) -> bool {
        let quiet = if self.under_way.is_empty() { 500 } else { 1 };
        if self.under_way.len() < 3 {
            let taken = Input(self.edge.clone());
            let most = RunBound {
                weight: 100,
                turns: [1, 3][random(state, 2) as usize],
            };
            let taken = timeout(Duration::from_millis(quiet), taken.recv_run(|| most));
            self.under_way.extend(taken.await.ok().flatten());
        }
        if self.under_way.is_empty() {
            return false;
        }
        let place = random(state, self.under_way.len() as u64) as usize;
        match self.under_way[place].take_first() {
            Some(mut delivery) => {
                let (sender, number) = name(&mut delivery);
                delivered.entry(sender).or_default().push(number);
                delivery.delivered();
            }
            None => drop(self.under_way.swap_remove(place)),
        }
        true
    }
}

/// An edge whose queue is in memory, over the folder of an earlier life.
fn open_in_memory(folder: &Path, telemetry: &Telemetry) -> Arc<Edge> {
    let text = "required = true\nqueue = { type = \"memory\" }";
    edge(text, Some(folder), telemetry)
}

async fn restart(seed: u64, may_be_in_memory: bool) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let mut state = seed;
    let mut next = BTreeMap::new();
    let mut delivered = BTreeMap::new();
    leave(folder.path(), &mut next, &mut state).await;
    for life in 0..4 {
        let in_memory = may_be_in_memory && random(&mut state, 2) == 0;
        let edge = match in_memory {
            true => open_in_memory(folder.path(), &telemetry),
            false => open(folder.path(), &telemetry),
        };
        let under_way = Vec::new();
        let mut this = Life { edge, under_way };
        for _ in 0..random(&mut state, 300) {
            if random(&mut state, 2) == 0 {
                this.push(&mut next, &mut state);
            }
            this.deliver(&mut delivered, &mut state).await;
        }
        while life == 3 && this.deliver(&mut delivered, &mut state).await {}
        this.under_way.clear();
        // A crash loses the batches that were in memory alone; the others must stay in order.
        end(&this.edge, random(&mut state, 2) == 0).await;
    }
    for (sender, delivered) in &delivered {
        let mut seen = BTreeSet::new();
        let first: Vec<_> = delivered.iter().filter(|it| seen.insert(**it)).collect();
        assert!(first.is_sorted(), "seed {seed}: sender {sender}: {first:?}");
    }
}

async fn restarts(may_be_in_memory: bool) {
    let seeds = (1..=8).map(|seed| seed * 0x9e37_79b9);
    let restarts = seeds.map(|seed| tokio::spawn(restart(seed, may_be_in_memory)));
    for restart in restarts.collect::<Vec<_>>() {
        restart.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_any_backlog_keeps_the_order_of_every_lane() {
    restarts(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_that_move_the_queue_between_disk_and_memory_keep_the_order_of_every_lane() {
    restarts(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_in_memory_starts_behind_what_a_queue_on_disk_has_left_and_uses_the_disk_no_longer()
{
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let (mut next, mut delivered) = (BTreeMap::new(), BTreeMap::new());
    let mut state = 0x9e37_79b9;
    leave(folder.path(), &mut next, &mut state).await;
    let left: u64 = next.values().sum();
    let edge = open_in_memory(folder.path(), &telemetry);
    assert_eq!(edge.pipe.ledger().total.queued.batches, left);
    let under_way = Vec::new();
    let mut life = Life { edge, under_way };
    for _ in 0..100 {
        life.push(&mut next, &mut state);
    }
    while life.deliver(&mut delivered, &mut state).await {}
    life.under_way.clear();
    for (sender, numbers) in &delivered {
        let sent: Vec<_> = (0..next[sender]).collect();
        assert_eq!(*numbers, sent, "sender {sender}");
    }
    // From here on, a batch is in memory alone.
    let end_of_disk = || life.edge.pipe.spill.get().unwrap().disk().end();
    let before = end_of_disk();
    for _ in 0..100 {
        life.push(&mut next, &mut state);
    }
    assert_eq!(end_of_disk(), before);
    end(&life.edge, false).await;

    // Nothing is left, so the folder is not opened again.
    let edge = open_in_memory(folder.path(), &telemetry);
    assert_eq!(edge.folder(), None);
}
