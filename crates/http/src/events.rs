//! Server-sent events: an answer that goes on until the caller disconnects.

use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::body::BoxError;

/// Interval at which a comment is sent in the absence of events: it keeps proxies from closing the
/// connection, and detects callers that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type: one word.
    pub name: &'static str,
    /// Its data, which may have several lines.
    pub data: String,
}

impl Event {
    fn encode(&self) -> Bytes {
        let mut text = String::with_capacity(self.data.len() + self.name.len() + 24);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "event: {}", self.name);
        for line in self.data.lines() {
            let _ = writeln!(text, "data: {line}");
        }
        text.push('\n');
        text.into()
    }
}

/// A body of the events of a channel. It ends with the channel.
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    silence: Interval,
}

impl Events {
    pub(super) fn new(events: mpsc::Receiver<Event>) -> Self {
        let mut silence = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { events, silence }
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(event) = self.events.poll_recv(cx) {
            self.silence.reset();
            return Poll::Ready(event.map(|event| Ok(Frame::data(event.encode()))));
        }
        ready!(self.silence.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::answer;

    #[tokio::test(start_paused = true)]
    async fn events_are_told_as_they_come_and_silence_is_broken_now_and_then() {
        let (tell, events) = mpsc::channel(4);
        let mut body = answer::events(events).into_body();
        let event = |data: &str| Event {
            name: "reload",
            data: data.to_owned(),
        };
        tell.send(event("one\ntwo")).await.unwrap();
        let mut next = async || {
            let frame = body.frame().await?.unwrap();
            Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
        };
        let text = "event: reload\ndata: one\ndata: two\n\n";
        assert_eq!(next().await.as_deref(), Some(text));
        let before = Instant::now();
        assert_eq!(next().await.as_deref(), Some(":\n\n"));
        assert!(before.elapsed() >= KEEP_ALIVE);
        drop(tell);
        assert_eq!(next().await, None);
    }
}
