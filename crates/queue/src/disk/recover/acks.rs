//! Reads the ack file of a segment.

use std::collections::HashMap;
use std::io;

use super::super::checkpoint::read_all;
use super::super::event::{Event, OpenError};
use super::super::format::{ACK, Ack, AckKind, FILE_HEADER, Kind};
use super::super::fs::Mode;
use super::super::state::ack_name;
use super::{Recovery, io_error};

/// Content of an ack file.
#[derive(Default)]
pub(super) struct Acks {
    pub(super) fates: HashMap<u32, Ack>,
    pub(super) seal: Option<Ack>,
    pub(super) bytes: u64,
}

impl Recovery<'_> {
    /// Reads the ack file. It may be missing if the segment was just created.
    pub(super) fn acks(&self, first: u64, expected: bool) -> Result<Acks, OpenError> {
        let name = ack_name(first);
        let file = match self.fs.open(&name, Mode::Existing) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if expected {
                    self.tell(Event::Missing { file: name });
                }
                return Ok(Acks::default());
            }
            Err(error) => return Err(io_error("open", &name)(error)),
        };
        let bytes = read_all(&*file).map_err(io_error("read", &name))?;
        let mut acks = Acks::default();
        let Some((header, entries)) = bytes.split_at_checked(FILE_HEADER) else {
            // The file is written again later.
            if expected {
                self.tell(Event::Damaged {
                    file: name,
                    offset: 0,
                    bytes: FILE_HEADER as u64,
                });
            }
            return Ok(acks);
        };
        let mut damaged = None;
        if !self.header(Kind::Acks, &name, first, header)? {
            damaged = Some((0, FILE_HEADER as u64));
        }
        let (entries, _) = entries.as_chunks::<ACK>();
        // Entries behind the last intact one were incomplete when the process ended. New entries
        // overwrite them.
        let decoded = entries.iter().map(|entry| Ack::decode(self.seed, entry));
        let decoded: Vec<_> = decoded.collect();
        let whole = decoded.iter().rposition(Option::is_some);
        let whole = whole.map_or(0, |last| last + 1);
        acks.bytes = (FILE_HEADER + whole * ACK) as u64;
        let torn = bytes.len() as u64 - acks.bytes;
        if torn > 0 {
            self.tell(Event::TornTail {
                file: name.clone(),
                bytes: torn,
            });
        }
        for (place, ack) in decoded[..whole].iter().enumerate() {
            match *ack {
                Some(seal) if seal.kind == AckKind::Seal => acks.seal = Some(seal),
                Some(ack) => drop(acks.fates.entry(ack.index).or_insert(ack)),
                None => {
                    let offset = (FILE_HEADER + place * ACK) as u64;
                    damaged.get_or_insert((offset, 0)).1 += ACK as u64;
                }
            }
        }
        if let Some((offset, bytes)) = damaged {
            self.tell(Event::Damaged {
                file: name,
                offset,
                bytes,
            });
        }
        Ok(acks)
    }
}
