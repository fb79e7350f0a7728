//! Forms of values, for the JSON Schema and for steps that treat values before they are
//! deserialized.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::{Address, Endpoint, OneOrMany, Period, Secret, Size};

use super::Entry;

/// The form of a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The least value of its type.
        least: i64,
        /// The largest value of its type, if a number in a file can exceed it.
        most: Option<i64>,
    },
    /// A number, whole or not, that is not negative.
    Number,
    /// Text.
    Text,
    /// Text that must never be shown.
    Secret,
    /// The path of a file or folder, or a pattern for paths; relative to the file that names it.
    Path,
    /// An HTTP URL; its user, password and query may be secret.
    Url,
    /// Text that matches a regular expression.
    Pattern(&'static str),
    /// One of a fixed set of words.
    Word(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A table whose keys the user chooses.
    Map(&'static Shape),
    /// A table of known keys.
    Table(&'static [Entry]),
    /// One value, or a list of values.
    OneOrMany(&'static Shape),
    /// A value of one of two forms.
    Either(&'static Shape, &'static Shape),
}

/// A type of configured values.
pub trait Shaped {
    /// The form of its values.
    const SHAPE: Shape;
}

/// A whole number within these bounds.
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
    f64: Shape::Number;
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

impl<T: Shaped> Shaped for Box<T> {
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
