//! Restarts with a backlog of any size, in any mix of lanes.

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
            let taken = timeout(Duration::from_millis(quiet), taken.recv_run(100));
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

async fn restart(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let mut state = seed;
    let mut next = BTreeMap::new();
    let mut delivered = BTreeMap::new();
    leave(folder.path(), &mut next, &mut state).await;
    for life in 0..4 {
        let mut this = Life {
            edge: open(folder.path(), &telemetry),
            under_way: Vec::new(),
        };
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

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_any_backlog_keeps_the_order_of_every_lane() {
    let restarts = (1..=8).map(|seed| tokio::spawn(restart(seed * 0x9e37_79b9)));
    for restart in restarts.collect::<Vec<_>>() {
        restart.await.unwrap();
    }
}
