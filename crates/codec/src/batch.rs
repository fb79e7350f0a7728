//! A batch: one request's worth of series, a cheap handle.
//!
//! It arrives encoded and stays so until a component reads labels. Decoding happens once; encoding
//! happens once per version, and only if labels have changed. Cloned handles share both.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_model::{Ack, Caller, Counts, Origin, Tenant, Version};

use crate::remote_write::{CompressionChoice, DecodeError, Invalid, Limits, Room, Unsent};
use crate::{Arena, SeriesMut, remote_write, snappy};

/// One request's worth of series. Clones share the data.
#[derive(Clone, Debug)]
pub struct Batch {
    origin: Arc<Origin>,
    tenant: Option<Tenant>,
    ack: Option<Ack>,
    /// Version in which the batch arrived.
    version: Version,
    /// Time of arrival.
    arrived: Instant,
    /// Compressed bytes that arrived; for a part of a batch, its share of them.
    received: usize,
    content: Content,
    bodies: Arc<Bodies>,
    limits: Limits,
    /// Room for decoding, if memory is bounded.
    room: Option<Arc<dyn Room>>,
}

/// The form in which the batch's series are known: as a body, as decoded ranges, or both.
#[derive(Clone, Debug)]
enum Content {
    /// The body as received: unchecked, and possibly counted.
    Received(Option<Counts>),
    /// A body in this version, whose series are known to be valid and sorted.
    Checked(Version, Counts),
    /// Decoded series; a body beside them has the same content.
    Decoded(Arc<Arena>),
}

/// Compressed bodies, encoded once for all clones that hold the same series.
#[derive(Debug, Default)]
struct Bodies {
    v1: OnceLock<Bytes>,
    v2: OnceLock<Bytes>,
    /// Counts of the received body, once it has been counted.
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
            room: None,
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

