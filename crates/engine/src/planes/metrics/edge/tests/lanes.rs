//! Lanes: which batches share one, and how a queue of format version 1 is read.

use metrifold_queue::disk::{Append, DiskQueue};
use metrifold_queue::now_millis;

use super::*;

/// A batch of a source without senders, whose key orders its batches.
fn scraped(key: Option<&str>, number: u64) -> Batch {
    let origin = Origin {
        order: key.map(Arc::from),
        // The edge forgets the request's parameters, so the batch has some.
        params: vec![("a".into(), "b".into())],
        ..Origin::internal("a".into())
    };
    let body = Bytes::copy_from_slice(&number.to_le_bytes());
    let mut batch = Batch::from_body(Version::V1, body, Limits::default(), Arc::new(origin));
    batch.forget_request();
    batch
}

async fn take_all(edge: &Arc<Edge>) -> Vec<Delivery> {
    let mut taken = Vec::new();
    let quiet = Duration::from_millis(100);
    while let Ok(Some(delivery)) = timeout(quiet, Input(edge.clone()).recv()).await {
        taken.push(delivery);
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn batches_of_many_keys_are_under_way_at_once_and_those_of_one_key_are_not() {
    let telemetry = Telemetry::new();
    let edge = edge(
        "required = false\nqueue = { type = \"memory\" }",
        None,
        &telemetry,
    );
    for number in 0..3000 {
        let key = format!("http://10.0.0.{number}/metrics");
        assert!(edge.push(scraped(Some(&key), number), None).is_none());
        assert!(edge.push(scraped(Some(&key), number), None).is_none());
    }
    let taken = take_all(&edge).await;
    assert_eq!(taken.len(), 3000);
    taken.into_iter().for_each(Delivery::delivered);
    assert_eq!(take_all(&edge).await.len(), 3000);
    // Without keys, all batches of a source share one lane.
    for number in 0..10 {
        assert!(edge.push(scraped(None, number), None).is_none());
    }
    assert_eq!(take_all(&edge).await.len(), 1);
}

/// Marks the segments as written by a version that knows only format 1.
fn age(folder: &Path) {
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if path
            .extension()
            .is_some_and(|it| it == "log" || it == "ack")
        {
            bytes[4..8].copy_from_slice(&1_u32.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..28]);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

/// Leaves a queue with these batches, whose lanes come from a hash that no current version
/// computes.
fn leave_old(folder: &Path, batches: impl Iterator<Item = Batch>) {
    let config: Declared = toml::from_str("required = true\nqueue = { type = \"disk\" }").unwrap();
    let disk = DiskQueue::open(folder.into(), config.queue.disk(true), |_| {}).unwrap();
    for mut batch in batches {
        let peer = batch.origin().peer;
        let append = Append {
            tenant: batch.tenant().cloned().unwrap_or_default(),
            lane: lane(&batch, None)
                .id
                .wrapping_add(1 + u64::from(peer.is_none())),
            accepted_at: now_millis(),
            version: Version::V1,
            counts: None,
            checked: false,
            body: batch.body(Version::V1).unwrap(),
        };
        disk.append(append, Box::new(|result| drop(result.unwrap())))
            .unwrap();
    }
    disk.close();
    drop(disk);
    age(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_left_on_disk_is_not_overtaken() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    // Two senders of one tenant, and one without a tenant.
    let old = (0..20).flat_map(|number| [batch(2, number), batch(3, number), batch(0, number)]);
    leave_old(folder.path(), old);
    let edge = open(folder.path(), &telemetry);
    let mut next = BTreeMap::from([(0, 0), (2, 0), (3, 0)]);
    let mut sent = 20;
    let mut delivered = 0;
    while delivered < 3 * 40 {
        for lane in [2, 3, 0] {
            if sent < 40 {
                assert!(edge.push(batch(lane, sent), None).is_none());
            }
        }
        sent += 1;
        // One receiver for each batch that can be received.
        for mut delivery in take_all(&edge).await {
            let (lane, number) = name(&mut delivery);
            assert_eq!(next[&lane], number, "lane {lane}");
            next.insert(lane, number + 1);
            delivered += 1;
            delivery.delivered();
        }
    }
    end(&edge, true).await;
}
