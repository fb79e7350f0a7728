//! Receives remote write 1.0 and 2.0.
//!
//! Delivery: a 2xx answer means what `acknowledge` says. A request whose transforms read labels is
//! decoded and checked first, and an invalid series is left out by itself. Any other request is
//! forwarded undecoded; then the endpoints of required sinks find out what is invalid in it, and
//! the sender gets their answer. Limits: the size of bodies (compressed and decoded), of series and
//! labels, of all requests in flight together, and the time that a sender may take.

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
    /// Condition for the acknowledgement of a request.
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
        /// URL path to receive on. `{name}` matches one path segment, which the `tenant` transform can use.
        path: String = default("/api/v1/write"),
        /// When a request is acknowledged: `stored` (every required sink has delivered it or written it to its disk queue), `delivered` (the endpoint of every required sink has accepted it) or `received` (it has been validated and queued).
        acknowledge: Acknowledge = default("stored"),
        /// Maximum time to wait for the acknowledgement. After it, the request is answered 503, so that the sender retries it, and what is still queued of it is dropped.
        acknowledge_timeout: Period = default("20s"),
        /// Decode every request and validate each series. Otherwise, this is done only where necessary: if a component reads labels, the protocol version changes, the request is 2.0, or no endpoint of a required sink would report invalid series.
        check_series: bool = default(false),
        /// Count the samples of every request, for the ledger and the metrics. A request that no component decodes is decompressed and scanned, which costs less than decoding, and forwarded unchanged. With `false`, such requests are forwarded uncounted, unless a disk queue stores them because its sink does not keep up.
        count_samples: bool = default(true),
        /// Maximum size of a request body, compressed. A larger one is answered 413.
        max_body_bytes: Size = default("32MiB"),
        /// Maximum size of a request body, decompressed, and of the labels, exemplars and metadata in it, written out without references, up to 1GiB. A larger one is answered 413, before memory is allocated.
        max_decoded_bytes: Size = default("128MiB"),
        /// Maximum number of series, and of metadata entries, per request, from 1 to 10000000. A request with more is answered 413. It applies to every request that is decoded or counted.
        max_series_per_request: usize = default(500_000),
        /// Maximum number of labels per series, in remote write 2.0 including those with an empty value, and per exemplar. A series with more is invalid.
        max_labels_per_series: usize = default(128),
        /// Maximum length of a label name, also in exemplars. A series with a longer one is invalid.
        max_label_name_bytes: Size = default("1KiB"),
        /// Maximum length of a label value, also in exemplars. A series with a longer one is invalid.
        max_label_value_bytes: Size = default("16KiB"),
        /// Maximum memory for requests in flight, compressed and decoded; at least `max_body_bytes` plus `max_decoded_bytes`, and below 4GiB. Requests beyond it are answered 503 with `Retry-After`.
        max_in_flight_bytes: Size = default("256MiB"),
        /// Maximum time to receive a request body. After it, the request is answered 503, since senders drop requests that are answered 408.
        body_timeout: Period = default("30s"),
    }
}

/// Offsets into a decoded body have 32 bits, and edits need some of that room.
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

    fn callers_are_tenants(&self) -> bool {
        self.server.by_tenants()
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
                .help("otherwise a request of the allowed size could never be accepted");
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
            // New requests go to a successor or are answered 503; requests in flight keep the sinks
            // busy until they are answered.
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
    /// Held by each request: closed once no request is in flight.
    _under_way: watch::Receiver<()>,
}

