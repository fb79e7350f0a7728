//! A foreign rules backend as a store: one that has of each tenant one file, as Observatorium's
//! rules-objstore, and knows neither versions nor conditions.
//!
//! What has to hold of a file before it is replaced is looked at right before that, so it holds among
//! those who write through one process. Notes of changes are not kept: there is no place for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::runtime::Handle;
use tokio::time::Instant;

use metrifold_base::{BuildError, Endpoint, Period, Problems, foreign, keys, locked};
use metrifold_http::body::read;
use metrifold_http::{Client, ClientKeys, Credentials};
use metrifold_rules::Version;
use metrifold_rules::store::{Expected, Listed, Object, ObjectError, Objects};

keys! {
    /// A rules backend of Observatorium's contract.
    #[derive(Clone, Debug)]
    pub struct BackendKeys {
        /// URL of the backend; `/TENANT` below it is a tenant's rules.
        url: Endpoint = required("http://rules-objstore:8080/api/v1/rules"),
        /// The tenants whose rules are published, by name. One that changes its rules here is from then on published as well.
        tenants: Vec<String> = default([]),
        client: ClientKeys = include,
        /// Longest time for a request.
        timeout: Period = default("30s"),
    }
}

/// Where the files of tenants lie in a store, and the one that a backend has.
const FILES: &str = "metrics/rules/";
const FILE: &str = "/rules.yaml";
/// What a backend, which can remove nothing, is given for a file that is removed.
const REMOVED: &[u8] = b"# removed\ngroups: []\n";
/// How much is told of an answer.
const EXCERPT: usize = 400;
/// The most tenants that are followed.
const MAX_TENANTS: usize = 100_000;

impl BackendKeys {
    /// The files that they name.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports what is wrong, at keys below `key`.
    pub(crate) fn validate(&self, key: &str, problems: &mut Problems) {
        if self.url.uri().query().is_some() {
            problems.at(format!("{key}.url"), "must have no query string");
        }
        for (place, tenant) in self.tenants.iter().enumerate() {
            if key_of(tenant).is_none() {
                let help = "use letters, digits, `_`, `-` and `.`";
                problems
                    .at(format!("{key}.tenants[{place}]"), "is no name of a tenant")
                    .help(help);
            }
        }
        if self.timeout < Period::millis(100) {
            problems.at(format!("{key}.timeout"), "must be at least 100ms");
        }
    }

    /// The objects of the backend, which is not asked for anything yet.
    ///
    /// # Errors
    ///
    /// Fails if a secret or a certificate cannot be read.
    pub(crate) fn open(&self, max_bytes: usize) -> Result<Box<dyn Objects>, BuildError> {
        let failed =
            |error: tokio::runtime::TryCurrentError| BuildError::new("backend", error.to_string());
        let known = self
            .tenants
            .iter()
            .map(|tenant| (tenant.clone(), String::new()));
        Ok(Box::new(Backend {
            client: self.client.client(1)?,
            credentials: self.client.credentials()?,
            url: self.url.uri().clone(),
            known: Mutex::new(known.collect()),
            timeout: self.timeout.0,
            max_bytes,
            runtime: Handle::try_current().map_err(failed)?,
        }))
    }
}

