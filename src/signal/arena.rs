//! The decoded form of a batch: offsets into one text, no `String` per label, no struct per sample.
//!
//! The text is the decompressed request (`raw`, shared by all copies of the arena) followed by
//! what edits added (`extra`). A label is two ranges of the text. A series is a range of labels
//! and the range of its remaining fields (samples, histograms, exemplars), which are counted but
//! not parsed. An edit touches the labels alone; series that nobody edits leave byte for byte.

use std::sync::{Arc, Mutex, PoisonError};

use crate::protocol::{Version, wire};

/// Set in a label's name length when its encoded 1.0 `Label` entry surrounds it in the text, so
/// that encoding can copy the entry, and neighbouring entries in one go.
const ENTRY: u32 = 1 << 31;

/// A label: its name and its value as ranges of the arena's text.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

impl Label {
    /// A label whose 1.0 entry surrounds it: `0x0a len 0x0a len name 0x12 len value`.
    #[inline(always)]
    pub(crate) fn entry(name: usize, name_len: usize, value: usize, value_len: usize) -> Self {
        Self {
            name: name as u32,
            name_len: name_len as u32 | ENTRY,
            value: value as u32,
            value_len: value_len as u32,
        }
    }

    /// A label whose name and value lie anywhere in the text.
    #[inline(always)]
    pub(crate) fn apart(name: Span, value: Span) -> Self {
        Self {
            name: name.start,
            name_len: name.len,
            value: value.start,
            value_len: value.len,
        }
    }

    #[inline(always)]
    pub(crate) fn name(self) -> Span {
        Span {
            start: self.name,
            len: self.name_len & !ENTRY,
        }
    }

    #[inline(always)]
    pub(crate) fn value(self) -> Span {
        Span {
            start: self.value,
            len: self.value_len,
        }
    }

    /// The length of the `Label` message in 1.0, without its own tag and length.
    #[inline(always)]
    pub(crate) fn message_len(self) -> usize {
        let name = self.name().len as usize;
        let value = self.value_len as usize;
        2 + wire::varint_len(name as u64) + name + wire::varint_len(value as u64) + value
    }

    /// The range of the encoded entry, if it stands in the text.
    #[inline(always)]
    pub(crate) fn entry_span(self) -> Option<(usize, usize)> {
        if self.name_len & ENTRY == 0 {
            return None;
        }
        let end = self.value as usize + self.value_len as usize;
        Some((end - self.entry_len(), end))
    }

    /// The length of the `Label` field in 1.0.
    #[inline(always)]
    pub(crate) fn entry_len(self) -> usize {
        let short = 6 + (self.name_len & !ENTRY) + self.value_len;
        if short < 0x80 {
            // All three lengths take one byte.
            return short as usize;
        }
        let message = self.message_len();
        1 + wire::varint_len(message as u64) + message
    }
}

/// A range of the arena's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            len: (end - start) as u32,
        }
    }
}

/// A series of an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// The series' field as it arrived, with tag and length.
    pub(crate) whole: Span,
    /// All its fields but labels (1.0) or label references (2.0), in their order.
    pub(crate) rest: Span,
    /// Its labels: where they start, how many, and room for how many.
    pub(crate) labels: u32,
    pub(crate) labels_len: u32,
    pub(crate) labels_room: u32,
    /// The bytes of its labels, encoded as 1.0 fields; kept for batches that arrived as 1.0.
    pub(crate) labels_bytes: u32,
    pub(crate) counts: SeriesCounts,
    /// Whether `whole` no longer says what this series is.
    pub(crate) edited: bool,
    pub(crate) dropped: bool,
}

/// What a series carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SeriesCounts {
    pub(crate) samples: u32,
    pub(crate) histograms: u32,
    pub(crate) exemplars: u32,
}

/// What a batch carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Series.
    pub series: u64,
    /// Float samples.
    pub samples: u64,
    /// Native histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Metadata entries of remote write 1.0.
    pub metadata: u64,
}

impl Counts {
    /// Samples of both kinds.
    pub fn all_samples(&self) -> u64 {
        self.samples + self.histograms
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, series: SeriesCounts) {
        self.series += 1;
        self.samples += u64::from(series.samples);
        self.histograms += u64::from(series.histograms);
        self.exemplars += u64::from(series.exemplars);
    }

