//! Parser of metrics pages: text 0.0.4 and 1.0.0, OpenMetrics 1.0, protobuf. Knows no
//! configuration, no I/O, no component.
//!
//! [`read()`] walks a page once and hands every sample to a [`Receiver`] as borrowed texts: it
//! allocates nothing per series. A page is accepted or refused as by Prometheus 3
//! (`tests/upstream.rs` compares the verdicts), and the first fault refuses the whole page, since
//! half of a page would look like series that have disappeared.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/> and `io.prometheus.client.MetricFamily`.
#![warn(unreachable_pub)]
// Tests may use all of these.
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

mod cursor;
mod custom;
mod error;
mod family;
mod format;
mod labels;
mod number;
mod openmetrics;
mod page;
mod protobuf;
mod read;
mod text;

pub use error::ParseError;
pub use format::{Accept, ContentTypeError, Escaping, Format, Protocol};
pub use number::value;
pub use page::{Exemplar, Family, Options, Point, Receiver, Sample};
pub use read::read;
