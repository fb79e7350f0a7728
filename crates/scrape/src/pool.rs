//! A pool: it starts a scraper for each target and ends those of targets that have gone.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use metrifold_base::{BuildError, RunError, Shared, Shutdown, locked, read_file};
use metrifold_discovery::{Snapshot, Standing, Target, Targets};
use metrifold_engine::component::BuildContext;
use metrifold_engine::planes::metrics::Output;
use metrifold_http::{Client, ClientConfig, Credentials};
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use crate::fetch::Fetcher;
use crate::lanes::Lanes;
use crate::meters::PoolMeters;
use crate::particulars::Particulars;
use crate::pools::{Entry, Expected, Pools, View};
use crate::scraper::{Exit, Order, Scraper, Workshop};
use crate::settings::Settings;
use crate::shard::ShardKeys;
use crate::state::{Health, State};
use crate::target::{self, Reason, ScrapeTarget};

/// Number of idle connections kept per server: several targets may share a server, such as the
/// instances of an application behind a router.
pub const IDLE_PER_SERVER: usize = 4;

/// Bytes of a file of certificates or secrets that are compared, at most: more than one may have.
const MOST_OF_FILE: u64 = 16 << 20;

/// Origin of a pool's targets.
pub enum Inlet {
    /// A provider, whose targets change.
    Discovered(Targets),
    /// A fixed list.
    Fixed(Vec<Target>),
}

/// A pool that has been built and does not run yet.
pub struct Pool {
    id: Arc<str>,
    settings: Arc<Settings>,
    particulars: Arc<dyn Particulars>,
    client: Client,
    client_config: ClientConfig,
    /// Hash of the contents of the files that the client's keys name.
    files: u64,
    credentials: Credentials,
    inlets: Vec<Inlet>,
    pools: Arc<Pools>,
    expected: Expected,
    metrics: ComponentMetrics,
    telemetry: Telemetry,
    shared: Shared,
}

impl Pool {
    /// Builds the pool of a source: reads its certificates and secrets.
    ///
    /// # Errors
    ///
    /// Fails when a certificate or secret cannot be used.
    pub fn build(
        settings: Arc<Settings>,
        particulars: Arc<dyn Particulars>,
        inlets: Vec<Inlet>,
        cx: &BuildContext,
    ) -> Result<Self, BuildError> {
        let keys = settings.keys().client();
        let client_config = keys.client_config(IDLE_PER_SERVER);
        let pools: Arc<Pools> = cx.shared.get();
        let mut files = pools.hasher.build_hasher();
        for file in keys.files() {
            let content = read_file(file, MOST_OF_FILE).map_err(|error| error.to_string());
            content.hash(&mut files);
        }
        Ok(Self {
            files: files.finish(),
            client: Client::new(&client_config)?,
            client_config,
            credentials: keys.credentials()?,
            settings,
            particulars,
            inlets,
            expected: pools.expect(&cx.id),
            pools,
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            telemetry: cx.telemetry.clone(),
            shared: cx.shared.clone(),
        })
    }

