//! The latest value of every series, and the page that shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_codec::remote_write::STALE;
use metrifold_codec::text::{self, Escaping};
use metrifold_codec::{Arena, Name, SeriesRef};

pub(super) struct Page {
    series: BTreeMap<Key, Entry>,
    expiry: Duration,
    bounds: Bounds,
    /// Bytes of all keys.
    bytes: usize,
    timestamps: bool,
    name: Name,
}

/// Limits of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) series: usize,
    /// Bytes of the names and labels of all series.
    pub(super) bytes: usize,
}

/// Identity of a series: the metric name, then name and value of every other label, sorted by name,
/// each followed by [`END`]. Sorting the keys groups the series of a metric.
type Key = Box<[u8]>;

/// A byte that never occurs in UTF-8.
const END: u8 = 0xff;

struct Entry {
    value: f64,
    timestamp: i64,
    written: Instant,
}

/// Samples that the page cannot hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Samples of series above the bound.
    pub(super) too_many: u64,
    /// Samples of native histograms.
    pub(super) histograms: u64,
    /// Samples of series without a metric name.
    pub(super) nameless: u64,
}

impl Page {
    pub(super) fn new(expiry: Duration, bounds: Bounds, timestamps: bool) -> Self {
        Self {
            series: BTreeMap::new(),
            expiry,
            bounds,
            bytes: 0,
            timestamps,
            name: Name::new("__name__"),
        }
    }

    pub(super) fn write(&mut self, arena: &Arena, now: Instant) -> LeftOut {
        let mut left_out = LeftOut::default();
        for series in arena.iter() {
            let counts = series.counts();
            left_out.histograms += u64::from(counts.histograms);
            let Some((value, timestamp)) = series.samples().max_by_key(|&(_, time)| time) else {
                continue;
            };
            let Some(key) = self.key(series) else {
                left_out.nameless += u64::from(counts.samples);
                continue;
            };
            if value.to_bits() == STALE {
                if self.series.remove(&key).is_some() {
                    self.bytes -= key.len();
                }
                continue;
            }
            let full = self.series.len() >= self.bounds.series
                || self.bytes + key.len() > self.bounds.bytes;
            if full && !self.series.contains_key(&key) {
                left_out.too_many += u64::from(counts.samples);
                continue;
            }
            let new = Entry {
                value,
                timestamp,
                written: now,
            };
            match self.series.get_mut(&key) {
                Some(entry) if timestamp < entry.timestamp => {}
                Some(entry) => *entry = new,
                None => {
                    self.bytes += key.len();
                    self.series.insert(key, new);
                }
            }
        }
        left_out
    }

    fn key(&self, series: SeriesRef<'_>) -> Option<Key> {
        let metric = series.get(&self.name).filter(|name| !name.is_empty())?;
        let others = series.labels();
        let others = others.filter(|(name, _)| *name != self.name.as_bytes());
        Some(key(metric, others))
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let (expiry, bytes) = (self.expiry, &mut self.bytes);
        self.series.retain(|key, entry| {
            let stays = now.duration_since(entry.written) < expiry;
            if !stays {
                *bytes -= key.len();
            }
            stays
        });
    }

    /// Renders the page; also returns the number of series left out because, once escaped, they
    /// equal another series or have a label twice.
    pub(super) fn render(&self, escaping: Escaping, now: Instant) -> (Vec<u8>, u64) {
        let fresh = |entry: &Entry| now.duration_since(entry.written) < self.expiry;
        let mut collisions = 0;
        let mut lines = Vec::with_capacity(self.series.len());
        let mut in_order = true;
        for (key, entry) in self.series.iter().filter(|(_, entry)| fresh(entry)) {
            match escape(key, escaping) {
                Some(key) => {
                    in_order &= matches!(key, Cow::Borrowed(_));
                    lines.push((key, entry));
                }
                None => collisions += 1,
            }
        }
        if !in_order {
            // A series whose name needs no escaping sorts first, and is the one kept.
            lines.sort_by(|(a, _), (b, _)| {
                let is_escaped = |key: &Cow<'_, [u8]>| matches!(key, Cow::Owned(_));
                a.cmp(b).then(is_escaped(a).cmp(&is_escaped(b)))
            });
            let before = lines.len();
            lines.dedup_by(|(a, _), (b, _)| a == b);
            collisions += (before - lines.len()) as u64;
        }
        let mut out = Vec::new();
        for (key, entry) in lines {
            text::put_series(&mut out, labels(&key));
            out.push(b' ');
            text::put_value(&mut out, entry.value);
            if self.timestamps {
                out.extend_from_slice(format!(" {}", entry.timestamp).as_bytes());
            }
            out.push(b'\n');
        }
        (out, collisions)
    }
}

fn key<'a>(metric: &[u8], others: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Key {
    let mut key = Vec::new();
    key.extend_from_slice(metric);
    key.push(END);
    for (name, value) in others {
        for text in [name, value] {
            key.extend_from_slice(text);
            key.push(END);
        }
    }
    key.into_boxed_slice()
}

/// Labels of a key, with the metric name first.
fn labels(key: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    let mut texts = key.split(|&byte| byte == END);
    let metric = texts.next().unwrap_or_default();
    let others = std::iter::from_fn(move || Some((texts.next()?, texts.next()?)));
    std::iter::once((&b"__name__"[..], metric)).chain(others)
}

/// Escapes the names in a key; returns `None` if a label occurs twice after that.
fn escape(whole: &[u8], escaping: Escaping) -> Option<Cow<'_, [u8]>> {
    let mut all = labels(whole);
    let metric = all.next().map_or(&[][..], |(_, metric)| metric);
    let metric = escaping.metric(metric);
    let others: Vec<_> = all
        .map(|(name, value)| (escaping.label(name), value))
        .collect();
    let names = others.iter().map(|(name, _)| name);
    if names
        .chain([&metric])
        .all(|name| matches!(name, Cow::Borrowed(_)))
    {
        return Some(Cow::Borrowed(whole));
    }
    let mut others: Vec<_> = others
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    others.sort_unstable();
    let twice = others.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (!twice).then(|| Cow::Owned(key(&metric, others.into_iter()).into_vec()))
}

#[cfg(test)]
mod tests;
