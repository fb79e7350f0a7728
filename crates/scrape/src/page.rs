//! Turns a page into the series of a batch: target labels, rules, limits, staleness markers.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use metrifold_codec::remote_write::{Limits, STALE};
use metrifold_codec::wire::{FIXED64, Fields, VARINT, put_varint, tag};
use metrifold_codec::{Arena, ArenaBuilder, Name, SeriesError, SeriesRef};
use metrifold_exposition::{Exemplar, Family, Point, Receiver, Sample};
use metrifold_expr::relabel::Validation;

use crate::counts::Counts;
use crate::error::{Cause, ScrapeError};
use crate::fetch::Page;
use crate::keys::StartTimestamps;
use crate::outline::{Context, Found, Outline, Repeated};
use crate::series::{Difference, Known, SeriesId, put_labels};
use crate::settings::{Settings, SharedSettings};
use crate::target::ScrapeTarget;

/// How far in the future a sample may be, in milliseconds, as in Prometheus.
const AHEAD: i64 = 10 * 60 * 1000;
/// Most bytes of a batch, as a multiple of its page's.
const GROWTH: usize = 8;
/// The most characters of an exemplar's labels; a longer one is dropped, as in Prometheus.
const EXEMPLAR_CHARS: usize = 128;
const NAME: &str = "__name__";

/// Times of a scrape, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Timestamp of its samples.
    pub(crate) timestamp: i64,
    /// Time until which the target's series may have samples already.
    pub(crate) sampled_until: i64,
    /// Time until which exemplars of the target's native histograms have been sent.
    pub(crate) exemplars_until: i64,
}

/// Series of a page.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) content: Content,
    pub(crate) difference: Difference,
    pub(crate) counts: Counts,
    /// Hash of all descriptions of families on the page.
    pub(crate) families: u64,
    /// Time of the newest exemplar of a native histogram.
    pub(crate) exemplars_until: i64,
}

/// Form in which the series of a page are known.
#[derive(Debug)]
pub(crate) enum Content {
    /// The series and their families, and staleness markers of series that have disappeared.
    Read(Box<Arena>, Box<ArenaBuilder>),
    /// The series of the page before, with new values, and the same families.
    Repeated(Repeated),
}

/// Limits for the series of a page of `page` bytes.
pub(crate) fn limits(page: usize) -> Limits {
    Limits {
        decoded_bytes: page.saturating_mul(GROWTH).max(1 << 20),
        series: Limits::MOST_SERIES,
        labels: 2000,
        name_bytes: usize::MAX,
        value_bytes: usize::MAX,
    }
}

/// Properties of a sample that decide about its series.
#[derive(Clone, Copy, Debug)]
struct Nature {
    /// Whether the series gets a staleness marker when it disappears.
    tracked: bool,
    /// Whether the sample has a timestamp of its own.
    stamped: bool,
    /// Whether it is too far in the future.
    ahead: bool,
}

