//! Work that takes milliseconds, in the midst of a task.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Bytes of a page from which on parsing takes milliseconds: the other tasks of the thread then
/// move to another thread.
pub(crate) const LONG_PAGE: usize = 1 << 20;

/// Does some work. If it is `long`, the other tasks of the thread move to another thread.
pub(crate) fn blocking<T>(long: bool, work: impl FnOnce() -> T) -> T {
    match long && may_block() {
        true => block_in_place(work),
        false => work(),
    }
}

/// Whether `block_in_place` is allowed: not on a single-threaded runtime, as in tests.
fn may_block() -> bool {
    let runtime = Handle::try_current().map(|handle| handle.runtime_flavor());
    runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread)
}
