//! Results that rules remember from one series to the next.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use metrifold_codec::{Label, Name, SeriesMut};

/// Most label names whose decisions a rule remembers.
const MAX_NAMES: usize = 4096;

/// Last input of a rule that reads values, and its result.
#[derive(Debug, Default)]
pub(super) struct Memo {
    known: bool,
    input: Vec<u8>,
    /// Whether the rule applies to this input.
    pub(super) matched: bool,
    output: Vec<u8>,
    /// Name of the label to write, if it depends on the input.
    pub(super) target: Option<Name>,
    /// The output as a label of the arena, once it has been added.
    label: Option<Label>,
}

impl Memo {
    pub(super) fn constant(output: &[u8]) -> Self {
        Self {
            output: output.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn begin(&mut self) {
        self.label = None;
    }

    #[inline(always)]
    pub(super) fn is(&self, input: &[u8]) -> bool {
        self.known && self.input == input
    }

    pub(super) fn learn(&mut self, input: &[u8]) {
        self.known = true;
        self.input.clear();
        self.input.extend_from_slice(input);
    }

    /// Buffer for a new output.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        self.label = None;
        self.output.clear();
        &mut self.output
    }

    /// Sets the label to the output, or removes it if that is empty.
    #[inline(always)]
    pub(super) fn write(
        &mut self,
        key: &Key,
        series: &mut SeriesMut<'_>,
        hints: &mut [usize],
        order: Option<&mut Order>,
    ) {
        write(
            &self.output,
            &mut self.label,
            &key.name,
            &mut hints[key.slot],
            series,
            order,
        );
    }

    /// Like `write`, for a label name that depends on the input.
    pub(super) fn write_to_target(
        &mut self,
        series: &mut SeriesMut<'_>,
        order: Option<&mut Order>,
    ) {
        if let Some(name) = &self.target {
            write(&self.output, &mut self.label, name, &mut 0, series, order);
        }
    }
}

#[inline(always)]
fn write(
    output: &[u8],
    label: &mut Option<Label>,
    name: &Name,
    hint: &mut usize,
    series: &mut SeriesMut<'_>,
    order: Option<&mut Order>,
) {
    let place = series.position(name, hint);
    if output.is_empty() {
        if let Ok(position) = place {
            series.remove_at(position);
        }
    } else if place.is_err()
        || label.is_some()
        || place.is_ok_and(|at| series.value_at(at) != output)
    {
        let label = *label.get_or_insert_with(|| series.push_label(name, output));
        series.set_label_at(place, label);
    }
    if let Some(order) = order {
        if output.is_empty() {
            order.removed(name.as_bytes());
        } else {
            order.written(name.as_bytes());
        }
    }
}

/// A label that a rule reads or writes, and the scratch slot that holds its position in the last
/// series.
#[derive(Debug)]
pub(super) struct Key {
    name: Name,
    slot: usize,
}

impl Key {
    /// Assigns the next free slot.
    pub(super) fn new(name: &str, slots: &mut usize) -> Self {
        let slot = *slots;
        *slots += 1;
        Self {
            name: Name::new(name),
            slot,
        }
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// The label's value, empty if it is missing.
    #[inline(always)]
    pub(super) fn get<'a>(&self, series: &'a SeriesMut<'_>, hints: &mut [usize]) -> &'a [u8] {
        match series.position(&self.name, &mut hints[self.slot]) {
            Ok(position) => series.value_at(position),
            Err(_) => b"",
        }
    }

    #[inline(always)]
    pub(super) fn remove(&self, series: &mut SeriesMut<'_>, hints: &mut [usize]) {
        if let Ok(position) = series.position(&self.name, &mut hints[self.slot]) {
            series.remove_at(position);
        }
    }
}

/// Decisions of a rule about label names.
#[derive(Debug, Default)]
pub(super) struct NameSet {
    /// Names of the last series by position, with their decisions: most series have the same names
    /// as the previous one.
    last: Vec<(Vec<u8>, bool)>,
    known: HashMap<Box<[u8]>, bool, RandomState>,
}

impl NameSet {
    #[inline(always)]
    pub(super) fn decide(
        &mut self,
        position: usize,
        name: &[u8],
        matches: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        match self.last.get(position) {
            Some((last, decision)) if last == name => *decision,
            _ => self.look_up(position, name, matches),
        }
    }

