//! Receives remote write 1.0 and 2.0.
//!
//! Delivery: a 2xx answer means what `acknowledge` says. A request whose transforms read labels
//! is decoded and checked first, and an invalid series costs only itself. A request that nobody
//! has to look into is forwarded as it came; what is wrong inside of it is then for the endpoints
//! of required sinks to say, and their answer is the sender's. Limits: the size of bodies (compressed and
//! decoded), of series and labels, of all requests in flight together, and the time that a
//! sender may take.

mod reserved;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::timeout;

use metrifold_base::keys::Keys;
use metrifold_base::{
    BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys, words,
};
use metrifold_codec::remote_write::{Limits, Written, negotiate};
use metrifold_codec::{Batch, snappy};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, Resource, SourceConfig, SourcePort,
};
use metrifold_engine::memory::Sizes;
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Needs, Output, Seen, SendError};
use metrifold_http::{
    Access, BodyError, Handler, Listen, Methods, Permission, Request, Response, Route, ServerKeys,
    answer, body, rejection,
};
use metrifold_model::{Ack, Caller, Counts, Kind, Origin, Outcome, Until, Version};
use metrifold_telemetry::ComponentMetrics;

use reserved::{Bounds, NoRoom, Reserved};

words! {
    /// When a sender is told that all is well.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Acknowledge {
        /// Once every required sink has delivered the batch or has it on disk.
        Stored = "stored",
        /// Once the far end of every required sink has it.
        Delivered = "delivered",
        /// Once the request has passed the checks and is queued.
        Received = "received",
    }
}

keys! {
    /// Configuration of the `remote_write` source.
    #[derive(Clone, Debug)]
    pub struct RemoteWriteConfig {
        server: ServerKeys = include,
        /// Path to receive on. `{name}` matches one segment, which the `tenant` transform can take.
        path: String = default("/api/v1/write"),
        /// When a sender is told that all is well: `stored` (every required sink has delivered the batch or has it on disk), `delivered` (the far end of every required sink has it) or `received` (the request passed the checks and is queued).
        acknowledge: Acknowledge = default("stored"),
        /// Longest wait for the acknowledgement. Then the sender is told to try again (503) and what is still queued for it is dropped.
        acknowledge_timeout: Period = default("20s"),
        /// Whether every request is decoded and each series checked. Otherwise that happens only where it is needed: something reads labels, the protocol version changes, the request is 2.0, or no required sink's endpoint would answer for it.
        check_series: bool = default(false),
        /// Whether the samples of every request are counted, for the ledger and the metrics: a request that nobody decodes is decompressed and walked, which costs less than decoding, and is forwarded as it came. With `false` it is forwarded uncounted, unless a queue on disk stores it because its sink does not keep up.
        count_samples: bool = default(true),
        /// Largest compressed body; above it 413.
        max_body_bytes: Size = default("32MiB"),
        /// Largest decoded body, at most 1GiB; above it 413, before anything is allocated.
        max_decoded_bytes: Size = default("128MiB"),
        /// Most series of a request, and most entries of metadata, from 1 to 10000000; above it 413. It holds wherever a request is looked into, since looking takes time and memory by the series.
        max_series_per_request: usize = default(500_000),
        /// Most labels of a series; one with more is invalid.
        max_labels_per_series: usize = default(128),
        /// Longest label name; a series with a longer one is invalid.
        max_label_name_bytes: Size = default("1KiB"),
        /// Longest label value; a series with a longer one is invalid.
        max_label_value_bytes: Size = default("16KiB"),
        /// Memory of all requests in flight, compressed and decoded, at least `max_body_bytes` and `max_decoded_bytes` together and below 4GiB; above it 503 with Retry-After.
        max_in_flight_bytes: Size = default("256MiB"),
        /// Longest time for the body of a request; then 503, since a sender drops what is answered 408.
        body_timeout: Period = default("30s"),
    }
}

/// Offsets into a decoded body are 32 bits wide, with room for what edits add.
const DECODED_MAX: Size = Size::mib(1024);

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "remote_write",
        summary: "Receives Prometheus remote write 1.0 and 2.0.",
        keys: RemoteWriteConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "remote_write")]
