//! Rewrites a body in one pass, without decoding all its series at once.

use bytes::Bytes;

use metrifold_model::{Counts, Version};

use crate::SeriesMut;

use super::decode::{DecodeError, Invalid, Limits};
use super::{rewrite_v1, rewrite_v2};

/// Series that are decoded at once before they are edited.
pub(super) const BLOCK: usize = 16;

/// Result of rewriting a body.
pub(crate) struct Rewritten {
    /// The new body; None if nothing changed.
    pub(crate) body: Option<Bytes>,
    /// Counts of the resulting content.
    pub(crate) counts: Counts,
    /// Series that were left out as invalid, before `edit`.
    pub(crate) invalid: Invalid,
    /// Whether exemplars are left in series of their own, which 2.0 does not allow.
    pub(crate) has_lone_exemplars: bool,
}

/// Rewrites a body: `edit` is called for each series and returns whether to keep it.
///
/// # Errors
///
/// Fails when the body as a whole is malformed, or when edits made it too large.
pub(crate) fn rewrite(
    version: Version,
    body: &[u8],
    limits: &Limits,
    edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
) -> Result<Rewritten, DecodeError> {
    match version {
        Version::V1 => rewrite_v1::rewrite(body, limits, edit),
        Version::V2 => rewrite_v2::rewrite(body, limits, edit),
    }
}
