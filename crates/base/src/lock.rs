//! Locks whose poison is ignored.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what no invariant spans a panic for: whoever panicked with the lock held left it in a state
/// that the next one can go on from.
pub fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
