//! Exemplars in series of their own, joined to the samples of the same series.
//!
//! Prometheus sends each exemplar in a series without samples, in both versions. 1.0 allows that;
//! 2.0 forbids it, and Prometheus' own receiver refuses it (prometheus#17857).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use metrifold_model::{SeriesCounts, Version};

use crate::wire::{Field, Fields, Value};
use crate::{Arena, Batch};

use super::decode::DecodeError;
use super::{encode_v1, encode_v2};

/// Separator after each name and value of a key: a byte that UTF-8 never contains.
const END: u8 = 0xff;

/// Exemplars as fields of a 1.0 series, with tag and length, which need no symbol table.
pub(super) type Exemplars = Vec<Box<[u8]>>;

/// Exemplars of earlier batches, kept until a sample of their series comes.
pub(super) trait Earlier {
    /// Removes and returns the exemplars of the series with this key.
    fn take(&mut self, key: &[u8]) -> Exemplars;
}

/// No exemplars of earlier batches.
impl Earlier for () {
    fn take(&mut self, _key: &[u8]) -> Exemplars {
        Vec::new()
    }
}

/// Assignment of a batch's exemplars to series.
#[derive(Debug, Default)]
pub(super) struct Joining {
    joins: Vec<Join>,
    /// Series without samples whose samples are not in the batch.
    pub(super) left: Lone,
}

/// Series without samples, grouped by their labels. The labels stay in the batch, since those of
/// many series can take far more than the batch: a group is found by a hash, and compared.
#[derive(Debug, Default)]
pub(super) struct Lone {
    groups: HashMap<u64, Vec<Vec<usize>>, RandomState>,
}

impl Lone {
    fn hash(&self, arena: &Arena, index: usize) -> u64 {
        let mut hasher = self.groups.hasher().build_hasher();
        for text in texts(arena, index) {
            hasher.write_usize(text.len());
            hasher.write(text);
        }
        hasher.finish()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn add(&mut self, arena: &Arena, index: usize) {
        let hash = self.hash(arena, index);
        let groups = self.groups.entry(hash).or_default();
        match groups.iter_mut().find(|group| same(arena, group[0], index)) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }

    /// Removes and returns the series with the labels of this one.
    fn remove(&mut self, arena: &Arena, index: usize) -> Vec<usize> {
        let hash = self.hash(arena, index);
        let Some(groups) = self.groups.get_mut(&hash) else {
            return Vec::new();
        };
        let place = groups.iter().position(|group| same(arena, group[0], index));
        let group = place.map(|place| groups.swap_remove(place));
        if groups.is_empty() {
            self.groups.remove(&hash);
        }
        group.unwrap_or_default()
    }

    /// Indexes of all series.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.groups.values().flatten().flatten().copied()
    }
}

/// Names and values of a series' labels, in order.
fn texts(arena: &Arena, index: usize) -> impl Iterator<Item = &[u8]> {
    let labels = arena.labels_of(index).iter();
    labels.flat_map(|label| [arena.text(label.name()), arena.text(label.value())])
}

fn same(arena: &Arena, one: usize, other: usize) -> bool {
    texts(arena, one).eq(texts(arena, other))
}

/// Exemplars to be added to a series.
#[derive(Debug)]
struct Join {
    owner: usize,
    /// Exemplars of earlier batches.
    earlier: Exemplars,
    /// Indexes of the series in this batch that carry exemplars of the same series.
    lone: Vec<usize>,
}

pub(super) fn is_lone(counts: SeriesCounts) -> bool {
    counts.samples + counts.histograms == 0 && counts.exemplars > 0
}

/// Whether the batch has exemplars in series without samples.
pub(super) fn has_lone(arena: &Arena) -> bool {
    arena.counts.exemplars > 0 && arena.iter().any(|series| is_lone(series.counts()))
}

/// Finds the series of lone exemplars; without `earlier`, only those of this batch.
pub(super) fn find(arena: &Arena, mut earlier: Option<&mut impl Earlier>) -> Joining {
    let mut joining = Joining::default();
    let mut key = Vec::new();
    if arena.counts.exemplars > 0 {
        for series in arena.iter().filter(|series| is_lone(series.counts())) {
            joining.left.add(arena, series.index());
        }
    }
    for series in arena.iter() {
        if joining.left.is_empty() && earlier.is_none() {
            break;
        }
        let counts = series.counts();
        if counts.samples + counts.histograms == 0 {
            continue;
        }
        let earlier = earlier.as_mut().map(|earlier| {
            put_key(arena, series.index(), &mut key);
            earlier.take(&key)
        });
        let lone = match joining.left.is_empty() {
            true => Vec::new(),
            false => joining.left.remove(arena, series.index()),
        };
        let join = Join {
            owner: series.index(),
            earlier: earlier.unwrap_or_default(),
            lone,
        };
        if !join.earlier.is_empty() || !join.lone.is_empty() {
            joining.joins.push(join);
        }
    }
    joining
}

