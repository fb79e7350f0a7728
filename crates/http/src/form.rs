//! Parameters of a query string or a form, parsed as Go does, and stricter where servers differ.

use std::fmt::{self, Write};

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// Media type of a form.
pub const TYPE: &str = "application/x-www-form-urlencoded";

/// Parameters in their order. They are printed in one canonical form, whatever they were parsed
/// from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Parses parameters.
    ///
    /// # Errors
    ///
    /// Fails with the reason when servers could read the text differently.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(';') {
            // Some servers take it for a separator.
            return Err("a semicolon is written %3B".into());
        }
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        decoded.collect::<Result<_, String>>().map(Self)
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Values of the parameters with a name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(it, _)| it == name);
        named.map(|(_, value)| &**value)
    }

    /// Values of the parameters with a name, mutable.
    pub fn values_mut<'a>(&'a mut self, name: &'a str) -> impl Iterator<Item = &'a mut String> {
        let named = self.0.iter_mut().filter(move |(it, _)| it == name);
        named.map(|(_, value)| value)
    }

    /// Adds a parameter.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Removes all parameters with a name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(it, _)| it != name);
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char('&')?;
            }
            encode(name, f)?;
            f.write_char('=')?;
            encode(value, f)?;
        }
        Ok(())
    }
}

/// Whether headers unambiguously declare a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        return false;
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(TYPE) && !headers.contains_key(CONTENT_ENCODING)
}

fn decode(text: &str) -> Result<String, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let escape = behind.split_at_checked(2).and_then(|(digits, behind)| {
                    let high = char::from(digits[0]).to_digit(16)?;
                    let low = char::from(digits[1]).to_digit(16)?;
                    rest = behind;
                    u8::try_from(high * 16 + low).ok()
                });
                escape.ok_or_else(|| "a percent sign is written %25".to_owned())?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| "the form is not UTF-8".to_owned())
}

fn encode(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => f.write_char(char::from(byte))?,
            false => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}
