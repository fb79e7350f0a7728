//! Conversion of Promregator's configuration: TOML with the same selectors, credentials and
//! addresses, and notes on everything without a counterpart.

mod cipher;
mod document;
mod write;

use std::fmt;

pub(crate) use cipher::decrypt;

use document::Document;
use write::Writer;

/// A converted configuration.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The configuration of Metrifold. It contains the secrets of the original.
    pub toml: String,
    /// Notes on keys without a counterpart, or with another meaning.
    pub notes: Vec<String>,
}

/// An error in the configuration of Promregator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The key in Promregator's spelling; empty for the whole file.
    pub key: String,
    /// Description of the error.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str(&self.what),
            key => write!(f, "{key}: {}", self.what),
        }
    }
}

/// Converts a file. Keys of other programs, such as Prometheus, are skipped. `key` decrypts values
/// that begin with `{cipher}`.
///
/// # Errors
///
/// Fails with all errors of the file.
pub fn convert(text: &str, key: Option<&str>) -> Result<Converted, Vec<Wrong>> {
    let document = Document::read(text).map_err(|what| {
        let key = String::new();
        vec![Wrong { key, what }]
    })?;
    Writer::new(document, key).write()
}
