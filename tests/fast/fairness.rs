//! Tenants that share a sink: the failures of one do not affect the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use metrifold_testing::config::OPTIONAL;
use metrifold_testing::{
    Does, Endpoint, Metrifold, Random, Reply, Seen, Sender, StopOnPanic, body, free_address, one,
    until_so,
};

use crate::in_process::Live;

/// Each tenant writes to a path of its own; the sink sends the tenant in a header.
fn config(address: SocketAddr, url: &str, keys: &str) -> String {
    format!(
        r#"
        [sources.a]
        type = "remote_write"
        address = "{address}"
        path = "/of/{{tenant}}"
        acknowledge_timeout = "2s"

        [transforms.t]
        type = "tenant"
        inputs = ["a"]
        from = [{{ path = "tenant" }}]

        [sinks.z]
        type = "remote_write"
        inputs = ["t"]
        endpoint = "{url}"
        tenant_header = "X-Tenant"
        retry = {{ min_backoff = "10ms", max_backoff = "50ms" }}
        {keys}
        "#
    )
}

/// A configuration with pauses of up to 2 s, for senders that must be answered once their batch is
/// on disk, however slow the disk is.
fn patient(address: SocketAddr, url: &str, keys: &str) -> String {
    let text = config(address, url, keys).replace("\"50ms\"", "\"2s\"");
    text.replace(
        "acknowledge_timeout = \"2s\"",
        "acknowledge_timeout = \"1m\"",
    )
}

fn data_dir(folder: &Path) -> String {
    format!("data_dir = {folder:?}\n")
}

fn of(seen: &Seen) -> &str {
    seen.header("x-tenant").unwrap()
}

fn write(sender: &mut Sender, tenant: &str, time: i64) -> u16 {
    let body = body(&[one(tenant, time)]);
    sender.post(&format!("/of/{tenant}"), &[], &body).status
}

/// An endpoint that refuses some tenants and accepts the others' requests.
fn refusing(refused: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Endpoint {
    Endpoint::new(move |seen| match refused(of(seen)) {
        Some(reply) => Does::Answer(reply),
        None => Does::from(204),
    })
}

/// Times of a tenant's samples that the endpoint has accepted.
fn taken(endpoint: &Endpoint, tenant: &str) -> Vec<i64> {
    let accepted = endpoint.accepted().into_iter();
    let own = accepted.filter(|(name, _)| name == tenant);
    own.map(|(_, time)| time).collect()
}

/// Floods a sink as one tenant while another one writes; returns the number of accepted requests of
/// the flood.
fn flooded(address: SocketAddr, others: impl FnOnce(&mut Sender)) -> usize {
    let done = AtomicBool::new(false);
    let bulk = (0..200).map(|n| {
        let mut random = Random(n as u64 + 1);
        let text: String = (0..120)
            .map(|_| (b'a' + random.below(26) as u8) as char)
            .collect();
        one("loud", n).label("text", &text)
    });
    let bulk = body(&bulk.collect::<Vec<_>>());
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4)
            .map(|_| {
                let (bulk, done) = (&bulk, &done);
                scope.spawn(move || {
                    let mut sender = Sender::new(address);
                    let mut taken = 0;
                    while !done.load(Ordering::Relaxed) {
                        let status = sender.post("/of/loud", &[], bulk).status;
                        assert!([204, 503].contains(&status), "{status}");
                        taken += usize::from(status == 204);
                    }
                    taken
                })
            })
            .collect();
        let _guard = StopOnPanic(&done);
        others(&mut Sender::new(address));
        done.store(true, Ordering::Relaxed);
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    })
}

#[test]
fn a_flood_that_is_refused_leaves_room_in_memory_for_others() {
    for reply in [
        Reply::new(429).header("Retry-After", 60),
        Reply::new(429),
        Reply::new(500),
        Reply::new(503),
    ] {
        let status = reply.status;
        let endpoint = refusing(move |tenant| (tenant == "loud").then(|| reply.clone()));
        let address = free_address();
        let keys = "queue = { max_bytes = \"256KiB\" }";
        let live = Live::start(&config(address, &endpoint.url(), keys));
        let loud = flooded(address, |sender| {
            until_so("the flood fills its share", || {
                live.metric("metrifold_queue_bytes", &["z"]) > 100.0 * 1024.0
            });
            for time in 1..=100 {
                assert_eq!(write(sender, "calm", time), 204, "beside {status}");
            }
        });
        assert_eq!(loud, 0, "a required sink has not delivered it");
        assert!(taken(&endpoint, "calm").into_iter().eq(1..=100), "{status}");
        drop(live);
    }
}

#[test]
fn an_optional_sink_drops_what_the_loudest_has_most_of() {
    let endpoint = refusing(|tenant| (tenant == "loud").then(|| Reply::new(429)));
    let address = free_address();
    let keys = format!("{OPTIONAL}\nqueue = {{ max_bytes = \"256KiB\" }}");
    let live = Live::start(&config(address, &endpoint.url(), &keys));
    let loud = flooded(address, |sender| {
        until_so("something had to go", || {
            live.metric("metrifold_component_discarded_batches_total", &["z"]) > 100.0
        });
        for time in 1..=100 {
            assert_eq!(write(sender, "calm", time), 204);
        }
        until_so("all of the calm one is there", || {
            taken(&endpoint, "calm").into_iter().eq(1..=100)
        });
    });
    assert!(loud > 100);
}