    fn sub(&mut self, series: SeriesCounts) {
        self.series -= 1;
        self.samples -= u64::from(series.samples);
        self.histograms -= u64::from(series.histograms);
        self.exemplars -= u64::from(series.exemplars);
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.series += other.series;
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
    }
}

/// A decompressed request; its memory goes back to a pool.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    bytes: Vec<u8>,
    /// How much of `bytes` is the request: the pool keeps longer buffers initialised.
    len: usize,
}

impl Raw {
    /// A buffer of `len` bytes with unspecified contents, to be decompressed into.
    pub(crate) fn with_len(len: usize) -> Self {
        let mut bytes = Pool::take_raw(len);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Self { bytes, len }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<Vec<u8>> for Raw {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes, len }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        Pool::give_raw(std::mem::take(&mut self.bytes));
    }
}

/// A decoded batch.
#[derive(Clone, Debug)]
pub struct Arena {
    /// The version in which `Series::whole` and `Series::rest` are encoded.
    pub(crate) version: Version,
    pub(crate) raw: Arc<Raw>,
    pub(crate) extra: Vec<u8>,
    pub(crate) labels: Vec<Label>,
    pub(crate) series: Vec<Series>,
    /// `MetricMetadata` fields of 1.0, with tag and length.
    pub(crate) metadata: Vec<Span>,
    /// The symbol table of 2.0.
    pub(crate) symbols: Vec<Span>,
    pub(crate) counts: Counts,
    pub(crate) changed: bool,
    /// Whether edits made the text longer than offsets can say.
    pub(crate) overflowed: bool,
}

/// The longest text that an arena holds.
const TEXT_MAX: usize = 2 << 30;

impl Arena {
    pub(crate) fn new(version: Version, raw: Raw) -> Self {
        let (labels, series) = Pool::take_lists(raw.len);
        Self {
            version,
            raw: Arc::new(raw),
            extra: Vec::new(),
            labels,
            series,
            metadata: Vec::new(),
            symbols: Vec::new(),
            counts: Counts::default(),
            changed: false,
            overflowed: false,
        }
    }

    /// What it carries, without dropped series.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The memory that it holds, in bytes.
    pub fn weight(&self) -> usize {
        self.raw.bytes.capacity()
            + self.extra.capacity()
            + size_of_lists(&self.labels, &self.series)
            + (self.metadata.capacity() + self.symbols.capacity()) * size_of::<Span>()
    }

    /// A range of the text.
    #[inline(always)]
    pub(crate) fn text(&self, span: Span) -> &[u8] {
        let (start, len) = (span.start as usize, span.len as usize);
        let raw = self.raw.as_slice();
        if start < raw.len() {
            &raw[start..start + len]
        } else {
            &self.extra[start - raw.len()..][..len]
        }
    }

    /// The first eight bytes of a range as a number that sorts as they do; shorter ones are
    /// filled with zeros.
    #[inline(always)]
    pub(crate) fn head(&self, span: Span) -> u64 {
        let raw = self.raw.as_slice();
        let start = span.start as usize;
        match raw.get(start..start + 8) {
            Some(eight) => mask_head(eight, span.len as usize),
            None => head(self.text(span)),
        }
    }

    /// A symbol of a 2.0 batch.
    pub(crate) fn symbol(&self, number: u64) -> Option<&[u8]> {
        let span = *self.symbols.get(usize::try_from(number).ok()?)?;
        Some(self.text(span))
    }

    /// Appends text; returns its range.
    pub(crate) fn push_text(&mut self, text: &[u8]) -> Span {
        let start = self.raw.len + self.extra.len();
        if start + text.len() > TEXT_MAX {
            self.overflowed = true;
            return Span::default();
        }
        self.extra.extend_from_slice(text);
        Span::new(start, start + text.len())
    }

