//! What a configuration of Promregator becomes: TOML with the same selectors, credentials and
//! addresses, and what of it has no counterpart.

mod cipher;
mod document;
mod write;

use std::fmt;

pub use cipher::decrypt;

use document::Document;
use write::Writer;

/// A configuration that was converted.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The configuration of Metrifold. It holds the secrets that stood in the other.
    pub toml: String,
    /// What has no counterpart, or another meaning.
    pub notes: Vec<String>,
}

/// Something for which nothing can be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The key, as Promregator writes it; empty for the whole file.
    pub key: String,
    /// What is wrong with it.
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

/// Converts a file. What others, such as Prometheus, have written into it is passed over. `key` opens
/// values that begin with `{cipher}`.
///
/// # Errors
///
/// Says everything that is wrong with it.
pub fn convert(text: &str, key: Option<&str>) -> Result<Converted, Vec<Wrong>> {
    let document = Document::read(text).map_err(|what| {
        let key = String::new();
        vec![Wrong { key, what }]
    })?;
    Writer::new(document, key).write()
}
