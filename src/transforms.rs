//! Transforms: synchronous functions over a batch, without I/O.

pub mod dedupe;
pub mod limit;
pub mod relabel;
pub mod route;
pub mod tenant;

#[cfg(test)]
mod testing;