    /// Appends a label to the text, encoded as a 1.0 entry. Give the result to
    /// [`SeriesMut::set_label`], as often as wanted.
    pub fn push_label(&mut self, name: &[u8], value: &[u8]) -> Label {
        let mut label = Label::entry(0, name.len(), 0, value.len());
        let base = self.raw.len;
        let out = &mut self.extra;
        if base + out.len() + label.message_len() + 16 > TEXT_MAX {
            self.overflowed = true;
            return Label::apart(Span::default(), Span::default());
        }
        out.push(wire::tag(1, wire::LEN));
        wire::put_varint(out, label.message_len() as u64);
        out.push(wire::tag(1, wire::LEN));
        wire::put_varint(out, name.len() as u64);
        label.name = (base + out.len()) as u32;
        out.extend_from_slice(name);
        out.push(wire::tag(2, wire::LEN));
        wire::put_varint(out, value.len() as u64);
        label.value = (base + out.len()) as u32;
        out.extend_from_slice(value);
        label
    }

    /// The series that are not dropped.
    pub fn iter(&self) -> impl Iterator<Item = SeriesRef<'_>> {
        (0..self.series.len())
            .filter(|&i| !self.series[i].dropped)
            .map(|index| SeriesRef { arena: self, index })
    }

    /// How many series there are to index, dropped ones included.
    pub(crate) fn slots(&self) -> usize {
        self.series.len()
    }

    /// A series by its index.
    pub(crate) fn get(&self, index: usize) -> SeriesRef<'_> {
        SeriesRef { arena: self, index }
    }

    /// Removes a series.
    pub(crate) fn drop_series(&mut self, index: usize) {
        let series = &mut self.series[index];
        if !series.dropped {
            series.dropped = true;
            self.counts.sub(series.counts);
            self.changed = true;
        }
    }

    /// Calls `edit` for each series and drops those for which it returns false.
    pub fn retain(&mut self, mut edit: impl FnMut(&mut SeriesMut<'_>) -> bool) {
        for index in 0..self.series.len() {
            if self.series[index].dropped {
                continue;
            }
            if !edit(&mut SeriesMut { arena: self, index }) {
                self.drop_series(index);
            }
        }
    }

    /// A copy that keeps those series for which `keep` holds, and the 1.0 metadata if asked.
    pub(crate) fn subset(&self, metadata: bool, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut part = self.clone();
        for index in 0..part.series.len() {
            if !keep(index) {
                part.drop_series(index);
            }
        }
        if !metadata {
            part.drop_metadata();
        }
        part
    }

    /// A copy that holds the series at these indexes, and the 1.0 metadata if asked. Unlike
    /// [`subset`](Self::subset) it takes no room for the others, so many can be made of one.
    pub(crate) fn extract(&self, metadata: bool, indexes: &[usize]) -> Self {
        let mut part = Self {
            version: self.version,
            raw: self.raw.clone(),
            extra: self.extra.clone(),
            labels: Vec::new(),
            series: Vec::with_capacity(indexes.len()),
            metadata: Vec::new(),
            symbols: self.symbols.clone(),
            counts: Counts::default(),
            changed: true,
            overflowed: self.overflowed,
        };
        for &index in indexes {
            let mut series = self.series[index];
            let start = series.labels as usize;
            let room = start..start + series.labels_room as usize;
            series.labels = part.labels.len() as u32;
            part.labels.extend_from_slice(&self.labels[room]);
            part.series.push(series);
            if !series.dropped {
                part.counts.add(series.counts);
            }
        }
        if metadata {
            part.metadata.clone_from(&self.metadata);
            part.counts.metadata = self.counts.metadata;
        }
        part
    }

    /// Removes the 1.0 metadata.
    pub(crate) fn drop_metadata(&mut self) {
        if !self.metadata.is_empty() {
            self.metadata.clear();
            self.counts.metadata = 0;
            self.changed = true;
        }
    }

    pub(crate) fn count(&mut self, series: SeriesCounts) {
        self.counts.add(series);
    }

    #[inline(always)]
    pub(crate) fn labels_of(&self, index: usize) -> &[Label] {
        let series = &self.series[index];
        &self.labels[series.labels as usize..][..series.labels_len as usize]
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let labels = std::mem::take(&mut self.labels);
        let series = std::mem::take(&mut self.series);
        Pool::give_lists(labels, series);
    }
}

/// The first eight bytes as a number that sorts as they do.
#[inline(always)]
fn head(text: &[u8]) -> u64 {
    match text.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..text.len()].copy_from_slice(text);
            u64::from_be_bytes(eight)
        }
    }
}

