//! Deserializes tables key by key.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{Entry, Literal, each};

/// A struct that [`keys!`](crate::keys!) made.
pub trait Keys: Sized {
    /// Its table of keys.
    const ENTRIES: &'static [Entry];

    /// The values that were read so far.
    type Partial: Default;

    /// Reads the value of a key; returns false if the table has no such key.
    ///
    /// # Errors
    ///
    /// Fails when the value is not valid for the key.
    fn take<'de, A: MapAccess<'de>>(
        partial: &mut Self::Partial,
        key: &str,
        map: &mut A,
    ) -> Result<bool, A::Error>;

    /// Builds the struct, with defaults for absent keys.
    ///
    /// # Errors
    ///
    /// Fails when a required key is absent.
    fn finish<E: Error>(partial: Self::Partial) -> Result<Self, E>;
}

/// Reads a table.
///
/// # Errors
///
/// Fails on the first unknown key, wrong value or missing key.
pub fn deserialize<'de, T: Keys, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct TableVisitor<T>(PhantomData<T>);

    impl<'de, T: Keys> Visitor<'de> for TableVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of keys")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut partial = T::Partial::default();
            while let Some(key) = map.next_key::<String>()? {
                if !T::take(&mut partial, &key, &mut map)? {
                    return Err(A::Error::custom(unknown(&key, T::ENTRIES)));
                }
            }
            T::finish(partial)
        }
    }

    deserializer.deserialize_map(TableVisitor(PhantomData))
}

/// The value of an empty table. Only for groups without a required key.
pub fn defaults<T: Keys>() -> T {
    match T::finish::<serde::de::value::Error>(T::Partial::default()) {
        Ok(value) => value,
        // Unreachable: no caller's group has a required key.
        Err(error) => unreachable!("a table that may not be empty: {error}"),
    }
}

/// The value of a default literal.
pub fn default_value<'de, T: Deserialize<'de>>(name: &str, literal: impl Literal) -> T {
    match literal.read() {
        Ok(value) => value,
        // Unreachable: the test
        // `what_a_page_calls_the_default_is_what_holds_when_the_key_is_absent` reads the default of
        // every key.
        Err(error) => unreachable!("the default of `{name}` is none of its values: {error}"),
    }
}

/// Reads a word, and returns the value at the same index.
///
/// # Errors
///
/// Fails on any other word.
pub fn word<'de, T: Copy, D: Deserializer<'de>>(
    deserializer: D,
    words: &'static [&'static str],
    values: &[T],
) -> Result<T, D::Error> {
    struct WordVisitor<'v, T> {
        words: &'static [&'static str],
        values: &'v [T],
    }

    impl<T: Copy> Visitor<'_> for WordVisitor<'_, T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of \"{}\"", self.words.join("\", \""))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            let mut both = self.words.iter().zip(self.values);
            let found = both.find(|(word, _)| **word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| E::unknown_variant(text, self.words))
        }
    }

    deserializer.deserialize_str(WordVisitor { words, values })
}

/// Serde's own message for an unknown key.
fn unknown(key: &str, entries: &'static [Entry]) -> String {
    let names: Vec<String> = each(entries)
        .iter()
        .map(|key| format!("`{}`", key.name))
        .collect();
    match names.as_slice() {
        [] => format!("unknown field `{key}`, there are no fields"),
        names => format!(
            "unknown field `{key}`, expected one of {}",
            names.join(", ")
        ),
    }
}
