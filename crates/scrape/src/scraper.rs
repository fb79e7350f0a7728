//! One target: when it is scraped, what is sent of it, and how its series end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use http::HeaderMap;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout_at};

use metrifold_base::{foreign, locked};
use metrifold_codec::remote_write::Limits;
use metrifold_codec::{Arena, ArenaBuilder, Batch};
use metrifold_engine::planes::metrics::{Needs, Output};
use metrifold_model::Origin;
use metrifold_telemetry::ComponentMetrics;

use crate::error::{Cause, ScrapeError};
use crate::fetch::{Ask, Fetcher, Page};
use crate::meters::PoolMeters;
use crate::page::{self, Taken, limits, put_stale};
use crate::pools::{Entry, Pools};
use crate::report::{self, Report};
use crate::schedule;
use crate::settings::SharedSettings;
use crate::state::{Health, Last, State};
use crate::target::ScrapeTarget;

/// From so many bytes on, a page takes milliseconds: the other tasks of its thread are handed to
/// another thread for that time.
const LONG_PAGE: usize = 1 << 20;
/// The most characters of an error that are kept.
const SHOWN: usize = 500;

/// What the scrapers of a pool share.
pub(crate) struct Workshop {
    pub(crate) id: Arc<str>,
    pub(crate) settings: SharedSettings,
    pub(crate) fetcher: Fetcher,
    pub(crate) out: Output,
    pub(crate) metrics: ComponentMetrics,
    pub(crate) meters: PoolMeters,
    pub(crate) pools: Arc<Pools>,
    /// There are more targets than allowed.
    pub(crate) too_many: AtomicBool,
}

/// What a scraper is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To scrape.
    Scrape,
    /// The target has gone: its series end if it does not come again.
    Leave,
    /// The source has gone: its series end now.
    EndNow,
    /// To stop, and leave what is remembered to a successor.
    HandOver,
    /// To stop.
    Stop,
}

/// What is left of a scraper.
pub(crate) enum Exit {
    HandedOver(Box<State>),
    Done,
}

pub(crate) struct Scraper {
    workshop: Arc<Workshop>,
    entry: Arc<Entry>,
    origin: Arc<Origin>,
    state: State,
}

impl Scraper {
    pub(crate) fn new(workshop: Arc<Workshop>, entry: Arc<Entry>, state: State) -> Self {
        // One lane for each target, the same after a restart.
        let order = format!("{}/{:016x}", workshop.id, entry.target().hash);
        let origin = Arc::new(Origin {
            order: Some(order.into()),
            ..Origin::internal(workshop.id.clone())
        });
        Self {
            workshop,
            entry,
            origin,
            state,
        }
    }

