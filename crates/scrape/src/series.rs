//! Which series a target had at its last scrape, in little memory: a hash of each, and their labels
//! compressed, which are looked at only when a series has gone.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use metrifold_codec::SeriesRef;
use metrifold_codec::wire::{put_varint, varint};

/// The series of a target.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// In the order of the page.
    ids: Box<[SeriesId]>,
    /// The labels of those that are tracked, in the same order, compressed.
    labels: Box<[u8]>,
    /// How long they are.
    labels_len: usize,
    /// Whether they were there at the last scrape, so that they have to be ended when they go.
    live: bool,
}

/// A series by a hash of its labels; its last bit says whether it is tracked, so that it gets a
/// staleness marker when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(u64);

/// What is different from the last scrape.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// How many series are new.
    pub(crate) added: usize,
    /// What is to be remembered from now on; none if nothing is different.
    next: Option<Known>,
}

impl SeriesId {
    pub(crate) fn new(series: SeriesRef<'_>, tracked: bool, state: &RandomState) -> Self {
        let mut hasher = state.build_hasher();
        for (name, value) in series.labels() {
            hasher.write_u64((name.len() as u64) << 32 | value.len() as u64);
            hasher.write(name);
            hasher.write(value);
        }
        Self(hasher.finish() & !1 | u64::from(tracked))
    }

    pub(crate) fn is_tracked(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same, whether it is tracked or not.
    pub(crate) fn plain(self) -> u64 {
        self.0 & !1
    }
}

impl Known {
    /// Whether these are the series that are known, in their order.
    pub(crate) fn is_same(&self, ids: &[SeriesId]) -> bool {
        *self.ids == *ids
    }

    /// Compares with a page; `labels` writes those of a series by its place. Series that have gone
    /// are handed to `stale`.
    pub(crate) fn compare(
        &self,
        ids: &[SeriesId],
        mut labels: impl FnMut(usize, &mut Vec<u8>),
        stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>),
    ) -> Difference {
        if self.is_same(ids) {
            return Difference::default();
        }
        let set = |ids: &[SeriesId]| -> HashSet<u64, RandomState> {
            ids.iter().map(|id| id.plain()).collect()
        };
        let (before, now) = (set(&self.ids), set(ids));
        let added = now.iter().filter(|id| !before.contains(id)).count();
        self.each_tracked(|id| !now.contains(&id.plain()), stale);
        let mut text = Vec::new();
        for (place, _) in ids.iter().enumerate().filter(|(_, id)| id.is_tracked()) {
            labels(place, &mut text);
        }
        // Fails only beyond 4 GiB, of which no page is.
        let compressed = snap::raw::Encoder::new().compress_vec(&text);
        Difference {
            added,
            next: Some(Self {
                ids: ids.into(),
                labels: compressed.unwrap_or_default().into(),
                labels_len: text.len(),
                live: true,
            }),
        }
    }

    /// Hands out all series that have to be ended.
    pub(crate) fn end(&self, stale: impl FnMut(&mut dyn Iterator<Item = (&str, &str)>)) {
        self.each_tracked(|_| true, stale);
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
        let mut text = vec![0; self.labels_len];
        if snap::raw::Decoder::new()
            .decompress(&self.labels, &mut text)
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

    /// Takes over what was found different, once it has been sent.
    pub(crate) fn update(&mut self, difference: Difference) {
        if let Some(next) = difference.next {
            *self = next;
        }
        self.live = true;
    }

    /// Says that all of them have been ended.
    pub(crate) fn ended(&mut self) {
        self.live = false;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Appends labels as `read_labels` reads them.
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
        let difference = known.compare(ids, put("x"), |labels| {
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
        // Nobody was told, so that they are still to be ended.
        let mut stale = Vec::new();
        known.end(|labels| stale.push(labels.count()));
        assert_eq!(stale, [1, 1]);
        known.ended();
        let (difference, stale) = gone(&known, &ids(&[31]));
        assert_eq!((difference.added, stale.len()), (0, 0));
        known.update(difference);
        assert_eq!((known.len(), known.live), (1, true));
    }
}
