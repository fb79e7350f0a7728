//! The series that a target had at its last scrape, held compactly: a hash of each, and their
//! labels in compressed form, which are read only when a series has disappeared. If it can be, that is a
//! form that the next page's values can be written into.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use metrifold_codec::SeriesRef;
use metrifold_codec::wire::{put_varint, varint};

use crate::outline::Outline;

/// Least bound of series that have disappeared and whose staleness markers some sinks lack; else it is
/// the number of series of the page.
const LEAST_OWED: usize = 1000;

/// The series of a target at its last scrape.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Hashes, in the order of the page.
    ids: Arc<[SeriesId]>,
    labels: Labels,
    /// Whether the last scrape had them, so that they get staleness markers when they disappear.
    live: bool,
}

/// Labels of the tracked series, in the order of the hashes.
#[derive(Debug)]
enum Labels {
    /// In compressed form, with their length before compression.
    Listed(Box<[u8]>, usize),
    /// In the outline of the page, on which all series were tracked.
    Outlined(Box<Outline>),
}

impl Default for Labels {
    fn default() -> Self {
        Self::Listed(Box::default(), 0)
    }
}

/// Hash of a series' labels. Its lowest bit says whether the series is tracked: it gets a staleness
/// marker when it disappears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(u64);

/// Difference between a page and the last scrape.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Number of new series.
    pub(crate) added: usize,
    /// The new state. `None` if nothing has changed.
    next: Option<Known>,
}

impl Labels {
    /// Labels of the tracked series, which `labels` writes.
    fn list(ids: &[SeriesId], mut labels: impl FnMut(usize, &mut Vec<u8>)) -> Self {
        let mut text = Vec::new();
        for (place, _) in ids.iter().enumerate().filter(|(_, id)| id.is_tracked()) {
            labels(place, &mut text);
        }
        Self::compressed(&text)
    }

    fn compressed(text: &[u8]) -> Self {
        // Fails only beyond 4 GiB, which is more than a page can have.
        let compressed = snap::raw::Encoder::new().compress_vec(text);
        Self::Listed(compressed.unwrap_or_default().into(), text.len())
    }
}

impl SeriesId {
    /// The hash of a series; `scratch` is for labels that rules have changed.
    pub(crate) fn new(
        series: SeriesRef<'_>,
        tracked: bool,
        state: &RandomState,
        scratch: &mut Vec<u8>,
    ) -> Self {
        let mut hasher = state.build_hasher();
        hasher.write(series.encoded_labels(scratch));
        Self(hasher.finish() & !1 | u64::from(tracked))
    }

    pub(crate) fn is_tracked(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same series, not tracked.
    pub(crate) fn untracked(self) -> Self {
        Self(self.plain())
    }

    /// The hash without the tracking bit.
    pub(crate) fn plain(self) -> u64 {
        self.0 & !1
    }
}

impl Known {
    /// Whether the page has exactly the known series, in the same order.
    pub(crate) fn is_same(&self, ids: &[SeriesId]) -> bool {
        *self.ids == *ids
    }

    /// Compares with a page, which may have an outline. Otherwise, `labels` writes the labels of the
    /// series with an index. `stale` receives the labels of each series that has disappeared.
    pub(crate) fn compare(
        &self,
        ids: &[SeriesId],
        outline: Option<Outline>,
        labels: impl FnMut(usize, &mut Vec<u8>),
        stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>),
    ) -> Difference {
        let same = self.is_same(ids);
        if same && outline.is_none() {
            return Difference::default();
        }
        let labels = match outline {
            Some(outline) => Labels::Outlined(Box::new(outline)),
            None => Labels::list(ids, labels),
        };
        Difference {
            added: if same { 0 } else { self.changes(ids, stale) },
            next: Some(Self {
                ids: if same { self.ids.clone() } else { ids.into() },
                labels,
                live: true,
            }),
        }
    }

