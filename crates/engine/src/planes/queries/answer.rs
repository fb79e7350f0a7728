//! The body of an answer, bounded in time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use metrifold_http::body::{Body, BoxError};

/// A body that breaks off at a deadline, which cancels the request upstream, and that holds a value
/// until it has ended or is dropped.
pub(super) struct Bounded<K> {
    body: Body,
    /// Time at which the body breaks off; `None` once it has.
    deadline: Option<Pin<Box<Sleep>>>,
    _kept: K,
}

impl<K: Send + Unpin + 'static> Bounded<K> {
    pub(super) fn new(body: Body, deadline: Pin<Box<Sleep>>, kept: K) -> Self {
        Self {
            body,
            deadline: Some(deadline),
            _kept: kept,
        }
    }

    /// Converts it into a plain body.
    pub(super) fn into_body(self) -> Body {
        Body::stream(self)
    }
}

impl<K: Send + Unpin> http_body::Body for Bounded<K> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(deadline) = &mut self.deadline else {
            return Poll::Ready(None);
        };
        // Checked first, so that a caller that reads slowly cannot keep its query for ever.
        if deadline.as_mut().poll(cx).is_ready() {
            self.deadline = None;
            // Dropping the body closes the connection to the upstream.
            self.body = Body::empty();
            return Poll::Ready(Some(Err("answer did not end in time".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
