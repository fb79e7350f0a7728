//! From a page to the series of a batch: the target's labels, rules, limits, and what has gone.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use metrifold_codec::remote_write::{Limits, STALE};
use metrifold_codec::wire::{VARINT, put_varint, tag};
use metrifold_codec::{Arena, ArenaBuilder, Name, SeriesError, SeriesRef};
use metrifold_exposition::{Family, Point, Receiver, Sample, read};
use metrifold_expr::relabel::Validation;

use crate::error::{Cause, ScrapeError};
use crate::fetch::Page;
use crate::series::{Difference, Known, SeriesId, put_labels};
use crate::settings::Settings;
use crate::target::ScrapeTarget;

/// How far in the future a sample may be, in milliseconds, as in Prometheus.
const AHEAD: i64 = 10 * 60 * 1000;
/// How much larger than its page a batch may be.
const GROWTH: usize = 8;
/// The most characters of an exemplar's labels; one with more is left out, as in Prometheus.
const EXEMPLAR_CHARS: usize = 128;
const NAME: &str = "__name__";

/// What a page became.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) arena: Arena,
    /// What has to be sent as well, since it has gone.
    pub(crate) stale: ArenaBuilder,
    pub(crate) difference: Difference,
    pub(crate) counts: Counts,
    /// Of all that is said of families.
    pub(crate) families: u64,
}

/// What was counted on a page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Samples on the page.
    pub(crate) scraped: usize,
    /// Those that are left after rules.
    pub(crate) kept: usize,
    /// Samples of series that were there already.
    pub(crate) duplicates: u64,
    /// Samples that are too far in the future.
    pub(crate) ahead: u64,
}

/// Limits of what is built of a page of so many bytes.
pub(crate) fn limits(page: usize) -> Limits {
    Limits {
        decoded_bytes: page.saturating_mul(GROWTH).max(1 << 20),
        series: Limits::MOST_SERIES,
        labels: 2000,
        name_bytes: usize::MAX,
        value_bytes: usize::MAX,
    }
}

/// Takes a page. What was counted is told even if it fails.
pub(crate) fn take(
    settings: &Settings,
    target: &ScrapeTarget,
    page: &Page,
    timestamp: i64,
    known: &Known,
    state: &RandomState,
) -> Result<Taken, (ScrapeError, Counts)> {
    let labels = target.labels.iter().collect();
    let mut intake = Intake::new(settings, labels, page, timestamp, state);
    intake.tracked.reserve(known.len());
    let outcome = read(&page.text, page.format, &settings.options, &mut intake);
    let mut counts = intake.counts;
    if let Err(error) = outcome {
        counts.kept = 0;
        return Err((ScrapeError::new(Cause::Page, error), counts));
    }
    let Intake {
        batch,
        tracked,
        families,
        ..
    } = intake;
    let mut arena = batch.finish();
    relabel(settings, target, &mut arena);
    counts.kept = usize::try_from(arena.counts().all_samples()).unwrap_or(usize::MAX);
    check(settings, target, &arena, counts.kept).map_err(|error| (error, counts))?;
    let mut ids: Vec<SeriesId> = arena
        .iter()
        .map(|series| SeriesId::new(series, tracked[series.index()], state))
        .collect();
    if !known.is_same(&ids) {
        counts.duplicates = drop_duplicates(&mut arena, &mut ids);
    }
    let series: Vec<SeriesRef<'_>> = match known.is_same(&ids) {
        true => Vec::new(),
        false => arena.iter().collect(),
    };
    let mut stale = ArenaBuilder::new(Limits {
        decoded_bytes: usize::MAX,
        ..limits(0)
    });
    let difference = known.compare(
        &ids,
        |place, out| put_labels(series[place].labels(), out),
        |labels| put_stale(labels, timestamp, &mut stale),
    );
    drop(series);
    Ok(Taken {
        arena,
        stale,
        difference,
        counts,
        families,
    })
}

/// Applies the rules over series: the target's own, then those of all.
pub(crate) fn relabel(settings: &Settings, target: &ScrapeTarget, arena: &mut Arena) {
    let own = target.own.metric_rules.as_deref();
    for rules in own.into_iter().chain(&settings.metric_rules) {
        let mut scratch = rules.scratch();
        scratch.begin();
        arena.retain(|series| rules.run(series, &mut scratch));
    }
}