    /// Number of new series; `stale` receives the labels of each that has disappeared.
    fn changes(
        &self,
        ids: &[SeriesId],
        stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>),
    ) -> usize {
        let set = |ids: &mut dyn Iterator<Item = &SeriesId>| -> HashSet<u64, RandomState> {
            ids.map(|id| id.plain()).collect()
        };
        let (before, now) = (set(&mut self.ids.iter()), set(&mut ids.iter()));
        // As in Prometheus, a series whose samples get timestamps of their own has gone, too.
        let tracked = set(&mut ids.iter().filter(|id| id.is_tracked()));
        self.each_tracked(|id| !tracked.contains(&id.plain()), stale);
        now.iter().filter(|id| !before.contains(id)).count()
    }

    /// The outline of the page, if it has one.
    pub(crate) fn outline(&self) -> Option<&Outline> {
        match &self.labels {
            Labels::Outlined(outline) => Some(outline),
            Labels::Listed(..) => None,
        }
    }

    /// Passes all series that need staleness markers to `stale`.
    pub(crate) fn end(&self, stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>)) {
        self.each_tracked(|_| true, stale);
    }

    /// Passes all series that need staleness markers and are not among `others`, which other targets
    /// have, to `stale`.
    pub(crate) fn end_all_but(
        &self,
        others: &[Arc<[SeriesId]>],
        stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>),
    ) {
        let others = others.iter().flat_map(|ids| ids.iter());
        let others: HashSet<u64, RandomState> = others.map(|id| id.plain()).collect();
        self.each_tracked(|id| !others.contains(&id.plain()), stale);
    }

    /// Hashes of the series at the last scrape.
    pub(crate) fn ids(&self) -> Arc<[SeriesId]> {
        self.ids.clone()
    }

    /// Whether the series need staleness markers when they disappear.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    fn each_tracked(
        &self,
        has_gone: impl Fn(SeriesId) -> bool,
        mut stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>),
    ) {
        let tracked = || self.ids.iter().filter(|id| id.is_tracked());
        if !self.live || !tracked().any(|id| has_gone(*id)) {
            return;
        }
        let (labels, len) = match &self.labels {
            Labels::Listed(labels, len) => (labels, *len),
            Labels::Outlined(outline) => {
                let Ok(arena) = outline.series() else {
                    return; // never: it was encoded here
                };
                for (_, series) in tracked().zip(arena.iter()).filter(|(id, _)| has_gone(**id)) {
                    let text = |text| str::from_utf8(text).unwrap_or_default();
                    let labels = series.labels();
                    stale(&mut labels.map(|(name, value)| (text(name), text(value))));
                }
                return;
            }
        };
        let mut text = vec![0; len];
        if snap::raw::Decoder::new()
            .decompress(labels, &mut text)
            .is_err()
        {
            return; // never: it was compressed here
        }
        let mut at = 0;
        let mut spans = Vec::new();
        for id in tracked() {
            if read_labels(&text, &mut at, &mut spans).is_none() {
                return; // never: it was written here
            }
            if has_gone(*id) {
                let text = |(start, end): (usize, usize)| {
                    str::from_utf8(&text[start..end]).unwrap_or_default()
                };
                let mut labels = spans
                    .iter()
                    .map(|[name, value]| (text(*name), text(*value)));
                stale(&mut labels);
            }
        }
    }

    /// Takes over a difference, once its batch has been sent.
    pub(crate) fn update(&mut self, difference: Difference) {
        if let Some(next) = difference.next {
            *self = next;
        }
        self.live = true;
    }

    /// Takes over a difference whose batch some sinks lack. Series that have disappeared stay known, up
    /// to a bound, so that the next batch has their staleness markers again.
    pub(crate) fn join(&mut self, difference: Difference) {
        let Some(next) = difference.next else {
            self.live = true;
            return;
        };
        let now: HashSet<u64, RandomState> = next.ids.iter().map(|id| id.plain()).collect();
        let has_gone = |id: SeriesId| !now.contains(&id.plain());
        let gone = self
            .ids
            .iter()
            .filter(|id| id.is_tracked() && has_gone(**id));
        let gone: Vec<SeriesId> = gone.take(next.len().max(LEAST_OWED)).copied().collect();
        if !self.live || gone.is_empty() {
            *self = next;
            return;
        }
        let mut text = Vec::new();
        next.each_tracked(|_| true, |labels| put_texts(labels, &mut text));
        let mut left = gone.len();
        self.each_tracked(has_gone, |labels| {
            if left > 0 {
                left -= 1;
                put_texts(labels, &mut text);
            }
        });
        let ids: Vec<SeriesId> = next.ids.iter().copied().chain(gone).collect();
        *self = Self {
            ids: ids.into(),
            labels: Labels::compressed(&text),
            live: true,
        };
    }

    /// Records that all series have their staleness markers.
    pub(crate) fn ended(&mut self) {
        self.live = false;
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Appends labels in the form that `read_labels` reads.
pub(crate) fn put_labels<'a>(
    labels: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) {
    put_varint(out, labels.len() as u64);
    for (name, value) in labels {
        for text in [name, value] {
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }
}

/// Appends labels that are text.
fn put_texts(labels: &mut dyn Iterator<Item = (&str, &str)>, out: &mut Vec<u8>) {
    let labels: Vec<_> = labels
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    put_labels(labels.into_iter(), out);
}

type Span = (usize, usize);

fn read_labels(text: &[u8], at: &mut usize, spans: &mut Vec<[Span; 2]>) -> Option<()> {
    spans.clear();
    for _ in 0..varint(text, at).ok()? {
        let mut span = || {
            let len = usize::try_from(varint(text, at).ok()?).ok()?;
            let start = *at;
            *at = start.checked_add(len).filter(|end| *end <= text.len())?;
            Some((start, *at))
        };
        spans.push([span()?, span()?]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &'static str) -> impl FnMut(usize, &mut Vec<u8>) {
        move |place, out| {
            let value = format!("{name}{place}");
            put_labels([(&b"a"[..], value.as_bytes())].into_iter(), out);
        }
    }

    fn gone(known: &Known, ids: &[SeriesId]) -> (Difference, Vec<String>) {
        let mut gone = Vec::new();
        let difference = known.compare(ids, None, put("x"), |labels| {
            gone.push(
                labels
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            );
        });
        (difference, gone)
    }

    #[test]
    fn what_has_gone_is_told_with_its_labels_and_what_has_come_is_counted() {
        let ids = |ids: &[u64]| ids.iter().map(|id| SeriesId(*id)).collect::<Vec<_>>();
        let mut known = Known::default();
        // The second one is not tracked.
        let first = ids(&[11, 20, 31]);
        let (difference, stale) = gone(&known, &first);
        assert_eq!((difference.added, stale.len()), (3, 0));
        known.update(difference);
        let (difference, stale) = gone(&known, &first);
        assert!(difference.next.is_none() && stale.is_empty());
        let (difference, stale) = gone(&known, &ids(&[31, 41]));
        assert_eq!((difference.added, stale), (1, vec!["a=x0".to_owned()]));
        // Nothing was sent, so that they still need staleness markers.
        let mut stale = Vec::new();
        known.end(|labels| stale.push(labels.count()));
        assert_eq!(stale, [1, 1]);
        known.ended();
        let (difference, stale) = gone(&known, &ids(&[31]));
        assert_eq!((difference.added, stale.len()), (0, 0));
        known.update(difference);
        assert_eq!((known.len(), known.is_live()), (1, true));
    }

    #[test]
    fn a_series_that_is_no_longer_tracked_ends_and_is_not_new() {
        let ids = |ids: &[u64]| ids.iter().map(|id| SeriesId(*id)).collect::<Vec<_>>();
        let mut known = Known::default();
        let (difference, _) = gone(&known, &ids(&[11, 21]));
        known.update(difference);
        let (difference, stale) = gone(&known, &ids(&[10, 21]));
        assert_eq!((difference.added, stale), (0, vec!["a=x0".to_owned()]));
        known.update(difference);
        let (difference, stale) = gone(&known, &ids(&[11, 21]));
        assert_eq!((difference.added, stale.len()), (0, 0));
    }

    #[test]
    fn what_some_sinks_were_not_told_is_told_again_until_it_is() {
        let ids = |ids: &[u64]| ids.iter().map(|id| SeriesId(*id)).collect::<Vec<_>>();
        let mut known = Known::default();
        let (difference, _) = gone(&known, &ids(&[11, 20, 31]));
        known.join(difference);
        // 20 is not tracked. Nobody may have been told of 31, so it is told again.
        let (difference, stale) = gone(&known, &ids(&[41, 11]));
        assert_eq!(stale, ["x2"].map(|it| format!("a={it}")));
        known.join(difference);
        let (difference, stale) = gone(&known, &ids(&[41]));
        assert_eq!(stale, ["x1", "x2"].map(|it| format!("a={it}")));
        known.join(difference);
        // One that has returned is not ended.
        let (difference, stale) = gone(&known, &ids(&[41, 31]));
        assert_eq!(stale, ["a=x1"]);
        known.update(difference);
        let (_, stale) = gone(&known, &ids(&[41, 31]));
        assert!(stale.is_empty());
    }

    #[test]
    fn no_more_is_owed_than_the_bound() {
        let mut known = Known::default();
        for round in 0..5 {
            let ids: Vec<_> = (0..LEAST_OWED as u64)
                .map(|id| SeriesId((round * 100_000 + id) << 1 | 1))
                .collect();
            let (difference, _) = gone(&known, &ids);
            known.join(difference);
        }
        assert_eq!(known.len(), 2 * LEAST_OWED);
    }

    #[test]
    fn series_that_another_target_has_are_not_ended() {
        let ids: Vec<_> = [11, 20, 31].map(SeriesId).into();
        let mut known = Known::default();
        let (difference, _) = gone(&known, &ids);
        known.update(difference);
        let other: Arc<[SeriesId]> = [SeriesId(30), SeriesId(41)].into();
        let mut stale = Vec::new();
        known.end_all_but(&[other], |labels| {
            stale.extend(labels.map(|(_, value)| value.to_owned()));
        });
        assert_eq!(stale, ["x0"]);
    }
}
