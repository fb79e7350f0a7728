//! Transforms: synchronous functions over a batch, without I/O.

pub mod relabel;
pub mod route;
pub mod tenant;

#[cfg(test)]
mod testing;