/// Turns a page into series. On failure, the counts so far come with the error. As in Prometheus, a
/// fault of labels comes before a fault of the page behind it, and both before `sample_limit`.
pub(crate) fn take(
    settings: &SharedSettings,
    target: &ScrapeTarget,
    page: &Page,
    times: Times,
    known: &Known,
    state: &RandomState,
) -> Result<Taken, (ScrapeError, Counts)> {
    let context = Context::new(settings, target, page);
    if let Some(outline) = known.outline()
        && let Some(repeated) = outline.repeat(&context, page, times.timestamp, state)
    {
        return Ok(Taken {
            content: Content::Repeated(repeated),
            difference: Difference::default(),
            counts: outline.counts,
            families: outline.families,
            exemplars_until: times.exemplars_until,
        });
    }
    let labels = target.labels.iter().collect();
    let mut intake = Intake::new(settings, labels, page, times, state);
    intake.natures.reserve(known.len());
    intake.values = Some(Vec::with_capacity(known.len()));
    intake.batch.reserve(known.len(), page.text.len());
    let outcome = page.read(&target.options, &mut intake);
    let Intake {
        batch,
        natures,
        families,
        mut counts,
        values,
        exemplars_until,
        ..
    } = intake;
    let mut arena = batch.finish();
    relabel(settings, target, &mut arena);
    check(settings, target, &arena)?;
    counts.kept = arena.iter().count();
    outcome.map_err(|error| (ScrapeError::new(Cause::Page, error), counts))?;
    let nature = |series: SeriesRef<'_>| natures[series.index()];
    let mut scratch = Vec::new();
    let mut ids: Vec<SeriesId> = arena
        .iter()
        .map(|series| SeriesId::new(series, nature(series).tracked, state, &mut scratch))
        .collect();
    if natures.iter().any(|nature| nature.ahead) {
        let ahead: Vec<bool> = arena.iter().map(|series| nature(series).ahead).collect();
        counts.ahead = leave_out(&mut arena, &mut ids, &ahead);
    }
    if !known.is_same(&ids) {
        let stamped: Vec<bool> = arena.iter().map(|series| nature(series).stamped).collect();
        let again = repeated(&mut ids, &stamped);
        counts.duplicates = leave_out(&mut arena, &mut ids, &again);
    }
    // Samples that are too far in the future count, duplicate ones do not.
    let duplicates = usize::try_from(counts.duplicates).unwrap_or(usize::MAX);
    check_samples(settings, counts.kept.saturating_sub(duplicates))
        .map_err(|error| (error, counts))?;
    let mut stale = ArenaBuilder::new(Limits {
        decoded_bytes: usize::MAX,
        ..limits(0)
    });
    let whole = counts.ahead == 0 && counts.duplicates == 0;
    let values = values.filter(|values| whole && values.len() == natures.len());
    let outline = values.and_then(|values| {
        let mut kept = vec![false; values.len()];
        for series in arena.iter() {
            kept[series.index()] = true;
        }
        let found = Found {
            arena: &arena,
            values: &values,
            kept: &kept,
            counts,
            families,
        };
        Outline::new(context, page, found, times.timestamp, state)
    });
    let series: Vec<SeriesRef<'_>> = match outline {
        Some(_) => Vec::new(),
        None => arena.iter().collect(),
    };
    let difference = known.compare(
        &ids,
        outline,
        |place, out| put_labels(series[place].labels(), out),
        |labels| put_stale(labels, times.timestamp, &mut stale),
    );
    drop(series);
    Ok(Taken {
        content: Content::Read(Box::new(arena), Box::new(stale)),
        difference,
        counts,
        families,
        exemplars_until,
    })
}

/// Applies the rules over series: first the target's own, then the pool's.
pub(crate) fn relabel(settings: &Settings, target: &ScrapeTarget, arena: &mut Arena) {
    let own = target.own.metric_rules.as_deref();
    for rules in own.into_iter().chain(&settings.metric_rules) {
        let mut scratch = rules.scratch();
        scratch.begin();
        arena.retain(|series| rules.run(series, &mut scratch));
    }
}

/// Adds a staleness marker for a series.
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
    // Cannot fail: the series was valid on its page.
    let _ = batch.finish_series();
}

/// Receiver that turns the samples of a page into series.
pub(crate) struct Intake<'a> {
    settings: &'a Settings,
    /// The target's labels, sorted.
    target: Vec<(&'a str, &'a str)>,
    pub(crate) batch: ArenaBuilder,
    times: Times,
    pub(crate) counts: Counts,
    /// For each series, by its index.
    natures: Vec<Nature>,
    /// Start and end of each value on the page, while samples have nothing else and they are wanted.
    values: Option<Vec<(usize, usize)>>,
    families: u64,
    /// Time of the newest exemplar of a native histogram, on this page or before.
    exemplars_until: i64,
    state: &'a RandomState,
    /// Labels to be renamed, because the target has a label of the same name.
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
        // Without room for metadata there is none for the series either, and those report it.
        let (kind, help, unit) = (family.kind, family.help, family.unit);
        let _ = self.batch.push_metadata(family.name, kind, help, unit);
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        self.counts.scraped += 1;
        let given = sample
            .timestamp
            .filter(|_| self.settings.keys.honor_timestamps);
        let timestamp = given.unwrap_or(self.times.timestamp);
        self.batch.start_series();
        match self.settings.keys.honor_labels {
            true => self.honor(sample),
            false => self.rename(sample),
        }
        // As in Prometheus, a start that is not before the sample is ignored.
        self.put(
            &sample.point,
            timestamp,
            sample.start.filter(|start| *start < timestamp),
        );
        match sample.point {
            Point::Value(_) => {
                for exemplar in sample.exemplars() {
                    self.put_exemplar(exemplar, timestamp);
                }
            }
            // It has several, in no order, and repeats them on the next pages: receivers refuse what is
            // not newer than the last one. The clock of a target tells which are new.
            _ => {
                let new = |it: &Exemplar<'_>| {
                    let at = it.timestamp.unwrap_or(timestamp);
                    at > self.times.exemplars_until
                };
                let mut exemplars: Vec<Exemplar<'_>> = sample.exemplars().filter(new).collect();
                exemplars.sort_by_key(|it| it.timestamp);
                for exemplar in exemplars {
                    let at = exemplar.timestamp.unwrap_or(timestamp);
                    self.exemplars_until = self.exemplars_until.max(at);
                    self.put_exemplar(exemplar, timestamp);
                }
            }
        }
        self.batch.finish_series().map_err(|error| match error {
            SeriesError::Invalid(_) => error.to_string(),
            SeriesError::Full => "the page becomes too large with the target's labels".to_owned(),
        })?;
        self.values = self.values.take().and_then(|mut values| {
            let alone = sample.timestamp.is_none()
                && sample.start.is_none()
                && sample.exemplars().len() == 0;
            values.push(sample.value_at.filter(|_| alone)?);
            Some(values)
        });
        self.natures.push(Nature {
            tracked: given.is_none() || self.settings.keys.track_timestamps_staleness,
            stamped: given.is_some(),
            ahead: timestamp.saturating_sub(self.times.timestamp) > AHEAD,
        });
        Ok(())
    }
}

