//! URLs and errors in messages.

use std::error::Error;

use http::Uri;

/// A URL without its query, which may hold secrets, for messages.
pub fn place(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = if uri.path() == "/" { "" } else { uri.path() };
    format!("{}://{authority}{path}", uri.scheme_str().unwrap_or("http"))
}

/// An error with its causes, each mentioned once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