    /// Scrapes until shutdown. Waits for a predecessor of the same name to end, and takes over its
    /// state of unchanged targets.
    ///
    /// # Errors
    ///
    /// Fails when targets cannot be relabelled, because the runtime is shutting down.
    pub async fn run(self, out: Output, mut shutdown: Shutdown) -> Result<(), RunError> {
        let slot = self.expected.slot().clone();
        let turn = slot.kept.clone().lock_owned();
        tokio::pin!(turn);
        let early = tokio::select! {
            biased;
            kept = &mut turn => Some(kept),
            () = shutdown.wait() => None,
        };
        let Self {
            expected, inlets, ..
        } = self;
        // From here on, an expected pool is a successor of this one.
        drop(expected);
        let mut kept = match early {
            Some(kept) => kept,
            None if self.shared.is_ending() || slot.has_successor() => return Ok(()),
            // The predecessor leaves its targets to this one, which ends their series.
            None => turn.await,
        };
        // The connections are reused only if no certificate has changed in its file.
        let client = match kept.client.take() {
            Some((config, files, client))
                if (&config, &files) == (&self.client_config, &self.files) =>
            {
                client
            }
            _ => self.client,
        };
        kept.client = Some((self.client_config, self.files, client.clone()));
        let workshop = Arc::new(Workshop {
            meters: PoolMeters::new(&self.telemetry, &self.id),
            fetcher: Fetcher {
                client,
                credentials: self.credentials,
            },
            lanes: Lanes::new(
                &self.id,
                self.settings.keys.batch_series,
                out,
                self.metrics.clone(),
            ),
            id: self.id,
            settings: self.settings,
            metrics: self.metrics,
            pools: self.pools,
            too_many: AtomicBool::new(false),
        });
        let mut work = Work {
            states: std::mem::take(&mut kept.states),
            workshop,
            particulars: self.particulars,
            scrapers: HashMap::new(),
            tasks: JoinSet::new(),
            stops: false,
        };
        let mut feeds: Vec<Feed> = inlets.into_iter().map(Feed::new).collect();
        let mut pulse = tokio::time::interval(PULSE);
        loop {
            if work.look(&mut feeds).await? {
                work.sync(&feeds, &mut locked(&slot.view));
                let keys = &work.workshop.settings.keys;
                let dropped = feeds.iter().flat_map(|feed| feed.dropped(keys.shard));
                let mut dropped: Vec<_> = dropped.collect();
                let mut view = locked(&slot.view);
                view.dropped_count = dropped.len();
                work.workshop.meters.dropped.set(dropped.len() as f64);
                // Always the same ones, in the same order.
                dropped.sort_by(|(a, _), (b, _)| a.iter().cmp(b.iter()));
                dropped.truncate(keys.keep_dropped_targets);
                view.dropped = dropped;
            }
            tokio::select! {
                () = changed(&mut feeds) => {}
                Some(ended) = work.tasks.join_next() => {
                    work.ended(ended, &mut locked(&slot.view));
                }
                _ = pulse.tick() => work.show(&locked(&slot.view).active),
                () = shutdown.wait() => break,
            }
        }
        let order = match () {
            () if self.shared.is_ending() => Order::Stop,
            () if slot.has_successor() => Order::HandOver,
            () => Order::EndNow,
        };
        work.stops = true;
        work.workshop.lanes.hurry();
        for scraper in work.scrapers.values() {
            scraper.send_replace(order);
        }
        while let Some(ended) = work.tasks.join_next().await {
            work.ended(ended, &mut locked(&slot.view));
        }
        if order == Order::HandOver {
            kept.states = std::mem::take(&mut work.states);
        } else {
            *locked(&slot.view) = Default::default();
        }
        Ok(())
    }
}

/// Number of panics in a row after which the state of a target counts as their cause.
const MOST_PANICS: u32 = 3;

/// Interval at which targets are counted by health.
const PULSE: std::time::Duration = std::time::Duration::from_secs(5);

/// An inlet with the targets made from it.
struct Feed {
    inlet: Inlet,
    /// The snapshot last processed. `None` before the first.
    snapshot: Option<Arc<Snapshot>>,
    /// Results by target as discovered.
    made: HashMap<Target, Made>,
    fresh: bool,
}

/// A target as discovered, with defaults, and as it is scraped.
type Made = (Target, Result<Arc<ScrapeTarget>, Reason>);

impl Feed {
    fn new(inlet: Inlet) -> Self {
        Self {
            inlet,
            snapshot: None,
            made: HashMap::new(),
            fresh: true,
        }
    }

    /// Targets that are new since the last call. Targets that have gone are removed from `made`.
    fn added(&mut self) -> Vec<Target> {
        self.fresh = false;
        match &mut self.inlet {
            Inlet::Fixed(targets) => std::mem::take(targets),
            Inlet::Discovered(targets) => {
                let snapshot = targets.snapshot();
                if snapshot.standing() == Standing::Unknown {
                    return Vec::new();
                }
                let added = match &self.snapshot {
                    None => snapshot.targets().to_vec(),
                    Some(before) => {
                        let changes = snapshot.changes_since(before);
                        for gone in &changes.removed {
                            self.made.remove(gone);
                        }
                        changes.added.clone()
                    }
                };
                self.snapshot = Some(snapshot);
                added
            }
        }
    }

