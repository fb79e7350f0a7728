//! The part of PromQL that Metrifold reads.

mod matchers;

pub use matchers::{MAX_LEN, Matcher, Matchers, Op, SelectorError};
