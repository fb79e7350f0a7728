//! Batches that are queued and may be sent are sent, after any interleaving of events.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use metrifold_model::Until;

use super::*;

/// An endpoint that fails at random until it is set well.
struct World {
    random: Mutex<u64>,
    well: AtomicBool,
    delivered: Mutex<BTreeSet<(u8, u64)>>,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(seed),
            well: AtomicBool::new(false),
            delivered: Mutex::default(),
        })
    }

    fn below(&self, bound: u64) -> u64 {
        let mut random = self.random.lock().unwrap();
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random % bound
    }

    fn delivered(&self) -> usize {
        self.delivered.lock().unwrap().len()
    }
}

async fn take(edge: Arc<Edge>, world: Arc<World>) {
    let input = Input(edge);
    loop {
        let most = RunBound {
            weight: [0, 1000][world.below(2) as usize],
            turns: [1, 3][world.below(2) as usize],
        };
        let Some(mut run) = input.recv_run(|| most).await else {
            return;
        };
        let hangs = world.below(10) == 0;
        let takes = if hangs { 20_000 } else { world.below(50) };
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if world.well.load(Ordering::Relaxed) || world.below(4) == 0 {
            while let Some(mut delivery) = run.take_first() {
                let name = name(&mut delivery);
                delivery.delivered();
                world.delivered.lock().unwrap().insert(name);
            }
            continue;
        }
        let pause = Duration::from_millis(1 + world.below(2000));
        let trouble = Trouble {
            everybody: world.below(3) == 0,
            tenant: (world.below(3) > 0).then(|| Instant::now() + pause),
        };
        if let Some(first) = run.leave_first() {
            first.retry(trouble);
        }
    }
}

fn settled(edge: &Edge) -> bool {
    edge.pipe.spill.get().is_none_or(|spill| spill.is_settled())
}

/// Keeps the paused clock from advancing while a batch is on its way to disk: the writer thread
/// does not run on the test's clock.
async fn hold_the_clock(edge: Arc<Edge>) {
    loop {
        match settled(&edge) {
            true => tokio::time::sleep(Duration::from_millis(5)).await,
            // The clock does not advance by itself while a blocking task runs.
            false => tokio::task::spawn_blocking(std::thread::yield_now)
                .await
                .unwrap(),
        }
    }
}

/// Sends for a while, then sets the endpoint well and waits until nothing is left.
async fn interleave(seed: u64, batches: u64, queue: &str) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let text = format!("required = true\nqueue = {queue}");
    let edge = edge(&text, Some(folder.path()), &telemetry);
    let world = World::new(seed);
    let clock = tokio::spawn(hold_the_clock(edge.clone()));
    let takers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(take(edge.clone(), world.clone())))
        .collect();
    let mut waiters = Vec::new();
    let mut queued = 0;
    for number in 0..batches {
        let (ack, waiter) = Ack::new(Until::Stored);
        let ticket = (world.below(2) == 0).then(|| ack.ticket("z".into()));
        drop(ack);
        waiters.push(waiter);
        let batch = batch(world.below(4) as u8, number);
        queued += usize::from(edge.push(batch, ticket).is_none());
        let pause = [0, 1, 30, 1500][world.below(4) as usize];
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    tokio::time::sleep(Duration::from_millis(world.below(3000))).await;
    world.well.store(true, Ordering::Relaxed);
    let mut idle = 0;
    let mut last = world.delivered();
    while world.delivered() < queued {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = world.delivered();
        idle = if now == last { idle + 1 } else { 0 };
        last = now;
        // Longer than an attempt that hangs and the pause after it.
        assert!(idle < 60, "seed {seed}: {now} of {queued}, and no more");
    }
    clock.abort();
    end(&edge, true).await;
    for taker in takers {
        taker.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_batch_alone_on_disk_is_sent_when_its_endpoint_is_well() {
    for seed in 1..20 {
        interleave(seed * 0x9e37_79b9, 1, "{ type = \"disk\" }").await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_queued_on_disk_and_may_be_sent_is_being_sent() {
    let queue = "{ type = \"disk\", memory_bytes = \"2KiB\", store_after = \"20ms\" }";
    for seed in 1..12 {
        interleave(seed * 0x9e37_79b9, 40, queue).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_queued_in_memory_and_may_be_sent_is_being_sent() {
    for seed in 1..40 {
        interleave(seed * 0x9e37_79b9, 40, "{ type = \"memory\" }").await;
    }
}

/// The receiver that was woken for the pause is busy when the pause ends.
#[tokio::test(start_paused = true)]
async fn a_pause_ends_for_who_waits_though_who_was_told_of_it_is_busy() {
    let telemetry = Telemetry::new();
    let edge = edge(
        "required = true\nqueue = { type = \"memory\" }",
        None,
        &telemetry,
    );
    let (sent, mut seen) = tokio::sync::mpsc::channel(10);
    let push = |sender, number| assert!(edge.push(batch(sender, number), None).is_none());
    // Without a tenant, an attempt fails once; with a tenant, it hangs.
    let taker = |edge: Arc<Edge>| {
        let sent = sent.clone();
        async move {
            let mut failed = false;
            while let Some(mut delivery) = Input(edge.clone()).recv().await {
                let (sender, number) = name(&mut delivery);
                if sender >= 2 {
                    std::future::pending::<()>().await;
                }
                if number == 0 && !failed && delivery.attempts() == 0 {
                    failed = true;
                    let tenant = Some(Instant::now() + Duration::from_secs(5));
                    delivery.retry(Trouble {
                        everybody: false,
                        tenant,
                    });
                    continue;
                }
                sent.send(number).await.unwrap();
                delivery.delivered();
            }
        }
    };
    let takers: Vec<_> = (0..8).map(|_| tokio::spawn(taker(edge.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    push(0, 0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The receivers that know of the pause are the last ones that were woken: they receive these
    // batches.
    for sender in 2..7 {
        push(sender, 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let got = timeout(Duration::from_secs(60), seen.recv()).await;
    assert_eq!(got, Ok(Some(0)));
    takers.iter().for_each(tokio::task::JoinHandle::abort);
}
