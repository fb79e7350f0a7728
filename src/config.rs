//! The configuration: from TOML text to a validated graph, with every error at its place.

mod problems;
mod values;

pub use problems::{Problem, Problems};
pub use values::{Endpoint, Period, Secret, Size};