impl<'a> Intake<'a> {
    /// An intake for a page. Its series get the labels in `target`, sorted by name.
    pub(crate) fn new(
        settings: &'a Settings,
        target: Vec<(&'a str, &'a str)>,
        page: &Page,
        times: Times,
        state: &'a RandomState,
    ) -> Self {
        Self {
            settings,
            target,
            batch: ArenaBuilder::new(limits(page.text.len())),
            times,
            counts: Counts::default(),
            natures: Vec::new(),
            values: None,
            families: 0,
            exemplars_until: times.exemplars_until,
            state,
            exposed: Vec::new(),
            message: Vec::new(),
        }
    }
}

impl Intake<'_> {
    /// Adds an exemplar, unless its labels are too long.
    fn put_exemplar(&mut self, exemplar: Exemplar<'_>, timestamp: i64) {
        let chars = |text: &str| text.chars().count();
        let labels = exemplar.labels();
        let length = labels.map(|(name, value)| chars(name) + chars(value));
        if length.sum::<usize>() <= EXEMPLAR_CHARS {
            let at = exemplar.timestamp.unwrap_or(timestamp);
            self.batch
                .push_exemplar(exemplar.labels(), exemplar.value, at);
        }
    }

    /// Adds a measured value, and what is configured for a start timestamp.
    fn put(&mut self, point: &Point<'_>, timestamp: i64, start: Option<i64>) {
        let (zero, sent) = match self.settings.keys.start_timestamps {
            StartTimestamps::Ignore => (None, None),
            StartTimestamps::Send => (None, start),
            // Only where no earlier sample of the series can lie behind the zero.
            StartTimestamps::ZeroSample => (
                start.filter(|start| *start > self.times.sampled_until),
                None,
            ),
        };
        match *point {
            Point::Value(value) => {
                if let Some(start) = zero {
                    self.batch.push_sample(0.0, start);
                }
                match sent {
                    Some(start) => self.batch.push_sample_since(value, timestamp, start),
                    None => self.batch.push_sample(value, timestamp),
                }
            }
            Point::Histogram(histogram) => {
                if let Some(start) = zero {
                    put_zero_histogram(histogram, start, &mut self.message);
                    self.batch.push_histogram(&self.message);
                }
                self.message.clear();
                self.message.extend_from_slice(histogram);
                put_number(15, timestamp, &mut self.message);
                match sent {
                    Some(start) => self.batch.push_histogram_since(&self.message, start),
                    None => self.batch.push_histogram(&self.message),
                }
            }
        }
    }

    /// Adds the labels of a sample, and those labels of the target whose names the sample lacks.
    fn honor(&mut self, sample: &Sample<'_>) {
        for (name, value) in sample.labels() {
            self.batch.push_label(name, value);
        }
        for (name, value) in &self.target {
            // A label with an empty value on the page removes the target's.
            if !sample.labels().any(|(exposed, _)| exposed == *name) {
                self.batch.push_label(name, value);
            }
        }
    }

    /// Adds the labels of the target and those of a sample, renaming a sample's label where the
    /// target has the name. Both are mostly sorted: labels pushed in order need no sorting later.
    fn rename(&mut self, sample: &Sample<'_>) {
        let mut own = self.target.iter().peekable();
        let mut highest = "";
        for (name, value) in sample.labels() {
            while let Some((before, value)) = own.next_if(|(own, _)| *own < name) {
                self.batch.push_label(before, value);
            }
            let taken = match own.peek() {
                Some((next, _)) if *next == name => true,
                // An unsorted label may come after the target's label of the same name was passed.
                _ => name <= highest && self.target.iter().any(|(own, _)| *own == name),
            };
            highest = highest.max(name);
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

/// Writes the message of a histogram without observations, at a time, in the form of another one.
fn put_zero_histogram(like: &[u8], timestamp: i64, out: &mut Vec<u8>) {
    /// `reset_hint` of a histogram before which counting began anew.
    const RESET: i64 = 1;
    out.clear();
    for field in Fields::new(like).map_while(Result::ok) {
        match field.number {
            // The count and the count of the zero bucket, as integers or floats.
            1 | 6 => put_number(field.number as u8, 0, out),
            2 | 7 => {
                out.push(tag(field.number as u8, FIXED64));
                out.extend_from_slice(&0f64.to_le_bytes());
            }
            // The schema, the width of the zero bucket, and the bounds of custom buckets.
            4 | 5 | 16 => out.extend_from_slice(field.whole),
            _ => {}
        }
    }
    put_number(14, RESET, out);
    put_number(15, timestamp, out);
}

fn put_number(field: u8, number: i64, out: &mut Vec<u8>) {
    out.push(tag(field, VARINT));
    put_varint(out, number as u64);
}

/// Checks the names and the labels of the series left after the rules. On failure, the counts are
/// those up to the first series with a fault.
pub(crate) fn check(
    settings: &Settings,
    target: &ScrapeTarget,
    arena: &Arena,
) -> Result<(), (ScrapeError, Counts)> {
    let keys = &settings.keys;
    let (labels, name, value) = (
        keys.label_limit,
        keys.label_name_length_limit,
        keys.label_value_length_limit,
    );
    let legacy = keys.metric_name_validation_scheme == Validation::Legacy;
    let relabelled = settings.metric_rules.is_some() || target.own.metric_rules.is_some();
    if !(relabelled || legacy || labels + name + value > 0) {
        return Ok(());
    }
    let metric = Name::new(NAME);
    let check = |series: SeriesRef<'_>| {
        let Some(named) = series.get(&metric) else {
            let text = "metric_relabel removes the name of a series";
            return Err(ScrapeError::new(Cause::Page, text));
        };
        if legacy {
            check_legacy(named, series)?;
        }
        check_labels(series, named, [labels, name, value])
    };
    for (kept, series) in arena.iter().enumerate() {
        check(series).map_err(|error| {
            let counts = Counts {
                scraped: series.index() + 1,
                kept,
                ..Counts::default()
            };
            (error, counts)
        })?;
    }
    Ok(())
}

/// Checks the number of samples left after the rules.
pub(crate) fn check_samples(settings: &Settings, samples: usize) -> Result<(), ScrapeError> {
    let limit = settings.keys.sample_limit;
    match limit > 0 && samples > limit {
        true => {
            let text = format!("there are {samples} samples: sample_limit is {limit}");
            Err(ScrapeError::new(Cause::Samples, text))
        }
        false => Ok(()),
    }
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

/// Whether each sample repeats a series without a timestamp of its own. A series that is repeated
/// with timestamps gets one staleness marker at most.
fn repeated(ids: &mut [SeriesId], stamped: &[bool]) -> Vec<bool> {
    let mut seen = HashSet::with_capacity_and_hasher(ids.len(), RandomState::default());
    let again = ids.iter_mut().zip(stamped).map(|(id, stamped)| {
        let again = !seen.insert(id.plain());
        if again {
            *id = id.untracked();
        }
        again && !stamped
    });
    again.collect()
}

/// Leaves out some of the series. Returns their number.
fn leave_out(arena: &mut Arena, ids: &mut Vec<SeriesId>, which: &[bool]) -> u64 {
    if !which.contains(&true) {
        return 0;
    }
    let mut places = which.iter();
    arena.retain(|_| !*places.next().unwrap_or(&false));
    let mut places = which.iter();
    let before = ids.len();
    ids.retain(|_| !*places.next().unwrap_or(&false));
    (before - ids.len()) as u64
}

#[cfg(test)]
mod tests;
