//! Matchers for patterns that need no automaton.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Most literals into which a pattern is expanded.
const MAX_LITERALS: usize = 256;
/// Most bytes of these literals together.
const MAX_LITERAL_BYTES: usize = 16 << 10;
/// Number of literals below which comparing one by one beats hashing.
const FEW: usize = 8;
/// Most alternatives that are tried one by one.
const MAX_ALTERNATIVES: usize = 16;
/// Deepest nesting of a pattern that is analysed.
const MAX_ANALYSED: usize = 64;

/// Methods of matching a whole text.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Every text: `.*`.
    Any,
    /// Every text but the empty one: `.+`.
    NonEmpty,
    /// One text.
    Exact(Box<[u8]>),
    /// A few texts.
    OneOf(Box<[Box<[u8]>]>),
    /// Many texts.
    Set(HashSet<Box<[u8]>, RandomState>),
    /// Texts with this prefix: `go_.*`.
    Prefix(Box<[u8]>),
    /// Texts with this suffix: `.*_total`.
    Suffix(Box<[u8]>),
    /// Texts that contain a literal: `.*_gc_.*`. The automaton is of the literal alone.
    Contains(regex::bytes::Regex),
    /// Texts that one of these matchers matches.
    AnyOf(Box<[Matcher]>),
    /// All other patterns.
    Regex(regex::bytes::Regex),
}

impl Matcher {
    /// Finds an equivalent matcher; None if the pattern needs an automaton.
    pub(super) fn analyse(hir: &Hir) -> Option<Self> {
        analyse(hir, MAX_ANALYSED)
    }

    /// Whether the whole text matches.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::NonEmpty => !text.is_empty(),
            Self::Exact(literal) => text == &**literal,
            Self::OneOf(literals) => literals.iter().any(|literal| text == &**literal),
            Self::Set(literals) => literals.contains(text),
            Self::Prefix(literal) => text.starts_with(literal),
            Self::Suffix(literal) => text.ends_with(literal),
            Self::Contains(automaton) | Self::Regex(automaton) => automaton.is_match(text),
            Self::AnyOf(matchers) => matchers.iter().any(|matcher| matcher.is_match(text)),
        }
    }

    /// Whether matching costs less than looking up a remembered result.
    pub fn is_cheap(&self) -> bool {
        match self {
            Self::Any | Self::NonEmpty | Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => true,
            Self::OneOf(literals) => literals.len() <= 4,
            Self::AnyOf(_) | Self::Set(_) | Self::Contains(_) | Self::Regex(_) => false,
        }
    }

    /// Texts that match; None if they are not a small set.
    pub fn literals(&self) -> Option<Vec<&[u8]>> {
        match self {
            Self::Exact(literal) => Some(vec![literal]),
            Self::OneOf(literals) => Some(literals.iter().map(|literal| &**literal).collect()),
            _ => None,
        }
    }

    fn of_literals(mut literals: Vec<Vec<u8>>) -> Self {
        literals.sort();
        literals.dedup();
        let mut literals = literals.into_iter().map(Vec::into_boxed_slice);
        match literals.len() {
            1 => Self::Exact(literals.next().unwrap_or_default()),
            0..=FEW => Self::OneOf(literals.collect()),
            _ => Self::Set(literals.collect()),
        }
    }
}

/// Whether group 1 of the pattern is the whole text, as in `(.*)` and `(a|b)`.
pub(super) fn is_whole_group(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Capture(capture) if capture.index == 1)
}

fn analyse(hir: &Hir, depth: usize) -> Option<Matcher> {
    let depth = depth.checked_sub(1)?;
    if let Some(literals) = literals(hir, depth) {
        return Some(Matcher::of_literals(literals));
    }
    match anything(hir) {
        Some(0) => return Some(Matcher::Any),
        Some(1) => return Some(Matcher::NonEmpty),
        _ => {}
    }
    match hir.kind() {
        HirKind::Capture(capture) => analyse(&capture.sub, depth),
        HirKind::Alternation(branches) if branches.len() <= MAX_ALTERNATIVES => {
            let matchers: Option<Vec<_>> = branches.iter().map(|b| analyse(b, depth)).collect();
            any_of(matchers?)
        }
        HirKind::Concat(parts) => affix(parts, depth),
        _ => None,
    }
}

