//! Bytes to batches and back: remote write 1.0 and 2.0, snappy, protobuf's wire format, text. Knows no component, no configuration, no I/O.
#![warn(unreachable_pub)]
// Tests may do all of this.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

pub mod remote_write;
pub mod snappy;
#[cfg(any(test, feature = "testing"))]
#[allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "for tests only"
)]
pub mod testing;
pub mod text;
pub mod wire;

mod arena;
mod batch;

pub use arena::{Arena, ArenaBuilder, Label, MetricType, Name, SeriesError, SeriesMut, SeriesRef};
pub(crate) use arena::{Raw, Series, Span, TEXT_MAX, name_head, name_head_within};
pub use batch::Batch;
