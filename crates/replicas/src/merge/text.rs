//! JSON that is read while it arrives: whole values, one after the other.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use metrifold_http::Body;

use super::reader::{Item, Message};

/// Why an answer cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The body is not an answer of Prometheus' API that can be merged.
    Foreign,
    /// The body broke off, for this reason.
    Broke(String),
    /// A part that has to be held is larger than `merge.max_bytes`.
    TooLarge,
}

/// A body, of which only what has not been used yet is in memory.
pub(super) struct Text {
    body: Body,
    pub(super) read: BytesMut,
    /// Place in `read` up to which it has been used.
    pub(super) at: usize,
    most: usize,
    /// Items for the receiver, which gets them before more of the body is waited for.
    pub(super) items: Vec<Item>,
    pub(super) sender: Option<mpsc::Sender<Message>>,
}

impl Text {
    pub(super) fn new(body: Body, most: usize) -> Self {
        Self {
            body,
            read: BytesMut::new(),
            at: 0,
            most,
            items: Vec::new(),
            sender: None,
        }
    }

    /// The bytes that were read, and the rest of the body.
    pub(super) fn into_parts(self) -> (BytesMut, Body) {
        (self.read, self.body)
    }

    /// Frees what has been used.
    pub(super) fn forget(&mut self) {
        self.read.advance(self.at);
        self.at = 0;
    }

    /// Waits for more of the body.
    async fn grow(&mut self) -> Result<(), Flaw> {
        if self.read.len() > self.most {
            return Err(Flaw::TooLarge);
        }
        self.hand_over().await;
        loop {
            match self.body.frame().await {
                None => return Err(Flaw::Broke("it ended too early".into())),
                Some(Err(error)) => return Err(Flaw::Broke(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
                        self.read.extend_from_slice(data);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends the items that have been read.
    pub(super) async fn hand_over(&mut self) {
        if let Some(sender) = self.sender.as_ref().filter(|_| !self.items.is_empty()) {
            // Fails only if nobody wants them any more; then this task is aborted.
            let _ = sender
                .send(Message::Items(std::mem::take(&mut self.items)))
                .await;
        }
    }

    /// Reads the body to its end, so that its connection can be used again.
    pub(super) async fn finish(&mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }

    /// The next byte that is not white space.
    pub(super) async fn peek(&mut self) -> Result<u8, Flaw> {
        loop {
            while let Some(byte) = self.read.get(self.at) {
                if !is_space(*byte) {
                    return Ok(*byte);
                }
                self.at += 1;
            }
            self.grow().await?;
        }
    }

    /// Reads a byte that must come next.
    pub(super) async fn take(&mut self, expected: u8) -> Result<(), Flaw> {
        match self.peek().await? == expected {
            true => {
                self.at += 1;
                Ok(())
            }
            false => Err(Flaw::Foreign),
        }
    }

    /// Reads the next value, whose end is found by its brackets and quotes alone.
    pub(super) async fn value(&mut self) -> Result<&[u8], Flaw> {
        self.peek().await?;
        let start = self.at;
        let mut scan = Scan::default();
        let mut seen = start;
        let end = loop {
            if let Some(length) = scan.end(&self.read[seen..]) {
                break seen + length;
            }
            seen = self.read.len();
            self.grow().await?;
        };
        if start == end {
            return Err(Flaw::Foreign);
        }
        self.at = end;
        Ok(&self.read[start..end])
    }

    /// Reads the next key of an object, and its colon. `None` at the end of the object. `first` tells
    /// whether the object has just begun.
    pub(super) async fn key(&mut self, first: bool) -> Result<Option<String>, Flaw> {
        if self.peek().await? == b'}' {
            self.at += 1;
            return Ok(None);
        }
        if !first {
            self.take(b',').await?;
        }
        let name: String = read(self.value().await?)?;
        self.take(b':').await?;
        Ok(Some(name))
    }
}

/// Parses a whole value.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(text: &'a [u8]) -> Result<T, Flaw> {
    serde_json::from_slice(text).map_err(|_| Flaw::Foreign)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Finds the end of a value in pieces of text.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Length of the value's rest, if it ends in this piece.
    fn end(&mut self, piece: &[u8]) -> Option<usize> {
        for (at, byte) in piece.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // Behind a number or a word.
                b'}' | b']' | b',' | b':' if self.depth == 0 => return Some(at),
                byte if self.depth == 0 && is_space(*byte) => return Some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}
