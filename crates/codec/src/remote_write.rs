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
mod rewrite;
mod rewrite_v1;
mod rewrite_v2;
mod samples;
mod structure_v1;
mod template_v1;
mod unsent;

pub use companions::{CompanionBounds, Companions, GivenUp};
pub use compress_v1::CompressionChoice;
pub use count::count;
pub(crate) use decode::decode_within;
pub use decode::{DecodeError, Invalid, Limits, Reason, Room, decode};
pub use encode_v1::{encode as encode_v1, lost_in_v1};
pub(crate) use encode_v1::{has_custom_buckets, put_labels};
pub use encode_v2::encode as encode_v2;
pub(crate) use exemplars::join_within;
pub use headers::{
    EXEMPLARS_WRITTEN, HISTOGRAMS_WRITTEN, NegotiationError, SAMPLES_WRITTEN, VERSION, Written,
    content_type, negotiate, version_value,
};
pub(crate) use rewrite::rewrite;
pub use samples::STALE;
pub use template_v1::{Filling, Template};
pub use unsent::Unsent;

#[cfg(test)]
pub(crate) mod tests;
