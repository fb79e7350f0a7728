//! The keys of a sink that sends remote write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};

use metrifold_base::{BuildError, Endpoint, Key, Period, Problems, Secret, Size};
use metrifold_codec::remote_write::VERSION;
use metrifold_engine::component::BuildContext;
use metrifold_engine::dead_letters::DeadLettersConfig;
use metrifold_engine::planes::metrics::{Form, Relabel, Sink, Transform};
use metrifold_expr::relabel::RuleConfig;
use metrifold_http::{
    Authorization, BasicAuth, Client, ClientConfig, ClientTls, Credentials, OAuth2, auth,
};
use metrifold_queue::QueueConfig;

use super::over_http::OverHttp;
use super::sender::{Retry, Sender, Terms};
use super::statuses::Statuses;

/// Which version of remote write an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// The version in which a batch arrived; 1.0 once the endpoint has shown that it does not
    /// take 2.0.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Always 1.0.
    #[serde(rename = "1.0")]
    V1,
    /// Always 2.0.
    #[serde(rename = "2.0")]
    V2,
}

/// What makes the difference between sinks that send remote write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// The header that carries the tenant, unless configured.
    pub tenant_header: Option<&'static str>,
    /// Whether 409 means that the valid part of the batch was stored.
    pub conflict_is_partial: bool,
    /// Whether every batch is decoded, so that labels are sorted and valid.
    pub sorts_labels: bool,
}

/// Configuration of a sink that sends remote write.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryConfig {
    /// Where to send to; of several, one is used until it fails.
    #[serde(deserialize_with = "one_or_many")]
    endpoint: Vec<Endpoint>,
    /// The version to send.
    #[serde(default)]
    protocol: Protocol,
    /// Whether the sender's acknowledgement waits for this sink.
    #[serde(default = "yes")]
    pub required: bool,
    /// The header that carries the tenant.
    tenant_header: Option<String>,
    /// Headers to add.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// TLS for https endpoints.
    #[serde(default)]
    tls: ClientTls,
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    oauth2: Option<OAuth2>,
    /// The proxy through which everything goes.
    proxy_url: Option<Endpoint>,
    /// Relabel rules for this sink alone.
    #[serde(default)]
    relabel: Vec<RuleConfig>,
    /// The longest that a request may take.
    #[serde(default = "default_timeout")]
    timeout: Period,
    /// The longest that making a connection may take.
    #[serde(default = "default_connect_timeout")]
    connect_timeout: Period,
    /// The most requests at once.
    #[serde(default = "default_connections")]
    connections: usize,
    /// The requests at once that it takes at least.
    #[serde(default = "default_min_connections")]
    min_connections: usize,
    /// How large a request may become that is made of several batches.
    #[serde(default = "default_merge_bytes")]
    merge_bytes: Size,
    /// The queue in front of the sink.
    #[serde(default)]
    pub queue: QueueConfig,
    /// When to try again.
    #[serde(default)]
    retry: RetryConfig,
    /// How much is kept of what the endpoint refuses.
    dead_letters: Option<DeadLettersConfig>,
}

/// When to try again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryConfig {
    #[serde(default = "default_min_backoff")]
    min_backoff: Period,
    #[serde(default = "default_max_backoff")]
    max_backoff: Period,
    #[serde(default = "default_max_age")]
    max_age: Period,
    /// Which statuses cost a batch.
    #[serde(default)]
    statuses: Statuses,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            min_backoff: default_min_backoff(),
            max_backoff: default_max_backoff(),
            max_age: default_max_age(),
            statuses: Statuses::default(),
        }
    }
}

const fn yes() -> bool {
    true
}
const fn default_timeout() -> Period {
    Period::secs(30)
}
const fn default_connect_timeout() -> Period {
    Period::secs(5)
}
const fn default_connections() -> usize {
    16
}
const fn default_min_connections() -> usize {
    1
}
const fn default_merge_bytes() -> Size {
    Size::mib(4)
}
const fn default_min_backoff() -> Period {
    Period::millis(30)
}
const fn default_max_backoff() -> Period {
    Period::secs(5)
}
const fn default_max_age() -> Period {
    Period::secs(2 * 3600)
}

