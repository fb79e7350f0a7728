//! Merges the answers of several replicas to one query while they arrive: for each series, the
//! replica with the most points is the base, and only its gaps are filled from the others.
//!
//! An answer is read series by series ([`reader`]); the series of all answers are joined
//! ([`join`]), filled ([`fill`]) and written ([`stream`]). Of an answer that is sorted as Prometheus
//! sorts it, no more than a series is in memory, however large it is.

mod fill;
mod join;
mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use fill::{Gaps, time};
pub(crate) use reader::{Reader, Unread};
pub(crate) use stream::{Merging, missing, told};
pub(crate) use text::Flaw;