    /// The targets that this process does not scrape, and why.
    fn dropped(&self, shard: Option<ShardKeys>) -> impl Iterator<Item = (Target, Reason)> {
        self.made.values().filter_map(move |(discovered, made)| {
            let reason = match (made, shard) {
                (Err(reason), _) => reason.clone(),
                (Ok(target), Some(shard)) if !shard.has(target.labels_hash) => {
                    let owner = shard.owner(target.labels_hash);
                    format!("the instance with shard.index = {owner} scrapes it")
                }
                _ => return None,
            };
            Some((discovered.clone(), reason))
        })
    }

    async fn changed(&mut self) {
        match &mut self.inlet {
            Inlet::Discovered(targets) => targets.changed().await,
            Inlet::Fixed(_) => std::future::pending().await,
        }
        self.fresh = true;
    }
}

/// Waits until one of the feeds has changed.
async fn changed(feeds: &mut [Feed]) {
    let mut waiting: Vec<_> = feeds
        .iter_mut()
        .map(|feed| Box::pin(feed.changed()))
        .collect();
    let any = std::future::poll_fn(|cx| {
        for waiting in &mut waiting {
            if waiting.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
        }
        std::task::Poll::Pending
    });
    pin!(any).await;
}

type Active = HashMap<u64, Arc<Entry>>;

/// State of a running pool.
struct Work {
    workshop: Arc<Workshop>,
    particulars: Arc<dyn Particulars>,
    /// States of targets without a scraper: left by a predecessor, or handed over by a scraper.
    states: HashMap<u64, State>,
    /// Channel of orders to each scraper, by the hash of its target.
    scrapers: HashMap<u64, watch::Sender<Order>>,
    tasks: JoinSet<(u64, Exit)>,
    /// Whether the pool is stopping, and starts no more scrapers.
    stops: bool,
}

impl Work {
    /// Makes targets from changed feeds. Returns whether any feed has changed.
    async fn look(&self, feeds: &mut [Feed]) -> Result<bool, RunError> {
        let mut changed = false;
        for (inlet, feed) in feeds.iter_mut().enumerate().filter(|(_, feed)| feed.fresh) {
            changed = true;
            let added = feed.added();
            let (settings, particulars) =
                (self.workshop.settings.clone(), self.particulars.clone());
            // Off the workers: relabelling many targets takes a while.
            let made = tokio::task::spawn_blocking(move || {
                let made = target::make(&settings, &*particulars, &added, inlet);
                added.into_iter().zip(made).collect::<Vec<_>>()
            });
            let made = made.await.map_err(|error| RunError(error.to_string()))?;
            feed.made.extend(made);
        }
        Ok(changed)
    }

    /// Starts scrapers for new targets, and orders those of targets that have gone to leave.
    fn sync(&mut self, feeds: &[Feed], view: &mut View) {
        let View {
            active,
            leaving,
            heirs,
            ..
        } = view;
        let shard = self.workshop.settings.keys.shard;
        let made = feeds.iter().flat_map(|feed| feed.made.values());
        let made = made.filter_map(|(_, made)| made.as_ref().ok());
        let wanted: HashMap<u64, Arc<ScrapeTarget>> = made
            .filter(|target| shard.is_none_or(|shard| shard.has(target.labels_hash)))
            .map(|target| (target.hash, target.clone()))
            .collect();
        let limit = self.workshop.settings.keys.target_limit;
        let too_many = limit > 0 && wanted.len() > limit;
        let flag = &self.workshop.too_many;
        if flag.swap(too_many, std::sync::atomic::Ordering::Relaxed) != too_many && too_many {
            warn!(pool = %self.workshop.id, targets = wanted.len(), limit, "there are more targets than target_limit: none is scraped");
        }
        let before = active.len();
        for (hash, orders) in &self.scrapers {
            if !wanted.contains_key(hash) {
                leaving.extend(active.remove_entry(hash));
                orders.send_if_modified(|order| {
                    let stays = *order != Order::Leave;
                    *order = Order::Leave;
                    stays
                });
            }
        }
        for (hash, target) in wanted {
            match (self.scrapers.get(&hash), active.get(&hash)) {
                (Some(orders), Some(entry)) => {
                    let old = std::mem::replace(&mut *locked(&entry.target), target.clone());
                    if old.interval != target.interval {
                        orders.send_replace(Order::Scrape);
                    }
                }
                // Its scraper is leaving: the next one takes over the state once that has handed it
                // over.
                (Some(orders), None) => {
                    orders.send_replace(Order::HandOver);
                    leaving.remove(&hash);
                    let entry = Arc::new(Entry::new(target, Default::default()));
                    active.insert(hash, entry);
                }
                (None, known) => {
                    let state = self.states.remove(&hash).unwrap_or_default();
                    leaving.remove(&hash);
                    let last = state.last.clone();
                    let entry = match known {
                        // The entry of a predecessor, or of a target that was leaving.
                        Some(entry) => entry.clone(),
                        None => Arc::new(Entry::new(target.clone(), last)),
                    };
                    *locked(&entry.target) = target;
                    active.insert(hash, entry.clone());
                    self.start(hash, entry, state, Order::Scrape);
                }
            }
        }
        // Targets that only a predecessor had are leaving, too: their series get staleness markers.
        leaving.extend(active.extract_if(|hash, _| !self.scrapers.contains_key(hash)));
        let gone = leaving.extract_if(|hash, _| !self.scrapers.contains_key(hash));
        let gone: Vec<_> = gone.collect();
        for (hash, entry) in gone {
            if let Some(state) = self.states.remove(&hash) {
                leaving.insert(hash, entry.clone());
                self.start(hash, entry, state, Order::Leave);
            }
        }
        self.states.clear();
        let labels: HashSet<u64> = leaving.values().map(|entry| entry.labels).collect();
        heirs.clear();
        for entry in active.values().filter(|it| labels.contains(&it.labels)) {
            heirs.entry(entry.labels).or_default().push(entry.clone());
        }
        if active.len() != before {
            info!(pool = %self.workshop.id, targets = active.len(), "targets have changed");
        }
        self.show(active);
    }

