//! A type for bodies of requests and answers of any origin.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::parts::Parts;

/// Error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body: bytes in memory, or a stream. A stream is polled for its next piece when there is room
/// for it, and dropped when the rest is not needed.
#[derive(Default)]
pub struct Body(Content);

type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

enum Content {
    /// All bytes; no frame follows them.
    Whole(Bytes),
    Parts(Parts),
    Stream(Stream),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl Body {
    /// An empty body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that is produced while it is sent. An error of the stream aborts the message, so that
    /// the receiver does not take it for complete.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Content::Stream(Box::pin(body.map_err(Into::into))))
    }

    /// The remaining bytes, if they are in one piece in memory.
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Content::Whole(whole) => Some(whole),
            Content::Parts(_) | Content::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(whole: Bytes) -> Self {
        Self(Content::Whole(whole))
    }
}

impl From<Vec<u8>> for Body {
    fn from(whole: Vec<u8>) -> Self {
        Bytes::from(whole).into()
    }
}

impl From<String> for Body {
    fn from(whole: String) -> Self {
        Bytes::from(whole).into()
    }
}

impl From<&'static str> for Body {
    fn from(whole: &'static str) -> Self {
        Bytes::from_static(whole.as_bytes()).into()
    }
}

impl From<Parts> for Body {
    fn from(parts: Parts) -> Self {
        Self(Content::Parts(parts))
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(parts: Vec<Bytes>) -> Self {
        Parts::from(parts).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Content::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Content::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Content::Parts(parts) => Pin::new(parts)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(whole) => whole.is_empty(),
            Content::Parts(parts) => parts.is_end_stream(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Content::Parts(parts) => parts.size_hint(),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Content::Whole(_) => "Whole",
            Content::Parts(_) => "Parts",
            Content::Stream(_) => "Stream",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http_body::Body as _;

    use super::*;
    use crate::testing::fed;

    #[tokio::test]
    async fn a_body_has_the_bytes_that_it_was_made_of() {
        let parts = vec![Bytes::from("a"), Bytes::new(), Bytes::from("b")];
        for (body, expected) in [
            (Body::empty(), ""),
            (Body::from("ab"), "ab"),
            (Body::from(String::from("ab")), "ab"),
            (Body::from(b"ab".to_vec()), "ab"),
            (Body::from(Parts::from(parts)), "ab"),
            (Body::stream(Body::from("ab")), "ab"),
        ] {
            assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(body.is_end_stream(), expected.is_empty());
            let collected = body.collect().await.unwrap().to_bytes();
            assert_eq!(collected, expected);
        }
    }

    #[tokio::test]
    async fn the_error_of_a_stream_passes_through() {
        let (feed, mut body) = fed();
        feed.send(Ok(Bytes::from("a"))).await.unwrap();
        assert_eq!(body.size_hint().exact(), None);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "a");
        feed.send(Err(io::Error::other("torn"))).await.unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "torn");
    }

    #[test]
    fn a_body_shows_no_content() {
        assert_eq!(format!("{:?}", Body::from("secret")), "Body(\"Whole\")");
    }
}
