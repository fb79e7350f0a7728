//! The keys of a sink that sends remote write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use metrifold_base::{BuildError, Endpoint, OneOrMany, Period, Problems, Secret, Size, keys};
use metrifold_codec::remote_write::{CompanionBounds, VERSION};
use metrifold_engine::component::BuildContext;
use metrifold_engine::dead_letters::DeadLettersConfig;
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Metrics, Relabel, Transform};
use metrifold_expr::relabel::RuleConfig;
use metrifold_http::ClientKeys;
use metrifold_queue::QueueConfig;

use super::over_http::OverHttp;
use super::pace::Retry;
use super::protocol::Protocol;
use super::sender::{Sender, Terms};
use super::statuses::Statuses;

/// What makes the difference between sinks that send remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// Whether 409 means that the valid part of the batch was stored.
    pub conflict_is_partial: bool,
    /// Whether every batch is decoded, so that labels are sorted and valid.
    pub sorts_labels: bool,
}

keys! {
    /// What is configured of a sink that sends remote write; the header that carries the tenant is
    /// the sink's own.
    #[derive(Clone, Debug)]
    pub struct DeliveryConfig {
        /// URL to send to, or a list of URLs: one is used until it fails, then the next.
        endpoint: OneOrMany<Endpoint> = required("http://127.0.0.1:9090/api/v1/write"),
        /// Version of remote write: `1.0`, `2.0`, or `auto`, which sends a batch in the version in which it arrived and falls back to 1.0 when the endpoint answers 415 or does not say what it wrote; 2.0 is tried again after `conversion.probe_after`.
        protocol: Protocol = default("auto"),
        /// Whether a sender's acknowledgement waits for this sink. An optional sink (`false`) may lag or fail without the sender or other sinks noticing.
        pub required: bool = default(true),
        /// Headers to add to each request, also `Host` and `User-Agent` in place of their own. Those that the protocol uses are refused.
        headers: BTreeMap<String, Secret> = unset({ X-Source = "metrifold" }),
        client: ClientKeys = include,
        /// Relabel rules for this sink alone, as in the `relabel` transform.
        relabel: Vec<RuleConfig> = unset([{ regex = "pod_uid", action = "labeldrop" }]),
        /// Longest time for a request; then it is tried again.
        timeout: Period = default("30s"),
        /// Most requests at once, from 1 to 1000. How many there are adapts: one more with every round of answers while all are busy, half as many when the endpoint fails.
        connections: usize = default(16),
        /// Fewest requests that may be under way at once, from 1 to `connections`.
        min_connections: usize = default(1),
        /// Most bytes, before compression, of a request that is made of several batches of remote write 1.0 that wait one behind the other. Halved each time that the endpoint answers 413 to such a request. `0B` merges none.
        merge_bytes: Size = default("4MiB"),
        /// Queue in front of the sink.
        pub queue: QueueConfig = table,
        /// When a delivery is tried again.
        retry: RetryConfig = table,
        /// Where batches arrive in one version of remote write and leave in the other.
        conversion: ConversionConfig = table,
        /// What is kept of what the endpoint refuses.
        dead_letters: Option<DeadLettersConfig> = optional,
    }
}

keys! {
    /// When a delivery is tried again.
    #[derive(Clone, Debug)]
    pub struct RetryConfig {
        /// Pause before the first retry; it doubles from there, with jitter.
        pub(super) min_backoff: Period = default("30ms"),
        /// Longest pause. A `Retry-After` of the endpoint replaces it, up to 5 minutes.
        pub(super) max_backoff: Period = default("5s"),
        /// Age at which a batch is given up and counted as `too_old`.
        pub(super) max_age: Period = default("2h"),
        /// When an endpoint has answered a request with 5xx for so long, it is looked for the series on which it fails: one is given up and counted as `isolated` if the endpoint fails on it alone and takes something else of the same tenant before and after. `0s` never looks.
        isolate_after: Period = default("5m"),
        /// Most requests that the endpoint answers 429 or another no in a second, all tenants together, from 1 to 10000: the more tenants it refuses, the longer each of them pauses, up to 5 minutes more. Tenants that it takes are not held up.
        pub(super) max_refusals_per_second: u32 = default(50),
        /// What statuses, or classes of them, mean for a batch: `retry` keeps it and tries again, `refuse` gives it up. By default 400, 409, 413 and 422 are refused and all others tried again. `"specification"` sends nothing again that is answered 4xx, but for 429.
        statuses: Option<Statuses> = unset({ 404 = "refuse", 5xx = "retry" }),
    }
}

