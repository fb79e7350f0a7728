//! Restarts with a backlog of any size, in any mixture of lanes.

use metrifold_queue::disk::{Append, DiskQueue};

use super::*;

fn random(state: &mut u64, bound: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % bound
}

/// Leaves a backlog: first of one lane, then of all.
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
            accepted_at: 1,
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

async fn restart(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let mut state = seed;
    let mut next = BTreeMap::new();
    let mut delivered: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    leave(folder.path(), &mut next, &mut state).await;
    for round in 0..4 {
        let edge = open(folder.path(), &telemetry);
        let mut under_way = Vec::new();
        let all = round == 3;
        let mut left = if all {
            u64::MAX
        } else {
            random(&mut state, 300)
        };
        while left > 0 {
            left -= 1;
            if left < u64::MAX - 100 || !all {
                let sender = random(&mut state, 4) as u8;
                let number = next.entry(sender).or_default();
                if random(&mut state, 2) == 0 && edge.push(batch(sender, *number), None).is_none() {
                    *number += 1;
                }
            }
            let quiet = Duration::from_millis(if all { 500 } else { 2 });
            if under_way.len() < 3 {
                match timeout(quiet, Input(edge.clone()).recv_run(100)).await {
                    Ok(Some(run)) => under_way.push(run),
                    _ if all && under_way.is_empty() => break,
                    _ => {}
                }
            }
            if under_way.is_empty() {
                continue;
            }
            let place = random(&mut state, under_way.len() as u64) as usize;
            match under_way[place].take_first() {
                Some(mut delivery) => {
                    let (sender, number) = name(&mut delivery);
                    delivered.entry(sender).or_default().push(number);
                    delivery.delivered();
                }
                None => drop(under_way.swap_remove(place)),
            }
            if all && left < u64::MAX - 150 {
                // No more pushes: what is there is delivered.
                left = u64::MAX - 1;
            }
        }
        under_way.clear();
        end(&edge, random(&mut state, 2) == 0).await;
        // What was in memory alone when the process was cut off is gone; the rest is in order.
    }
    for (sender, delivered) in &delivered {
        let mut seen = BTreeSet::new();
        let first: Vec<_> = delivered.iter().filter(|it| seen.insert(**it)).collect();
        assert!(first.is_sorted(), "seed {seed}: sender {sender}: {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_any_backlog_keeps_the_order_of_every_lane() {
    let restarts = (1..=16).map(|seed| tokio::spawn(restart(seed * 0x9e37_79b9)));
    for restart in restarts.collect::<Vec<_>>() {
        restart.await.unwrap();
    }
}