    /// Scrapes until it is told otherwise.
    pub(crate) async fn run(mut self, mut orders: watch::Receiver<Order>) -> Exit {
        let mut due = None;
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Scrape => {}
                Order::Leave => match self.leave(&mut orders).await {
                    true => return Exit::Done,
                    false => continue,
                },
                Order::EndNow => {
                    self.end(schedule::now()).await;
                    return Exit::Done;
                }
                Order::HandOver => return Exit::HandedOver(Box::new(self.state)),
                Order::Stop => return Exit::Done,
            }
            let target = self.entry.target();
            let now = schedule::now();
            let at = match due.take() {
                // Unless the interval has changed, or the clock.
                Some(at) if at <= now + target.interval.as_millis() as i64 => at,
                _ => schedule::next(target.hash, target.interval, now),
            };
            if at > now && !wait_until(at, &mut orders).await {
                continue;
            }
            // Boxed, since it is large and most targets wait most of the time.
            let fetched = tokio::select! {
                biased;
                fetched = Box::pin(self.fetch(&target, at)) => fetched,
                () = told(&mut orders) => {
                    // A successor scrapes at once what was not finished here.
                    due = Some(at);
                    continue;
                }
            };
            self.take(&target, at, fetched).await;
            let now = schedule::now();
            let missed = schedule::missed(at, target.interval, now);
            if missed > 0 {
                self.workshop.meters.missed.increment(missed);
            }
            let next = schedule::next(target.hash, target.interval, at.max(now));
            due = Some(next);
        }
    }

    async fn fetch(&self, target: &ScrapeTarget, at: i64) -> Fetched {
        let now = schedule::now();
        let started = Instant::now();
        let workshop = &self.workshop;
        let page = match workshop.too_many.load(Ordering::Relaxed) {
            true => {
                let limit = workshop.settings.keys.target_limit;
                let text = format!("there are more targets than target_limit = {limit}");
                Err(ScrapeError::new(Cause::Room, text))
            }
            false => {
                let ask = Ask {
                    timeout: target.timeout,
                    headers: HeaderMap::new(),
                };
                let fetched = workshop.fetcher.fetch(&workshop.settings, target, &ask);
                fetched.await
            }
        };
        Fetched {
            timestamp: schedule::timestamp(at, target.interval, now),
            started,
            page,
        }
    }

    /// Makes a batch of a page and sends it.
    async fn take(&mut self, target: &ScrapeTarget, at: i64, fetched: Fetched) {
        let length = fetched.page.as_ref().map_or(0, |page| page.text.len());
        let made = match length >= LONG_PAGE && may_block() {
            true => block_in_place(|| self.make(target, fetched)),
            false => self.make(target, fetched),
        };
        // Until the next scrape is due: then this one is dropped, so that the next is not late.
        let patience = target
            .interval
            .saturating_sub(since(at))
            .max(Duration::from_secs(1));
        let sent = self.send(made.arena, Instant::now() + patience).await;
        if !sent {
            return;
        }
        self.state.reported = true;
        match made.then {
            Then::Known(difference) => self.state.known.update(difference),
            Then::Ended => self.state.known.ended(),
        }
        if let Some(families) = made.families {
            self.state.families = Some((families, Instant::now()));
        }
    }

    fn make(&mut self, target: &ScrapeTarget, fetched: Fetched) -> Made {
        let workshop = self.workshop.clone();
        let settings = &workshop.settings;
        let Fetched {
            timestamp,
            started,
            page,
        } = fetched;
        let mut report = Report::default();
        let hasher = &workshop.pools.hasher;
        let taken = page.and_then(|page| {
            report.bytes = i64::try_from(page.text.len()).unwrap_or(i64::MAX);
            let taken = self.read(target, &page, timestamp, hasher);
            taken.map_err(|(error, counts)| {
                report.scraped = counts.scraped;
                report.kept = counts.kept;
                error
            })
        });
        match taken {
            Ok(taken) => {
                report.up = true;
                report.scraped = taken.counts.scraped;
                report.kept = taken.counts.kept;
                report.added = taken.difference.added;
                report.duration = started.elapsed();
                self.note(timestamp, &report, String::new());
                workshop.meters.good.increment(1);
                workshop
                    .meters
                    .duplicates
                    .increment(taken.counts.duplicates);
                workshop.meters.ahead.increment(taken.counts.ahead);
                let mut more = taken.stale;
                report::put(&report, settings, target, timestamp, &mut more);
                let mut arena = taken.arena;
                let families = self
                    .tells_families(taken.families)
                    .then_some(taken.families);
                if families.is_none() {
                    arena.forget_metadata();
                }
                arena.append(&more.finish());
                Made {
                    arena,
                    then: Then::Known(taken.difference),
                    families,
                }
            }
            Err(error) => {
                if error.cause == Cause::BodySize {
                    report.bytes = -1;
                }
                report.duration = started.elapsed();
                workshop.meters.failed(error.cause);
                self.note(timestamp, &report, foreign(&error.text, SHOWN));
                let mut batch = builder();
                self.state
                    .known
                    .end(|labels| put_stale(labels, timestamp, &mut batch));
                report::put(&report, settings, target, timestamp, &mut batch);
                Made {
                    arena: batch.finish(),
                    then: Then::Ended,
                    families: None,
                }
            }
        }
    }

    fn read(
        &self,
        target: &ScrapeTarget,
        page: &Page,
        timestamp: i64,
        hasher: &RandomState,
    ) -> Result<Taken, (ScrapeError, page::Counts)> {
        let settings = &self.workshop.settings;
        page::take(settings, target, page, timestamp, &self.state.known, hasher)
    }

    /// Whether what a page says of families is to be sent again.
    fn tells_families(&self, families: u64) -> bool {
        let interval = self.workshop.settings.keys.metadata_interval.0;
        let sent = self.state.families;
        !sent.is_some_and(|(sent, at)| sent == families && at.elapsed() < interval)
    }

    /// Shows what came of a scrape.
    fn note(&mut self, timestamp: i64, report: &Report, error: String) {
        let last = Last {
            health: match report.up {
                true => Health::Up,
                false => Health::Down,
            },
            error,
            at: Some(timestamp),
            duration: report.duration,
            samples: report.scraped,
        };
        *locked(&self.entry.last) = last.clone();
        self.state.last = last;
    }

    /// Sends a batch, until the deadline. What does not find room until then in the queues of required
    /// sinks is dropped and counted.
    async fn send(&self, arena: Arena, deadline: Instant) -> bool {
        let workshop = &self.workshop;
        let samples = arena.counts().all_samples();
        let batch = Batch::from_arena(arena, self.origin.clone());
        match timeout_at(deadline, workshop.out.send(batch, Needs::Check)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                workshop.metrics.error("rejected", &error);
                workshop.metrics.discarded("rejected", Some(samples));
                false
            }
            Err(_) => {
                workshop.metrics.discarded("queue_full", Some(samples));
                false
            }
        }
    }

    /// Ends all series of a target that has gone.
    async fn end(&mut self, timestamp: i64) {
        if !self.state.reported {
            return;
        }
        let target = self.entry.target();
        let mut batch = builder();
        let known = &self.state.known;
        known.end(|labels| put_stale(labels, timestamp, &mut batch));
        report::end(&self.workshop.settings, &target, timestamp, &mut batch);
        let deadline = Instant::now() + target.interval;
        if self.send(batch.finish(), deadline).await {
            self.state.known.ended();
            self.state.reported = false;
        }
    }

    /// Waits as long as Prometheus does before it ends the series of a target that has gone, since it
    /// may come again. Returns whether they have been ended.
    async fn leave(&mut self, orders: &mut watch::Receiver<Order>) -> bool {
        if !self.state.reported {
            return true;
        }
        let target = self.entry.target();
        let due = schedule::next(target.hash, target.interval, schedule::now());
        let interval = target.interval.as_millis() as i64;
        if !wait_until(due + interval + interval / 10, orders).await {
            return false;
        }
        self.end(due).await;
        true
    }
}

