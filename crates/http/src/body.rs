//! Bodies, and reading one whole with bounds on size and time.

mod boxed;

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use thiserror::Error;

use metrifold_model::Rejection;

pub use boxed::{Body, BoxError};

/// Most bytes that are allocated because of a Content-Length header. Beyond that, the buffer grows
/// with the data that arrives, so that headers alone cannot use up the memory.
const MAX_RESERVED: usize = 1 << 20;

/// Why a body could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// Larger than allowed: status 413.
    #[error("body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Did not arrive in time: a status that makes the sender retry.
    #[error("body did not arrive in time")]
    Timeout,
    /// No memory for it at the moment: status 503.
    #[error("not enough memory for the body at the moment")]
    NoRoom,
    /// Exceeds a limit of its caller while it arrives: the answer to the caller.
    #[error("{0}")]
    Refused(Rejection),
    /// The connection broke, or the body contradicts its headers: status 400, if the caller is
    /// still connected.
    #[error("body broke off: {0}")]
    Broken(String),
}

/// Reads a whole body of at most `max` bytes.
///
/// A body that announces more than `max` is refused unread. Data is copied out of its frames, since
/// these retain the whole read buffer of their connection: queued small bodies would take many
/// times the memory that they are counted with.
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
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    read_within(body, content_length, max, timeout, |_| true).await
}

/// As [`read`], and calls `room` for the bytes of each piece that has arrived. Announced lengths
/// reserve nothing, so that senders that announce much and send nothing do not lock out others.
///
/// # Errors
///
/// Fails when there is no room, when the body is too large, does not arrive within `timeout`, or
/// breaks off.
pub async fn read_within<B>(
    body: B,
    content_length: Option<u64>,
    max: usize,
    timeout: Duration,
    room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if content_length.is_some_and(|length| length > max as u64) {
        return Err(BodyError::TooLarge { limit: max });
    }
    match tokio::time::timeout(timeout, collect(body, content_length, max, room)).await {
        Ok(result) => result,
        Err(_) => Err(BodyError::Timeout),
    }
}

async fn collect<B>(
    body: B,
    content_length: Option<u64>,
    max: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(error.into()))?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if buffer.len() + data.len() > max {
            return Err(BodyError::TooLarge { limit: max });
        }
        if !room(data.len()) {
            return Err(BodyError::NoRoom);
        }
        if buffer.is_empty() {
            let announced = content_length.map_or(0, |length| length.min(max as u64) as usize);
            buffer.reserve(announced.min(MAX_RESERVED).max(data.len()));
        }
        buffer.extend_from_slice(&data);
        if body.is_end_stream() {
            break;
        }
    }
    Ok(buffer.freeze())
}

/// Why a body broke off. The listener reports limits as a [`BodyError`] itself.
fn broken(error: BoxError) -> BodyError {
    match error.downcast() {
        Ok(known) => *known,
        Err(other) => BodyError::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Yields these frames, then ends or hangs.
    struct Frames {
        frames: VecDeque<io::Result<Bytes>>,
        hangs: bool,
    }

    fn frames<const N: usize>(frames: [&'static str; N]) -> Frames {
        let frames = frames.map(|frame| Ok(Bytes::from_static(frame.as_bytes())));
        Frames {
            frames: frames.into(),
            hangs: false,
        }
    }

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            match self.frames.pop_front() {
                Some(frame) => Poll::Ready(Some(frame.map(Frame::data))),
                None if self.hangs => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    #[tokio::test]
    async fn a_single_frame_is_copied() {
        let frame = Bytes::from(vec![b'x'; 100_000]);
        let body = Frames {
            frames: [Ok(frame.clone())].into(),
            hangs: false,
        };
        let read = read(body, Some(100_000), 100_000, LONG).await.unwrap();
        assert_eq!(read, frame);
        assert_ne!(read.as_ptr(), frame.as_ptr());
        let empty = super::read(frames([]), Some(0), 0, LONG).await;
        assert_eq!(empty, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn frames_are_joined_whatever_the_header_promises() {
        for length in [None, Some(0), Some(6), Some(64 << 20)] {
            let read = read(frames(["one", "", "two"]), length, 64 << 20, LONG).await;
            assert_eq!(read, Ok(Bytes::from_static(b"onetwo")), "{length:?}");
        }
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_with_and_without_its_length() {
        let too_large = Err(BodyError::TooLarge { limit: 5 });
        let announced = read(frames([]), Some(6), 5, LONG).await;
        assert_eq!(announced, too_large);
        let silent = read(frames(["one", "two"]), None, 5, LONG).await;
        assert_eq!(silent, too_large);
        let at_once = read(frames(["onetwo"]), None, 5, LONG).await;
        assert_eq!(at_once, too_large);
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_a_timeout_and_one_that_breaks_says_why() {
        let mut body = frames(["one"]);
        body.hangs = true;
        let late = read(body, None, 5, Duration::from_millis(10)).await;
        assert_eq!(late, Err(BodyError::Timeout));
        let mut body = frames(["one"]);
        body.frames.push_back(Err(io::Error::other("gone")));
        let broken = read(body, None, 5, LONG).await;
        assert_eq!(broken, Err(BodyError::Broken("gone".to_owned())));
        let limit = BodyError::Refused(Rejection::unavailable("too many bytes"));
        let refused = Frames {
            frames: [Err(io::Error::other(limit.clone()))].into(),
            hangs: false,
        };
        let refused = Body::stream(refused.map_err(|error| error.into_inner().unwrap()));
        assert_eq!(read(refused, None, 5, LONG).await, Err(limit));
    }
}
