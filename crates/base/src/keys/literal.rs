//! Literals that are TOML and Rust at once: a default is written as one, shown as its text and read as its value.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, IntoDeserializer};

/// A literal that a default can be written as.
pub trait Literal {
    /// Reads it as if a user had written it.
    ///
    /// # Errors
    ///
    /// Fails where the same text in a file would.
    fn read<'de, T: Deserialize<'de>>(self) -> Result<T, Error>;
}

/// `{ name = "value", … }`.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<const N: usize>(pub [(&'static str, &'static str); N]);

macro_rules! scalar {
    ($($type:ty)*) => {$(
        impl Literal for $type {
            fn read<'de, T: Deserialize<'de>>(self) -> Result<T, Error> {
                T::deserialize(self.into_deserializer())
            }
        }
    )*};
}

scalar! { &'static str i32 i64 bool f64 }

impl<const N: usize> Literal for [&'static str; N] {
    fn read<'de, T: Deserialize<'de>>(self) -> Result<T, Error> {
        T::deserialize(SeqDeserializer::new(self.into_iter()))
    }
}

impl<const N: usize> Literal for Pairs<N> {
    fn read<'de, T: Deserialize<'de>>(self) -> Result<T, Error> {
        T::deserialize(MapDeserializer::new(self.0.into_iter()))
    }
}
