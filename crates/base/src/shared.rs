//! What components of one type share with each other, with their successors over a reload, and with
//! the admin address, without those between them knowing what it is.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::locked;

/// One value of each type. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Shared(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    ending: AtomicBool,
}

impl Shared {
    /// The value of a type, made when it is first asked for.
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = locked(&self.0.values);
        let value = values.entry(TypeId::of::<T>());
        let value = Arc::clone(value.or_insert_with(|| Arc::new(T::default())));
        // Under its own type there is no other.
        value.downcast().unwrap_or_default()
    }

    /// Says that the process ends: what stops from now on is not gone from the configuration.
    pub fn end(&self) {
        self.0.ending.store(true, Ordering::Release);
    }

    /// Whether the process ends.
    pub fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_value_and_everybody_gets_it() {
        let shared = Shared::default();
        *locked(&shared.clone().get::<Mutex<u8>>()) = 7;
        assert_eq!(*locked(&shared.get::<Mutex<u8>>()), 7);
        assert_eq!(*locked(&shared.get::<Mutex<u16>>()), 0);
    }
}
