//! The scraper of one target: its schedule, its batches, and the end of its series.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use metrifold_base::{foreign, locked};
use metrifold_codec::ArenaBuilder;
use metrifold_codec::remote_write::Limits;
use metrifold_telemetry::ComponentMetrics;

use crate::blocking::{LONG_PAGE, blocking};
use crate::error::{Cause, ScrapeError};
use crate::fetch::{Ask, Fetcher, Page};
use crate::lanes::{Lanes, Piece, Sent};
use crate::meters::PoolMeters;
use crate::page::{self, Content, Times, limits, put_stale};
use crate::pools::{Entry, Pools};
use crate::report::{self, Report};
use crate::schedule;
use crate::series::SeriesId;
use crate::settings::SharedSettings;
use crate::state::{Health, Last, State};
use crate::target::ScrapeTarget;

/// How long the staleness markers of a source that has gone wait for room, at most: a reload waits for
/// them.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// The most characters of an error that are kept.
const SHOWN: usize = 500;

/// State that the scrapers of a pool share.
pub(crate) struct Workshop {
    pub(crate) id: Arc<str>,
    pub(crate) settings: SharedSettings,
    pub(crate) fetcher: Fetcher,
    pub(crate) lanes: Lanes,
    pub(crate) metrics: ComponentMetrics,
    pub(crate) meters: PoolMeters,
    pub(crate) pools: Arc<Pools>,
    /// Whether the pool has more targets than `target_limit`: then every scrape fails.
    pub(crate) too_many: AtomicBool,
}

/// Orders to a scraper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Scrape the target.
    Scrape,
    /// The target has gone: end its series unless it returns.
    Leave,
    /// The source has gone: end the target's series now.
    EndNow,
    /// Stop, and hand the state over to a successor.
    HandOver,
    /// Stop.
    Stop,
}

/// End of a scraper.
pub(crate) enum Exit {
    HandedOver(Box<State>),
    Panicked(Box<State>),
    Done,
}

/// End that an order has asked for.
enum End {
    HandsOver,
    Done,
}

pub(crate) struct Scraper {
    workshop: Arc<Workshop>,
    entry: Arc<Entry>,
    state: State,
}

impl Scraper {
    pub(crate) fn new(workshop: Arc<Workshop>, entry: Arc<Entry>, state: State) -> Self {
        if state.reported {
            *locked(&entry.series) = Some(state.known.ids());
        }
        Self {
            workshop,
            entry,
            state,
        }
    }

    /// Scrapes until an order ends it. A panic ends it as well, and leaves the state: its series still
    /// need their staleness markers.
    pub(crate) async fn run(mut self, mut orders: watch::Receiver<Order>) -> Exit {
        let ended = {
            let mut scraping = pin!(self.scrape(&mut orders));
            poll_fn(|cx| {
                let poll = catch_unwind(AssertUnwindSafe(|| scraping.as_mut().poll(cx)));
                poll.map_or(Poll::Ready(None), |poll| poll.map(Some))
            })
            .await
        };
        match ended {
            Some(End::Done) => Exit::Done,
            Some(End::HandsOver) => Exit::HandedOver(Box::new(self.state)),
            None => Exit::Panicked(Box::new(self.state)),
        }
    }

