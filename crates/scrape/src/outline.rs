//! The outline of a page: everything but its values.
//!
//! Two pages of a target mostly differ in values alone. Such a page is not read: the text
//! around the values is compared with the page before by its hash, and the values are written into
//! the compressed series of that page. Whatever else differs makes the page one that is read.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use metrifold_codec::Arena;
use metrifold_codec::remote_write::{DecodeError, Template, encode_v1};
use metrifold_codec::wire::{put_varint, varint};
use metrifold_exposition::{Format, Options, value};
use metrifold_expr::relabel::Program;

use crate::counts::Counts;
use crate::fetch::Page;
use crate::lanes::Piece;
use crate::settings::SharedSettings;
use crate::target::ScrapeTarget;

/// Most bytes of a value; a longer one may break the limit for lines.
const LONGEST: usize = 64;

/// The outline of a page, and its series in a form that takes new values.
#[derive(Debug)]
pub(crate) struct Outline {
    context: Context,
    /// Hash of the text between the values.
    hash: u64,
    /// For each value, the length of the text before it, doubled, plus 1 if the rules keep its series;
    /// then the length of the text behind the last one. All are varints.
    texts: Box<[u8]>,
    template: Template,
    /// Metadata of the families, as a body.
    metadata: Bytes,
    metadata_count: u64,
    pub(crate) counts: Counts,
    /// Hash of all descriptions of families.
    pub(crate) families: u64,
}

/// The settings, the target and the format of a page: with its text, they decide about its series.
#[derive(Clone)]
pub(crate) struct Context {
    settings: SharedSettings,
    rules: Option<Arc<Program>>,
    options: Options,
    labels: u64,
    format: Format,
}

/// The series of a page that was read, and the places of their values.
pub(crate) struct Found<'a> {
    pub(crate) arena: &'a Arena,
    /// Start and end of each value on the page.
    pub(crate) values: &'a [(usize, usize)],
    /// For each value, whether the rules keep its series.
    pub(crate) kept: &'a [bool],
    pub(crate) counts: Counts,
    pub(crate) families: u64,
}

/// The series of a page that repeats an outline.
#[derive(Debug)]
pub(crate) struct Repeated {
    /// The series as a body.
    pub(crate) body: Bytes,
    pub(crate) series: u64,
    /// Metadata of the families as a body, and its number of entries.
    pub(crate) metadata: Bytes,
    pub(crate) metadata_count: u64,
}

impl Context {
    pub(crate) fn new(settings: &SharedSettings, target: &ScrapeTarget, page: &Page) -> Self {
        Self {
            settings: settings.clone(),
            rules: target.own.metric_rules.clone(),
            options: target.options,
            labels: target.labels_hash,
            format: page.format,
        }
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        let rules = match (&self.rules, &other.rules) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (own, others) => own.is_none() && others.is_none(),
        };
        Arc::ptr_eq(&self.settings, &other.settings)
            && rules
            && self.options == other.options
            && self.labels == other.labels
            && self.format == other.format
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Outline {
    /// The outline of a page that was read. `None` if other pages cannot be written into its series:
    /// it has a sample with a timestamp, an exemplar or a histogram, or something else but values.
    pub(crate) fn new(
        context: Context,
        page: &Page,
        found: Found<'_>,
        timestamp: i64,
        state: &RandomState,
    ) -> Option<Self> {
        // The places of values are those of the page only if nothing was replaced on it.
        let text = str::from_utf8(&page.text).ok()?;
        let template = Template::new(found.arena, timestamp)?;
        let mut hasher = state.build_hasher();
        let (mut texts, mut end) = (Vec::new(), 0);
        for (&(start, value_end), kept) in found.values.iter().zip(found.kept) {
            let before = text.get(end..start)?;
            hasher.write(before.as_bytes());
            put_varint(&mut texts, (before.len() as u64) << 1 | u64::from(*kept));
            // A value ends with its line.
            if !matches!(text.as_bytes().get(value_end), None | Some(b'\n')) {
                return None;
            }
            end = value_end;
        }
        let behind = text.get(end..)?;
        hasher.write(behind.as_bytes());
        put_varint(&mut texts, behind.len() as u64);
        let families = found.arena.extract(true, &[]);
        Some(Self {
            context,
            hash: hasher.finish(),
            texts: texts.into(),
            template,
            metadata_count: families.counts().metadata,
            metadata: encode_v1(&families, None),
            counts: found.counts,
            families: found.families,
        })
    }

    /// The series, each with a sample that means nothing.
    pub(crate) fn series(&self) -> Result<Arena, DecodeError> {
        self.template.decode()
    }

    /// The series of a page, if it differs from this outline's in values alone.
    pub(crate) fn repeat(
        &self,
        context: &Context,
        page: &Page,
        timestamp: i64,
        state: &RandomState,
    ) -> Option<Repeated> {
        if self.context != *context {
            return None;
        }
        let mut filling = self.template.fill(timestamp)?;
        let mut hasher = state.build_hasher();
        let (mut rest, mut next) = (&*page.text, 0);
        loop {
            let text = varint(&self.texts, &mut next).ok()? as usize;
            if next == self.texts.len() {
                hasher.write(rest);
                let same = rest.len() == text && hasher.finish() == self.hash;
                break same.then_some(())?;
            }
            let (before, behind) = rest.split_at_checked(text >> 1)?;
            hasher.write(before);
            let end = behind.iter().position(|byte| *byte == b'\n');
            let (own, behind) = behind.split_at(end.unwrap_or(behind.len()));
            if own.len() > LONGEST {
                return None;
            }
            let value = value(str::from_utf8(own).ok()?)?;
            if text & 1 == 1 {
                filling.put(value)?;
            }
            rest = behind;
        }
        Some(Repeated {
            body: filling.finish()?,
            series: self.template.series() as u64,
            metadata: self.metadata.clone(),
            metadata_count: self.metadata_count,
        })
    }
}

impl Repeated {
    /// The series, the families if they are wanted, and more series.
    pub(crate) fn piece(self, families: bool, more: Arena) -> Piece {
        let mut counts = metrifold_model::Counts {
            series: self.series,
            samples: self.series,
            ..Default::default()
        };
        let mut bodies = vec![self.body];
        if families {
            counts.metadata = self.metadata_count;
            bodies.push(self.metadata);
        }
        Piece {
            bodies,
            counts,
            arena: more,
        }
    }
}

#[cfg(test)]
mod tests;
