//! A batch: one request's worth of series, a cheap handle.
//!
//! It arrives encoded and stays so until somebody has to look at labels. Decoding happens once,
//! encoding happens once per version and only if labels have changed; handles that were cloned
//! share both.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_model::{Ack, Caller, Counts, Origin, Tenant, Version};

use crate::remote_write::{CompressionChoice, DecodeError, Invalid, Limits, Unsent};
use crate::{Arena, SeriesMut, remote_write, snappy};

/// One request's worth of series. Clones share the data.
#[derive(Clone, Debug)]
pub struct Batch {
    origin: Arc<Origin>,
    tenant: Option<Tenant>,
    ack: Option<Ack>,
    /// The version in which it arrived.
    version: Version,
    /// When it arrived.
    arrived: Instant,
    /// The bytes that arrived: of a part of a batch, its share of them.
    received: usize,
    content: Content,
    bodies: Arc<Bodies>,
    limits: Limits,
}

/// The form in which the batch's series are known: as a body, as decoded ranges, or both.
#[derive(Clone, Debug)]
enum Content {
    /// The body that arrived, which nobody has checked; perhaps it was counted.
    Received(Option<Counts>),
    /// The body in this version, whose series are valid and sorted.
    Checked(Version, Counts),
    /// Series; a body that is there says the same.
    Decoded(Arc<Arena>),
}

/// Compressed bodies, encoded once for all clones that hold the same series.
#[derive(Debug, Default)]
struct Bodies {
    v1: OnceLock<Bytes>,
    v2: OnceLock<Bytes>,
    /// What the body that arrived carries, if it was counted.
    counted: OnceLock<Result<Counts, DecodeError>>,
}

impl Bodies {
    fn of(version: Version, body: Bytes) -> Arc<Self> {
        let mut bodies = Self::default();
        match version {
            Version::V1 => bodies.v1 = body.into(),
            Version::V2 => bodies.v2 = body.into(),
        }
        Arc::new(bodies)
    }

    fn get(&self, version: Version) -> Option<&Bytes> {
        self.cell(version).get()
    }

    fn cell(&self, version: Version) -> &OnceLock<Bytes> {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }
}

impl Batch {
    fn new(version: Version, content: Content, bodies: Arc<Bodies>, origin: Arc<Origin>) -> Self {
        Self {
            origin,
            tenant: None,
            ack: None,
            version,
            arrived: Instant::now(),
            received: bodies.get(version).map_or(0, Bytes::len),
            content,
            bodies,
            limits: Limits::default(),
        }
    }