keys! {
    /// What is kept where batches arrive in one version of remote write and leave in the other.
    #[derive(Clone, Copy, Debug)]
    pub struct ConversionConfig {
        /// How long an endpoint that does not take 2.0 is sent 1.0 before 2.0 is tried again.
        pub(super) probe_after: Period = default("5m"),
        /// Most bytes of metadata in memory, of all tenants: remote write 1.0 sends it in requests of its own, 2.0 in every series. Of the tenants, those who sent nothing for longest make room. `0B` keeps none.
        metadata_bytes: Size = default("32MiB"),
        /// Most bytes of metadata of one tenant. Families of which no series came for longest make room.
        metadata_bytes_per_tenant: Size = default("4MiB"),
        /// Most bytes of exemplars in memory that came without a sample of their series, for which 2.0 has no place: they wait for the next one. A tenant has a quarter of it at most. What does not fit, or waits for too long, is dropped and counted. `0B` keeps none.
        exemplar_bytes: Size = default("8MiB"),
        /// How long such an exemplar waits.
        exemplar_max_age: Period = default("2m"),
    }
}

/// The largest request that can be asked for.
const MERGE_MAX: Size = Size::mib(256);

/// Headers that the protocol uses, or that would break it.
const RESERVED: [&str; 10] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "proxy-authorization",
    "retry-attempt",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl DeliveryConfig {
    /// The form of batches to begin with.
    pub fn form(&self) -> Form {
        match self.protocol {
            Protocol::Auto => Form::AsReceived,
            Protocol::V1 => Form::V1,
            Protocol::V2 => Form::V2,
        }
    }

    /// Bounds on what is kept of what comes apart from its series.
    pub fn companions(&self) -> CompanionBounds {
        CompanionBounds {
            metadata_bytes: self.conversion.metadata_bytes.bytes(),
            metadata_bytes_per_tenant: self.conversion.metadata_bytes_per_tenant.bytes(),
            exemplar_bytes: self.conversion.exemplar_bytes.bytes(),
            exemplar_max_age: self.conversion.exemplar_max_age.0,
        }
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports what cannot be.
    pub fn validate(&self, tenant_header: Option<&str>, problems: &mut Problems) {
        if self.endpoint.0.is_empty() {
            problems.at("endpoint", "must name at least one URL");
        }
        self.client.validate(problems);
        self.queue.validate(self.required, problems);
        if let Some(letters) = &self.dead_letters {
            letters.validate(problems);
        }
        Relabel::compile(&self.relabel, "relabel", problems);
        if !(1..=1000).contains(&self.connections) {
            problems.at("connections", "must be from 1 to 1000");
        }
        if !(1..=self.connections).contains(&self.min_connections) {
            problems.at("min_connections", "must be from 1 to connections");
        }
        if self.merge_bytes > MERGE_MAX {
            let reason = format!("must be at most {MERGE_MAX}");
            problems.at("merge_bytes", reason);
        }
        for (key, value) in [
            ("timeout", self.timeout),
            ("retry.min_backoff", self.retry.min_backoff),
            ("retry.max_age", self.retry.max_age),
            ("conversion.probe_after", self.conversion.probe_after),
            (
                "conversion.exemplar_max_age",
                self.conversion.exemplar_max_age,
            ),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        if !(1..=10_000).contains(&self.retry.max_refusals_per_second) {
            problems.at("retry.max_refusals_per_second", "must be from 1 to 10000");
        }
        if self.retry.max_backoff < self.retry.min_backoff {
            problems.at("retry.max_backoff", "must be at least retry.min_backoff");
        }
        if let Some(name) = tenant_header {
            check_header(name, "tenant_header", problems);
            if ["host", "user-agent"].contains(&&*name.to_ascii_lowercase()) {
                problems.at(
                    "tenant_header",
                    "has a meaning of its own: name another header",
                );
            }
        }
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            check_header(name, &key, problems);
            if tenant_header.is_some_and(|tenant| tenant.eq_ignore_ascii_case(name)) {
                problems.at(
                    &key,
                    "carries the tenant: it cannot be set to a fixed value",
                );
            }
            let is_host = name.eq_ignore_ascii_case("host");
            if HeaderValue::from_str(value.expose()).is_err() {
                problems.at(&key, "is not a valid header value");
            } else if is_host && value.expose().parse::<Authority>().is_err() {
                problems.at(&key, "is not the name of a host, with or without a port");
            }
        }
    }

    /// The sink's own relabelling.
    pub fn before(&self) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        if self.relabel.is_empty() {
            return Ok(None);
        }
        let relabel = Relabel::compile(&self.relabel, "relabel", &mut Problems::new(false));
        let relabel = relabel.ok_or_else(|| BuildError::new("relabel", "rules are not valid"))?;
        Ok(Some(Arc::new(relabel)))
    }

    /// Makes the sink.
    pub fn build(
        &self,
        flavour: Flavour,
        tenant_header: Option<&str>,
        cx: &BuildContext,
    ) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        let client = self.client.client(self.connections)?;
        let credentials = self.client.credentials()?;
        let name = |text: &str| {
            HeaderName::from_bytes(text.as_bytes()).map_err(|e| BuildError::new(text, e))
        };
        let mut headers = http::HeaderMap::new();
        for (key, value) in &self.headers {
            let mut header = HeaderValue::from_str(value.expose())
                .map_err(|e| BuildError::new(format!("headers.{key}"), e))?;
            header.set_sensitive(true);
            headers.insert(name(key)?, header);
        }
        let letters = cx.dead_letters.open(&cx.id, &cx.metrics)?;
        if letters.is_none() && self.dead_letters.is_some() {
            let reason = "need a data_dir to be kept in: set it, or leave them out";
            return Err(BuildError::new("dead_letters", reason));
        }
        let bounds = self.dead_letters.unwrap_or_else(keys::defaults).bounds();
        let transport = OverHttp {
            endpoints: self.endpoint.0.iter().map(|e| e.uri().clone()).collect(),
            current: AtomicUsize::new(0),
            client,
            credentials,
            headers,
            tenant_header: tenant_header.map(name).transpose()?,
            protocol: self.protocol,
            conflict_is_partial: flavour.conflict_is_partial,
            statuses: self.retry.statuses.clone().unwrap_or_default(),
            timeout: self.timeout.0,
            metrics: cx.metrics.clone(),
        };
        let terms = Terms {
            id: cx.id.clone(),
            protocol: self.protocol,
            probe_after: self.conversion.probe_after.0,
            min_connections: self.min_connections,
            connections: self.connections,
            merge_bytes: self.merge_bytes.bytes(),
            retry: Retry {
                min_backoff: self.retry.min_backoff.0,
                max_backoff: self.retry.max_backoff.0,
                max_age: self.retry.max_age.0,
                refusals_per_second: self.retry.max_refusals_per_second,
            },
            isolate_after: self.retry.isolate_after.0,
            letters: letters.map(|store| (store, bounds)),
            metrics: cx.metrics.clone(),
        };
        Ok(Box::new(Sender::new(terms, transport)))
    }
}

fn check_header(name: &str, key: &str, problems: &mut Problems) {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        problems.at(key, "is not a valid header name");
    } else if RESERVED.contains(&lower.as_str()) || lower.starts_with(VERSION.as_str()) {
        problems
            .at(key, "is a header that the protocol uses")
            .help("credentials belong under basic_auth, authorization or oauth2");
    }
}