    fn start(&mut self, hash: u64, entry: Arc<Entry>, state: State, order: Order) {
        let (orders, told) = watch::channel(order);
        let scraper = Scraper::new(self.workshop.clone(), entry, state);
        self.scrapers.insert(hash, orders);
        self.tasks
            .spawn(async move { (hash, scraper.run(told).await) });
    }

    /// Takes back the state of a scraper that has ended, and starts another if the target has
    /// returned, or the scraper panicked.
    fn ended(&mut self, ended: Result<(u64, Exit), JoinError>, view: &mut View) {
        let View {
            active, leaving, ..
        } = view;
        // Scrapers catch their panics: an error means that the runtime shuts down.
        let Ok((hash, exit)) = ended else {
            return;
        };
        let order = self.scrapers.remove(&hash).map(|orders| *orders.borrow());
        let state = match exit {
            Exit::HandedOver(state) => *state,
            Exit::Panicked(state) => self.recovered(*state),
            Exit::Done => State::default(),
        };
        match (order, active.get(&hash).cloned()) {
            // One that scrapes ends only by a panic.
            (Some(Order::HandOver | Order::Scrape), Some(entry)) if !self.stops => {
                *locked(&entry.last) = state.last.clone();
                self.start(hash, entry, state, Order::Scrape);
            }
            (Some(Order::HandOver), _) => {
                self.states.insert(hash, state);
            }
            // It handed the state over just before the target left again, or the source ended.
            (Some(order @ (Order::Leave | Order::EndNow)), entry) if state.reported => {
                if let Some(entry) = entry.or_else(|| leaving.get(&hash).cloned()) {
                    self.start(hash, entry, state, order);
                }
            }
            _ => {
                leaving.remove(&hash);
            }
        }
    }

    /// The state with which a scraper goes on where another has panicked: the same, unless several
    /// have panicked over it.
    fn recovered(&self, mut state: State) -> State {
        self.workshop
            .metrics
            .error("panicked", "a scraper has panicked: it is started again");
        state.panics += 1;
        match state.panics > MOST_PANICS {
            true => State::default(),
            false => state,
        }
    }

    /// Counts targets by health, for the gauges.
    fn show(&self, active: &Active) {
        let mut counts = [0u32; 3];
        for entry in active.values() {
            let place = match locked(&entry.last).health {
                Health::Unknown => 0,
                Health::Up => 1,
                Health::Down => 2,
            };
            counts[place] += 1;
        }
        for (gauge, count) in self.workshop.meters.targets.iter().zip(counts) {
            gauge.set(f64::from(count));
        }
    }
}