#[test]
fn a_flood_on_disk_does_not_hold_up_others_in_memory() {
    for reply in [Reply::new(429).header("Retry-After", 60), Reply::new(500)] {
        let status = reply.status;
        let endpoint = refusing(move |tenant| (tenant == "loud").then(|| reply.clone()));
        let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
        let keys = "queue = { type = \"disk\", max_bytes = \"32MiB\", memory_bytes = \"128KiB\", store_after = \"5s\" }";
        let text = data_dir(folder.path()) + &config(address, &endpoint.url(), keys);
        let live = Live::start(&text);
        let loud = flooded(address, |sender| {
            until_so("much is on disk", || {
                live.metric("metrifold_queue_disk_batches", &["z"]) > 100.0
            });
            for time in 1..=100 {
                assert_eq!(write(sender, "calm", time), 204, "beside {status}");
            }
            // The calm tenant's samples arrive at once, though much of the other tenant's was
            // queued before.
            assert!(taken(&endpoint, "calm").into_iter().eq(1..=100), "{status}");
        });
        // With everything on disk, the two take turns.
        let queued = live.metric("metrifold_queue_disk_batches", &["z"]);
        assert!(queued >= loud as f64, "{queued} of {loud}");
        let memory = live.metric("metrifold_queue_bytes", &["z"]);
        assert!(memory <= 128.0 * 1024.0, "{memory}");
        assert_eq!(live.stop(), []);
        // A restart changes nothing, and the flood ends.
        let live = Live::start(&text);
        let mut sender = Sender::new(address);
        for time in 101..=120 {
            assert_eq!(write(&mut sender, "calm", time), 204);
        }
        until_so("the calm one is heard", || {
            taken(&endpoint, "calm").into_iter().eq(1..=120)
        });
        endpoint.now(|_| 204);
        assert_eq!(live.stop(), []);
        let live = Live::start(&text);
        until_so("the flood is over", || {
            taken(&endpoint, "loud").len() == 200 * loud
        });
        assert!(
            taken(&endpoint, "calm").into_iter().eq(1..=120),
            "no more than once"
        );
        drop(live);
    }
}

#[test]
fn of_many_tenants_half_fail_and_the_others_do_not_notice() {
    const TENANTS: usize = 300;
    let fails = |tenant: &str| tenant.ends_with(['1', '3', '5', '7', '9']);
    let endpoint = refusing(move |tenant| fails(tenant).then(|| Reply::new(500)));
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let keys = "queue = { type = \"disk\", max_bytes = \"64MiB\", memory_bytes = \"64KiB\" }";
    let text = data_dir(folder.path()) + &patient(address, &endpoint.url(), keys);
    let live = Live::start(&text);
    let names: Vec<String> = (0..TENANTS).map(|n| format!("tenant-{n}")).collect();
    let mut sender = Sender::new(address);
    for time in 1..=3 {
        for name in &names {
            assert_eq!(write(&mut sender, name, time), 204);
        }
    }
    until_so("those who do well are through", || {
        endpoint.accepted().len() == 3 * TENANTS / 2
    });
    let counts = |fail: bool| {
        let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (name, time) in endpoint.accepted() {
            all.entry(name).or_default().push(time);
        }
        all.retain(|name, _| fails(name) == fail);
        assert!(all.values().all(|times| *times == [1, 2, 3]), "{all:?}");
        all.len()
    };
    assert_eq!(counts(false), TENANTS / 2);
    assert_eq!(counts(true), 0);
    assert!(live.metric("metrifold_queue_bytes", &["z"]) <= 64.0 * 1024.0);
    endpoint.now(|_| 204);
    until_so("the others are through", || {
        endpoint.accepted().len() == 3 * TENANTS
    });
    assert_eq!((counts(false), counts(true)), (TENANTS / 2, TENANTS / 2));
    assert_eq!(live.stop(), []);
}

#[test]
fn an_endpoint_that_fails_for_everybody_is_not_asked_by_everybody() {
    let endpoint = Endpoint::new(|_| 503);
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let keys = "queue = { type = \"disk\" }";
    let text = data_dir(folder.path()) + &patient(address, &endpoint.url(), keys);
    let child = Metrifold::start(&text);
    let mut sender = Sender::new(address);
    let begun = Instant::now();
    for number in 0..300 {
        let status = write(&mut sender, &format!("tenant-{number}"), 1);
        assert_eq!(status, 204);
    }
    until_so("all of it is on disk", || {
        child.metric("metrifold_queue_disk_batches", &[]) >= 300.0
    });
    let asked = endpoint.count();
    // All tenants together may be refused 50 times at once, and 50 times per second after that.
    let most = 50 + 50 * (1 + begun.elapsed().as_secs() as usize);
    assert!(asked < most, "{asked} requests of 300 tenants, of {most}");
    endpoint.now(|_| 204);
    endpoint.wait_accepted(300);
}

#[test]
fn tenants_whose_requests_are_never_answered_hold_up_nobody_else() {
    const MUTE: [&str; 4] = ["mute-1", "mute-2", "mute-3", "mute-4"];
    let endpoint = Endpoint::new(|seen| match MUTE.contains(&of(seen)) {
        true => Does::Hang(Reply::new(204)),
        false => Does::from(204),
    });
    let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
    // Attempts time out far later than the test ends, and the mute tenants take all initial
    // connections.
    let keys = "timeout = \"60s\"\nqueue = { type = \"disk\", store_after = \"0s\" }";
    let text = data_dir(folder.path()) + &config(address, &endpoint.url(), keys);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for tenant in MUTE {
        assert_eq!(write(&mut sender, tenant, 1), 204);
    }
    until_so("all connections wait", || {
        endpoint.seen().len() == MUTE.len()
    });
    for time in 1..=50 {
        assert_eq!(write(&mut sender, "calm", time), 204);
    }
    until_so("the calm one is heard", || {
        taken(&endpoint, "calm").into_iter().eq(1..=50)
    });
    until_so("only what nobody answers is left", || {
        live.metric("metrifold_queue_disk_batches", &["z"]) == MUTE.len() as f64
    });
    drop(live);
}
