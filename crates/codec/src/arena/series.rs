//! Series of an arena, for reading and for editing, and label names prepared for lookups.

use std::cmp::Ordering;

use metrifold_model::{SeriesCounts, Version};

use crate::remote_write::put_labels;

use super::{Arena, Label, Span};

/// A label name that is looked up often: its first bytes are compared as one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    head: u64,
    text: Box<[u8]>,
}

impl Name {
    /// Prepares a name for lookups.
    pub fn new(text: &str) -> Self {
        Self {
            head: head(text.as_bytes()),
            text: text.as_bytes().into(),
        }
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default() // made from a str
    }
}

/// A series, for reading.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    pub(super) arena: &'a Arena,
    pub(super) index: usize,
}

impl<'a> SeriesRef<'a> {
    /// Index of the series in the arena.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Labels, sorted by name.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let arena = self.arena;
        arena
            .labels_of(self.index)
            .iter()
            .map(move |label| (arena.text(label.name()), arena.text(label.value())))
    }

    /// The labels as fields of 1.0, sorted by name; equal for equal labels. They are encoded into
    /// `scratch` unless the arena's text has them one behind the other.
    pub fn encoded_labels<'s>(&self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        let labels = self.arena.labels_of(self.index);
        if let Some(entries) = self.contiguous(labels) {
            return entries;
        }
        scratch.clear();
        put_labels(self.arena, labels, scratch);
        scratch
    }

    fn contiguous(&self, labels: &[Label]) -> Option<&'a [u8]> {
        let (start, _) = labels.first()?.entry_place()?;
        let mut end = start;
        for label in labels {
            let (start, len) = label.entry_place()?;
            if start != end {
                return None;
            }
            end += len;
        }
        // An entry lies in one part of the text.
        let raw = self.arena.raw.as_slice();
        raw.get(start as usize..end as usize)
    }

    /// Value of a label; None if the series lacks it.
    pub fn get(&self, name: &Name) -> Option<&'a [u8]> {
        let position = find(self.arena, self.index, name).ok()?;
        let label = self.arena.labels_of(self.index)[position];
        Some(self.arena.text(label.value()))
    }

    /// Counts of the samples, histograms and exemplars.
    pub fn counts(&self) -> SeriesCounts {
        self.arena.series[self.index].counts
    }

    /// Version in which the fields are encoded.
    pub(crate) fn version(&self) -> Version {
        self.arena.version
    }

    /// All fields except labels, encoded in the arena's version.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.arena.text(self.arena.series[self.index].rest)
    }
}

/// Finds `name` among a series' labels: its position, or where to insert it.
#[inline(always)]
fn find(arena: &Arena, index: usize, name: &Name) -> Result<usize, usize> {
    find_near(arena, index, name, &mut 0)
}

/// Like [`find`], but begins at the position found in another series: neighbouring series mostly
/// have the same labels, or one more or less.
#[inline(always)]
fn find_near(arena: &Arena, index: usize, name: &Name, hint: &mut usize) -> Result<usize, usize> {
    let labels = arena.labels_of(index);
    let mut place = (*hint).min(labels.len());
    let begun = place;
    while let Some(label) = labels.get(place) {
        match order(arena, label.name(), name) {
            Ordering::Less => place += 1,
            Ordering::Equal => {
                *hint = place;
                return Ok(place);
            }
            Ordering::Greater => break,
        }
    }
    // Otherwise, the label before this position sorts before the name.
    if place == begun {
        while let Some(before) = place.checked_sub(1) {
            match order(arena, labels[before].name(), name) {
                Ordering::Less => break,
                Ordering::Equal => {
                    *hint = before;
                    return Ok(before);
                }
                Ordering::Greater => place = before,
            }
        }
    }
    *hint = place;
    Err(place)
}

/// Compares the name in a range of the text with a name. Mostly, their heads differ; for up to
/// eight bytes, comparing the heads is enough.
#[inline(always)]
fn order(arena: &Arena, span: Span, name: &Name) -> Ordering {
    let head = arena.head(span);
    if head != name.head {
        return if head < name.head {
            Ordering::Less
        } else {
            Ordering::Greater
        };
    }
    if span.len <= 8 && span.len as usize == name.text.len() {
        return Ordering::Equal;
    }
    arena.text(span).cmp(&name.text)
}

/// A series, for editing. Its labels stay sorted and unique after every edit.
#[derive(Debug)]
pub struct SeriesMut<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) index: usize,
}