struct Fetched {
    timestamp: i64,
    started: Instant,
    page: Result<Page, ScrapeError>,
}

/// A batch, and what holds once it has been sent.
struct Made {
    arena: Arena,
    then: Then,
    families: Option<u64>,
}

enum Then {
    Known(crate::series::Difference),
    Ended,
}

/// For series that are not those of a page: they were there before, or are a few.
fn builder() -> ArenaBuilder {
    ArenaBuilder::new(Limits {
        decoded_bytes: usize::MAX,
        ..limits(0)
    })
}

fn since(at: i64) -> Duration {
    let passed = schedule::now().saturating_sub(at);
    Duration::from_millis(passed.try_into().unwrap_or(0))
}

/// Waits for a moment, or until there is another order: then it returns false.
async fn wait_until(at: i64, orders: &mut watch::Receiver<Order>) -> bool {
    let left = at.saturating_sub(schedule::now());
    let left = Duration::from_millis(left.try_into().unwrap_or(0));
    tokio::select! {
        biased;
        () = told(orders) => false,
        () = tokio::time::sleep(left) => true,
    }
}

/// Waits for another order. Once nobody gives any, there is none.
async fn told(orders: &mut watch::Receiver<Order>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether this thread may be taken out of its runtime's rotation: tests run on a single one.
fn may_block() -> bool {
    let runtime = Handle::try_current().map(|handle| handle.runtime_flavor());
    runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread)
}
