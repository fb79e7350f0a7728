//! The form in which a sink wants its batches, and what that needs of them.

use std::sync::atomic::Ordering;

use metrifold_codec::Batch;
use metrifold_model::Version;

use super::Edge;
use crate::planes::metrics::Needs;

/// How a sink takes its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// It reads series.
    Decoded,
    /// It sends bodies of remote write 1.0.
    V1,
    /// It sends bodies of remote write 2.0.
    V2,
    /// It sends bodies of the version in which the batch arrived.
    AsReceived,
}

impl Edge {
    pub(super) fn prefer(&self, form: Form) {
        self.form.store(form as u8, Ordering::Relaxed);
    }

    /// The form in which the sink wants batches now.
    pub(crate) fn form(&self) -> Form {
        match self.form.load(Ordering::Relaxed) {
            0 => Form::Decoded,
            1 => Form::V1,
            2 => Form::V2,
            _ => Form::AsReceived,
        }
    }

    /// What it needs of a batch of this version, its own transform included.
    pub(crate) fn needs(&self, version: Version) -> Needs {
        match self.before {
            Some(_) => Needs::Decode,
            None => self.needs_behind(version),
        }
    }

    /// What it needs of a batch behind its own transform.
    pub(crate) fn needs_behind(&self, version: Version) -> Needs {
        if !self.takes_bodies(version) {
            Needs::Decode
        } else if self.checks_series {
            Needs::Check
        } else {
            Needs::Nothing
        }
    }

    /// Whether the sink sends bodies of this version as they are, once their series are in order.
    pub(crate) fn takes_bodies(&self, version: Version) -> bool {
        let form = match version {
            Version::V1 => Form::V1,
            Version::V2 => Form::V2,
        };
        [form, Form::AsReceived].contains(&self.form())
    }

    /// The version in which a batch leaves here; none if the sink reads series.
    pub(crate) fn version(&self, batch: &Batch) -> Option<Version> {
        match self.form() {
            Form::Decoded => None,
            Form::V1 => Some(Version::V1),
            Form::V2 => Some(Version::V2),
            Form::AsReceived => Some(batch.version()),
        }
    }
}
