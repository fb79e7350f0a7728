//! Rules compiled to run over all series of a batch.
//!
//! Neighbouring series have much in common, so every rule remembers its last input and the result,
//! and each label that a rule writes is added to the arena once per batch instead of once per
//! series. Nothing is allocated for a series whose results are remembered.

use std::io::Write as _;

use md5::{Digest, Md5};

use metrifold_base::Problems;
use metrifold_codec::{Name, SeriesMut};

use metrifold_regex::{Locations, Regex, Template};

use super::case;
use super::memo::{Key, Memo, NameMap, NameSet, Order};
use super::rule::{Action, RuleConfig, SEPARATOR, Validation};

/// Most names that a labeldrop without a pattern looks up one by one.
const FEW_NAMES: usize = 4;

/// Compiled rules.
#[derive(Debug)]
pub struct Program {
    steps: Box<[Step]>,
    validation: Validation,
    /// Whether a labelmap follows a rule that writes, so that the order of writes has to be
    /// tracked.
    ordered: bool,
    /// Number of keys in all steps.
    keys: usize,
}

/// State of one program between series.
#[derive(Debug)]
pub struct Scratch {
    states: Box<[State]>,
    shared: Shared,
}

/// Scratch memory shared by all steps.
#[derive(Debug)]
struct Shared {
    /// Buffer for joined values and collected labels.
    text: Vec<u8>,
    /// Last position of each [`Key`].
    hints: Box<[usize]>,
    order: Order,
    mapped: Vec<(usize, usize, usize)>,
}

#[derive(Debug)]
enum Step {
    /// Keeps series that match, or drops them.
    Filter {
        input: Input,
        regex: Regex,
        keep: bool,
    },
    /// Keeps series whose label equals the input, or drops them.
    Compare {
        input: Input,
        target: Key,
        keep: bool,
    },
    /// Writes a value computed from the input.
    Write {
        input: Input,
        target: Target,
        value: Value,
    },
    Map {
        regex: Regex,
        replacement: Template,
    },
    /// Removes labels by name.
    Remove(Box<[Key]>),
    /// Keeps labels whose names match, or removes them.
    Names {
        regex: Regex,
        keep: bool,
    },
}

#[derive(Debug)]
enum Target {
    Name(Key),
    Template(Template),
}

#[derive(Debug)]
enum Value {
    /// A constant, if the pattern matches.
    Constant(Regex, Box<[u8]>),
    /// The input, if the pattern matches.
    Copy(Regex),
    Expand(Regex, Template),
    Lower,
    Upper,
    HashMod(u64),
}

/// State of a step between series.
#[derive(Debug)]
enum State {
    None,
    Value(Memo, Option<Locations>),
    Names(NameSet),
    Map(NameMap, Locations),
}

/// Joined values of the source labels.
#[derive(Debug)]
struct Input {
    names: Box<[Key]>,
    separator: Box<[u8]>,
}

impl Input {
    fn new(rule: &RuleConfig, keys: &mut usize) -> Self {
        let names = rule.source_labels.iter().flatten();
        let separator = rule.separator.as_deref().unwrap_or(SEPARATOR);
        Self {
            names: names.map(|name| Key::new(name, keys)).collect(),
            separator: separator.as_bytes().into(),
        }
    }

    #[inline(always)]
    fn read<'a>(
        &self,
        series: &'a SeriesMut<'_>,
        text: &'a mut Vec<u8>,
        hints: &mut [usize],
    ) -> &'a [u8] {
        match &*self.names {
            [] => b"",
            [key] => key.get(series, hints),
            [first, rest @ ..] => {
                text.clear();
                text.extend_from_slice(first.get(series, hints));
                for key in rest {
                    text.extend_from_slice(&self.separator);
                    text.extend_from_slice(key.get(series, hints));
                }
                text
            }
        }
    }
}

