//! What values look like, for the JSON Schema and for what is done with values before they are read.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::{Address, Endpoint, OneOrMany, Period, Secret, Size};

use super::Entry;

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number, not below this one.
    Integer(i64),
    /// Text.
    Text,
    /// Text that is shown nowhere.
    Secret,
    /// The path of a file or folder, or a pattern for paths; relative to the file that names it.
    Path,
    /// Text that matches a regular expression.
    Pattern(&'static str),
    /// One of some words.
    Word(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A table with keys of the user's own.
    Map(&'static Shape),
    /// A table of known keys.
    Table(&'static [Entry]),
    /// One thing, or a list of such.
    OneOrMany(&'static Shape),
}

/// A type that values of keys have.
pub trait Shaped {
    /// What they look like.
    const SHAPE: Shape;
}

macro_rules! shapes {
    ($($type:ty: $shape:expr;)*) => {$(
        impl Shaped for $type {
            const SHAPE: Shape = $shape;
        }
    )*};
}

shapes! {
    bool: Shape::Boolean;
    u16: Shape::Integer(0);
    u32: Shape::Integer(0);
    u64: Shape::Integer(0);
    usize: Shape::Integer(0);
    NonZeroUsize: Shape::Integer(1);
    String: Shape::Text;
    Secret: Shape::Secret;
    PathBuf: Shape::Path;
    Period: Shape::Pattern("^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$");
    Size: Shape::Pattern("^[0-9]+ *(B|kB|MB|GB|KiB|MiB|GiB|TiB)$");
    Endpoint: Shape::Pattern("^https?://[^/?#@]+([/?#].*)?$");
    Address: Shape::Pattern("^.*:[0-9]+$");
}

impl<T: Shaped> Shaped for Option<T> {
    const SHAPE: Shape = T::SHAPE;
}

impl<T: Shaped> Shaped for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}

impl<T: Shaped> Shaped for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
}

impl<T: Shaped> Shaped for OneOrMany<T> {
    const SHAPE: Shape = Shape::OneOrMany(&T::SHAPE);
}