    fn look_up(
        &mut self,
        position: usize,
        name: &[u8],
        matches: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let decision = match self.known.get(name) {
            Some(&decision) => decision,
            None => {
                let decision = matches(name);
                if self.known.len() >= MAX_NAMES {
                    self.known.clear();
                }
                self.known.insert(name.into(), decision);
                decision
            }
        };
        if position == self.last.len() {
            self.last.push((name.to_vec(), decision));
        } else if let Some(last) = self.last.get_mut(position) {
            last.0.clear();
            last.0.extend_from_slice(name);
            last.1 = decision;
        }
        decision
    }
}

/// Names to which a labelmap copies labels.
#[derive(Debug, Default)]
pub(super) struct NameMap {
    known: HashMap<Box<[u8]>, Option<usize>, RandomState>,
    targets: Vec<MapTarget>,
}

/// A destination name, and the last value copied to it.
#[derive(Debug)]
struct MapTarget {
    name: Name,
    value: Vec<u8>,
    label: Option<Label>,
}

impl NameMap {
    pub(super) fn begin(&mut self) {
        for target in &mut self.targets {
            target.label = None;
        }
    }

    /// Copies labels with their values from before the rule, in Prometheus' order: first labels
    /// that no rule wrote, by name, then those that rules wrote, in the order of their first write.
    /// The last copy wins.
    ///
    /// A label whose new name would be empty is not copied: no receiver accepts such a series.
    pub(super) fn run(
        &mut self,
        series: &mut SeriesMut<'_>,
        text: &mut Vec<u8>,
        mapped: &mut Vec<(usize, usize, usize)>,
        mut order: Option<&mut Order>,
        mut rename: impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) {
        if self.known.len() >= MAX_NAMES {
            self.known.clear();
            self.targets.clear();
        }
        text.clear();
        mapped.clear();
        let mut collect = |position: usize| {
            let name = series.name_at(position);
            let target = match self.known.get(name) {
                Some(&target) => target,
                None => {
                    let to = rename(name).filter(|to| !to.is_empty());
                    let to = to.and_then(|to| String::from_utf8(to).ok());
                    let target = to.map(|to| {
                        self.targets.push(MapTarget {
                            name: Name::new(&to),
                            value: Vec::new(),
                            label: None,
                        });
                        self.targets.len() - 1
                    });
                    self.known.insert(name.into(), target);
                    target
                }
            };
            if let Some(target) = target {
                let start = text.len();
                text.extend_from_slice(series.value_at(position));
                mapped.push((target, start, text.len()));
            }
        };
        let written = order.as_deref().map_or(&[][..], |order| &order.names);
        for position in 0..series.len() {
            if !written
                .iter()
                .any(|name| **name == *series.name_at(position))
            {
                collect(position);
            }
        }
        for name in written {
            if let Some(at) = (0..series.len()).find(|&at| *series.name_at(at) == **name) {
                collect(at);
            }
        }
        for &(target, start, end) in &*mapped {
            let target = &mut self.targets[target];
            let value = &text[start..end];
            if target.label.is_none() || target.value != value {
                target.value.clear();
                target.value.extend_from_slice(value);
                target.label = Some(series.push_label(&target.name, value));
            }
            if let Some(label) = target.label {
                series.set_label(&target.name, label);
            }
            if let Some(order) = order.as_deref_mut() {
                order.written(target.name.as_bytes());
            }
        }
    }
}

/// Labels of a series written by rules, in the order of their first write.
#[derive(Debug, Default)]
pub(super) struct Order {
    names: Vec<Box<[u8]>>,
}

impl Order {
    pub(super) fn clear(&mut self) {
        self.names.clear();
    }

    pub(super) fn written(&mut self, name: &[u8]) {
        if !self.names.iter().any(|other| **other == *name) {
            self.names.push(name.into());
        }
    }

    pub(super) fn removed(&mut self, name: &[u8]) {
        self.names.retain(|other| **other != *name);
    }
}
