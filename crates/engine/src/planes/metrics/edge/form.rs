//! The form in which a sink takes batches, and the work on a batch that this requires.

use std::sync::atomic::Ordering;

use metrifold_codec::Batch;
use metrifold_model::Version;

use super::Edge;
use crate::planes::metrics::Needs;

/// Form in which a sink takes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// Decoded: the sink reads series.
    Decoded,
    /// Bodies of remote write 1.0.
    V1,
    /// Bodies of remote write 2.0.
    V2,
    /// Bodies of the version in which the batch arrived.
    AsReceived,
}

impl Edge {
    pub(super) fn prefer(&self, form: Form) {
        self.form.store(form as u8, Ordering::Relaxed);
    }

    /// The form in which the sink takes batches at the moment.
    pub(crate) fn form(&self) -> Form {
        match self.form.load(Ordering::Relaxed) {
            0 => Form::Decoded,
            1 => Form::V1,
            2 => Form::V2,
            _ => Form::AsReceived,
        }
    }

    /// The work that the sink needs on a batch of this version, its own transform included.
    pub(crate) fn needs(&self, version: Version) -> Needs {
        match self.before {
            Some(_) => Needs::Decode,
            None => self.needs_behind(version),
        }
    }

    /// The work that the sink needs on a batch behind its own transform.
    pub(crate) fn needs_behind(&self, version: Version) -> Needs {
        if !self.takes_bodies(version) {
            Needs::Decode
        } else if self.checks_series {
            Needs::Check
        } else {
            Needs::Nothing
        }
    }

    /// Whether the sink sends bodies of this version unchanged, provided that their series are
    /// valid.
    pub(crate) fn takes_bodies(&self, version: Version) -> bool {
        let form = match version {
            Version::V1 => Form::V1,
            Version::V2 => Form::V2,
        };
        [form, Form::AsReceived].contains(&self.form())
    }

    /// The version in which the sink sends the batch; `None` if the sink reads series.
    pub(crate) fn version(&self, batch: &Batch) -> Option<Version> {
        match self.form() {
            Form::Decoded => None,
            Form::V1 => Some(Version::V1),
            Form::V2 => Some(Version::V2),
            Form::AsReceived => Some(batch.version()),
        }
    }
}
