//! State that components of one type share with each other, with their successors after a reload,
//! and with the admin address. The code in between does not know its type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::locked;

/// One value per type. Clones share the values.
#[derive(Clone, Default)]
pub struct Shared(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    ending: AtomicBool,
}

impl Shared {
    /// The value of a type, created on first use.
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = locked(&self.0.values);
        let value = values.entry(TypeId::of::<T>());
        let value = Arc::clone(value.or_insert_with(|| Arc::new(T::default())));
        // The value under a type's id always has that type.
        value.downcast().unwrap_or_default()
    }

    /// Marks the process as ending: a component that stops from now on was not removed from the
    /// configuration.
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
