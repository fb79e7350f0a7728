//! Discovery of targets: providers that find them, slots that keep them. Knows no plane and no
//! component, and no rule for what becomes of targets.
//!
//! A [`ProviderConfig`] is `[discovery.NAME]`. It builds a [`Provider`], which asks its sources and
//! writes their answers into a [`Feed`]. The feed belongs to a [`Slot`], which outlives the
//! provider over restarts and reloads: it holds the last good answer of each of the provider's
//! sources, in memory and on disk, and hands out immutable [`Snapshot`]s. Users of targets read
//! them from [`Targets`].
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

mod answer;
pub mod exchange;
pub mod file_sd;
mod handles;
mod kept;
mod kinds;
mod labels;
mod limits;
mod meters;
mod poll;
mod provider;
mod slot;
mod snapshot;

pub use answer::{Failure, Reason};
pub use exchange::{Answered, Exchange};
#[doc(hidden)]
pub use file_sd::verdict;
pub use handles::Handles;
#[cfg(feature = "dns")]
pub use kinds::NameServers;
pub use kinds::{BY_FEATURE, Format};
pub use labels::{Labels, LabelsBuilder, Target};
pub use limits::{LimitKeys, Limits, OnEmpty};
pub use meters::seconds;
pub use provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo, run};
pub use slot::{Answer, Feed, LeftOut, Slot, SlotOptions, Status, Targets, Trouble};
pub use snapshot::{Changes, Snapshot, Standing, difference};