    async fn scrape(&mut self, orders: &mut watch::Receiver<Order>) -> End {
        let mut due = self.state.unfinished.take();
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Scrape => self.state.ends_at = None,
                Order::Leave => match self.leave(orders).await {
                    true => return End::Done,
                    false => continue,
                },
                Order::EndNow => {
                    let patience = self.entry.target().interval.min(LAST_PATIENCE);
                    Box::pin(self.end(schedule::now(), &[], patience)).await;
                    return End::Done;
                }
                Order::HandOver => {
                    self.state.unfinished = due;
                    return End::HandsOver;
                }
                Order::Stop => return End::Done,
            }
            let target = self.entry.target();
            let now = schedule::now();
            let at = match due.take() {
                // Recomputed if the interval or the clock has changed.
                Some(at) if at <= now + target.interval.as_millis() as i64 => at,
                _ => schedule::next(target.hash, target.interval, now),
            };
            if at > now && !wait_until(at, orders).await {
                continue;
            }
            // Boxed, as below: the futures are large, and most targets are waiting most of the time.
            let fetched = tokio::select! {
                biased;
                fetched = Box::pin(self.fetch(&target, at)) => fetched,
                () = told(orders) => {
                    // The scrape is repeated at once, by a successor if the order is to hand over.
                    due = Some(at);
                    continue;
                }
            };
            Box::pin(self.take(&target, at, fetched)).await;
            let now = schedule::now();
            let (next, missed) = schedule::following(target.hash, target.interval, at, now);
            self.workshop.meters.missed.increment(missed);
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
            arrived: schedule::now(),
        }
    }

    /// Sends the series of a page.
    async fn take(&mut self, target: &ScrapeTarget, at: i64, fetched: Fetched) {
        let length = fetched.page.as_ref().map_or(0, |page| page.text.len());
        let made = blocking(length >= LONG_PAGE, || self.make(target, fetched));
        // They are dropped when the next scrape is due, so that the next is not late. A scrape that
        // took nearly all of its interval has a second, or one interval if that is shorter.
        let least = target.interval.min(Duration::from_secs(1));
        let patience = target.interval.saturating_sub(since(at)).max(least);
        // Waiting for others takes part of the time that is left until then, at most.
        let wait = patience / 4;
        let sent = self.send(target, made.piece, wait, patience).await;
        let state = &mut self.state;
        match (sent, made.then) {
            (Sent::Not, _) => return,
            (Sent::Whole, Then::Known(difference)) => state.known.update(difference),
            (Sent::Whole, Then::Ended) => state.known.ended(),
            // What ends is ended again with the next batch, for the sinks that lack this one.
            (Sent::Partly, Then::Known(difference)) => state.known.join(difference),
            (Sent::Partly, Then::Ended) => {}
        }
        match sent {
            Sent::Whole => {
                state.reports = made.reports;
                state.exemplars_until = made.exemplars_until.or(state.exemplars_until);
            }
            _ => {
                let more = made.reports.iter();
                let more = more.filter(|name| !state.reports.contains(name));
                let more: Vec<_> = more.copied().collect();
                state.reports.extend(more);
            }
        }
        state.reported = true;
        state.panics = 0;
        state.sampled_until = made.until.or(state.sampled_until);
        *locked(&self.entry.series) = Some(state.known.ids());
        if let (Sent::Whole, Some(families)) = (sent, made.families) {
            state.families = Some((families, Instant::now()));
        }
    }

    fn make(&mut self, target: &ScrapeTarget, fetched: Fetched) -> Made {
        let workshop = self.workshop.clone();
        let settings = &workshop.settings;
        let Fetched {
            timestamp,
            started,
            page,
            arrived,
        } = fetched;
        let mut report = Report::default();
        let sampled_until = self.state.sampled_until;
        let times = Times {
            timestamp,
            sampled_until: sampled_until.unwrap_or(workshop.pools.since),
            exemplars_until: self.state.exemplars_until.unwrap_or(i64::MIN),
        };
        let hasher = &workshop.pools.hasher;
        let taken = page.and_then(|page| {
            report.bytes = i64::try_from(page.text.len()).unwrap_or(i64::MAX);
            let taken = page::take(settings, target, &page, times, &self.state.known, hasher);
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
                let before = &self.state.reports;
                let put = |more: &mut ArenaBuilder| {
                    report::put(&report, settings, target, timestamp, before, more)
                };
                let families = self
                    .tells_families(taken.families)
                    .then_some(taken.families);
                let (piece, reports) = match taken.content {
                    Content::Read(mut arena, mut more) => {
                        let reports = put(&mut more);
                        if families.is_none() {
                            arena.forget_metadata();
                        }
                        arena.append(&more.finish());
                        (Piece::decoded(*arena), reports)
                    }
                    Content::Repeated(repeated) => {
                        let mut more = builder();
                        let reports = put(&mut more);
                        let piece = repeated.piece(families.is_some(), more.finish());
                        (piece, reports)
                    }
                };
                Made {
                    piece,
                    then: Then::Known(taken.difference),
                    families,
                    reports,
                    until: Some(arrived.max(timestamp)),
                    exemplars_until: Some(taken.exemplars_until),
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
                let before = &self.state.reports;
                let reports = report::put(&report, settings, target, timestamp, before, &mut batch);
                Made {
                    piece: Piece::decoded(batch.finish()),
                    then: Then::Ended,
                    families: None,
                    reports,
                    // A failure ends only series that have not ended yet.
                    until: self.state.known.is_live().then_some(timestamp),
                    exemplars_until: None,
                }
            }
        }
    }

    /// Whether the metadata of families has to be sent again: it has changed, or
    /// `metadata_interval` has passed.
    fn tells_families(&self, families: u64) -> bool {
        let interval = self.workshop.settings.keys.metadata_interval.0;
        let sent = self.state.families;
        !sent.is_some_and(|(sent, at)| sent == families && at.elapsed() < interval)
    }

    /// Records the result of a scrape for the API and the status page.
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

    /// Sends series in the target's lane, after a wait for those of others. If the queues of required
    /// sinks have no room for so long, they are dropped there and counted.
    async fn send(
        &self,
        target: &ScrapeTarget,
        piece: Piece,
        wait: Duration,
        patience: Duration,
    ) -> Sent {
        let workshop = &self.workshop;
        let wait = wait.min(workshop.settings.keys.batch_wait.0);
        // The lane is the same after a restart, and after a move to another URL: its series stay
        // the same.
        let lane = self.entry.labels;
        let deadline = Instant::now() + patience;
        let sent = workshop
            .lanes
            .send(lane, target.interval, piece, wait, deadline);
        sent.await
    }

    /// Sends staleness markers for all series of a target that has gone, except those that its heirs
    /// have: a marker would fall among their samples.
    async fn end(&mut self, timestamp: i64, heirs: &[Arc<[SeriesId]>], patience: Duration) {
        if !self.state.reported {
            return;
        }
        let target = self.entry.target();
        let mut batch = builder();
        let known = &self.state.known;
        known.end_all_but(heirs, |labels| put_stale(labels, timestamp, &mut batch));
        if heirs.is_empty() {
            report::end(&target, timestamp, &self.state.reports, &mut batch);
        }
        let piece = Piece::decoded(batch.finish());
        let none = piece.series() == 0;
        if none || self.send(&target, piece, patience / 4, patience).await != Sent::Not {
            self.state.known.ended();
            self.state.reported = false;
        }
    }

    /// Ends the series of a target that has gone, after a pause as long as Prometheus', since the
    /// target may return. Returns whether they have been ended.
    async fn leave(&mut self, orders: &mut watch::Receiver<Order>) -> bool {
        if !self.state.reported {
            return true;
        }
        let target = self.entry.target();
        // A reload in the meantime does not start the pause again.
        let due = self
            .state
            .ends_at
            .unwrap_or_else(|| schedule::next(target.hash, target.interval, schedule::now()));
        self.state.ends_at = Some(due);
        let interval = target.interval.as_millis() as i64;
        if !wait_until(due + interval + interval / 10, orders).await {
            return false;
        }
        let workshop = &self.workshop;
        let heirs = workshop.pools.heirs(&workshop.id, self.entry.labels);
        Box::pin(self.end(due, &heirs, target.interval)).await;
        true
    }
}

