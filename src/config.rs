//! The configuration: from TOML text to a validated graph, with every error at its place.

mod decode;
mod diagnostic;
mod environment;
mod path;
mod problems;
mod secrets;
mod source;
mod suggest;
mod values;

pub use diagnostic::{Diagnostic, Severity};
pub use environment::{Environment, ProcessEnvironment};
pub use problems::{Problem, Problems};
pub use source::{Place, SourceFile};
pub use values::{Endpoint, Period, Secret, Size};
