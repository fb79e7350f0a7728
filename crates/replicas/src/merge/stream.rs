//! The merged answer as a body, which is written while the replicas' answers arrive.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;

use metrifold_base::BoxFuture;
use metrifold_http::{Body, BoxError};

use super::fill::{Gaps, filled};
use super::join::{Join, Parts};
use super::reader::{Item, Message, Reader, Shape, Tail};
use super::text::Flaw;

/// Bytes of the answer that are sent at once.
const CHUNK: usize = 64 << 10;

/// Bytes of a series from which it is merged off the workers.
const LARGE: usize = 256 << 10;

/// Answers of several replicas that can be merged.
pub(crate) struct Merging {
    /// Names of the replicas and their answers, best first, all of the same shape.
    pub(crate) answers: Vec<(Arc<str>, Reader)>,
    /// Warnings about replicas whose answers are missing.
    pub(crate) warnings: Vec<String>,
    /// Most bytes of an answer that are held, and of one of its series.
    pub(crate) most: usize,
    /// Most time for which a replica that pauses amid its answer is waited for while another goes on.
    pub(crate) wait: Duration,
    /// Most items of the merged answer.
    pub(crate) limit: Option<usize>,
    /// What counts as a gap of a series.
    pub(crate) gaps: Gaps,
}

/// The warning about a replica without a complete answer.
pub(crate) fn missing(name: &str, reason: &str) -> String {
    format!("replica {name} {reason}: data that no other replica has is missing")
}

/// Prometheus' warning about an answer that is longer than the query's `limit`.
const TRUNCATED: &str = "\"results truncated due to limit\"";

impl Merging {
    /// The merged answer. It breaks off if every replica does.
    pub(crate) fn into_body(self) -> Body {
        let (sender, pieces) = mpsc::channel(1);
        Body::stream(Merged {
            writing: Some(Box::pin(self.write(sender))),
            pieces,
        })
    }

    async fn write(self, sender: mpsc::Sender<Result<Bytes, BoxError>>) {
        let Some(shape) = self.answers.first().map(|(_, it)| it.shape.clone()) else {
            return;
        };
        let mut join = Join::new(&shape, self.answers.len(), self.most);
        // Aborted together with this.
        let mut reading = JoinSet::new();
        let mut warnings = self.warnings;
        let mut feeds: Vec<Feed> = Vec::new();
        for (name, reader) in self.answers {
            let (sender, messages) = mpsc::channel(1);
            feeds.push(Feed {
                name,
                reading: reading.spawn(reader.run(sender)),
                messages,
                items: VecDeque::new(),
                tail: None,
            });
        }
        let mut out = Out {
            text: "{\"status\":\"success\",\"data\":".into(),
            sender,
            written: 0,
            limit: self.limit,
            gaps: self.gaps,
            truncated: false,
        };
        let close = match &shape {
            Shape::List => {
                out.text.push('[');
                "]"
            }
            Shape::Matrix => {
                out.text.push_str("{\"resultType\":\"matrix\",\"result\":[");
                "]}"
            }
            Shape::Vector => {
                out.text.push_str("{\"resultType\":\"vector\",\"result\":[");
                "]}"
            }
            Shape::Other(data) => {
                out.text.push_str(data);
                ""
            }
        };
        while let Some(at) = join.next() {
            let complete = match next(&mut feeds, at, self.wait).await {
                Ok(Some(item)) => join.deliver(at, item),
                Ok(None) => join.over(at),
                Err(reason) => {
                    warnings.push(missing(&feeds[at].name, &reason));
                    join.over(at)
                }
            };
            for parts in complete {
                out.series(&shape, parts).await;
            }
        }
        if feeds.iter().all(|feed| feed.tail.is_none()) {
            let reason = warnings.pop().unwrap_or_default();
            // Fails only if nobody reads the answer any more.
            let _ = out.sender.send(Err(reason.into())).await;
            return;
        }
        for (at, feed) in feeds.iter().enumerate() {
            let late = join.late(at);
            let name = &feed.name;
            match shape {
                _ if late == 0 => {}
                Shape::List => warnings.push(format!(
                    "replica {name} does not sort its answer: up to {late} items that no other replica has are missing"
                )),
                _ => warnings.push(format!(
                    "replica {name} does not sort its series: points of {late} series that no other replica has are missing"
                )),
            }
        }
        let tails = || feeds.iter().filter_map(|feed| feed.tail.as_ref());
        let own = warnings
            .into_iter()
            .map(|it| serde_json::Value::String(it).to_string());
        let truncated = out.truncated.then(|| TRUNCATED.to_owned());
        let theirs = tails().flat_map(|it| it.warnings.iter().cloned());
        let warnings = messages("warnings", theirs.chain(truncated).chain(own));
        let infos = messages("infos", tails().flat_map(|it| it.infos.iter().cloned()));
        out.text.push_str(&format!("{close}{warnings}{infos}}}"));
        out.send().await;
    }
}