struct Fetched {
    timestamp: i64,
    started: Instant,
    page: Result<Page, ScrapeError>,
    /// Time at which the page arrived, in milliseconds.
    arrived: i64,
}

/// Series to be sent, and the change of state that holds once it has been sent.
struct Made {
    piece: Piece,
    then: Then,
    families: Option<u64>,
    /// Names of the reporting series that not every scrape has.
    reports: Vec<&'static str>,
    /// Time until which the target's series may have samples, if the batch changes it.
    until: Option<i64>,
    /// Time of the newest exemplar of a native histogram that was sent, if the batch changes it.
    exemplars_until: Option<i64>,
}

enum Then {
    Known(crate::series::Difference),
    Ended,
}

/// A builder for series that are not from a page: staleness markers and reports, whose number is
/// bounded already.
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

/// Waits until a time. Returns false if another order comes first.
async fn wait_until(at: i64, orders: &mut watch::Receiver<Order>) -> bool {
    let left = at.saturating_sub(schedule::now());
    let left = Duration::from_millis(left.try_into().unwrap_or(0));
    tokio::select! {
        biased;
        () = told(orders) => false,
        () = tokio::time::sleep(left) => true,
    }
}

/// Waits for another order, forever if the sender is gone.
async fn told(orders: &mut watch::Receiver<Order>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
