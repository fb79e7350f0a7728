//! Entry point: reads a page of any format.

use std::borrow::Cow;

use crate::format::Format;
use crate::page::{NOT_UTF8, Options, Receiver};
use crate::{ParseError, openmetrics, protobuf, text};

/// Reads a page of this format.
///
/// # Errors
///
/// Fails at the first fault of the page, or when the receiver does. The samples received before
/// that are not the whole page.
pub fn read(
    page: &[u8],
    format: Format,
    options: &Options,
    receiver: &mut impl Receiver,
) -> Result<(), ParseError> {
    match format {
        Format::Protobuf => protobuf::read(page, options, receiver),
        Format::Text | Format::OpenMetrics => {
            let page = checked(page);
            let is_utf8 = matches!(page, Cow::Borrowed(_));
            match format {
                Format::Text => text::read(&page, is_utf8, options, receiver),
                _ => openmetrics::read(&page, is_utf8, options, receiver),
            }
        }
    }
}

/// The page as text. Bytes that are not UTF-8 are replaced by a character that every format refuses
/// where it requires UTF-8, so that such a line is refused unless it is a comment.
fn checked(page: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(page) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(page.len());
            for chunk in page.utf8_chunks() {
                text.push_str(chunk.valid());
                if !chunk.invalid().is_empty() {
                    text.push(NOT_UTF8);
                }
            }
            Cow::Owned(text)
        }
    }
}
