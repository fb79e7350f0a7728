//! placeholder
pub(crate) struct Queue;
pub(crate) enum Pushed {}
