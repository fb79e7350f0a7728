//! The walk over a 1.0 message.

use super::{Decoder, Labels, Limits, NAME};
use crate::protocol::wire::{self, LEN, WireError, tag};
use crate::signal::{Arena, Label, SeriesCounts, Span, name_head_within};

impl Decoder<'_> {
    /// Walks a 1.0 message; `then` is called after each series, which it may take out.
    pub(in super::super) fn v1(
        &mut self,
        mut then: impl FnMut(&mut Arena),
    ) -> Result<(), WireError> {
        const SERIES: u8 = tag(1, LEN);
        const METADATA: u8 = tag(3, LEN);
        let buf = self.buf;
        let mut pos = 0;
        while pos < buf.len() {
            let start = pos;
            match buf[pos] {
                SERIES => {
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    self.v1_series(start, pos, end)?;
                    then(&mut self.arena);
                    pos = end;
                }
                METADATA => {
                    pos += 1;
                    pos = wire::length(buf, &mut pos)?;
                    self.arena.metadata.push(Span::new(start, pos));
                    self.arena.counts.metadata += 1;
                }
                _ => {
                    let key = wire::key(buf, &mut pos)?;
                    wire::skip(buf, &mut pos, (key & 7) as u8)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn v1_series(&mut self, whole: usize, start: usize, end: usize) -> Result<(), WireError> {
        const LABEL: u8 = tag(1, LEN);
        const SAMPLE: u8 = tag(2, LEN);
        const EXEMPLAR: u8 = tag(3, LEN);
        const HISTOGRAM: u8 = tag(4, LEN);
        let buf = &self.buf[..end];
        let mut labels = self.labels();
        let mut pos = start;
        loop {
            let list = &mut self.arena.labels;
            pos = short_labels(self.buf, list, &mut labels, self.limits, pos, end);
            if pos >= end || buf[pos] != LABEL {
                break;
            }
            let (label, next) = v1_label(buf, pos)?;
            self.label(&mut labels, label);
            pos = next;
        }
        let rest = pos;
        let mut counts = SeriesCounts::default();
        let mut scattered = false;
        while pos < end {
            match buf[pos] {
                SAMPLE => counts.samples += 1,
                EXEMPLAR => counts.exemplars += 1,
                HISTOGRAM => counts.histograms += 1,
                LABEL => {
                    let (label, next) = v1_label(buf, pos)?;
                    self.label(&mut labels, label);
                    scattered = true;
                    pos = next;
                    continue;
                }
                _ => {
                    let key = wire::key(buf, &mut pos)?;
                    wire::skip(buf, &mut pos, (key & 7) as u8)?;
                    continue;
                }
            }
            pos += 1;
            pos = wire::length(buf, &mut pos)?;
        }
        let ascii = is_ascii(&buf[start..rest]) && !scattered;
        let rest = if scattered {
            labels.edited = true;
            self.gather(start, end, 1)?
        } else {
            Span::new(rest, end)
        };
        self.add(labels, ascii, Span::new(whole, end), rest, counts);
        Ok(())
    }
}

/// Reads 1.0 labels for as long as they are sorted, have neither an empty part nor a length above
/// 127, and end well before the buffer does, which is nearly always true for all of them. Returns
/// the position of the first other byte.
///
/// It is a function of its own, so that all it needs is in registers.
#[inline(never)]
fn short_labels(
    buf: &[u8],
    list: &mut Vec<Label>,
    labels: &mut Labels,
    limits: &Limits,
    start: usize,
    end: usize,
) -> usize {
    let room = limits.labels - (list.len() - labels.first);
    let (name_max, value_max) = (limits.name_bytes, limits.value_bytes);
    let (mut pos, mut last) = (start, labels.head);
    for _ in 0..room {
        // Tag and length of the entry, tag and length of the name, the name's first bytes: each
        // read as one number.
        let Some(chunk) = buf.get(pos..).and_then(|rest| rest.first_chunk::<12>()) else {
            break;
        };
        let (front, head) = chunk.split_at(4);
        let front = u32::from_le_bytes([front[0], front[1], front[2], front[3]]);
        let (entry, name_len) = (front >> 8 & 0xff, front >> 24);
        let name = pos + 4;
        let name_end = name + name_len as usize;
        let Some(middle) = buf.get(name_end..).and_then(|rest| rest.first_chunk::<2>()) else {
            break;
        };
        let middle = u32::from(u16::from_le_bytes(*middle));
        let value_len = middle >> 8;
        let next = pos + 2 + entry as usize;
        // All differences in one number, and so one branch for them.
        let differs = (front & 0x80ff_80ff ^ 0x000a_000a)
            | (middle & 0x80ff ^ 0x0012)
            | ((name_len + value_len + 4) ^ entry);
        let (name_len, value_len) = (name_len as usize, value_len as usize);
        if differs != 0
            || name_len.wrapping_sub(1) >= name_max
            || value_len.wrapping_sub(1) >= value_max
            || next > end
        {
            break;
        }
        let head = name_head_within(head, name_len).unwrap_or_default();
        if head <= last {
            let Some(previous) = list.last().filter(|_| head == last) else {
                break;
            };
            let previous = previous.name();
            let previous = &buf[previous.start as usize..][..previous.len as usize];
            if previous >= &buf[name..name_end] {
                break;
            }
        }
        if head == NAME {
            labels.named |= name_len == 8;
        }
        last = head;
        list.push(Label::entry(name, name_len, name_end + 2, value_len));
        pos = next;
    }
    labels.head = last;
    labels.bytes += pos - start;
    pos
}

/// Whether all bytes are below 128, eight at a time.
#[inline(always)]
fn is_ascii(text: &[u8]) -> bool {
    let Some(tail) = text.last_chunk::<8>() else {
        return text.is_ascii();
    };
    let words = text.as_chunks::<8>().0.iter();
    // The last eight overlap what the words cover.
    let seen = words.fold(u64::from_ne_bytes(*tail), |seen, word| {
        seen | u64::from_ne_bytes(*word)
    });
    seen & 0x8080_8080_8080_8080 == 0
}

/// Reads a `Label` field of any shape; returns it and the position behind.
#[cold]
fn v1_label(buf: &[u8], start: usize) -> Result<(Label, usize), WireError> {
    let mut pos = start + 1;
    let end = wire::length(buf, &mut pos)?;
    let entry = &buf[..end];
    let (mut name, mut value) = (Span::default(), Span::default());
    while pos < end {
        let key = wire::key(entry, &mut pos)?;
        match key {
            0x0a | 0x12 => {
                let text_end = wire::length(entry, &mut pos)?;
                let text = Span::new(pos, text_end);
                *(if key == 0x0a { &mut name } else { &mut value }) = text;
                pos = text_end;
            }
            _ => wire::skip(entry, &mut pos, (key & 7) as u8)?,
        }
    }
    // Only if it is written in the shortest form can the entry be found from its name.
    let label = Label::entry(
        name.start as usize,
        name.len as usize,
        value.start as usize,
        value.len as usize,
    );
    let shortest = name.len > 0
        && value.len > 0
        && label.message_len() == end - name.start as usize + 1 + wire::varint_len(name.len.into())
        && name.start as usize >= start + 4
        && label.entry_span() == Some((start, end))
        && value.start as usize
            == name.start as usize + name.len as usize + 1 + wire::varint_len(value.len.into());
    if shortest {
        Ok((label, end))
    } else {
        Ok((Label::apart(name, value), end))
    }
}