    /// A batch that arrived as a compressed body. `limits` hold when it is decoded.
    pub fn from_body(version: Version, body: Bytes, limits: Limits, origin: Arc<Origin>) -> Self {
        let bodies = Bodies::of(version, body);
        Self {
            limits,
            ..Self::new(version, Content::Received(None), bodies, origin)
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
        let content = match counts {
            Some(counts) if checked => Content::Checked(version, counts),
            counts => Content::Received(counts),
        };
        Self {
            tenant: (!tenant.is_empty()).then(|| tenant.clone()),
            limits: Limits::NONE,
            ..Self::new(version, content, Bodies::of(version, body), origin)
        }
    }

    /// A batch that is not encoded yet.
    pub fn from_arena(arena: Arena, origin: Arc<Origin>) -> Self {
        let version = arena.version;
        let content = Content::Decoded(Arc::new(arena));
        Self::new(version, content, Arc::default(), origin)
    }

    /// The version of the body that says what it is, or in which it arrived if none does.
    pub fn body_version(&self) -> Version {
        match &self.content {
            Content::Checked(version, _) => *version,
            Content::Received(_) | Content::Decoded(_) => self.version,
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// When it arrived: the time that transforms go by, which read no clock.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The compressed bytes that arrived: of a part of a batch, its share of them by samples. 0 for
    /// one that was made in the process.
    pub fn received(&self) -> usize {
        self.received
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

    /// The length of the body that says what it is; 0 if it has to be encoded.
    pub fn body_len(&self) -> usize {
        let own = self.bodies.get(self.body_version());
        let body = match &self.content {
            Content::Decoded(_) => own.or(self.bodies.v1.get()).or(self.bodies.v2.get()),
            Content::Received(_) | Content::Checked(..) => own,
        };
        body.map_or(0, Bytes::len)
    }

    /// Whether it has been decoded since it arrived: then its series are valid and their labels
    /// sorted.
    pub fn is_checked(&self) -> bool {
        !matches!(self.content, Content::Received(_))
    }

    /// Whether it is decoded now.
    pub(crate) fn is_decoded(&self) -> bool {
        matches!(self.content, Content::Decoded(_))
    }

    /// Counts what it carries unless that is known, once for all clones. It stays unknown if it is
    /// not what it claims to be, which its endpoint will say.
    ///
    /// # Errors
    ///
    /// Fails when it has more series than its source allows.
    pub fn count(&mut self) -> Result<(), DecodeError> {
        if let Content::Received(counts @ None) = &mut self.content
            && let Some(body) = self.bodies.get(self.version)
        {
            let count = || remote_write::count(self.version, body, &self.limits);
            match self.bodies.counted.get_or_init(count) {
                Ok(counted) => *counts = Some(*counted),
                Err(error @ DecodeError::TooMany { .. }) => return Err(error.clone()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The bytes that the body which says what it is declares to have when it is decompressed; 0 if
    /// there is none. Nobody has checked that.
    pub fn declared_len(&self) -> usize {
        let body = self.bodies.get(self.body_version());
        let declared = body.map(|body| snappy::declared_len(body, self.limits.decoded_bytes));
        declared.and_then(Result::ok).unwrap_or(0)
    }

    /// What it carries, if it has been decoded since it arrived, or counted.
    pub fn counts(&self) -> Option<Counts> {
        match &self.content {
            Content::Received(counts) => *counts,
            Content::Checked(_, counts) => Some(*counts),
            Content::Decoded(arena) => Some(arena.counts()),
        }
    }

    /// The memory that it holds, in bytes.
    pub fn weight(&self) -> usize {
        let body = |body: &OnceLock<Bytes>| body.get().map_or(0, Bytes::len);
        let arena = match &self.content {
            Content::Decoded(arena) => arena.weight(),
            Content::Received(_) | Content::Checked(..) => 0,
        };
        body(&self.bodies.v1) + body(&self.bodies.v2) + arena + size_of::<Self>()
    }

    /// Decodes it unless that has been done; returns the series that were invalid and left out.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be.
    pub fn decode(&mut self) -> Result<Invalid, DecodeError> {
        self.decoded().map(|(_, invalid)| invalid)
    }

    fn decoded(&mut self) -> Result<(&mut Arc<Arena>, Invalid), DecodeError> {
        let mut left_out = Invalid::default();
        if !matches!(self.content, Content::Decoded(_)) {
            let version = self.body_version();
            let body = self.bodies.get(version).ok_or(DecodeError::Missing)?;
            let (arena, invalid) = remote_write::decode(version, body, &self.limits)?;
            if arena.changed {
                self.bodies = Arc::default();
            }
            self.content = Content::Decoded(Arc::new(arena));
            left_out = invalid;
        }
        match &mut self.content {
            Content::Decoded(arena) => Ok((arena, left_out)),
            Content::Received(_) | Content::Checked(..) => Err(DecodeError::Missing),
        }
    }

    /// Its series, decoded if need be.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be.
    pub fn arena(&mut self) -> Result<&Arc<Arena>, DecodeError> {
        self.decoded().map(|(arena, _)| &*arena)
    }

    /// Edits its series. What was encoded stays valid if nothing changes.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is not what it claims to be, or when it grew too large.
    pub fn edit<R>(&mut self, edit: impl FnOnce(&mut Arena) -> R) -> Result<R, DecodeError> {
        let (arena, _) = self.decoded()?;
        let arena = Arc::make_mut(arena);
        arena.changed = false;
        let result = edit(arena);
        if arena.overflowed {
            return Err(DecodeError::GrewTooLarge);
        }
        if arena.changed {
            self.bodies = Arc::default();
        }
        Ok(result)
    }

    /// Whether [`rewrite`](Self::rewrite) can edit it.
    pub fn is_rewritable(&self) -> bool {
        !matches!(self.content, Content::Decoded(_)) && self.body_version() == Version::V1
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
        let body = self.bodies.v1.get().ok_or(DecodeError::Missing)?;
        let rewritten = remote_write::rewrite_v1(body, &self.limits, edit)?;
        if let Some(body) = rewritten.body {
            self.bodies = Bodies::of(Version::V1, body);
        }
        self.content = Content::Checked(Version::V1, rewritten.counts);
        Ok(rewritten.invalid)
    }

    /// The same batch with other series, which are a part of its own.
    pub fn with_arena(&self, arena: Arena) -> Self {
        let whole = self.counts().map_or(0, |counts| counts.all_samples());
        let part = arena.counts().all_samples();
        let received = match part < whole {
            // Less than all of them.
            true => (self.received as u128 * u128::from(part) / u128::from(whole)) as usize,
            false => self.received,
        };
        Self {
            received,
            content: Content::Decoded(Arc::new(arena)),
            bodies: Arc::default(),
            ..self.clone()
        }
    }

    /// The compressed body in a version; encoded now if need be, once for all clones.
    ///
    /// # Errors
    ///
    /// Fails when it has to be decoded for that and is not what it claims to be.
    pub fn body(&mut self, version: Version) -> Result<Bytes, DecodeError> {
        self.body_by(version, None)
    }

    fn body_by(
        &mut self,
        version: Version,
        choice: Option<&CompressionChoice>,
    ) -> Result<Bytes, DecodeError> {
        if let Some(body) = self.bodies.get(version) {
            return Ok(body.clone());
        }
        let arena = self.arena()?.clone();
        let encode = || match version {
            Version::V1 => remote_write::encode_v1(&arena, choice),
            Version::V2 => remote_write::encode_v2(&arena),
        };
        Ok(self.bodies.cell(version).get_or_init(encode).clone())
    }

    /// Encodes it in a version, in the way that a sink's `choice` has found to suit its data, and
    /// lets the decoded form go; returns what had to be given up because the version has no place for
    /// it, which its counts then lack.
    ///
    /// # Errors
    ///
    /// Fails when it has to be decoded for that and is not what it claims to be.
    pub fn settle(
        &mut self,
        version: Version,
        choice: &CompressionChoice,
    ) -> Result<Unsent, DecodeError> {
        if !self.is_decoded() && self.body_version() == version {
            return Ok(Unsent::default());
        }
        // The body that arrived holds all that there is.
        if let (Content::Checked(_, counts), Some(_)) = (&self.content, self.bodies.get(version))
            && version == self.version
        {
            self.content = Content::Checked(version, *counts);
            return Ok(Unsent::default());
        }
        let mut unsent = Unsent::default();
        if version == Version::V2 {
            unsent.exemplars = remote_write::join_within(self)?;
        }
        let arena = self.arena()?.clone();
        let body = self.body_by(version, Some(choice))?;
        let mut counts = arena.counts();
        if version == Version::V1 {
            unsent.histograms = remote_write::lost_in_v1(&arena);
        }
        if unsent.histograms > 0 {
            // A body that still holds the dropped series must not be sent in their place.
            self.bodies = Bodies::of(version, body);
            counts.histograms -= unsent.histograms;
        }
        self.content = Content::Checked(version, counts);
        Ok(unsent)
    }
}