impl SeriesMut<'_> {
    /// Number of labels.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.arena.series[self.index].labels_len as usize
    }

    /// Counts of the samples, histograms and exemplars.
    pub fn counts(&self) -> SeriesCounts {
        self.arena.series[self.index].counts
    }

    /// Whether all labels have been removed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the label at a position below [`len`](Self::len).
    #[inline(always)]
    pub fn name_at(&self, position: usize) -> &[u8] {
        self.arena
            .text(self.arena.labels_of(self.index)[position].name())
    }

    /// Value of the label at a position below [`len`](Self::len).
    #[inline(always)]
    pub fn value_at(&self, position: usize) -> &[u8] {
        self.arena
            .text(self.arena.labels_of(self.index)[position].value())
    }

    /// Value of a label; None if the series lacks it.
    #[inline(always)]
    pub fn get(&self, name: &Name) -> Option<&[u8]> {
        let position = find(self.arena, self.index, name).ok()?;
        Some(self.value_at(position))
    }

    /// Finds a label: its position, or where to insert it. Keep `hint` from series to series.
    #[inline(always)]
    pub fn position(&self, name: &Name, hint: &mut usize) -> Result<usize, usize> {
        find_near(self.arena, self.index, name, hint)
    }

    /// Sets a label at the position that [`position`](Self::position) returned for its name.
    #[inline(always)]
    pub fn set_label_at(&mut self, place: Result<usize, usize>, label: Label) {
        if let Ok(position) = place {
            let old = self.arena.labels_of(self.index)[position];
            if self.arena.text(old.value()) == self.arena.text(label.value()) {
                return;
            }
        }
        self.put(place, label);
    }

    /// Sets a label; an empty value removes it, as everywhere in Prometheus.
    pub fn set(&mut self, name: &Name, value: &[u8]) {
        if value.is_empty() {
            self.remove(name);
            return;
        }
        let place = find(self.arena, self.index, name);
        if let Ok(position) = place
            && self.value_at(position) == value
        {
            return;
        }
        let label = self.arena.push_label(name.as_bytes(), value);
        self.put(place, label);
    }

    /// Sets a label that [`Arena::push_label`] or [`push_label`](Self::push_label) made. `name`
    /// must be its name.
    #[inline(always)]
    pub fn set_label(&mut self, name: &Name, label: Label) {
        debug_assert_eq!(self.arena.text(label.name()), name.as_bytes());
        let place = find(self.arena, self.index, name);
        if let Ok(position) = place {
            let old = self.arena.labels_of(self.index)[position];
            if self.arena.text(old.value()) == self.arena.text(label.value()) {
                return;
            }
        }
        self.put(place, label);
    }

    /// Appends a label to the arena's text, for use in several series.
    pub fn push_label(&mut self, name: &Name, value: &[u8]) -> Label {
        self.arena.push_label(name.as_bytes(), value)
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &Name) {
        if let Ok(position) = find(self.arena, self.index, name) {
            self.remove_at(position);
        }
    }

    /// Removes the label at a position below [`len`](Self::len).
    pub fn remove_at(&mut self, position: usize) {
        let arena = &mut *self.arena;
        let series = &mut arena.series[self.index];
        let start = series.labels as usize;
        let end = start + series.labels_len as usize;
        series.labels_bytes -= arena.labels[start + position].entry_len() as u32;
        arena
            .labels
            .copy_within(start + position + 1..end, start + position);
        series.labels_len -= 1;
        series.edited = true;
        arena.changed = true;
    }

    #[inline(always)]
    fn put(&mut self, place: Result<usize, usize>, label: Label) {
        let arena = &mut *self.arena;
        let series = &mut arena.series[self.index];
        series.edited = true;
        arena.changed = true;
        series.labels_bytes += label.entry_len() as u32;
        match place {
            Ok(position) => {
                let old = &mut arena.labels[series.labels as usize + position];
                series.labels_bytes -= old.entry_len() as u32;
                *old = label;
            }
            Err(position) => {
                if series.labels_len == series.labels_room {
                    // Moves the labels to the end of the list, with twice the room.
                    let start = series.labels as usize;
                    let len = series.labels_len as usize;
                    series.labels = arena.labels.len() as u32;
                    series.labels_room = (series.labels_room * 2).max(8);
                    arena.labels.extend_from_within(start..start + len);
                    let room = arena.labels.len() - len + series.labels_room as usize;
                    arena.labels.resize(room, label);
                }
                let place = series.labels as usize + position;
                let end = (series.labels + series.labels_len) as usize;
                if place < end {
                    arena.labels.copy_within(place..end, place + 1);
                }
                arena.labels[place] = label;
                series.labels_len += 1;
            }
        }
    }
}

/// First eight bytes as a number that sorts like the text.
#[inline(always)]
pub(crate) fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..text.len()].copy_from_slice(text);
            u64::from_be_bytes(eight)
        }
    }
}

/// The same for the first `len` bytes of a longer text; None if fewer than eight bytes are left.
#[inline(always)]
pub(crate) fn head_within(text: &[u8], len: usize) -> Option<u64> {
    let eight = text.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*eight) & HEADS[len.min(8)])
}

/// Masks by length of a text: the part of its first eight bytes that belongs to it.
const HEADS: [u64; 9] = {
    let mut heads = [u64::MAX; 9];
    let mut len = 0;
    while len < 8 {
        heads[len] = !(u64::MAX >> (8 * len));
        len += 1;
    }
    heads
};
