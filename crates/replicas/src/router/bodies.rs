//! Bodies whose beginning is read ahead, and bodies whose bytes are counted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use metrifold_http::{Body, BoxError};

use super::attempt::Ticket;

/// Beginning of a body.
pub(super) enum Start {
    /// The whole body.
    Whole(Bytes),
    /// The body, longer than the limit; the bytes read so far come first.
    More(Body),
}

/// Reads a body, up to `most` bytes.
pub(super) async fn start(mut body: Body, most: usize) -> Result<Start, BoxError> {
    if let Some(whole) = body.whole() {
        return Ok(match whole.len() <= most {
            true => Start::Whole(whole.clone()),
            false => Start::More(body),
        });
    }
    let mut read: VecDeque<Bytes> = VecDeque::new();
    let mut length = 0;
    while length <= most {
        let Some(frame) = body.frame().await else {
            return Ok(Start::Whole(joined(read)));
        };
        // Trailers are dropped: no caller needs them.
        if let Ok(data) = frame?.into_data() {
            length += data.len();
            read.push_back(data);
        }
        if body.is_end_stream() && length <= most {
            return Ok(Start::Whole(joined(read)));
        }
    }
    Ok(Start::More(Body::stream(Prefixed { read, body })))
}

/// A body whose beginning has been read.
pub(super) fn prefixed(read: Bytes, body: Body) -> Body {
    let read = [read].into();
    Body::stream(Prefixed { read, body })
}

fn joined(mut read: VecDeque<Bytes>) -> Bytes {
    if read.len() <= 1 {
        return read.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::new();
    for part in read {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

/// A body whose beginning has been read.
struct Prefixed {
    read: VecDeque<Bytes>,
    body: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.read.pop_front() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.read.iter().map(|part| part.len() as u64).sum();
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        // Upper bound first: `set_lower` must not exceed it.
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(rest.lower().saturating_add(read));
        hint
    }
}

/// The body of an answer. Its ticket counts it as in flight until it ends or is dropped.
pub(super) struct Tracked {
    pub(super) body: Body,
    pub(super) ticket: Ticket,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.ticket.bytes += bytes as u64;
            }
            Poll::Ready(Some(Err(_))) => self.ticket.broke(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
