//! Keys of the configuration, with their defaults and documentation.

/// A key of a component.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path in the component's table, such as `tls.ca_file`.
    pub name: &'static str,
    /// Its default, or what stands in for it.
    pub default: KeyDefault,
    /// What it does, with unit and bounds, in one sentence.
    pub doc: &'static str,
}

/// What holds when a key is absent. The text is TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// The key must be given; an example.
    Required(&'static str),
    /// This value.
    Value(&'static str),
    /// Nothing; an example.
    Unset(&'static str),
}

impl Key {
    /// A key that must be given.
    pub const fn required(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: KeyDefault::Required(example),
            doc,
        }
    }

    /// A key with a default.
    pub const fn value(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: KeyDefault::Value(default),
            doc,
        }
    }

    /// A key that may be absent.
    pub const fn unset(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: KeyDefault::Unset(example),
            doc,
        }
    }
}

impl KeyDefault {
    /// A value that the key can have, as TOML.
    pub fn example(self) -> &'static str {
        match self {
            Self::Required(text) | Self::Value(text) | Self::Unset(text) => text,
        }
    }
}
