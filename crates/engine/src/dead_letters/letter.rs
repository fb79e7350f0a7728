//! A letter and its file: a mark, a checksum, a head in JSON, and the body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use metrifold_model::Version;

/// A request body that an endpoint refused, with the endpoint's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Tenant of the batch.
    pub tenant: Option<String>,
    /// Status of the answer, if the protocol has statuses.
    pub status: Option<u16>,
    /// Reason that the endpoint gave.
    pub reason: String,
    /// Version of remote write of the body.
    pub version: Version,
    /// The compressed body.
    pub body: Bytes,
}

/// Reason why a file cannot be read as a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damaged {
    /// The file is shorter than the shortest letter, or than its head says.
    #[error("file is cut short")]
    CutShort,
    /// The file does not begin with the mark of a letter.
    #[error("file is no dead letter of this version of metrifold")]
    Unknown,
    /// The content does not match the checksum.
    #[error("checksum does not match")]
    Checksum,
    /// The checksum matches but the content is malformed, which damage on disk cannot cause.
    #[error("file has a valid checksum but malformed content")]
    Content,
}

/// JSON in front of the body.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    reason: String,
    version: String,
}

/// The first bytes of a file; the digits are the format's version.
const MARK: [u8; 8] = *b"mf-dl-01";

/// Bytes in front of the head: the mark, the checksum of everything behind it, and the length of
/// the head.
const PREFIX: usize = MARK.len() + 4 + 4;

impl Letter {
    /// Encodes the letter's file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = Head {
            tenant: self.tenant.clone(),
            status: self.status,
            reason: self.reason.clone(),
            version: self.version.to_string(),
        };
        // Strings and numbers always serialize.
        let head = serde_json::to_vec(&head).unwrap_or_default();
        let mut file = Vec::with_capacity(PREFIX + head.len() + self.body.len());
        file.extend_from_slice(&MARK);
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&(head.len() as u32).to_le_bytes());
        file.extend_from_slice(&head);
        file.extend_from_slice(&self.body);
        let checksum = crc32c::crc32c(&file[MARK.len() + 4..]);
        file[MARK.len()..][..4].copy_from_slice(&checksum.to_le_bytes());
        file
    }

    /// Decodes a letter's file.
    ///
    /// # Errors
    ///
    /// Fails when the file does not hold a whole letter.
    pub(super) fn decode(file: Vec<u8>) -> Result<Self, Damaged> {
        let file = Bytes::from(file);
        let (mark, rest) = file.split_first_chunk().ok_or(Damaged::CutShort)?;
        if *mark != MARK {
            return Err(Damaged::Unknown);
        }
        let (checksum, rest) = rest.split_first_chunk().ok_or(Damaged::CutShort)?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*checksum) {
            return Err(Damaged::Checksum);
        }
        let (length, rest) = rest.split_first_chunk().ok_or(Damaged::CutShort)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (head, body) = rest.split_at_checked(length).ok_or(Damaged::CutShort)?;
        let head: Head = serde_json::from_slice(head).map_err(|_| Damaged::Content)?;
        Ok(Self {
            tenant: head.tenant,
            status: head.status,
            reason: head.reason,
            version: match &*head.version {
                "1.0" => Version::V1,
                "2.0" => Version::V2,
                _ => return Err(Damaged::Content),
            },
            body: file.slice_ref(body),
        })
    }
}