impl Program {
    /// Compiles rules. Problems are reported at `path[index]` and below; returns None if there are
    /// any.
    pub fn compile(
        rules: &[RuleConfig],
        validation: Validation,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut steps = Vec::with_capacity(rules.len());
        let mut sound = true;
        let mut writes = false;
        let mut ordered = false;
        let mut keys = 0;
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(regex) = rule.check(&path, validation, problems) else {
                sound = false;
                continue;
            };
            let step = compile(rule, regex, validation, &mut keys);
            ordered |= writes && matches!(step, Some(Step::Map { .. }));
            writes |= matches!(step, Some(Step::Map { .. } | Step::Write { .. }));
            steps.extend(step);
        }
        sound.then_some(Self {
            steps: steps.into(),
            validation,
            ordered,
            keys,
        })
    }

    /// Creates the state for [`run`](Self::run); keep it from batch to batch.
    pub fn scratch(&self) -> Scratch {
        Scratch {
            states: self.steps.iter().map(State::new).collect(),
            shared: Shared {
                text: Vec::new(),
                hints: vec![0; self.keys].into(),
                order: Order::default(),
                mapped: Vec::new(),
            },
        }
    }

    /// Relabels one series; returns whether to keep it. Call [`Scratch::begin`] before the first
    /// series of each arena.
    pub fn run(&self, series: &mut SeriesMut<'_>, scratch: &mut Scratch) -> bool {
        if self.ordered {
            scratch.shared.order.clear();
        }
        let Scratch { states, shared } = scratch;
        for (step, state) in self.steps.iter().zip(states) {
            if !self.step(step, state, series, shared) {
                return false;
            }
        }
        !series.is_empty()
    }

    #[inline(always)]
    fn step(
        &self,
        step: &Step,
        state: &mut State,
        series: &mut SeriesMut<'_>,
        scratch: &mut Shared,
    ) -> bool {
        let hints = &mut *scratch.hints;
        match (step, state) {
            (Step::Filter { input, regex, keep }, state) => {
                let value = input.read(series, &mut scratch.text, hints);
                let matched = match state {
                    State::Value(memo, _) => {
                        if !memo.is(value) {
                            memo.learn(value);
                            memo.matched = regex.is_match(value);
                        }
                        memo.matched
                    }
                    _ => regex.is_match(value),
                };
                return matched == *keep;
            }
            (
                Step::Compare {
                    input,
                    target,
                    keep,
                },
                _,
            ) => {
                let value = input.read(series, &mut scratch.text, hints);
                return (value == target.get(series, hints)) == *keep;
            }
            (
                Step::Write {
                    input,
                    target,
                    value,
                },
                State::Value(memo, locations),
            ) => {
                let text = input.read(series, &mut scratch.text, hints);
                match value {
                    // The output is constant: only the label has to be remembered.
                    Value::Constant(regex, _)
                        if regex.matcher().is_cheap() && matches!(target, Target::Name(_)) =>
                    {
                        memo.matched = regex.is_match(text);
                    }
                    _ => {
                        if !memo.is(text) {
                            memo.learn(text);
                            let valid = self.validation;
                            compute(target, value, text, memo, locations.as_mut(), valid);
                        }
                    }
                }
                if memo.matched {
                    let order = self.ordered.then_some(&mut scratch.order);
                    match target {
                        Target::Name(key) => memo.write(key, series, hints, order),
                        Target::Template(_) => memo.write_to_target(series, order),
                    }
                }
            }
            (Step::Map { regex, replacement }, State::Map(map, locations)) => {
                let order = self.ordered.then_some(&mut scratch.order);
                let text = &mut scratch.text;
                let mapped = &mut scratch.mapped;
                map.run(series, text, mapped, order, |name| {
                    if !regex.captures(name, locations) {
                        return None;
                    }
                    let mut to = Vec::new();
                    replacement.expand(name, locations, &mut to);
                    Some(to)
                });
            }
            (Step::Remove(names), _) => {
                for key in names {
                    key.remove(series, hints);
                    if self.ordered {
                        scratch.order.removed(key.name().as_bytes());
                    }
                }
            }
            (Step::Names { regex, keep }, State::Names(names)) => {
                let (mut original, mut position) = (0, 0);
                while position < series.len() {
                    let name = series.name_at(position);
                    if names.decide(original, name, |name| regex.is_match(name)) == *keep {
                        position += 1;
                    } else {
                        if self.ordered {
                            scratch.order.removed(name);
                        }
                        series.remove_at(position);
                    }
                    original += 1;
                }
            }
            // Cannot happen: `State::new` creates the state of each step.
            (Step::Write { .. } | Step::Map { .. } | Step::Names { .. }, _) => {}
        }
        true
    }
}

impl Scratch {
    /// Clears results that refer to the previous arena.
    pub fn begin(&mut self) {
        for state in &mut self.states {
            match state {
                State::Value(memo, _) => memo.begin(),
                State::Map(map, _) => map.begin(),
                State::None | State::Names(_) => {}
            }
        }
    }
}

