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
    /// A whole number.
    Integer {
        /// The least that its type can hold.
        least: i64,
        /// The most, if that is not more than a number in a file can be.
        most: Option<i64>,
    },
    /// Text.
    Text,
    /// Text that is shown nowhere.
    Secret,
    /// The path of a file or folder, or a pattern for paths; relative to the file that names it.
    Path,
    /// A URL of HTTP, in which a user, a password or a query may be secret.
    Url,
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
    /// One of two.
    Either(&'static Shape, &'static Shape),
}

/// A type that values of keys have.
pub trait Shaped {
    /// What they look like.
    const SHAPE: Shape;
}

/// A whole number of these bounds.
const fn whole(least: i64, most: Option<i64>) -> Shape {
    Shape::Integer { least, most }
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
    u16: whole(0, Some(0xffff));
    u32: whole(0, Some(0xffff_ffff));
    u64: whole(0, None);
    usize: whole(0, None);
    NonZeroUsize: whole(1, None);
    String: Shape::Text;
    Secret: Shape::Secret;
    PathBuf: Shape::Path;
    Period: Shape::Pattern("^([0-9]+(w|d|h|ms|m|s))+$");
    Size: Shape::Pattern("^[0-9]+ *(B|kB|MB|GB|KiB|MiB|GiB|TiB)$");
    Endpoint: Shape::Url;
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