impl SourceConfig for RemoteWriteConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Route(self.listen())]
    }

    fn largest_request(&self) -> Option<Sizes> {
        Some(Sizes {
            body: self.max_body_bytes.0,
            decoded: self.max_decoded_bytes.0,
        })
    }

    fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.server.validate(&self.path, problems);
        for (key, value) in [
            ("max_body_bytes", self.max_body_bytes),
            ("max_label_name_bytes", self.max_label_name_bytes),
            ("max_label_value_bytes", self.max_label_value_bytes),
        ] {
            if value.0 == 0 {
                problems.at(key, "must be at least 1B");
            }
        }
        if !(Size(1)..=DECODED_MAX).contains(&self.max_decoded_bytes) {
            problems.at("max_decoded_bytes", "must be from 1B to 1GiB");
        }
        if !(1..=Limits::MOST_SERIES).contains(&self.max_series_per_request) {
            problems.at("max_series_per_request", "must be from 1 to 10000000");
        }
        if !(1..=10_000).contains(&self.max_labels_per_series) {
            problems.at("max_labels_per_series", "must be from 1 to 10000");
        }
        let largest = self
            .max_decoded_bytes
            .0
            .saturating_add(self.max_body_bytes.0);
        if self.max_in_flight_bytes.0 < largest {
            problems
                .at(
                    "max_in_flight_bytes",
                    "must be at least max_decoded_bytes and max_body_bytes together",
                )
                .help("otherwise a request that is allowed could never be taken");
        }
        if self.max_in_flight_bytes.0 >= 4 << 30 {
            problems.at("max_in_flight_bytes", "must be below 4GiB");
        }
        for (key, value) in [
            ("body_timeout", self.body_timeout),
            ("acknowledge_timeout", self.acknowledge_timeout),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
    }
}

impl BuildSource<Metrics> for RemoteWriteConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
        let route = cx.listeners.route(&self.listen(), &cx.id)?;
        let access = self.server.access(&cx.access, |_| Permission::Write)?;
        Ok(Box::new(RemoteWrite {
            route,
            access,
            receiver: Receiver {
                source: cx.id.clone(),
                config: self.clone(),
                limits: Limits {
                    decoded_bytes: self.max_decoded_bytes.bytes(),
                    series: self.max_series_per_request,
                    labels: self.max_labels_per_series,
                    name_bytes: self.max_label_name_bytes.bytes(),
                    value_bytes: self.max_label_value_bytes.bytes(),
                },
                bounds: Bounds::new(self.max_in_flight_bytes.bytes(), cx.memory.clone()),
                metrics: cx.metrics.clone(),
            },
        }))
    }
}

impl RemoteWriteConfig {
    fn listen(&self) -> Listen {
        self.server.listen(&self.path, Methods::POST)
    }
}

struct RemoteWrite {
    route: Route,
    access: Arc<dyn Access>,
    receiver: Receiver,
}

impl Source<Metrics> for RemoteWrite {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        let Self {
            route,
            access,
            receiver,
        } = *self;
        let (requests, under_way) = watch::channel(());
        let handler = Serving {
            receiver: Arc::new(receiver),
            out,
            _under_way: under_way,
        };
        let serving = route.serve(access, Arc::new(handler));
        Box::pin(async move {
            shutdown.wait().await;
            // New requests go to a successor or are told to come back; those under way keep the
            // sinks busy until they have been answered.
            drop(serving);
            requests.closed().await;
            drop(route);
            Ok(())
        })
    }
}

struct Serving {
    receiver: Arc<Receiver>,
    out: Output,
    /// Each request holds on to what serves it: none is under way once this is gone.
    _under_way: watch::Receiver<()>,
}

impl Handler for Serving {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let response = self.receiver.receive(request, &self.out).await;
            self.receiver.metrics.answered(response.status());
            response
        })
    }

    /// A batch that has arrived whole is worth its answer.
    fn answers_half_closed(&self) -> bool {
        true
    }

    fn refused(&self, status: StatusCode) {
        self.receiver.metrics.answered(status);
    }
}

struct Receiver {
    source: Arc<str>,
    config: RemoteWriteConfig,
    limits: Limits,
    bounds: Bounds,
    metrics: ComponentMetrics,
}