/// A list of messages without duplicates, as a key of the answer.
fn messages(name: &str, said: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for one in said {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    match all.is_empty() {
        true => String::new(),
        false => format!(",\"{name}\":[{}]", all.join(",")),
    }
}

/// A replica's answer, as it is read.
struct Feed {
    name: Arc<str>,
    reading: AbortHandle,
    messages: mpsc::Receiver<Message>,
    /// Series that have been read.
    items: VecDeque<Item>,
    /// Set once the answer has been read to its end.
    tail: Option<Tail>,
}

impl Feed {
    /// Whether the merge could go on with this answer.
    fn goes_on(&self) -> bool {
        self.tail.is_some() || !self.items.is_empty() || !self.messages.is_empty()
    }
}

/// The next series of a replica. `None` at the end of its answer; otherwise, why there is none.
async fn next(feeds: &mut [Feed], at: usize, wait: Duration) -> Result<Option<Item>, String> {
    loop {
        let feed = &mut feeds[at];
        if let Some(item) = feed.items.pop_front() {
            return Ok(Some(item));
        }
        match timeout(wait, feed.messages.recv()).await {
            Ok(Some(Message::Items(items))) => feed.items.extend(items),
            Ok(Some(Message::End(tail))) => {
                feed.tail = Some(tail);
                return Ok(None);
            }
            Ok(Some(Message::Failed(flaw))) => return Err(told(&flaw)),
            Ok(None) => return Err("could not be read".into()),
            Err(_) => {
                let mut others = feeds.iter().enumerate();
                if others.any(|(other, feed)| other != at && feed.goes_on()) {
                    feeds[at].reading.abort();
                    return Err("paused amid its answer".into());
                }
            }
        }
    }
}

/// What happened to a replica's answer.
pub(crate) fn told(flaw: &Flaw) -> String {
    match flaw {
        Flaw::Foreign => "sent an answer that cannot be merged".into(),
        Flaw::Broke(error) => format!("broke off its answer ({error})"),
        Flaw::TooLarge => "sent a series larger than `merge.max_bytes`".into(),
    }
}

/// The end of the body at which series are written.
struct Out {
    text: String,
    sender: mpsc::Sender<Result<Bytes, BoxError>>,
    /// Items in the answer.
    written: usize,
    limit: Option<usize>,
    gaps: Gaps,
    truncated: bool,
}

impl Out {
    async fn series(&mut self, shape: &Shape, parts: Parts) {
        if self.limit.is_some_and(|limit| self.written >= limit) {
            self.truncated = true;
            return;
        }
        if self.written > 0 {
            self.text.push(',');
        }
        self.written += 1;
        let bytes: usize = parts.iter().map(|(_, text)| text.len()).sum();
        match &*parts {
            [] => {}
            [_, _, ..] if *shape == Shape::Matrix && bytes >= LARGE => {
                let gaps = self.gaps;
                let merging = spawn_blocking(move || filled(&parts, gaps).into_owned());
                match merging.await.map_err(JoinError::try_into_panic) {
                    Ok(text) => self.text.push_str(&text),
                    Err(Ok(panic)) => resume_unwind(panic),
                    // The process is ending.
                    Err(Err(_)) => {}
                }
            }
            [_, _, ..] if *shape == Shape::Matrix => {
                self.text.push_str(&filled(&parts, self.gaps));
            }
            [(_, first), ..] => self.text.push_str(first),
        }
        if self.text.len() >= CHUNK {
            self.send().await;
        }
    }

    async fn send(&mut self) {
        let piece: Bytes = std::mem::take(&mut self.text).into();
        // Fails only if nobody reads the answer any more.
        let _ = self.sender.send(Ok(piece)).await;
    }
}

/// A body that a future writes. Dropping it ends the reading of the replicas' answers.
struct Merged {
    /// `None` once everything has been written.
    writing: Option<BoxFuture<()>>,
    pieces: mpsc::Receiver<Result<Bytes, BoxError>>,
}

impl http_body::Body for Merged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Polled until it waits, or has handed over a piece.
        let done = match &mut self.writing {
            Some(writing) => writing.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if done {
            self.writing = None;
        }
        let piece = self.pieces.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
