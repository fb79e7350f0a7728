//! A batch: one request's worth of series, a cheap handle.
//!
//! It arrives encoded and stays so until somebody has to look at labels. Decoding happens once,
//! encoding happens once per version and only if labels have changed; handles that were cloned
//! share both.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use metrifold_model::{Ack, Caller, Counts, Origin, Tenant, Version};

use crate::remote_write::{DecodeError, Invalid, Limits};
use crate::{Arena, SeriesMut, remote_write};

/// One request's worth of series. Clones share the data.
#[derive(Clone, Debug)]
pub struct Batch {
    origin: Arc<Origin>,
    tenant: Option<Tenant>,
    ack: Option<Ack>,
    /// The version in which it arrived.
    version: Version,
    encoded: Arc<Encoded>,
    arena: Option<Arc<Arena>>,
    /// Known once it has been decoded, or counted.
    counts: Option<Counts>,
    /// Whether its series are in order, which decoding sees to.
    checked: bool,
    /// Whether it is to be counted where nobody decodes it.
    counting: bool,
    /// Whether what 1.0 cannot hold was given up: its 1.0 body is all that it is now.
    narrowed: bool,
    limits: Limits,
}

/// The compressed bodies that say what the batch is. At least one of them or an arena is there.
#[derive(Debug, Default)]
struct Encoded {
    v1: OnceLock<Bytes>,
    v2: OnceLock<Bytes>,
    /// What is in them, if it can be told and was counted.
    counted: OnceLock<Option<Counts>>,
}

impl Encoded {
    fn body(&self, version: Version) -> &OnceLock<Bytes> {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }
}

impl Batch {
    /// A batch that arrived as a compressed body. `limits` hold when it is decoded.
    pub fn from_body(version: Version, body: Bytes, limits: Limits, origin: Arc<Origin>) -> Self {
        let encoded = Encoded::default();
        let _ = encoded.body(version).set(body); // just made, so it is empty
        Self {
            origin,
            tenant: None,
            ack: None,
            version,
            encoded: Arc::new(encoded),
            arena: None,
            counts: None,
            checked: false,
            counting: false,
            narrowed: false,
            limits,
        }
    }

    /// A batch that was kept as a compressed body, and counted before if it ever was, perhaps
    /// because it was decoded.
    pub fn from_record(
        version: Version,
        body: Bytes,
        (counts, checked): (Option<Counts>, bool),
        tenant: &Tenant,
        origin: Arc<Origin>,
    ) -> Self {
        let mut batch = Self::from_body(version, body, Limits::NONE, origin);
        batch.counts = counts;
        batch.checked = checked;
        batch.tenant = (!tenant.is_empty()).then(|| tenant.clone());
        batch
    }

    /// The version of the body that says what it is.
    pub fn body_version(&self) -> Version {
        self.any_body().0
    }

