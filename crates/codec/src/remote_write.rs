//! Remote write 1.0 and 2.0: the hand-written codec and what its HTTP headers say.
//!
//! Sources: <https://prometheus.io/docs/specs/prw/remote_write_spec/> and
//! <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>. The messages that prost derives
//! in [`messages`] are the codec's oracle in tests and serve where speed does not matter.

pub mod messages;

mod companions;
mod compress_v1;
mod count;
mod decode;
mod encode_v1;
mod encode_v2;
mod exemplars;
mod families;
mod headers;
mod rewrite_v1;
mod samples;
mod structure_v1;
mod unsent;

pub use companions::{CompanionBounds, Companions, GivenUp};
pub use compress_v1::CompressionChoice;
pub use count::count;
pub use decode::{DecodeError, Invalid, Limits, Reason, decode};
pub use encode_v1::{encode as encode_v1, lost_in_v1};
pub use encode_v2::encode as encode_v2;
pub(crate) use exemplars::join_within;
pub use headers::{
    EXEMPLARS_WRITTEN, HISTOGRAMS_WRITTEN, NegotiationError, SAMPLES_WRITTEN, VERSION, Written,
    content_type, negotiate, version_value,
};
pub(crate) use rewrite_v1::rewrite as rewrite_v1;
pub use samples::STALE;
pub use unsent::Unsent;

#[cfg(test)]
pub(crate) mod tests;
