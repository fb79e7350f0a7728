//! Reading a request's body: bounded in size and in time.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use thiserror::Error;

/// The most that is reserved on the word of a Content-Length header. Beyond it, the buffer grows
/// with what has arrived, so that headers alone cannot fill the memory.
const MAX_RESERVED: usize = 1 << 20;

/// Why a body could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than allowed: status 413.
    #[error("body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It did not arrive in time: status 408.
    #[error("body did not arrive in time")]
    Timeout,
    /// The connection broke, or the body contradicts its headers: status 400, if anybody is left
    /// to read it.
    #[error("body broke off: {0}")]
    Broken(String),
}

/// Reads a whole body of at most `max` bytes.
///
/// A body that announces more than `max` is refused unread. One that arrives in a single frame is
/// returned without copying.
///
/// # Errors
///
/// Fails when the body is too large, does not arrive within `timeout`, or breaks off.
pub async fn read<B>(
    body: B,
    content_length: Option<u64>,
    max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    if content_length.is_some_and(|length| length > max as u64) {
        return Err(BodyError::TooLarge { limit: max });
    }
    match tokio::time::timeout(timeout, collect(body, content_length, max)).await {
        Ok(result) => result,
        Err(_) => Err(BodyError::Timeout),
    }
}

async fn collect<B>(body: B, content_length: Option<u64>, max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        // Trailers say nothing that anybody asks for.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + buffer.len() + data.len() > max {
            return Err(BodyError::TooLarge { limit: max });
        }
        if first.is_empty() && buffer.is_empty() {
            first = data;
        } else {
            if buffer.is_empty() {
                let announced = content_length.map_or(0, |length| length.min(max as u64) as usize);
                buffer.reserve(announced.min(MAX_RESERVED).max(first.len() + data.len()));
                buffer.extend_from_slice(&std::mem::take(&mut first));
            }
            buffer.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if buffer.is_empty() {
        first
    } else {
        buffer.freeze()
    })
}