struct Backend {
    client: Client,
    credentials: Credentials,
    url: Uri,
    /// The tenants that are followed, each with the stamp of its file as it was last.
    known: Mutex<BTreeMap<String, String>>,
    timeout: Duration,
    max_bytes: usize,
    runtime: Handle,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

/// Why the backend does not do it.
enum Failed {
    /// It answers so.
    Answered(StatusCode, String),
    /// It does not answer.
    Silent(String),
}

impl Failed {
    fn of(self, action: &'static str, key: &str) -> ObjectError {
        let reason = match self {
            Self::Answered(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, reason) => {
                return ObjectError::Refused(format!("the rules backend refuses it: {reason}"));
            }
            Self::Answered(status, reason) => format!("it answered {status}: {reason}"),
            Self::Silent(reason) => reason,
        };
        ObjectError::Store {
            action,
            key: key.to_owned(),
            reason,
        }
    }
}

impl Backend {
    async fn ask(
        &self,
        method: Method,
        tenant: &str,
        body: Bytes,
    ) -> Result<Option<Bytes>, Failed> {
        let deadline = Instant::now() + self.timeout;
        let base = self.url.to_string();
        let uri = format!("{}/{tenant}", base.trim_end_matches('/')).parse::<Uri>();
        let uri = uri.map_err(|error| Failed::Silent(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/yaml, */*;q=0.1"),
        );
        if method == Method::PUT {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        }
        let credentials = self.credentials.header().await;
        let credentials = credentials.map_err(|error| Failed::Silent(error.to_string()))?;
        if let Some(value) = &credentials {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let sent = self
            .client
            .request(method, &uri, headers, body, self.timeout);
        let answer = sent
            .await
            .map_err(|error| Failed::Silent(error.to_string()))?;
        let (head, answer) = answer.into_parts();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if let Some(value) = credentials.filter(|_| refused.contains(&head.status)) {
            self.credentials.refused(&value);
        }
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = deadline.saturating_duration_since(Instant::now());
        let text = read(answer, length, self.max_bytes, left).await;
        let text = text.map_err(|error| Failed::Silent(error.to_string()))?;
        match head.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(text)),
            status => {
                let told = foreign(&String::from_utf8_lossy(&text), EXCERPT);
                Err(Failed::Answered(status, told))
            }
        }
    }

    /// A tenant's file, with its stamp.
    fn fetch(&self, tenant: &str) -> Result<Option<Object>, Failed> {
        let asked = self.ask(Method::GET, tenant, Bytes::new());
        let text = self.runtime.block_on(asked)?;
        let text = text.filter(|text| !text.is_empty() && text != REMOVED);
        Ok(text.map(|text| Object {
            stamp: Version::of(&text).to_string(),
            text: text.to_vec(),
        }))
    }

    /// Replaces a tenant's file, if it is as expected.
    fn replace(
        &self,
        action: &'static str,
        key: &str,
        text: &[u8],
        expected: Expected<'_>,
    ) -> Result<(), ObjectError> {
        if !key.starts_with(FILES) {
            return Ok(());
        }
        let Some(tenant) = tenant_of(key) else {
            let reason = "a rules backend has one file of each tenant, which is called \"rules\"";
            return Err(ObjectError::Refused(reason.to_owned()));
        };
        let current = self
            .fetch(tenant)
            .map_err(|failed| failed.of(action, key))?;
        let stamp = current.map(|current| current.stamp);
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => stamp.is_none(),
            Expected::Stamp(expected) => stamp.as_deref() == Some(expected),
        };
        if !holds {
            return Err(ObjectError::Changed);
        }
        let asked = self.ask(Method::PUT, tenant, Bytes::copy_from_slice(text));
        match self.runtime.block_on(asked) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let failed = Failed::Answered(StatusCode::NOT_FOUND, String::new());
                return Err(failed.of(action, key));
            }
            Err(failed) => return Err(failed.of(action, key)),
        }
        let mut known = locked(&self.known);
        if known.len() < MAX_TENANTS {
            known.entry(tenant.to_owned()).or_default();
        }
        Ok(())
    }
}

impl Objects for Backend {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let Some(rest) = prefix.strip_prefix(FILES) else {
            return Ok(Vec::new());
        };
        let tenants: Vec<String> = match rest.trim_end_matches('/') {
            "" => locked(&self.known).keys().cloned().collect(),
            tenant => vec![tenant.to_owned()],
        };
        let alone = !rest.is_empty();
        let mut listed = Vec::new();
        for tenant in tenants {
            let stamp = match self.fetch(&tenant) {
                Ok(found) => found.map(|found| found.stamp),
                // Its rules stay as they were, and those of the others are looked at.
                Err(Failed::Answered(..)) if !alone => Some(
                    locked(&self.known)
                        .get(&tenant)
                        .cloned()
                        .unwrap_or_default(),
                ),
                Err(failed) => return Err(failed.of("read", &tenant)),
            };
            if let Some(known) = locked(&self.known).get_mut(&tenant) {
                *known = stamp.clone().unwrap_or_default();
            }
            if let (Some(key), Some(stamp)) = (key_of(&tenant), stamp) {
                listed.push(Listed { key, stamp });
            }
        }
        Ok(listed)
    }

    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError> {
        let Some(tenant) = tenant_of(key) else {
            return Ok(None);
        };
        let found = self
            .fetch(tenant)
            .map_err(|failed| failed.of("read", key))?;
        match found {
            Some(object) if object.text.len() > max => Err(ObjectError::TooLarge {
                key: key.to_owned(),
                max,
            }),
            found => Ok(found),
        }
    }

    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError> {
        self.replace("write", key, text, expected)
    }

    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError> {
        self.replace("remove", key, REMOVED, expected)
    }
}

/// The tenant whose only file it is.
fn tenant_of(key: &str) -> Option<&str> {
    let tenant = key.strip_prefix(FILES)?.strip_suffix(FILE)?;
    key_of(tenant).is_some().then_some(tenant)
}

/// The key of a tenant's file, if it is a name that stands for itself in a path.
fn key_of(tenant: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let plain = !tenant.is_empty() && !tenant.starts_with('.') && tenant.bytes().all(valid);
    plain.then(|| format!("{FILES}{tenant}{FILE}"))
}