impl State {
    fn new(step: &Step) -> Self {
        match step {
            Step::Filter { regex, .. } if !regex.matcher().is_cheap() => {
                Self::Value(Memo::default(), None)
            }
            Step::Filter { .. } | Step::Compare { .. } | Step::Remove(_) => Self::None,
            Step::Write { value, .. } => match value {
                Value::Constant(_, value) => Self::Value(Memo::constant(value), None),
                Value::Expand(regex, _) => Self::Value(Memo::default(), Some(regex.locations())),
                _ => Self::Value(Memo::default(), None),
            },
            Step::Names { .. } => Self::Names(NameSet::default()),
            Step::Map { regex, .. } => Self::Map(NameMap::default(), regex.locations()),
        }
    }
}

/// Compiles a rule to a step; None if the rule never has an effect.
fn compile(
    rule: &RuleConfig,
    regex: Regex,
    validation: Validation,
    keys: &mut usize,
) -> Option<Step> {
    let input = Input::new(rule, keys);
    let mut plain = || Target::Name(Key::new(rule.target(), keys));
    let write = |input, target, value| Step::Write {
        input,
        target,
        value,
    };
    Some(match rule.action {
        Action::Keep | Action::Drop => Step::Filter {
            input,
            regex,
            keep: rule.action == Action::Keep,
        },
        Action::KeepEqual | Action::DropEqual => Step::Compare {
            input,
            target: Key::new(rule.target(), keys),
            keep: rule.action == Action::KeepEqual,
        },
        Action::Lowercase => write(input, plain(), Value::Lower),
        Action::Uppercase => write(input, plain(), Value::Upper),
        Action::HashMod => write(input, plain(), Value::HashMod(rule.modulus.unwrap_or(1))),
        Action::LabelMap => Step::Map {
            replacement: Template::new(rule.replacement(), &regex),
            regex,
        },
        Action::LabelDrop | Action::LabelKeep => {
            let keep = rule.action == Action::LabelKeep;
            match regex.matcher().literals() {
                Some(literals) if !keep && literals.len() <= FEW_NAMES => {
                    let names = literals.into_iter();
                    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
                    Step::Remove(names.map(|name| Key::new(name, keys)).collect())
                }
                _ => Step::Names { regex, keep },
            }
        }
        Action::Replace => {
            let target = Template::new(rule.target(), &regex);
            let replacement = Template::new(rule.replacement(), &regex);
            let target = match target.constant() {
                Some(name) if !validation.is_name(name) => return None,
                Some(name) => Target::Name(Key::new(std::str::from_utf8(name).ok()?, keys)),
                None => Target::Template(target),
            };
            let whole = match replacement.only_group() {
                Some(0) => true,
                Some(1) => regex.whole_group(),
                _ => false,
            };
            let fixed = matches!(target, Target::Name(_));
            let value = match replacement.constant() {
                Some(constant) if fixed => {
                    let constant = constant.into();
                    Value::Constant(regex, constant)
                }
                _ if whole && fixed => Value::Copy(regex),
                _ => Value::Expand(regex, replacement),
            };
            write(input, target, value)
        }
    })
}

/// Computes the value that a rule writes for an input.
fn compute(
    target: &Target,
    value: &Value,
    text: &[u8],
    memo: &mut Memo,
    locations: Option<&mut Locations>,
    validation: Validation,
) {
    memo.matched = true;
    let out = match value {
        Value::Constant(regex, _) => {
            memo.matched = regex.is_match(text);
            return;
        }
        _ => memo.output(),
    };
    match value {
        Value::Constant(..) => {}
        Value::Copy(regex) => {
            memo.matched = regex.is_match(text);
            if memo.matched {
                memo.output().extend_from_slice(text);
            }
        }
        Value::Lower => case::lower(text, out),
        Value::Upper => case::upper(text, out),
        Value::HashMod(modulus) => {
            let digest = Md5::digest(text);
            let mut last = [0; 8];
            last.copy_from_slice(&digest[8..16]);
            let bucket = u64::from_be_bytes(last) % modulus.max(&1);
            let _ = write!(out, "{bucket}"); // writing to a Vec cannot fail
        }
        Value::Expand(regex, template) => {
            memo.matched = false;
            let Some(locations) = locations else {
                return;
            };
            if !regex.captures(text, locations) {
                return;
            }
            if let Target::Template(target) = target {
                let mut name = Vec::new();
                target.expand(text, locations, &mut name);
                let name = String::from_utf8(name).unwrap_or_default();
                if !validation.is_name(name.as_bytes()) {
                    return;
                }
                memo.target = Some(Name::new(&name));
            }
            memo.matched = true;
            template.expand(text, locations, memo.output());
        }
    }
}
