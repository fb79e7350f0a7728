//! Literals that are valid TOML and valid Rust: a default is written once, shown as text and read
//! as a value.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, IntoDeserializer};

/// A literal that can be a default.
pub trait Literal {
    /// Deserializes the literal as if it stood in a configuration file.
    ///
    /// # Errors
    ///
    /// Fails where the same text in a file would fail.
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