    /// A batch that is not encoded yet.
    pub fn from_arena(arena: Arena, origin: Arc<Origin>) -> Self {
        Self {
            origin,
            tenant: None,
            ack: None,
            version: arena.version,
            encoded: Arc::default(),
            counts: Some(arena.counts()),
            checked: true,
            counting: false,
            arena: Some(Arc::new(arena)),
            narrowed: false,
            limits: Limits::default(),
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The version in which it arrived.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its tenant, if one has been found.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Says whose it is.
    pub fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = Some(tenant);
    }

    /// Lets go of what only transforms look at in its origin: headers hold on to the buffer that
    /// the request was read into, which a batch that waits in a queue must not.
    pub fn forget_request(&mut self) {
        let origin = &self.origin;
        if origin.headers.is_empty()
            && origin.params.is_empty()
            && origin.caller == Caller::anonymous()
        {
            return;
        }
        self.origin = Arc::new(Origin {
            peer: origin.peer,
            order: origin.order.clone(),
            ..Origin::internal(origin.source.clone())
        });
    }

    /// Its acknowledgement, if its source waits for one.
    pub fn ack(&self) -> Option<&Ack> {
        self.ack.as_ref()
    }

    /// Has somebody wait for what becomes of it.
    pub fn set_ack(&mut self, ack: Ack) {
        self.ack = Some(ack);
    }

    /// Takes the acknowledgement away, for the fan-out to draw a ticket from.
    pub fn take_ack(&mut self) -> Option<Ack> {
        self.ack.take()
    }

    /// The bytes of its compressed bodies.
    pub fn body_len(&self) -> usize {
        let body = |b: &OnceLock<Bytes>| b.get().map_or(0, Bytes::len);
        body(&self.encoded.v1) + body(&self.encoded.v2)
    }

    /// Whether it has been decoded since it arrived: then its series are valid and their labels
    /// sorted.
    pub fn is_checked(&self) -> bool {
        self.arena.is_some() || self.checked
    }

    /// Has it counted where nobody decodes it.
    pub fn set_counting(&mut self) {
        self.counting = true;
    }

    /// Whether it is to be counted where nobody decodes it.
    pub fn is_counting(&self) -> bool {
        self.counting
    }

    /// Counts what it carries unless that is known, once for all clones. It stays unknown if it is
    /// not what it claims to be, which its endpoint will say.
    pub fn count(&mut self) {
        if self.counts().is_some() {
            return;
        }
        let (version, body) = self.any_body();
        let count = || remote_write::count(version, body, &self.limits).ok();
        self.counts = *self.encoded.counted.get_or_init(count);
    }

    /// What it carries, if it has been decoded since it arrived, or counted.
    pub fn counts(&self) -> Option<Counts> {
        self.arena.as_ref().map(|a| a.counts()).or(self.counts)
    }

    /// The memory that it holds, in bytes.
    pub fn weight(&self) -> usize {
        self.body_len() + self.arena.as_ref().map_or(0, |a| a.weight()) + size_of::<Self>()
    }

    /// Decodes it unless that has been done; returns the series that were invalid and left out.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be.
    pub fn decode(&mut self) -> Result<Invalid, DecodeError> {
        if self.arena.is_some() {
            return Ok(Invalid::default());
        }
        let (version, body) = self.any_body();
        let (arena, invalid) = remote_write::decode(version, body, &self.limits)?;
        if arena.changed {
            self.encoded = Arc::default();
        }
        self.counts = Some(arena.counts());
        self.checked = true;
        self.arena = Some(Arc::new(arena));
        Ok(invalid)
    }

    /// Its series, decoded if need be.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be.
    pub fn arena(&mut self) -> Result<&Arc<Arena>, DecodeError> {
        self.decode()?;
        self.arena.as_ref().ok_or(DecodeError::Missing)
    }

    /// Edits its series. What was encoded stays valid if nothing changes.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be, or when it grew too large.
    pub fn edit<R>(&mut self, edit: impl FnOnce(&mut Arena) -> R) -> Result<R, DecodeError> {
        self.decode()?;
        let arena = self.arena.as_mut().ok_or(DecodeError::Missing)?;
        let arena = Arc::make_mut(arena);
        arena.changed = false;
        let result = edit(arena);
        if arena.overflowed {
            return Err(DecodeError::GrewTooLarge);
        }
        if arena.changed {
            self.encoded = Arc::default();
        }
        self.counts = Some(arena.counts());
        Ok(result)
    }

    /// Whether [`rewrite`](Self::rewrite) can edit it.
    pub fn is_rewritable(&self) -> bool {
        self.arena.is_none() && self.version == Version::V1 && self.encoded.v1.get().is_some()
    }

    /// Edits its series and encodes it again in one go, without ever holding it decoded as a
    /// whole; returns the series that were invalid and left out. `edit` says whether to keep a
    /// series.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be, or when it grew too large.
    pub fn rewrite(
        &mut self,
        edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
    ) -> Result<Invalid, DecodeError> {
        let (_, body) = self.any_body();
        let rewritten = remote_write::rewrite_v1(body, &self.limits, edit)?;
        if let Some(body) = rewritten.body {
            self.encoded = Arc::new(Encoded {
                v1: body.into(),
                ..Encoded::default()
            });
        }
        self.counts = Some(rewritten.counts);
        self.checked = true;
        Ok(rewritten.invalid)
    }

    /// The same batch with other series.
    pub fn with_arena(&self, arena: Arena) -> Self {
        Self {
            encoded: Arc::default(),
            counts: Some(arena.counts()),
            checked: true,
            arena: Some(Arc::new(arena)),
            ..self.clone()
        }
    }

    /// The compressed body in a version; encoded now if need be, once for all clones.
    ///
    /// # Errors
    ///
    /// Fails when it has to be decoded for that and is not what it claims to be.
    pub fn body(&mut self, version: Version) -> Result<Bytes, DecodeError> {
        if let Some(body) = self.encoded.body(version).get() {
            return Ok(body.clone());
        }
        let arena = self.arena()?.clone();
        let body = self.encoded.body(version).get_or_init(|| match version {
            Version::V1 => remote_write::encode_v1(&arena),
            Version::V2 => remote_write::encode_v2(&arena),
        });
        Ok(body.clone())
    }

    /// Encodes it in a version and lets the decoded form go; returns how many histograms had to be
    /// given up because 1.0 cannot hold them, which its counts then lack.
    ///
    /// # Errors
    ///
    /// Fails when it has to be decoded for that and is not what it claims to be.
    pub fn settle(&mut self, version: Version) -> Result<u64, DecodeError> {
        let narrows = version == Version::V1 && self.version == Version::V2 && !self.narrowed;
        let lost = if narrows {
            remote_write::lost_in_v1(self.arena()?)
        } else {
            0
        };
        self.body(version)?;
        self.arena = None;
        if narrows {
            self.narrowed = true;
            if let Some(counts) = &mut self.counts {
                counts.histograms -= lost;
            }
        }
        Ok(lost)
    }

    fn any_body(&self) -> (Version, &Bytes) {
        static NONE: Bytes = Bytes::new();
        let arrived = self.encoded.body(self.version).get();
        match (arrived, self.encoded.v1.get(), self.encoded.v2.get()) {
            (_, Some(body), _) if self.narrowed => (Version::V1, body),
            (Some(body), ..) => (self.version, body),
            (_, Some(body), _) => (Version::V1, body),
            (_, _, Some(body)) => (Version::V2, body),
            _ => (self.version, &NONE),
        }
    }
}