/// Ends a series.
pub(crate) fn put_stale(
    labels: &mut dyn Iterator<Item = (&str, &str)>,
    timestamp: i64,
    batch: &mut ArenaBuilder,
) {
    batch.start_series();
    for (name, value) in labels {
        batch.push_label(name, value);
    }
    batch.push_sample(f64::from_bits(STALE), timestamp);
    // It was valid when it was there.
    let _ = batch.finish_series();
}

/// Makes series of what is on a page.
pub(crate) struct Intake<'a> {
    settings: &'a Settings,
    /// The target's labels, sorted.
    target: Vec<(&'a str, &'a str)>,
    pub(crate) batch: ArenaBuilder,
    timestamp: i64,
    pub(crate) counts: Counts,
    /// By the place of a series, whether it is ended when it goes.
    tracked: Vec<bool>,
    families: u64,
    state: &'a RandomState,
    /// What is renamed, since the target has a label of its name.
    exposed: Vec<(String, String)>,
    message: Vec<u8>,
}

impl Receiver for Intake<'_> {
    fn family(&mut self, family: Family<'_>) {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(self.families);
        for text in [family.name, family.help, family.unit] {
            hasher.write_usize(text.len());
            hasher.write(text.as_bytes());
        }
        hasher.write_u8(family.kind as u8);
        self.families = hasher.finish();
        // Without room for it, the page has no room for its series either.
        let (kind, help, unit) = (family.kind, family.help, family.unit);
        let _ = self.batch.push_metadata(family.name, kind, help, unit);
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        self.counts.scraped += 1;
        let given = sample
            .timestamp
            .filter(|_| self.settings.keys.honor_timestamps);
        let timestamp = given.unwrap_or(self.timestamp);
        if timestamp.saturating_sub(self.timestamp) > AHEAD {
            self.counts.ahead += 1;
            return Ok(());
        }
        self.batch.start_series();
        match self.settings.keys.honor_labels {
            true => self.honor(sample),
            false => self.rename(sample),
        }
        match sample.point {
            Point::Value(value) => self.batch.push_sample(value, timestamp),
            Point::Histogram(message) => {
                self.message.clear();
                self.message.extend_from_slice(message);
                self.message.push(tag(15, VARINT));
                put_varint(&mut self.message, timestamp as u64);
                self.batch.push_histogram(&self.message);
            }
        }
        for exemplar in sample.exemplars() {
            let chars = |text: &str| text.chars().count();
            let labels = exemplar
                .labels()
                .map(|(name, value)| chars(name) + chars(value));
            if labels.sum::<usize>() <= EXEMPLAR_CHARS {
                let at = exemplar.timestamp.unwrap_or(timestamp);
                self.batch
                    .push_exemplar(exemplar.labels(), exemplar.value, at);
            }
        }
        self.batch.finish_series().map_err(|error| match error {
            SeriesError::Invalid(_) => error.to_string(),
            SeriesError::Full => "the page becomes too large with the target's labels".to_owned(),
        })?;
        let tracks = given.is_none() || self.settings.keys.track_timestamps_staleness;
        self.tracked.push(tracks);
        Ok(())
    }
}

impl<'a> Intake<'a> {
    /// An intake of a page, whose series get the labels of `target`, which are sorted.
    pub(crate) fn new(
        settings: &'a Settings,
        target: Vec<(&'a str, &'a str)>,
        page: &Page,
        timestamp: i64,
        state: &'a RandomState,
    ) -> Self {
        Self {
            settings,
            target,
            batch: ArenaBuilder::new(limits(page.text.len())),
            timestamp,
            counts: Counts::default(),
            tracked: Vec::new(),
            families: 0,
            state,
            exposed: Vec::new(),
            message: Vec::new(),
        }
    }
}

impl Intake<'_> {
    /// Adds the labels of a sample, and those of the target that the sample does not have.
    fn honor(&mut self, sample: &Sample<'_>) {
        for (name, value) in sample.labels() {
            self.batch.push_label(name, value);
        }
        for (name, value) in &self.target {
            // One without a value says that it is to have none.
            if !sample.labels().any(|(exposed, _)| exposed == *name) {
                self.batch.push_label(name, value);
            }
        }
    }

    /// Adds the labels of the target, and those of a sample, renamed where the target has one of the
    /// name. Both are mostly sorted, and what is pushed in order need not be sorted again.
    fn rename(&mut self, sample: &Sample<'_>) {
        let mut own = self.target.iter().peekable();
        for (name, value) in sample.labels() {
            while let Some((before, value)) = own.next_if(|(own, _)| *own < name) {
                self.batch.push_label(before, value);
            }
            let taken = match own.peek() {
                Some((next, _)) if *next == name => true,
                // Labels that are not sorted may come behind those that are their like.
                _ => self.target.iter().any(|(own, _)| *own == name),
            };
            match taken {
                true if value.is_empty() => {}
                true => self.exposed.push((name.to_owned(), value.to_owned())),
                false => self.batch.push_label(name, value),
            }
        }
        for (name, value) in own {
            self.batch.push_label(name, value);
        }
        if self.exposed.is_empty() {
            return;
        }
        let mut exposed = std::mem::take(&mut self.exposed);
        exposed.sort_by_key(|(name, _)| name.len());
        for (name, value) in exposed.drain(..) {
            let mut renamed = format!("exported_{name}");
            while self.batch.has_label(&renamed) {
                renamed.insert_str(0, "exported_");
            }
            self.batch.push_label(&renamed, &value);
        }
        self.exposed = exposed;
    }
}