#[inline(always)]
fn mask_head(eight: &[u8], len: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(eight);
    let value = u64::from_be_bytes(bytes);
    match len {
        0 => 0,
        1..8 => value & !(u64::MAX >> (8 * len)),
        _ => value,
    }
}

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
    arena: &'a Arena,
    index: usize,
}

impl<'a> SeriesRef<'a> {
    /// Its place in the arena.
    pub(crate) fn index(&self) -> usize {
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
        match arena.text(span).cmp(&name.text) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(position),
            std::cmp::Ordering::Greater => return Err(position),
        }
    }
    Err(labels.len())
}

/// As [`find`], but looks first where the name was, or would have been, in another series:
/// neighbours mostly have the same labels.
#[inline(always)]
fn find_near(arena: &Arena, index: usize, name: &Name, hint: &mut usize) -> Result<usize, usize> {
    let labels = arena.labels_of(index);
    let guess = *hint;
    match labels.get(guess).map(|label| label.name()) {
        Some(span) if arena.head(span) == name.head && arena.text(span) == &*name.text => {
            return Ok(guess);
        }
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
    arena: &'a mut Arena,
    index: usize,
}

impl SeriesMut<'_> {
    /// How many labels it has.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.arena.series[self.index].labels_len as usize
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
                let start = series.labels as usize;
                let end = start + series.labels_len as usize;
                arena
                    .labels
                    .copy_within(start + position..end, start + position + 1);
                arena.labels[start + position] = label;
                series.labels_len += 1;
            }
        }
    }
}

/// Memory of arenas that are gone, for arenas to come: without it every batch would have the
/// operating system map and clear a megabyte.
static POOL: Mutex<Pool> = Mutex::new(Pool {
    raw: Vec::new(),
    lists: Vec::new(),
});

/// Buffers kept, and the largest that is worth keeping, in bytes.
const POOL_BUFFERS: usize = 8;
const POOL_LARGEST: usize = 2 << 20;

/// How many times the decoded size of a batch the buffers may have that it is given, and the
/// size that any batch is taken to have: one that waits in a queue holds them all the while.
const POOL_RAW: usize = 4;
const POOL_LISTS: usize = 16;
const POOL_SMALLEST: usize = 256;

fn size_of_lists(labels: &Vec<Label>, series: &Vec<Series>) -> usize {
    labels.capacity() * size_of::<Label>() + series.capacity() * size_of::<Series>()
}

#[derive(Default)]
struct Pool {
    raw: Vec<Vec<u8>>,
    lists: Vec<(Vec<Label>, Vec<Series>)>,
}

impl Pool {
    /// The pool holds no invariant that a panic elsewhere could have broken.
    fn lock() -> std::sync::MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_raw(len: usize) -> Vec<u8> {
        let mut pool = Self::lock();
        let fits = |raw: &Vec<u8>| raw.capacity() <= POOL_RAW * len.max(POOL_SMALLEST);
        let found = pool.raw.iter().rposition(fits);
        found.map_or_else(Vec::new, |place| pool.raw.swap_remove(place))
    }

    fn give_raw(buffer: Vec<u8>) {
        if (1..=POOL_LARGEST).contains(&buffer.capacity()) {
            let mut pool = Self::lock();
            if pool.raw.len() < POOL_BUFFERS {
                pool.raw.push(buffer);
            }
        }
    }

    fn take_lists(raw_len: usize) -> (Vec<Label>, Vec<Series>) {
        let mut pool = Self::lock();
        let most = POOL_LISTS * raw_len.max(POOL_SMALLEST);
        let fits =
            |(labels, series): &(Vec<Label>, Vec<Series>)| size_of_lists(labels, series) <= most;
        let found = pool.lists.iter().rposition(fits);
        found.map_or_else(Default::default, |place| pool.lists.swap_remove(place))
    }

    fn give_lists(mut labels: Vec<Label>, mut series: Vec<Series>) {
        if (1..=POOL_LARGEST).contains(&size_of_lists(&labels, &series)) {
            labels.clear();
            series.clear();
            let mut pool = Self::lock();
            if pool.lists.len() < POOL_BUFFERS {
                pool.lists.push((labels, series));
            }
        }
    }
}