/// The keys that all such sinks have.
pub const KEYS: &[Key] = &[
    Key::required(
        "endpoint",
        "\"http://127.0.0.1:9090/api/v1/write\"",
        "URL to send to, or a list of URLs: one is used until it fails, then the next.",
    ),
    Key::value(
        "protocol",
        "\"auto\"",
        "Version of remote write: `1.0`, `2.0`, or `auto`, which sends a batch in the version in which it arrived and falls back to 1.0 when the endpoint answers 415 or does not say what it wrote; 2.0 is tried again every 5 minutes.",
    ),
    Key::value(
        "required",
        "true",
        "Whether a sender's acknowledgement waits for this sink. An optional sink (`false`) may lag or fail without the sender or other sinks noticing.",
    ),
    Key::unset(
        "headers",
        "{ X-Source = \"metrifold\" }",
        "Headers to add to each request. Those that the protocol uses are refused.",
    ),
    Key::unset(
        "tls.ca_file",
        "\"/etc/metrifold/ca.crt\"",
        "Certificate authorities in PEM that the endpoint is verified with, instead of the system's.",
    ),
    Key::unset(
        "tls.cert_file",
        "\"/etc/metrifold/tls.crt\"",
        "Client certificate chain in PEM.",
    ),
    Key::unset(
        "tls.key_file",
        "\"/etc/metrifold/tls.key\"",
        "Private key of the client certificate in PEM.",
    ),
    Key::unset(
        "tls.server_name",
        "\"receive.example\"",
        "Name to expect in the endpoint's certificate, instead of the URL's host.",
    ),
    Key::value(
        "tls.insecure_skip_verify",
        "false",
        "Whether any certificate is taken.",
    ),
    Key::unset(
        "basic_auth.username",
        "\"metrifold\"",
        "User name to authenticate with.",
    ),
    Key::unset(
        "basic_auth.password",
        "\"${PASSWORD}\"",
        "Password to authenticate with.",
    ),
    Key::unset(
        "basic_auth.password_file",
        "\"/etc/metrifold/password\"",
        "File with the password, instead of `password`.",
    ),
    Key::unset(
        "authorization.type",
        "\"Bearer\"",
        "Scheme of the `Authorization` header.",
    ),
    Key::unset(
        "authorization.credentials",
        "\"${TOKEN}\"",
        "Credentials of the `Authorization` header.",
    ),
    Key::unset(
        "authorization.credentials_file",
        "\"/etc/metrifold/token\"",
        "File with the credentials, instead of `credentials`.",
    ),
    Key::unset(
        "oauth2.client_id",
        "\"metrifold\"",
        "Client to get tokens for, by client credentials.",
    ),
    Key::unset(
        "oauth2.client_secret",
        "\"${CLIENT_SECRET}\"",
        "The client's secret.",
    ),
    Key::unset(
        "oauth2.client_secret_file",
        "\"/etc/metrifold/client-secret\"",
        "File with the client's secret, instead of `client_secret`.",
    ),
    Key::unset(
        "oauth2.token_url",
        "\"https://login.example/oauth/token\"",
        "URL to get tokens from.",
    ),
    Key::unset("oauth2.scopes", "[\"metrics.write\"]", "Scopes to ask for."),
    Key::unset("oauth2.audience", "\"receive\"", "Audience to ask for."),
    Key::unset(
        "oauth2.endpoint_params",
        "{ resource = \"x\" }",
        "Further parameters of the token request.",
    ),
    Key::unset(
        "oauth2.tls",
        "{ ca_file = \"/etc/metrifold/ca.crt\" }",
        "TLS towards the token URL, with the keys of `tls`.",
    ),
    Key::unset(
        "proxy_url",
        "\"http://proxy.example:3128\"",
        "Proxy through which everything goes. The environment's proxy variables are not read.",
    ),
    Key::unset(
        "relabel",
        "[{ regex = \"pod_uid\", action = \"labeldrop\" }]",
        "Relabel rules for this sink alone, as in the `relabel` transform.",
    ),
    Key::value(
        "timeout",
        "\"30s\"",
        "Longest time for a request; then it is tried again.",
    ),
    Key::value(
        "connect_timeout",
        "\"5s\"",
        "Longest time for making a connection.",
    ),
    Key::value(
        "connections",
        "16",
        "Most requests at once, from 1 to 1000. How many there are adapts: one more with every round of answers while all are busy, half as many when the endpoint fails.",
    ),
    Key::value(
        "min_connections",
        "1",
        "Fewest requests that may be under way at once, from 1 to `connections`.",
    ),
    Key::value(
        "merge_bytes",
        "\"4MiB\"",
        "Most bytes, before compression, of a request that is made of several batches of remote write 1.0 that wait one behind the other. Halved each time that the endpoint answers 413 to such a request. `0B` merges none.",
    ),
    Key::value(
        "queue.type",
        "\"memory\"",
        "Where the queue lives: `memory`, or `disk`, under `data_dir`: what does not get through at once is kept there, also through a crash.",
    ),
    Key::unset(
        "queue.max_bytes",
        "\"4GiB\"",
        "Most bytes in the queue. In memory (default 64MiB, at least 64KiB) those of requests under way are included; on disk (default 1GiB, at least 256KiB) all files are.",
    ),
    Key::unset(
        "queue.when_full",
        "\"drop_oldest\"",
        "What to do with a batch that does not fit: `block` (default of a required sink, refused for an optional one), `drop_oldest` (default of an optional sink) or `drop_newest`.",
    ),
    Key::unset(
        "queue.memory_bytes",
        "\"16MiB\"",
        "Most bytes in memory in front of a queue on disk, at least 64KiB; 16MiB by default.",
    ),
    Key::unset(
        "queue.store_after",
        "\"100ms\"",
        "What has not been delivered after this time goes to a queue on disk, at most 10s; 100ms by default. If the endpoint is known to be in trouble, all goes there at once.",
    ),
    Key::unset(
        "queue.max_age",
        "\"7d\"",
        "Age at which a batch on disk is given up, in place of `retry.max_age`; 7d by default.",
    ),
    Key::unset(
        "queue.sync",
        "\"batch\"",
        "When a batch on disk counts as stored: `batch` (when it is durable; the default) or `interval` (when it is written: a loss of power can cost what came within `sync_interval`).",
    ),
    Key::unset(
        "queue.sync_interval",
        "\"1s\"",
        "How often what is on disk is made durable with `sync = \"interval\"`, from 10ms to 60s; 1s by default.",
    ),
];

