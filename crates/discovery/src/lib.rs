//! What finds targets and keeps what it found: providers, targets with labels, and how targets are
//! published. Knows no plane and no component.
//!
//! A [`ProviderConfig`] is `[discovery.NAME]`. What it builds is a [`Provider`], which asks and
//! writes what it hears into a [`Feed`]. Behind that is a [`Slot`], which outlives the provider over
//! restarts and reloads: it holds the last good answer of each of the provider's sources, in memory
//! and on disk, and hands out [`Snapshot`]s that never change. Who uses targets reads them from
//! [`Targets`]. A [`Publisher`] is `[publish.NAME]`: it writes targets for programs that read
//! Prometheus' `file_sd` or `http_sd`.
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

mod answer;
mod directory;
pub mod exchange;
mod file_sd;
mod kept;
mod kinds;
mod labels;
mod limits;
mod meters;
mod poll;
mod provider;
mod publish;
mod slot;
mod snapshot;

pub use answer::{Failure, Reason};
pub use directory::{Directory, Handles};
pub use exchange::{Answered, Exchange};
#[doc(hidden)]
pub use file_sd::verdict;
pub use kinds::BY_FEATURE;
#[cfg(feature = "dns")]
pub use kinds::NameServers;
pub use labels::{Labels, LabelsBuilder, Target};
pub use limits::{LimitKeys, Limits, OnEmpty};
pub use provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo, run};
pub use publish::{PublishConfig, PublishStatus, Published, Publisher, Relabelled, TargetRules};
pub use slot::{Answer, Feed, LeftOut, Slot, SlotOptions, Status, Targets, Trouble};
pub use snapshot::{Changes, Snapshot, Standing};