/// Moves lone exemplars to their series if the batch has it, and removes the others; returns the
/// number of removed exemplars.
pub(crate) fn join_within(batch: &mut Batch) -> Result<u64, DecodeError> {
    let arena = batch.arena()?;
    if !has_lone(arena) {
        return Ok(0);
    }
    let joining = find(arena, None::<&mut ()>);
    let left = joining.left_over(arena);
    batch.edit(|arena| joining.apply(arena))?;
    Ok(left)
}

/// Replaces `key` by the identity of a series: its sorted labels.
pub(super) fn put_key(arena: &Arena, index: usize, key: &mut Vec<u8>) {
    key.clear();
    for text in texts(arena, index) {
        key.extend_from_slice(text);
        key.push(END);
    }
}

/// Length of a series' key, and of all its exemplars as fields of 1.0.
pub(super) fn lengths_of(arena: &Arena, index: usize) -> (usize, usize) {
    let key = texts(arena, index).map(|text| text.len() + 1).sum();
    let exemplars = fields_of(arena, index).map(|field| match (arena.version, field.value) {
        (Version::V1, _) => field.whole.len(),
        (Version::V2, Value::Len(message)) => encode_v1::exemplar_len(arena, message),
        (Version::V2, _) => 0,
    });
    (key, exemplars.sum())
}

/// Exemplars of a series as they are encoded.
fn fields_of(arena: &Arena, index: usize) -> impl Iterator<Item = Field<'_>> {
    let number = field_number(arena.version);
    let fields = Fields::new(arena.get(index).rest()).map_while(Result::ok);
    fields.filter(move |field| field.number == number)
}

/// Exemplars of a series.
pub(super) fn exemplars_of(arena: &Arena, index: usize) -> Exemplars {
    fields_of(arena, index)
        .filter_map(|field| match (arena.version, field.value) {
            (Version::V1, _) => Some(field.whole.into()),
            (Version::V2, Value::Len(message)) => {
                let mut whole = Vec::new();
                encode_v1::exemplar(arena, message, &mut whole);
                Some(whole.into_boxed_slice())
            }
            (Version::V2, _) => None,
        })
        .collect()
}

fn field_number(version: Version) -> u32 {
    match version {
        Version::V1 => 3,
        Version::V2 => 4,
    }
}

impl Joining {
    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.left.is_empty()
    }

    /// Number of exemplars whose series is not in the batch.
    pub(super) fn left_over(&self, arena: &Arena) -> u64 {
        let series = self.left.iter();
        series
            .map(|index| u64::from(arena.series[index].counts.exemplars))
            .sum()
    }

    /// Moves the exemplars to their series, and removes those without one.
    pub(super) fn apply(self, arena: &mut Arena) {
        for join in self.joins {
            let mut rest = arena.get(join.owner).rest().to_vec();
            let mut joined = join.earlier.len() as u32;
            for exemplar in &join.earlier {
                put_earlier(arena, exemplar, &mut rest);
            }
            for index in join.lone {
                for field in Fields::new(arena.get(index).rest()).map_while(Result::ok) {
                    if field.number == field_number(arena.version) {
                        rest.extend_from_slice(field.whole);
                    }
                }
                joined += arena.series[index].counts.exemplars;
                arena.drop_series(index);
            }
            let rest = arena.push_text(&rest);
            let owner = &mut arena.series[join.owner];
            owner.rest = rest;
            owner.edited = true;
            owner.counts.exemplars += joined;
            arena.counts.exemplars += u64::from(joined);
            arena.changed = true;
        }
        for index in self.left.iter() {
            arena.drop_series(index);
        }
    }
}

/// Appends an exemplar to a series' fields, in the version of the batch.
fn put_earlier(arena: &mut Arena, exemplar: &[u8], rest: &mut Vec<u8>) {
    match arena.version {
        Version::V1 => rest.extend_from_slice(exemplar),
        Version::V2 => {
            let field = Fields::new(exemplar).next();
            if let Some(Ok(message)) = field.map(|field| field.and_then(|field| field.bytes())) {
                let mut symbol = |text: &[u8]| {
                    // The empty symbol comes first. No other may start where a symbol does.
                    if text.is_empty() {
                        return 0;
                    }
                    let number = arena.symbols.len() as u32;
                    let text = arena.push_text(text);
                    arena.symbols.push(text);
                    number
                };
                encode_v2::exemplar(message, &mut symbol, rest);
            }
        }
    }
}
