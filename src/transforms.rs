//! Transforms: synchronous functions over a batch, without I/O.

mod relabel;
mod route;
mod tenant;

#[cfg(test)]
mod testing;