    /// A batch restored from a stored compressed body. `counts` are known if the batch was counted
    /// or decoded before it was stored.
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
            limits: Limits::ACCEPTED,
            ..Self::new(version, content, Bodies::of(version, body), origin)
        }
    }

    /// A batch that has not been encoded yet.
    pub fn from_arena(arena: Arena, origin: Arc<Origin>) -> Self {
        let version = arena.version;
        let content = Content::Decoded(Arc::new(arena));
        Self::new(version, content, Arc::default(), origin)
    }

    /// A batch that was made in the process as a compressed body of 1.0, whose series are valid and
    /// their labels sorted.
    pub fn from_made(body: Bytes, counts: Counts, origin: Arc<Origin>) -> Self {
        let version = Version::V1;
        let content = Content::Checked(version, counts);
        Self {
            received: 0,
            limits: Limits::ACCEPTED,
            ..Self::new(version, content, Bodies::of(version, body), origin)
        }
    }

    /// Version of the body that holds the batch's content; the version of arrival if there is no
    /// such body.
    pub fn body_version(&self) -> Version {
        match &self.content {
            Content::Checked(version, _) => *version,
            Content::Received(_) | Content::Decoded(_) => self.version,
        }
    }

    /// Origin: sender, tenant and request headers.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Time of arrival. Transforms use it instead of a clock.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Compressed bytes that arrived; for a part of a batch, its share of them by samples. 0 for a
    /// batch that was made in the process.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Version in which the batch arrived.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Tenant, once it is known.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Sets the tenant.
    pub fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = Some(tenant);
    }

    /// Sets the room that decoding takes beyond the size that the body declares, as long as the batch
    /// is in the hands of its source.
    pub fn set_room(&mut self, room: Arc<dyn Room>) {
        self.room = Some(room);
    }

    /// Drops the room of the source, and the request headers, which only transforms read: they keep alive the buffer that the
    /// request was read into, which a queued batch must not.
    pub fn forget_request(&mut self) {
        self.room = None;
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

    /// Acknowledgement, if the source waits for one.
    pub fn ack(&self) -> Option<&Ack> {
        self.ack.as_ref()
    }

    /// Attaches the acknowledgement that reports the outcome to the source.
    pub fn set_ack(&mut self, ack: Ack) {
        self.ack = Some(ack);
    }

    /// Takes the acknowledgement, from which the fan-out draws tickets.
    pub fn take_ack(&mut self) -> Option<Ack> {
        self.ack.take()
    }

    /// Length of the body that holds the batch's content; 0 if it has to be encoded first.
    pub fn body_len(&self) -> usize {
        let own = self.bodies.get(self.body_version());
        let body = match &self.content {
            Content::Decoded(_) => own.or(self.bodies.v1.get()).or(self.bodies.v2.get()),
            Content::Received(_) | Content::Checked(..) => own,
        };
        body.map_or(0, Bytes::len)
    }

    /// Whether the batch has been decoded since it arrived, so that its series are valid and their
    /// labels sorted.
    pub fn is_checked(&self) -> bool {
        !matches!(self.content, Content::Received(_))
    }

    /// Whether the decoded form is in memory.
    pub(crate) fn is_decoded(&self) -> bool {
        matches!(self.content, Content::Decoded(_))
    }

    /// Counts the content unless it is known, once for all clones. A malformed body stays
    /// uncounted; its endpoint will refuse it.
    ///
    /// # Errors
    ///
    /// Fails when the batch has more series than its source allows.
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

    /// Decompressed size that the current body declares, unverified; 0 if there is no body.
    pub fn declared_len(&self) -> usize {
        let body = self.bodies.get(self.body_version());
        let declared = body.map(|body| snappy::declared_len(body, self.limits.decoded_bytes));
        declared.and_then(Result::ok).unwrap_or(0)
    }

    /// Counts of the content, if the batch has been decoded or counted.
    pub fn counts(&self) -> Option<Counts> {
        match &self.content {
            Content::Received(counts) => *counts,
            Content::Checked(_, counts) => Some(*counts),
            Content::Decoded(arena) => Some(arena.counts()),
        }
    }

    /// Memory of the batch, in bytes.
    pub fn weight(&self) -> usize {
        let body = |body: &OnceLock<Bytes>| body.get().map_or(0, Bytes::len);
        let arena = match &self.content {
            Content::Decoded(arena) => arena.weight(),
            Content::Received(_) | Content::Checked(..) => 0,
        };
        body(&self.bodies.v1) + body(&self.bodies.v2) + arena + size_of::<Self>()
    }

    /// Decodes the batch unless it is decoded; returns the series that were invalid and left out.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is malformed or exceeds a limit.
    pub fn decode(&mut self) -> Result<Invalid, DecodeError> {
        self.decoded().map(|(_, invalid)| invalid)
    }

    /// Limits for decoding. Once a batch has been checked, the source's limits no longer apply: an
    /// edit may have added to it.
    fn limits(&self) -> &Limits {
        match self.content {
            Content::Received(_) | Content::Decoded(_) => &self.limits,
            Content::Checked(..) => &Limits::ACCEPTED,
        }
    }

    fn decoded(&mut self) -> Result<(&mut Arc<Arena>, Invalid), DecodeError> {
        let mut left_out = Invalid::default();
        if !matches!(self.content, Content::Decoded(_)) {
            let version = self.body_version();
            let body = self.bodies.get(version).ok_or(DecodeError::Missing)?;
            let (arena, invalid) =
                remote_write::decode_within(version, body, self.limits(), self.room.as_deref())?;
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

    /// Decodes the batch if needed and returns its series.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is malformed or exceeds a limit.
    pub fn arena(&mut self) -> Result<&Arc<Arena>, DecodeError> {
        self.decoded().map(|(arena, _)| &*arena)
    }

    /// Edits the series. Encoded bodies stay valid if nothing changes.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is malformed, or when edits made the batch too large.
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
        !self.is_decoded()
    }

    /// Edits the series and encodes them again in one pass, without decoding the whole batch at
    /// once; returns the series that were invalid and left out. `edit` returns whether to keep a
    /// series.
    ///
    /// # Errors
    ///
    /// Fails when the body as a whole is malformed, or when edits made the batch too large.
    pub fn rewrite(
        &mut self,
        edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
    ) -> Result<Invalid, DecodeError> {
        let version = self.body_version();
        let body = self.bodies.get(version).ok_or(DecodeError::Missing)?;
        let rewritten = remote_write::rewrite(version, body, self.limits(), edit)?;
        if let Some(body) = rewritten.body {
            self.bodies = Bodies::of(version, body);
        }
        self.content = Content::Checked(version, rewritten.counts);
        if rewritten.has_lone_exemplars {
            self.decode()?; // lone exemplars have to join their series
        }
        Ok(rewritten.invalid)
    }

    /// A batch of the same origin with some of this one's series.
    pub fn with_arena(&self, arena: Arena) -> Self {
        let whole = self.counts().map_or(0, |counts| counts.all_samples());
        let part = arena.counts().all_samples();
        let received = match part < whole {
            // A real part: its share of the received bytes.
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

    /// Compressed body in a version; encoded if there is none yet, once for all clones.
    ///
    /// # Errors
    ///
    /// Fails when the batch has to be decoded for that and its body is malformed.
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

    /// Encodes the batch in a version, with the compression that a sink's `choice` has found to
    /// suit its data, and frees the decoded form. Returns the data that this version cannot
    /// represent, which the batch's counts no longer include.
    ///
    /// # Errors
    ///
    /// Fails when the batch has to be decoded for that and its body is malformed.
    pub fn settle(
        &mut self,
        version: Version,
        choice: &CompressionChoice,
    ) -> Result<Unsent, DecodeError> {
        if !self.is_decoded() && self.body_version() == version {
            return Ok(Unsent::default());
        }
        // The received body is complete.
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
            // Other bodies still contain the dropped series and must not be sent.
            self.bodies = Bodies::of(version, body);
            counts.histograms -= unsent.histograms;
        }
        self.content = Content::Checked(version, counts);
        Ok(unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;
    use crate::testing::{Labels, arena_v1, arena_v2};

    /// A label that a transform adds does not make a series invalid that was within its source's
    /// limits.
    #[test]
    fn a_batch_that_was_edited_is_not_held_to_the_limits_of_its_source_again() {
        let pairs = [("__name__", "up"), ("a", "1")];
        let labels: Labels = pairs
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        for (version, arena) in [
            (Version::V1, arena_v1(std::slice::from_ref(&labels))),
            (Version::V2, arena_v2(std::slice::from_ref(&labels))),
        ] {
            let origin = Arc::new(Origin::internal("test".into()));
            let body = Batch::from_arena(arena, origin.clone())
                .body(version)
                .unwrap();
            let limits = Limits {
                labels: 2,
                ..Limits::default()
            };
            let mut batch = Batch::from_body(version, body, limits, origin);
            let tenant = Name::new("tenant");
            let edited = batch.rewrite(|series| {
                series.set(&tenant, b"team");
                true
            });
            assert_eq!(edited.unwrap().series(), 0);
            assert_eq!(batch.decode().unwrap().series(), 0);
            let arena = batch.arena().unwrap();
            assert_eq!(arena.iter().next().unwrap().labels().len(), 3);
        }
    }
}
