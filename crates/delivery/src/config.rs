//! Keys of a sink that sends remote write.

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

/// Differences between sinks that send remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// Whether 409 means that the valid part of the batch was stored.
    pub conflict_is_partial: bool,
    /// Whether every batch is decoded, so that labels are sorted and valid.
    pub sorts_labels: bool,
}

keys! {
    /// Keys of all sinks that send remote write, except for the header that carries the tenant.
    #[derive(Clone, Debug)]
    pub struct DeliveryConfig {
        /// URL to send to, or a list of URLs. One of them is used until it fails, then the next.
        endpoint: OneOrMany<Endpoint> = required("http://127.0.0.1:9090/api/v1/write"),
        /// Version of remote write: `1.0`, `2.0` or `auto`. `auto` sends each batch in the version in which it was received, and falls back to 1.0 when the endpoint answers 415 or omits the `…-Written` headers of 2.0. It tries 2.0 again after `conversion.probe_after`.
        protocol: Protocol = default("auto"),
        /// Whether the acknowledgement of a request waits for this sink. An optional sink (`false`) can lag or fail without affecting senders or other sinks.
        pub required: bool = default(true),
        /// Headers to add to each request. `Host` and `User-Agent` can be replaced; headers that the protocol uses are rejected.
        headers: BTreeMap<String, Secret> = unset({ X-Source = "metrifold" }),
        client: ClientKeys = include,
        /// Relabel rules for this sink only, as in the `relabel` transform.
        relabel: Vec<RuleConfig> = unset([{ regex = "pod_uid", action = "labeldrop" }]),
        /// Maximum time for a request. A request that takes longer is retried.
        timeout: Period = default("30s"),
        /// Maximum number of concurrent requests, from 1 to 1000. The actual limit adapts: it grows by one with each round of answers while all connections are in use, and is halved when the endpoint fails.
        connections: usize = default(16),
        /// Lower bound of the adaptive limit on concurrent requests, from 1 to `connections`.
        min_connections: usize = default(1),
        /// Maximum size, before compression, of a request into which batches of remote write 1.0 are merged that are queued at the same time for one tenant. It is halved each time the endpoint answers 413 to a merged request. `0B` disables merging.
        merge_bytes: Size = default("4MiB"),
        /// Queue in front of the sink.
        pub queue: QueueConfig = table,
        /// Retries of failed requests.
        retry: RetryConfig = table,
        /// Conversion of batches that are received in one version of remote write and sent in the other.
        conversion: ConversionConfig = table,
        /// Storage for series that the endpoint rejects.
        dead_letters: Option<DeadLettersConfig> = optional,
    }
}

keys! {
    /// Retries of failed requests.
    #[derive(Clone, Debug)]
    pub struct RetryConfig {
        /// Initial retry delay. It doubles with each retry, with jitter, up to `max_backoff`.
        pub(super) min_backoff: Period = default("30ms"),
        /// Maximum retry delay. A `Retry-After` header of the endpoint takes precedence, up to 5 minutes.
        pub(super) max_backoff: Period = default("5s"),
        /// Age at which a batch is dropped and counted as `too_old`.
        pub(super) max_age: Period = default("2h"),
        /// Time after which, if a sender's batches get nothing but 5xx answers, the first of them is searched for the series that causes this. A series is dropped and counted as `isolated` only if the endpoint fails on it alone, and accepts other series of the tenant before and after. `0s` disables the search.
        isolate_after: Period = default("5m"),
        /// Maximum average number of requests per second, over all tenants, to tenants' data that the endpoint answers with 429 or another status that is retried, from 1 to 10000. The more tenants it rejects, the longer each of them backs off, by up to 5 additional minutes. Other tenants are not delayed.
        pub(super) max_refusals_per_second: u32 = default(50),
        /// Treatment of HTTP statuses, or of classes such as `5xx`: `retry` keeps the batch and sends it again, `refuse` drops it. By default, 400, 409, 413 and 422 are refused and all others retried. `"specification"` retries no 4xx status except 429, as the remote write specification demands.
        statuses: Option<Statuses> = unset({ 404 = "refuse", 5xx = "retry" }),
    }
}

keys! {
    /// Conversion of batches that are received in one version of remote write and sent in the other.
    #[derive(Clone, Copy, Debug)]
    pub struct ConversionConfig {
        /// Time for which 1.0 is sent to an endpoint that does not accept 2.0, before 2.0 is tried again.
        pub(super) probe_after: Period = default("5m"),
        /// Maximum memory for metadata of all tenants. It is kept because remote write 1.0 sends metadata in separate requests, and 2.0 in every series. When it is full, tenants that have been silent the longest are evicted. `0B` keeps no metadata.
        metadata_bytes: Size = default("32MiB"),
        /// Maximum memory for metadata of one tenant. When it is full, metric families without series for the longest time are evicted.
        metadata_bytes_per_tenant: Size = default("4MiB"),
        /// Maximum memory for exemplars that arrived without a sample of their series, which 2.0 cannot express. They wait for the next sample. One tenant can use a quarter of it. Exemplars that do not fit, or wait for longer than `exemplar_max_age`, are dropped and counted. `0B` keeps none.
        exemplar_bytes: Size = default("8MiB"),
        /// Maximum time for which an exemplar waits for a sample of its series.
        exemplar_max_age: Period = default("2m"),
    }
}

/// The largest allowed `merge_bytes`.
const MERGE_MAX: Size = Size::mib(256);

/// Headers that the protocol uses or that would break it.
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
    /// The form in which the sink takes batches at first.
    pub fn form(&self) -> Form {
        match self.protocol {
            Protocol::Auto => Form::AsReceived,
            Protocol::V1 => Form::V1,
            Protocol::V2 => Form::V2,
        }
    }

    /// Bounds on the exemplars and metadata that are kept for later batches of their series.
    pub fn companions(&self) -> CompanionBounds {
        CompanionBounds {
            metadata_bytes: self.conversion.metadata_bytes.bytes(),
            metadata_bytes_per_tenant: self.conversion.metadata_bytes_per_tenant.bytes(),
            exemplar_bytes: self.conversion.exemplar_bytes.bytes(),
            exemplar_max_age: self.conversion.exemplar_max_age.0,
        }
    }

    /// Files that the keys name.
    pub fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports values that are invalid or do not fit together.
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
                    "has another meaning in HTTP: choose another header",
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

    /// The sink's own relabelling, applied before its queue; `None` without rules.
    pub fn before(&self) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        if self.relabel.is_empty() {
            return Ok(None);
        }
        let relabel = Relabel::compile(&self.relabel, "relabel", &mut Problems::new(false));
        let relabel = relabel.ok_or_else(|| BuildError::new("relabel", "rules are not valid"))?;
        Ok(Some(Arc::new(relabel)))
    }

    /// Builds the sink.
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
            let reason = "need a data_dir: set it, or remove dead_letters";
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
            merges_senders: self.retry.statuses != Some(Statuses::Specification),
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