/// Analyses a sequence of `.*` and literals.
fn affix(parts: &[Hir], depth: usize) -> Option<Matcher> {
    let open_start = parts.first().and_then(anything) == Some(0);
    let open_end = parts.last().and_then(anything) == Some(0);
    let middle = &parts[usize::from(open_start)..parts.len() - usize::from(open_end)];
    let mut texts = vec![Vec::new()];
    for part in middle {
        texts = product(&texts, &literals(part, depth)?)?;
    }
    let matchers = texts.into_iter().map(|text| {
        Some(match (open_start, open_end) {
            (false, true) => Matcher::Prefix(text.into()),
            (true, false) => Matcher::Suffix(text.into()),
            (true, true) => {
                let literal = regex::escape(std::str::from_utf8(&text).ok()?);
                Matcher::Contains(regex::bytes::Regex::new(&literal).ok()?)
            }
            (false, false) => Matcher::Exact(text.into()),
        })
    });
    let matchers: Option<Vec<_>> = matchers.collect();
    any_of(matchers?)
}

fn any_of(mut matchers: Vec<Matcher>) -> Option<Matcher> {
    match matchers.len() {
        1 => matchers.pop(),
        2..=MAX_ALTERNATIVES => Some(Matcher::AnyOf(matchers.into())),
        _ => None,
    }
}

/// Least length of `.*` or `.+` where the dot is any character; None for other patterns.
fn anything(hir: &Hir) -> Option<u32> {
    match hir.kind() {
        HirKind::Capture(capture) => anything(&capture.sub),
        HirKind::Repetition(repetition) if repetition.max.is_none() => {
            let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else {
                return None;
            };
            let [range] = class.ranges() else {
                return None;
            };
            let all = range.start() == '\0' && range.end() == char::MAX;
            all.then_some(repetition.min)
        }
        _ => None,
    }
}

/// All texts that match; None if they are too many or unbounded.
fn literals(hir: &Hir, depth: usize) -> Option<Vec<Vec<u8>>> {
    let depth = depth.checked_sub(1)?;
    let found = match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(literal) => vec![literal.0.to_vec()],
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.ranges().iter().map(|range| range.len()).sum();
            if count == 0 || count > MAX_LITERALS {
                return None;
            }
            let chars = class.ranges().iter().flat_map(|r| r.start()..=r.end());
            chars.map(|c| c.to_string().into_bytes()).collect()
        }
        HirKind::Repetition(repetition) if repetition.min == 0 && repetition.max == Some(1) => {
            let mut found = literals(&repetition.sub, depth)?;
            found.push(Vec::new());
            found
        }
        HirKind::Capture(capture) => literals(&capture.sub, depth)?,
        HirKind::Concat(parts) => {
            let mut found = vec![Vec::new()];
            for part in parts {
                found = product(&found, &literals(part, depth)?)?;
            }
            found
        }
        HirKind::Alternation(branches) => {
            let mut found = Vec::new();
            for branch in branches {
                found.extend(literals(branch, depth)?);
                within_bounds(&found)?;
            }
            found
        }
        _ => return None,
    };
    within_bounds(&found)?;
    Some(found)
}

fn within_bounds(found: &[Vec<u8>]) -> Option<()> {
    let bytes: usize = found.iter().map(Vec::len).sum();
    (found.len() <= MAX_LITERALS && bytes <= MAX_LITERAL_BYTES).then_some(())
}

/// Concatenates each text of `heads` with each of `tails`.
fn product(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    if heads.len() * tails.len() > MAX_LITERALS {
        return None;
    }
    let pairs = heads
        .iter()
        .flat_map(|head| tails.iter().map(move |tail| [&head[..], tail].concat()));
    let found: Vec<_> = pairs.collect();
    within_bounds(&found)?;
    Some(found)
}