/// The keys of retries.
pub const RETRY_KEYS: &[Key] = &[
    Key::value(
        "retry.min_backoff",
        "\"30ms\"",
        "Pause before the first retry; it doubles from there, with jitter.",
    ),
    Key::value(
        "retry.max_backoff",
        "\"5s\"",
        "Longest pause. A `Retry-After` of the endpoint replaces it, up to 5 minutes.",
    ),
    Key::value(
        "retry.max_age",
        "\"2h\"",
        "Age at which a batch is given up and counted as `too_old`.",
    ),
    Key::unset(
        "retry.statuses",
        "{ 404 = \"refuse\", 5xx = \"retry\" }",
        "What statuses, or classes of them, mean for a batch: `retry` keeps it and tries again, `refuse` gives it up. By default 400, 409, 413 and 422 are refused and all others tried again. `\"specification\"` sends nothing again that is answered 4xx, but for 429.",
    ),
];

/// The keys of dead letters.
pub const DEAD_LETTER_KEYS: &[Key] = &[
    Key::value(
        "dead_letters.max_bytes",
        "\"64MiB\"",
        "Most bytes on disk that are kept of what the endpoint refuses, at least 64KiB, with at least 4KiB for each letter; the oldest make room. `0B` keeps none, and so does a configuration without `data_dir`.",
    ),
    Key::value(
        "dead_letters.max_age",
        "\"7d\"",
        "Age at which a dead letter is removed.",
    ),
];

/// The largest request that can be asked for.
const MERGE_MAX: Size = Size::mib(256);

/// Headers that the protocol uses, or that would break it.
const RESERVED: [&str; 12] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "proxy-authorization",
    "retry-attempt",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
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

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let auth = auth::files(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        );
        self.tls.files().chain(auth).collect()
    }

    /// Reports what cannot be.
    pub fn validate(&self, flavour: Flavour, problems: &mut Problems) {
        if self.endpoint.is_empty() {
            problems.at("endpoint", "must name at least one URL");
        }
        self.tls.validate("tls", problems);
        auth::validate(
            "",
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
            problems,
        );
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
            ("connect_timeout", self.connect_timeout),
            ("retry.min_backoff", self.retry.min_backoff),
            ("retry.max_age", self.retry.max_age),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        if self.retry.max_backoff < self.retry.min_backoff {
            problems.at("retry.max_backoff", "must be at least retry.min_backoff");
        }
        if let Some(name) = &self.tenant_header {
            check_header(name, "tenant_header", problems);
        }
        let tenant_header = self.tenant_header.as_deref().or(flavour.tenant_header);
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            check_header(name, &key, problems);
            if tenant_header.is_some_and(|tenant| tenant.eq_ignore_ascii_case(name)) {
                problems.at(
                    &key,
                    "carries the tenant: it cannot be set to a fixed value",
                );
            }
            if HeaderValue::from_str(value.expose()).is_err() {
                problems.at(&key, "is not a valid header value");
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
    pub fn build(&self, flavour: Flavour, cx: &BuildContext) -> Result<Box<dyn Sink>, BuildError> {
        let client = Client::new(&ClientConfig {
            tls: self.tls.clone(),
            proxy_url: self.proxy_url.clone(),
            connections: self.connections,
            connect_timeout: self.connect_timeout.0,
        })?;
        let credentials = Credentials::build(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        )?;
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
        let bounds = self.dead_letters.unwrap_or_default().bounds();
        let tenant_header = self.tenant_header.as_deref().or(flavour.tenant_header);
        let transport = OverHttp {
            endpoints: self.endpoint.iter().map(|e| e.uri().clone()).collect(),
            current: AtomicUsize::new(0),
            client,
            credentials,
            headers,
            tenant_header: tenant_header.map(name).transpose()?,
            protocol: self.protocol,
            conflict_is_partial: flavour.conflict_is_partial,
            statuses: self.retry.statuses.clone(),
            timeout: self.timeout.0,
            metrics: cx.metrics.clone(),
        };
        let terms = Terms {
            id: cx.id.clone(),
            protocol: self.protocol,
            min_connections: self.min_connections,
            connections: self.connections,
            merge_bytes: self.merge_bytes.bytes(),
            retry: Retry {
                min_backoff: self.retry.min_backoff.0,
                max_backoff: self.retry.max_backoff.0,
                max_age: self.retry.max_age.0,
            },
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

/// A string or a list of strings.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<Endpoint>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an http:// or https:// URL in quotes, or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Self::Value, A::Error> {
            let mut endpoints = Vec::new();
            while let Some(endpoint) = list.next_element()? {
                endpoints.push(endpoint);
            }
            Ok(endpoints)
        }
    }
    deserializer.deserialize_any(Visitor)
}
