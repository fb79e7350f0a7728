//! Reads an answer of Prometheus' API series by series, while it arrives.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use metrifold_http::Body;

use super::text::{Flaw, Text, read};

/// The kind of items that an answer lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Names, or label sets.
    List,
    /// Series with points, in the order of their labels.
    Matrix,
    /// Series with one point, in an order that may have a meaning.
    Vector,
    /// Nothing: the whole data is here.
    Other(Box<str>),
}

impl Shape {
    /// Whether answers of both shapes can be merged.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Identity of an item, in the order in which Prometheus sorts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Name(String),
    Labels(BTreeMap<String, String>),
}

/// A series, a label set or a name.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) key: Arc<Key>,
    /// Its JSON.
    pub(crate) text: Box<str>,
}

/// What follows the data of an answer, each message as JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) warnings: Vec<String>,
    pub(crate) infos: Vec<String>,
}

/// A part of an answer, from the task that reads it to the merge.
pub(crate) enum Message {
    Items(Vec<Item>),
    /// The answer was read to its end.
    End(Tail),
    Failed(Flaw),
}

/// An answer whose beginning has been read, up to its first item.
pub(crate) struct Reader {
    text: Text,
    pub(crate) shape: Shape,
    /// Whether an item may follow.
    listing: bool,
    tail: Tail,
}

/// An answer that cannot be merged, with the part of its body that has been read, and the rest.
pub(crate) struct Unread {
    pub(crate) flaw: Flaw,
    pub(crate) read: BytesMut,
    pub(crate) rest: Body,
}

#[derive(Deserialize)]
struct Named {
    metric: BTreeMap<String, String>,
}

impl Reader {
    /// Reads the beginning of an answer. Parts of it of more than `most` bytes are never held.
    pub(crate) async fn open(body: Body, most: usize) -> Result<Self, Unread> {
        let mut text = Text::new(body, most);
        let mut tail = Tail::default();
        match begin(&mut text, &mut tail).await {
            Ok((shape, listing)) => Ok(Self {
                text,
                shape,
                listing,
                tail,
            }),
            Err(flaw) => {
                let (read, rest) = text.into_parts();
                Err(Unread { flaw, read, rest })
            }
        }
    }

    /// Reads the answer to its end. Waits while the receiver does not take what has been read.
    pub(crate) async fn run(mut self, sender: mpsc::Sender<Message>) {
        self.text.sender = Some(sender.clone());
        let read = self.items().await;
        self.text.hand_over().await;
        let message = match read {
            Ok(()) => {
                self.text.finish().await;
                Message::End(self.tail)
            }
            Err(flaw) => Message::Failed(flaw),
        };
        // Fails only if nobody waits for it.
        let _ = sender.send(message).await;
    }

    async fn items(&mut self) -> Result<(), Flaw> {
        let mut first = true;
        while self.listing {
            self.text.forget();
            if self.text.peek().await? == b']' {
                self.text.at += 1;
                break;
            }
            if !std::mem::take(&mut first) {
                self.text.take(b',').await?;
            }
            let item = Item::read(&self.shape, self.text.value().await?)?;
            self.text.items.push(item);
        }
        self.text.forget();
        if matches!(self.shape, Shape::Matrix | Shape::Vector) {
            // The rest of the data, such as statistics, is about one replica alone.
            while self.text.key(false).await?.is_some() {
                self.text.value().await?;
            }
        }
        while let Some(key) = self.text.key(false).await? {
            beside(&mut self.text, &key, &mut self.tail).await?;
        }
        Ok(())
    }
}

/// Reads up to the first item. Returns whether there may be one.
async fn begin(text: &mut Text, tail: &mut Tail) -> Result<(Shape, bool), Flaw> {
    text.take(b'{').await?;
    let mut first = true;
    let mut succeeded = false;
    loop {
        let key = text.key(std::mem::take(&mut first)).await?;
        match key.as_deref() {
            None => return Err(Flaw::Foreign),
            Some("status") => {
                succeeded = read::<&str>(text.value().await?)? == "success";
            }
            Some("data") if succeeded => break,
            Some(key) => beside(text, key, tail).await?,
        }
    }
    match text.peek().await? {
        b'[' => {
            text.at += 1;
            return Ok((Shape::List, true));
        }
        b'n' => {
            read::<()>(text.value().await?)?;
            return Ok((Shape::List, false));
        }
        _ => {}
    }
    let start = text.at;
    text.take(b'{').await?;
    let mut shape = None;
    let mut first = true;
    loop {
        let key = text.key(std::mem::take(&mut first)).await?;
        match key.as_deref() {
            None => return Err(Flaw::Foreign),
            Some("resultType") => {
                shape = match read(text.value().await?)? {
                    "matrix" => Some(Shape::Matrix),
                    "vector" => Some(Shape::Vector),
                    _ => break,
                };
            }
            Some("result") => {
                let shape = shape.ok_or(Flaw::Foreign)?;
                let listing = text.peek().await? == b'[';
                match listing {
                    true => text.at += 1,
                    false => read::<()>(text.value().await?)?,
                }
                return Ok((shape, listing));
            }
            Some(_) => {
                text.value().await?;
            }
        }
    }
    text.at = start;
    let data: Box<RawValue> = read(text.value().await?)?;
    Ok((Shape::Other(data.get().into()), false))
}

/// Reads the value of a key beside the data.
async fn beside(text: &mut Text, key: &str, tail: &mut Tail) -> Result<(), Flaw> {
    let value = text.value().await?;
    let messages = match key {
        "warnings" => &mut tail.warnings,
        "infos" => &mut tail.infos,
        _ => return Ok(()),
    };
    let list: Option<Vec<&RawValue>> = read(value)?;
    messages.extend(list.into_iter().flatten().map(|it| it.get().to_owned()));
    Ok(())
}

impl Item {
    fn read(shape: &Shape, text: &[u8]) -> Result<Self, Flaw> {
        let text = std::str::from_utf8(text).map_err(|_| Flaw::Foreign)?;
        let bytes = text.as_bytes();
        let key = match shape {
            Shape::List if bytes.starts_with(b"\"") => Key::Name(read(bytes)?),
            Shape::List => Key::Labels(read(bytes)?),
            _ => Key::Labels(read::<Named>(bytes)?.metric),
        };
        Ok(Self {
            key: Arc::new(key),
            text: text.into(),
        })
    }
}