/// Holds what is left after rules against limits.
pub(crate) fn check(
    settings: &Settings,
    target: &ScrapeTarget,
    arena: &Arena,
    samples: usize,
) -> Result<(), ScrapeError> {
    let keys = &settings.keys;
    let (labels, name, value) = (
        keys.label_limit,
        keys.label_name_length_limit,
        keys.label_value_length_limit,
    );
    let legacy = keys.metric_name_validation_scheme == Validation::Legacy;
    let relabelled = settings.metric_rules.is_some() || target.own.metric_rules.is_some();
    if relabelled || legacy || labels + name + value > 0 {
        let metric = Name::new(NAME);
        for series in arena.iter() {
            let Some(named) = series.get(&metric) else {
                let text = "a series has no name any more after metric_relabel";
                return Err(ScrapeError::new(Cause::Page, text));
            };
            if legacy {
                check_legacy(named, series)?;
            }
            check_labels(series, named, [labels, name, value])?;
        }
    }
    if keys.sample_limit > 0 && samples > keys.sample_limit {
        let limit = keys.sample_limit;
        let text = format!("there are {samples} samples: sample_limit is {limit}");
        return Err(ScrapeError::new(Cause::Samples, text));
    }
    Ok(())
}

fn check_legacy(metric: &[u8], series: SeriesRef<'_>) -> Result<(), ScrapeError> {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || matches!(*byte, b'_' | b':');
    let other = |byte: &u8| letter(byte) || byte.is_ascii_digit();
    let sound = metric.first().is_some_and(letter) && metric.iter().all(other);
    let names = &mut series.labels().map(|(name, _)| name);
    let wrong = match sound {
        true => names.find(|name| !Validation::Legacy.is_name(name)),
        false => Some(metric),
    };
    match wrong {
        None => Ok(()),
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            let text = format!("{name:?} is not a legacy name: see metric_name_validation_scheme");
            Err(ScrapeError::new(Cause::Page, text))
        }
    }
}

fn check_labels(
    series: SeriesRef<'_>,
    metric: &[u8],
    [labels, name, value]: [usize; 3],
) -> Result<(), ScrapeError> {
    let exceeded = |key: &str, what: &[u8], found: usize, limit: usize| {
        let shown = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(50)]).into_owned();
        let (metric, what) = (shown(metric), shown(what));
        let text = format!("{metric} has {what} of {found}: {key} is {limit}");
        Err(ScrapeError::new(Cause::Labels, text))
    };
    let count = series.labels().len();
    if labels > 0 && count > labels {
        return exceeded("label_limit", b"a number of labels", count, labels);
    }
    for (key, text) in series.labels() {
        if name > 0 && key.len() > name {
            return exceeded("label_name_length_limit", key, key.len(), name);
        }
        if value > 0 && text.len() > value {
            return exceeded("label_value_length_limit", key, text.len(), value);
        }
    }
    Ok(())
}

/// Drops series that are on the page already, unless both say when they were. Returns how many.
fn drop_duplicates(arena: &mut Arena, ids: &mut Vec<SeriesId>) -> u64 {
    let mut seen =
        std::collections::HashSet::with_capacity_and_hasher(ids.len(), RandomState::default());
    let twice: Vec<bool> = ids
        .iter()
        .map(|id| !seen.insert(id.plain()) && id.is_tracked())
        .collect();
    if !twice.contains(&true) {
        return 0;
    }
    let mut places = twice.iter();
    arena.retain(|_| !*places.next().unwrap_or(&false));
    let mut places = twice.iter();
    let before = ids.len();
    ids.retain(|_| !*places.next().unwrap_or(&false));
    (before - ids.len()) as u64
}