impl Handler for Serving {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let response = self.receiver.receive(request, &self.out).await;
            self.receiver.metrics.answered(response.status());
            // Senders log the first line of an error, and Prometheus' own receiver sends one line of
            // text. Tenants get all errors in the form of those about their access: also one line.
            match self.receiver.config.server.by_tenants() {
                true => answer::in_json(response),
                false => response,
            }
        })
    }

    /// A batch that has arrived whole is processed and answered even if the sender has closed its
    /// half.
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
        let (version, answered) = match negotiate(&request.headers) {
            Ok(version) => (Some(version), self.accept(version, request, out).await),
            Err(error) => {
                let refusal = answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.to_string());
                (error.version(), Err(refusal))
            }
        };
        let (mut response, written) =
            answered.unwrap_or_else(|refused| (refused, Counts::default()));
        // A sender of 1.0 would take these headers for a partial failure (prometheus#17683).
        if version == Some(Version::V2) {
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
        // Requests without a promise of delivery, or whose data goes to no required sink, are
        // refused first when the memory of the process is short.
        let lesser = self.config.acknowledge == Acknowledge::Received || !out.answers();
        let reserved = self.bounds.enter(request.peer.ip(), lesser);
        let mut reserved = reserved.map_err(overloaded)?;
        let (body, request) = self.read_body(request, &mut reserved, out).await?;
        let decoded = self.decoded_len(&body)?;
        reserved.decoded(decoded).map_err(overloaded)?;
        let origin = Arc::new(self.origin(request));
        let batch = Batch::from_body(version, body, self.limits, origin);

        // An answer of 2.0 needs exact counts, so that such a request is always walked. Other
        // requests may go on unchecked: a required sink's endpoint refuses them if they are
        // damaged.
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
        // Memory is reserved piece by piece, as the body arrives.
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
            // Not 408: Prometheus drops a batch that is answered so, though its link may only have
            // stalled.
            BodyError::Timeout => answer::retry_after(
                StatusCode::SERVICE_UNAVAILABLE,
                rejection::RETRY_AFTER,
                "body did not arrive within body_timeout",
            ),
            BodyError::NoRoom => self.overloaded(no_room.unwrap_or(NoRoom::Source), out),
            BodyError::Refused(rejection) => rejection::json(&rejection),
            BodyError::Broken(reason) => answer::text(StatusCode::BAD_REQUEST, &reason),
        })?;
        Ok((body, head))
    }

    /// The declared size of the decoded body, if it is within the limit.
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

    /// Answers 503, with the time after which the required sinks' queues should have room, or a
    /// short default.
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

    /// Sends the batch, and waits for the event that `acknowledge` names.
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

    /// The answer to a request that reached no sink. Transforms count their own refusals.
    fn refuse(&self, error: SendError) -> Response {
        if let SendError::Malformed(error) = &error {
            self.metrics.error("decode", error);
        }
        rejection::answer(&error.into())
    }

    /// The answer to a request that reached the sinks, with the counts that they have stored.
    fn answer(&self, version: Version, seen: &Seen, verdict: Outcome) -> (Response, Counts) {
        let (counts, invalid) = (seen.counts.unwrap_or_default(), &seen.invalid);
        // The answer when all valid samples were stored.
        let well = |counts| match invalid.series() {
            // Duplicates of another replica count as stored.
            0 if seen.told.duplicates => (
                answer::text(StatusCode::ACCEPTED, "another replica is elected"),
                counts,
            ),
            0 => (answer::empty(StatusCode::NO_CONTENT), counts),
            // The valid part was stored.
            _ => (
                answer::text(StatusCode::BAD_REQUEST, &invalid.to_string()),
                counts,
            ),
        };
        match verdict {
            Outcome::Delivered => well(counts),
            Outcome::Lacks(lost) => well(counts.saturating_sub(lost)),
            // 1.0 cannot express lost exemplars: the sender would take all samples for lost.
            Outcome::Rejected {
                rejection,
                lost: Some(lost),
            } if version == Version::V1 && !rejection.may_retry() && is_of_exemplars(lost) => {
                well(counts.saturating_sub(lost))
            }
            // Counts as stored only what is known to be, and nothing that the sender will send
            // again.
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

/// Whether only exemplars are lost.
fn is_of_exemplars(lost: Counts) -> bool {
    lost.all_samples() == 0 && lost.exemplars > 0
}

/// The parts of a request that are needed after its body was read.
struct Head {
    params: Vec<(Box<str>, Box<str>)>,
    headers: http::HeaderMap,
    peer: SocketAddr,
    caller: Caller,
}
