//! The series of an arena, to read and to edit, and the names to look labels up by.

use metrifold_model::{SeriesCounts, Version};

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

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default() // made from a str
    }
}

/// A series, to read.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    pub(super) arena: &'a Arena,
    pub(super) index: usize,
}

impl<'a> SeriesRef<'a> {
    /// Its place in the arena.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its labels, sorted by name.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let arena = self.arena;
        arena
            .labels_of(self.index)
            .iter()
            .map(move |label| (arena.text(label.name()), arena.text(label.value())))
    }

    /// The value of a label.
    pub fn get(&self, name: &Name) -> Option<&'a [u8]> {
        let position = find(self.arena, self.index, name).ok()?;
        let label = self.arena.labels_of(self.index)[position];
        Some(self.arena.text(label.value()))
    }

    /// What it carries.
    pub fn counts(&self) -> SeriesCounts {
        self.arena.series[self.index].counts
    }

    /// The version in which its fields are encoded.
    pub(crate) fn version(&self) -> Version {
        self.arena.version
    }

    /// All fields but its labels, encoded in the arena's version.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.arena.text(self.arena.series[self.index].rest)
    }
}

/// Where `name` is among a series' labels, or where it would be.
#[inline(always)]
fn find(arena: &Arena, index: usize, name: &Name) -> Result<usize, usize> {
    let labels = arena.labels_of(index);
    for (position, label) in labels.iter().enumerate() {
        let span = label.name();
        let head = arena.head(span);
        if head < name.head {
            continue;
        }
        if head > name.head {
            return Err(position);
        }
        if is(arena, span, name) {
            return Ok(position);
        }
        match arena.text(span).cmp(&name.text) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(position),
            std::cmp::Ordering::Greater => return Err(position),
        }
    }
    Err(labels.len())
}

/// Whether a range of the text is this name. Up to eight bytes, the heads say it all.
#[inline(always)]
fn is(arena: &Arena, span: Span, name: &Name) -> bool {
    span.len as usize == name.text.len()
        && arena.head(span) == name.head
        && (span.len <= 8 || arena.text(span) == &*name.text)
}

/// As [`find`], but looks first where the name was, or would have been, in another series:
/// neighbours mostly have the same labels.
#[inline(always)]
fn find_near(arena: &Arena, index: usize, name: &Name, hint: &mut usize) -> Result<usize, usize> {
    let labels = arena.labels_of(index);
    let guess = *hint;
    match labels.get(guess).map(|label| label.name()) {
        Some(span) if is(arena, span, name) => return Ok(guess),
        Some(span) if arena.head(span) <= name.head => {}
        // What stands here comes behind the name. If what stands before comes before it, the
        // name is missing.
        _ if guess <= labels.len() => match guess.checked_sub(1).map(|before| labels[before]) {
            Some(before) if arena.head(before.name()) >= name.head => {}
            _ => return Err(guess),
        },
        _ => {}
    }
    let place = find(arena, index, name);
    *hint = place.unwrap_or_else(|place| place);
    place
}

/// A series, to edit. Its labels stay sorted and unique whatever is done to them.
#[derive(Debug)]
pub struct SeriesMut<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) index: usize,
}

impl SeriesMut<'_> {
    /// How many labels it has.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.arena.series[self.index].labels_len as usize
    }

    /// What it carries.
    pub fn counts(&self) -> SeriesCounts {
        self.arena.series[self.index].counts
    }

    /// Whether it has no label left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the label at a position below [`len`](Self::len).
    #[inline(always)]
    pub fn name_at(&self, position: usize) -> &[u8] {
        self.arena
            .text(self.arena.labels_of(self.index)[position].name())
    }

    /// The value of the label at a position below [`len`](Self::len).
    #[inline(always)]
    pub fn value_at(&self, position: usize) -> &[u8] {
        self.arena
            .text(self.arena.labels_of(self.index)[position].value())
    }

    /// The value of a label.
    #[inline(always)]
    pub fn get(&self, name: &Name) -> Option<&[u8]> {
        let position = find(self.arena, self.index, name).ok()?;
        Some(self.value_at(position))
    }

    /// Where a label is, or where it would be. Keep `hint` from series to series.
    #[inline(always)]
    pub fn position(&self, name: &Name, hint: &mut usize) -> Result<usize, usize> {
        find_near(self.arena, self.index, name, hint)
    }

    /// Sets a label at the place that [`position`](Self::position) found for its name.
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

    /// Appends a label to the arena's text, to be set in several series.
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
                    // Moves to the end of the list, with room for as many again.
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

/// The first eight bytes as a number that sorts as they do.
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

/// The same, where the text may go on behind its end: none if not that far.
#[inline(always)]
pub(crate) fn head_within(text: &[u8], len: usize) -> Option<u64> {
    let eight = text.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*eight) & HEADS[len.min(8)])
}

/// By the length of a text, what of its first eight bytes belongs to it.
const HEADS: [u64; 9] = {
    let mut heads = [u64::MAX; 9];
    let mut len = 0;
    while len < 8 {
        heads[len] = !(u64::MAX >> (8 * len));
        len += 1;
    }
    heads
};
