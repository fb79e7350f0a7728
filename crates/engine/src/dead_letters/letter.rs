//! A letter and the file that holds it: a mark, a checksum, what is known of it as JSON, the body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use metrifold_model::Version;

/// What an endpoint refused, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Whose it is.
    pub tenant: Option<String>,
    /// The status that the endpoint answered, if its protocol has statuses.
    pub status: Option<u16>,
    /// What it said.
    pub reason: String,
    /// The version of the body.
    pub version: Version,
    /// The compressed body.
    pub body: Bytes,
}

/// Why a file holds no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damaged {
    /// The file is shorter than a letter can be, or than its head says.
    #[error("file is cut short")]
    CutShort,
    /// The file does not begin with the mark of a letter.
    #[error("file is no dead letter of this version of metrifold")]
    Unknown,
    /// Something in it has changed.
    #[error("checksum does not match")]
    Checksum,
    /// The checksum is right and the rest is not, which a disk cannot do.
    #[error("file does not hold what it should")]
    Content,
}

/// What stands in front of the body.
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

/// The mark, the checksum of what is behind it, the length of the head.
const PREFIX: usize = MARK.len() + 4 + 4;

impl Letter {
    /// The file that holds it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = Head {
            tenant: self.tenant.clone(),
            status: self.status,
            reason: self.reason.clone(),
            version: self.version.to_string(),
        };
        // Strings and numbers can always be written.
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

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Fails when it does not hold a whole letter.
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
