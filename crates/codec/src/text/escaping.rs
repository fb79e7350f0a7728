//! Escaping of names beyond the classic character set, for scrapers that do not read UTF-8 names.
//!
//! Source: <https://prometheus.io/docs/instrumenting/escaping_schemes/>.

use std::borrow::Cow;

/// An escaping scheme, negotiated between scraper and page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// Names are unchanged, in quotes.
    AllowUtf8,
    /// Each foreign character becomes an underscore; the default for scrapers that name no scheme.
    #[default]
    Underscores,
    /// As underscores, but dots and underscores can be told apart.
    Dots,
    /// Each foreign character becomes its code point: nothing is lost.
    Values,
}

impl Escaping {
    /// The scheme named by the parameter `escaping` of a media type.
    pub fn from_parameter(name: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|scheme| scheme.parameter() == name)
    }

    /// The scheme's name in the parameter `escaping`.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// A metric's name under this scheme.
    pub fn metric(self, name: &[u8]) -> Cow<'_, [u8]> {
        self.escape(name, true)
    }

    /// A label's name under this scheme: unlike in a metric's name, a colon is a foreign character.
    pub fn label(self, name: &[u8]) -> Cow<'_, [u8]> {
        self.escape(name, false)
    }

    fn escape(self, name: &[u8], colons: bool) -> Cow<'_, [u8]> {
        let unchanged = match self {
            Self::AllowUtf8 => true,
            Self::Underscores | Self::Values => is_classic(name, colons),
            Self::Dots => is_classic(name, colons) && !name.contains(&b'_'),
        };
        if unchanged {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (place, c) in String::from_utf8_lossy(name).char_indices() {
            match (self, c) {
                (Self::Dots | Self::Values, '_') => out.push_str("__"),
                (Self::Dots, '.') => out.push_str("_dot_"),
                (_, c) if is_classic_at(c, place, colons) => out.push(c),
                (Self::Dots, _) => out.push_str("__"),
                (Self::Values, c) => out.push_str(&format!("_{:x}_", u32::from(c))),
                (Self::Underscores | Self::AllowUtf8, _) => out.push('_'),
            }
        }
        Cow::Owned(out.into_bytes())
    }
}

fn is_classic_at(c: char, place: usize, colons: bool) -> bool {
    c.is_ascii_alphabetic() || c == '_' || (colons && c == ':') || (place > 0 && c.is_ascii_digit())
}

/// Whether a name needs no quotes.
pub(super) fn is_classic(name: &[u8], colons: bool) -> bool {
    let mut bytes = name.iter().enumerate();
    !name.is_empty() && bytes.all(|(place, &byte)| is_classic_at(byte.into(), place, colons))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_the_schemes_say() {
        let f = |name: &str, expected: [&str; 3]| {
            let schemes = [Escaping::Underscores, Escaping::Dots, Escaping::Values];
            let escaped = schemes.map(|scheme| scheme.metric(name.as_bytes()).into_owned());
            let escaped = escaped.map(|name| String::from_utf8(name).unwrap());
            assert_eq!(escaped, expected, "{name}");
            assert_eq!(Escaping::AllowUtf8.metric(name.as_bytes()), name.as_bytes());
        };
        f("up", ["up", "up", "up"]);
        f("a:b", ["a:b", "a:b", "a:b"]);
        f("no_dots", ["no_dots", "no__dots", "no_dots"]);
        f(
            "http.status:sum",
            [
                "http_status:sum",
                "http_dot_status:sum",
                "U__http_2e_status:sum",
            ],
        );
        f("1x", ["_x", "__x", "U___31_x"]);
        f("a_é世", ["a___", "a______", "U__a___e9__4e16_"]);
    }

    #[test]
    fn a_colon_is_foreign_to_the_name_of_a_label() {
        assert_eq!(&*Escaping::Underscores.label(b"a:b"), b"a_b");
        assert_eq!(&*Escaping::Values.label(b"a:b"), b"U__a_3a_b");
    }

    #[test]
    fn schemes_are_known_by_their_parameter() {
        for scheme in [Escaping::AllowUtf8, Escaping::Dots, Escaping::Values] {
            assert_eq!(Escaping::from_parameter(scheme.parameter()), Some(scheme));
        }
        assert_eq!(Escaping::from_parameter("other"), None);
    }
}