impl Receiver {
    async fn receive(&self, request: Request, out: &Output) -> Response {
        let version = match negotiate(&request.headers) {
            Ok(version) => version,
            Err(error) => {
                return answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.to_string());
            }
        };
        let accepted = self.accept(version, request, out).await;
        let (mut response, written) =
            accepted.unwrap_or_else(|refused| (refused, Counts::default()));
        // A sender of 1.0 would take them for a partial failure (prometheus#17683).
        if version == Version::V2 {
            Written::from(written).write(response.headers_mut());
        }
        response
    }

    async fn accept(
        &self,
        version: Version,
        request: Request,
        out: &Output,
    ) -> Result<(Response, Counts), Response> {
        let overloaded = |reason| self.overloaded(reason, out);
        // Those to whom nothing is promised, or whose data no required sink waits for, are the
        // first to be refused when the memory of the process is short.
        let lesser = self.config.acknowledge == Acknowledge::Received || !out.answers();
        let reserved = self.bounds.enter(request.peer.ip(), lesser);
        let mut reserved = reserved.map_err(overloaded)?;
        let (body, request) = self.read_body(request, &mut reserved, out).await?;
        let decoded = self.decoded_len(&body)?;
        reserved.decoded(decoded).map_err(overloaded)?;
        let origin = Arc::new(self.origin(request));
        let batch = Batch::from_body(version, body, self.limits, origin);

        // The answer to 2.0 needs exact counts, so that one is always walked. What nobody looks
        // into goes on as it came: if it is damaged, the endpoint of a required sink says so.
        let looks = self.config.check_series
            || version == Version::V2
            || self.config.acknowledge == Acknowledge::Received
            || !out.answers();
        let asks = match looks {
            true => Needs::Check,
            false if self.config.count_samples => Needs::Count,
            false => Needs::Nothing,
        };
        let (seen, verdict) = self.deliver(batch, asks, &mut reserved, out).await?;
        Ok(self.answer(version, &seen, verdict))
    }

    async fn read_body(
        &self,
        request: Request,
        reserved: &mut Reserved<'_>,
        out: &Output,
    ) -> Result<(Bytes, Head), Response> {
        let max = self.config.max_body_bytes;
        let length = request.content_length();
        // What has arrived takes its share of the memory piece by piece.
        let mut no_room = None;
        let room = |bytes| {
            no_room = reserved.body(bytes).err();
            no_room.is_none()
        };
        let head = Head {
            params: request.params,
            headers: request.headers,
            peer: request.peer,
            caller: request.caller,
        };
        let read = body::read_within(
            request.body,
            length,
            max.bytes(),
            self.config.body_timeout.0,
            room,
        );
        let read = read.await;
        let body = read.map_err(|error| match error {
            BodyError::TooLarge { .. } => answer::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!(
                    "body is larger than max_body_bytes = {max}: send fewer samples per request"
                ),
            ),
            // Not 408: a Prometheus drops what is answered so, and its link may only have stalled.
            BodyError::Timeout => answer::retry_after(
                StatusCode::SERVICE_UNAVAILABLE,
                rejection::RETRY_AFTER,
                "body did not arrive within body_timeout",
            ),
            BodyError::NoRoom => self.overloaded(no_room.unwrap_or(NoRoom::Source), out),
            BodyError::Broken(reason) => answer::text(StatusCode::BAD_REQUEST, &reason),
        })?;
        Ok((body, head))
    }

    /// The size that a body has when it is decoded, if that is allowed.
    #[expect(
        clippy::result_large_err,
        reason = "the refusal is the answer, and refusals are rare"
    )]
    fn decoded_len(&self, body: &Bytes) -> Result<usize, Response> {
        let limit = self.limits.decoded_bytes;
        snappy::declared_len(body, limit).map_err(|error| match error {
            snappy::SnappyError::TooLarge { .. } => {
                answer::text(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string())
            }
            snappy::SnappyError::Corrupt(_) => {
                answer::text(StatusCode::BAD_REQUEST, &error.to_string())
            }
        })
    }

    /// Tells a sender to come back when there may be room: when the queues of required sinks, for
    /// which others wait, have drained, or soon.
    fn overloaded(&self, reason: NoRoom, out: &Output) -> Response {
        self.metrics.refused(reason.as_str());
        self.metrics.error("overloaded", reason.text());
        answer::retry_after(
            StatusCode::SERVICE_UNAVAILABLE,
            out.room_after().unwrap_or(rejection::RETRY_AFTER),
            reason.text(),
        )
    }

    fn origin(&self, head: Head) -> Origin {
        Origin {
            source: self.source.clone(),
            peer: Some(head.peer.ip()),
            order: None,
            params: head.params,
            headers: head.headers,
            caller: head.caller,
        }
    }

    /// Sends the batch and waits as `acknowledge` says.
    async fn deliver(
        &self,
        mut batch: Batch,
        asks: Needs,
        reserved: &mut Reserved<'_>,
        out: &Output,
    ) -> Result<(Seen, Outcome), Response> {
        let until = match self.config.acknowledge {
            Acknowledge::Stored => Some(Until::Stored),
            Acknowledge::Delivered => Some(Until::Delivered),
            Acknowledge::Received => None,
        };
        let waiter = until.map(|until| {
            let (ack, waiter) = Ack::new(until);
            batch.set_ack(ack);
            waiter
        });
        let delivered = async {
            let seen = out.send(batch, asks).await.map_err(|e| self.refuse(e))?;
            reserved.worked();
            let mut verdict = match waiter {
                Some(mut waiter) => waiter.verdict().await,
                None => Outcome::Delivered,
            };
            if let Some(refused) = &seen.told.refused {
                verdict.join(refused.clone());
            }
            Ok((seen, verdict))
        };
        let limit = self.config.acknowledge_timeout.0;
        timeout(limit, delivered).await.map_err(|_| {
            self.metrics
                .error("acknowledge_timeout", "no acknowledgement in time");
            answer::retry_after(
                StatusCode::SERVICE_UNAVAILABLE,
                out.retry_after().unwrap_or(rejection::RETRY_AFTER),
                "not delivered within acknowledge_timeout: try again",
            )
        })?
    }

    /// The answer to a request that reached no sink. Transforms have counted their own refusals.
    fn refuse(&self, error: SendError) -> Response {
        if let SendError::Malformed(error) = &error {
            self.metrics.error("decode", error);
        }
        rejection::answer(&error.into())
    }

    /// The answer to a request that reached the sinks, and what of it they have.
    fn answer(&self, version: Version, seen: &Seen, verdict: Outcome) -> (Response, Counts) {
        let (counts, invalid) = (seen.counts.unwrap_or_default(), &seen.invalid);
        // What can be said of a request whose samples are all in.
        let well = |counts| match invalid.series() {
            // What another replica sends counts as stored.
            0 if seen.told.duplicates => (
                answer::text(StatusCode::ACCEPTED, "another replica is elected"),
                counts,
            ),
            0 => (answer::empty(StatusCode::NO_CONTENT), counts),
            // The valid part is in.
            _ => (
                answer::text(StatusCode::BAD_REQUEST, &invalid.to_string()),
                counts,
            ),
        };
        match verdict {
            Outcome::Delivered => well(counts),
            Outcome::Lacks(lost) => well(counts.saturating_sub(lost)),
            // 1.0 has no word for that: a sender would take all of its samples for lost.
            Outcome::Rejected {
                rejection,
                lost: Some(lost),
            } if version == Version::V1 && !rejection.may_retry() && is_of_exemplars(lost) => {
                well(counts.saturating_sub(lost))
            }
            // Nothing is claimed to be stored of which that is not known, and nothing of what the
            // sender is to send again.
            Outcome::Rejected { rejection, lost } => {
                let lost = lost.filter(|_| !rejection.may_retry());
                (
                    rejection::answer(&rejection),
                    lost.map_or_else(Counts::default, |lost| counts.saturating_sub(lost)),
                )
            }
        }
    }
}

/// Whether nothing but exemplars is lost.
fn is_of_exemplars(lost: Counts) -> bool {
    lost.all_samples() == 0 && lost.exemplars > 0
}

/// What is left of a request once its body has been read.
struct Head {
    params: Vec<(Box<str>, Box<str>)>,
    headers: http::HeaderMap,
    peer: SocketAddr,
    caller: Caller,
}
