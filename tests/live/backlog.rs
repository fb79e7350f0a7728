//! A restart with a backlog larger than every internal limit, while senders go on: every lane keeps
//! its order, and an endpoint that refuses out-of-order samples refuses none.
//!
//! `METRIFOLD_BACKLOG` sets the number of batches.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use metrifold_model::{Counts, Version};
use metrifold_queue::disk::{Append, DiskQueue, Options, Refused, SyncPolicy};
use metrifold_queue::{OrderedBy, now_millis};
use metrifold_testing::{Deadline, Endpoint, Metrifold, PATIENCE, Seen, Sender, body, expect, one};

/// More than are listed at once (4,096), and more than a request merges (1,024).
const BATCHES: usize = 30_000;
const TENANTS: [&str; 3] = ["t0", "t1", "t2"];
/// Batches of each tenant but the first, and of each tenant after the restart.
const FEW: i64 = 300;

/// Stores a batch of a local sender.
fn store(queue: &DiskQueue, tenant: &str, time: i64) {
    let mut append = Append {
        tenant: tenant.into(),
        lane: OrderedBy::Peer("127.0.0.1".parse().unwrap()).lane_id(Some(tenant)),
        accepted_at: now_millis(),
        version: Version::V1,
        counts: Some(Counts {
            series: 1,
            samples: 1,
            ..Counts::default()
        }),
        checked: false,
        body: Bytes::from(body(&[one(tenant, time)])),
    };
    let mut complete: Box<dyn FnOnce(Result<_, _>) + Send> =
        Box::new(|result: Result<_, _>| drop(result.unwrap()));
    loop {
        match queue.append(append, complete) {
            Ok(()) => return,
            Err(Refused::Busy(back, again)) => {
                (append, complete) = (back, again);
                std::thread::yield_now();
            }
            Err(refused) => panic!("{refused}"),
        }
    }
}

/// Writes the backlog of an earlier process. Returns the last time of each tenant.
fn leave(folder: &Path, batches: usize) -> HashMap<&'static str, i64> {
    let options = Options {
        max_bytes: 2 << 30,
        max_age: None,
        drop_oldest: false,
        sync: SyncPolicy::Interval(Duration::from_secs(1)),
    };
    let queue = DiskQueue::open(folder.to_path_buf(), options, |_| {}).unwrap();
    let of_first = batches as i64 - 2 * FEW;
    for time in 1..=of_first {
        store(&queue, TENANTS[0], time);
    }
    for time in 1..=FEW {
        store(&queue, TENANTS[1], time);
        store(&queue, TENANTS[2], time);
    }
    queue.close();
    [of_first, FEW, FEW]
        .iter()
        .zip(TENANTS)
        .map(|(last, tenant)| (tenant, *last))
        .collect()
}

#[test]
fn a_restart_with_a_backlog_larger_than_every_limit_keeps_the_order_of_every_lane() {
    let batches = std::env::var("METRIFOLD_BACKLOG");
    let batches = batches.map_or(BATCHES, |it| it.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut last = leave(&folder.path().join("queues/z"), batches);
    let newest: Mutex<HashMap<String, i64>> = Mutex::default();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let endpoint = Endpoint::new(move |seen: &Seen| {
        let mut newest = newest.lock().unwrap();
        let mut status = 204;
        for series in seen.series() {
            let newest = newest.entry(series.name().to_owned()).or_default();
            for time in series.times() {
                // As Prometheus: an older timestamp than the newest is refused, an equal one is
                // not.
                match time >= *newest {
                    true => *newest = time,
                    false => status = 400,
                }
            }
        }
        if status == 204 {
            counted.fetch_add(seen.series().len(), Ordering::SeqCst);
        }
        status
    });
    let text = format!(
        "data_dir = {:?}\n[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         path = \"/w/{{tenant}}\"\n[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"a\"]\n\
         from = [{{ path = \"tenant\" }}]\n\
         [sinks.z]\ntype = \"remote_write\"\ninputs = [\"tenant\"]\nendpoint = \"{}\"\n\
         queue = {{ type = \"disk\", max_bytes = \"2GiB\" }}\n",
        folder.path(),
        endpoint.url()
    );
    let began = Instant::now();
    let child = Metrifold::start(&text);
    let served = began.elapsed();
    let mut sender = Sender::new(child.ingest);
    for _ in 0..FEW {
        for tenant in TENANTS {
            let time = last[tenant] + 1;
            let body = body(&[one(tenant, time)]);
            expect(&sender.post(&format!("/w/{tenant}"), &[], &body), 204);
            last.insert(tenant, time);
        }
    }
    let total = batches + TENANTS.len() * FEW as usize;
    let patience = PATIENCE + Duration::from_millis(batches as u64);
    let deadline = Deadline::within(patience, "all of it is delivered");
    while taken.load(Ordering::SeqCst) < total
        || child.metric("metrifold_queue_disk_batches", &[]) > 0.0
    {
        deadline.pause();
    }
    let drained = began.elapsed();
    let seen = endpoint.seen();
    let refused = seen.iter().filter(|seen| !seen.accepted).count();
    assert_eq!(refused, 0, "of {} requests", seen.len());
    let mut arrived: HashMap<String, i64> = HashMap::new();
    for (tenant, time) in endpoint.accepted() {
        let arrived = arrived.entry(tenant.clone()).or_default();
        assert_eq!(time, *arrived + 1, "{tenant} is out of order");
        *arrived = time;
    }
    for tenant in TENANTS {
        assert_eq!(arrived[tenant], last[tenant]);
    }
    eprintln!(
        "{batches} batches: served after {served:?}, delivered after {drained:?} in {} requests",
        seen.len()
    );
}
