//! A foreign rules backend as a store. Such a backend, like Observatorium's rules-objstore, has one
//! file per tenant, and neither versions nor conditional writes.
//!
//! The condition of a write is checked right before it, so that it protects writers in one process
//! only. The backend has no place for the history of changes.
//!
//! Unless the tenants are configured, they are found in the backend's list of all rules, in which a
//! tenant's name stands in front of that of each group, after which comes a dot (rules-objstore) or a
//! slash. Names may hold dots too, so every part that can be a tenant's name is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::Instant;

use metrifold_base::{BuildError, Endpoint, Period, Problems, foreign, keys, locked};
use metrifold_http::body::read;
use metrifold_http::{Client, ClientKeys, Credentials};
use metrifold_rules::Version;
use metrifold_rules::store::{Expected, Listed, Object, ObjectError, Objects};

keys! {
    /// A rules backend with the API that Observatorium defines.
    #[derive(Clone, Debug)]
    pub struct BackendKeys {
        /// URL of the backend. The rules of a tenant are at `/TENANT` below it.
        url: Endpoint = required("http://rules-objstore:8080/api/v1/rules"),
        /// Names of the tenants whose rules are published. By default, all that the backend lists. A tenant that changes its rules through this process is added until the next start.
        tenants: Vec<String> = default([]),
        client: ClientKeys = include,
        /// Maximum time for a request.
        timeout: Period = default("30s"),
    }
}

/// Prefix and suffix of a tenant's only file as a key of the store.
const FILES: &str = "metrics/rules/";
const FILE: &str = "/rules.yaml";
/// Content that replaces a removed file, since a backend cannot remove one.
const REMOVED: &[u8] = b"# removed\ngroups: []\n";
/// Longest excerpt of an answer in an error.
const EXCERPT: usize = 400;
/// Most tenants that are followed.
const MAX_TENANTS: usize = 100_000;
/// Most possible names of tenants that are asked for when the list of all rules has changed.
const MAX_CANDIDATES: usize = 1000;
/// Largest list of all rules, as a multiple of the largest file.
const MAX_LIST: usize = 64;

impl BackendKeys {
    /// Files that the keys name.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports problems at keys below `key`.
    pub(crate) fn validate(&self, key: &str, problems: &mut Problems) {
        if self.url.uri().query().is_some() {
            problems.at(format!("{key}.url"), "must have no query string");
        }
        for (place, tenant) in self.tenants.iter().enumerate() {
            if key_of(tenant).is_none() {
                let help = "use letters, digits, `_`, `-` and `.`";
                problems
                    .at(
                        format!("{key}.tenants[{place}]"),
                        "is not the name of a tenant",
                    )
                    .help(help);
            }
        }
        if self.timeout < Period::millis(100) {
            problems.at(format!("{key}.timeout"), "must be at least 100ms");
        }
    }

    /// Opens the backend's objects, without a request to it.
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
            searches: self.tenants.is_empty(),
            searched: Mutex::default(),
            is_searched: AtomicBool::new(false),
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
    /// Followed tenants, each with the stamp of its file when it was last read.
    known: Mutex<BTreeMap<String, String>>,
    /// Whether tenants are searched for in the list of all rules.
    searches: bool,
    /// Version of the list in which tenants were searched for last.
    searched: Mutex<Option<Version>>,
    /// Whether a search has succeeded.
    is_searched: AtomicBool,
    timeout: Duration,
    max_bytes: usize,
    runtime: Handle,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

/// Why a request to the backend failed.
enum Failed {
    /// The backend answered with an error.
    Answered(StatusCode, String),
    /// The backend did not answer.
    Silent(String),
}

impl Failed {
    fn of(self, action: &'static str, key: &str) -> ObjectError {
        let reason = match self {
            Self::Answered(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, reason) => {
                return ObjectError::Refused(format!(
                    "the rules backend refuses the file: {reason}"
                ));
            }
            Self::Answered(status, reason) => format!("the backend answered {status}: {reason}"),
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
    /// Sends a request for the rules of a tenant, or of all tenants.
    async fn ask(
        &self,
        method: Method,
        tenant: Option<&str>,
        body: Bytes,
    ) -> Result<Option<Bytes>, Failed> {
        let deadline = Instant::now() + self.timeout;
        let (base, max_bytes) = (self.url.to_string(), self.max_bytes);
        let base = base.trim_end_matches('/');
        let (uri, max_bytes) = match tenant {
            Some(tenant) => (format!("{base}/{tenant}"), max_bytes),
            None => (base.to_owned(), max_bytes.saturating_mul(MAX_LIST)),
        };
        let uri = uri.parse::<Uri>();
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
        let text = read(answer, length, max_bytes, left).await;
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

    /// Reads a tenant's file with its stamp.
    fn fetch(&self, tenant: &str) -> Result<Option<Object>, Failed> {
        let asked = self.ask(Method::GET, Some(tenant), Bytes::new());
        let text = self.runtime.block_on(asked)?;
        let text = text.filter(|text| !text.is_empty() && text != REMOVED);
        Ok(text.map(|text| Object {
            stamp: Version::of(&text).to_string(),
            text: text.to_vec(),
        }))
    }

    /// Adds the tenants that the backend lists and that are not known yet.
    fn search(&self) -> Result<(), Failed> {
        let asked = self.ask(Method::GET, None, Bytes::new());
        let text = self.runtime.block_on(asked)?.unwrap_or_default();
        let version = Some(Version::of(&text));
        if *locked(&self.searched) == version {
            return Ok(());
        }
        let wrong = |error: serde_saphyr::Error| {
            let told = foreign(&error.to_string(), EXCERPT);
            let reason = format!("the list of all rules cannot be read: {told}");
            Failed::Answered(StatusCode::OK, reason)
        };
        let listed: ListOfAll = match text.trim_ascii().is_empty() {
            true => ListOfAll::default(),
            false => serde_saphyr::from_slice(&text).map_err(wrong)?,
        };
        let names = listed.groups.unwrap_or_default();
        let mut candidates = BTreeSet::new();
        for Named { name } in &names {
            let ends = name.match_indices(['.', '/']).map(|(end, _)| end);
            let known = locked(&self.known);
            let new = ends
                .map(|end| &name[..end])
                .filter(|name| key_of(name).is_some() && !known.contains_key(*name));
            candidates.extend(new);
        }
        let is_all = candidates.len() <= MAX_CANDIDATES;
        for tenant in candidates.into_iter().take(MAX_CANDIDATES) {
            match self.fetch(tenant) {
                Ok(None) => {}
                Ok(Some(_)) => self.follow(tenant),
                // The name may be a tenant's, whose rules must not count as removed.
                Err(Failed::Answered(status, _)) if status.is_server_error() => self.follow(tenant),
                Err(Failed::Answered(..)) => {}
                Err(failed) => return Err(failed),
            }
        }
        *locked(&self.searched) = version.filter(|_| is_all);
        self.is_searched.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn follow(&self, tenant: &str) {
        let mut known = locked(&self.known);
        if known.len() < MAX_TENANTS {
            known.entry(tenant.to_owned()).or_default();
        }
    }

    /// Replaces a tenant's file if it has the expected state.
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
            let reason = "a rules backend has one file per tenant, which is called \"rules\"";
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
        let asked = self.ask(Method::PUT, Some(tenant), Bytes::copy_from_slice(text));
        match self.runtime.block_on(asked) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let failed = Failed::Answered(StatusCode::NOT_FOUND, String::new());
                return Err(failed.of(action, key));
            }
            Err(failed) => return Err(failed.of(action, key)),
        }
        self.follow(tenant);
        Ok(())
    }
}

/// The rules of all tenants, of which only the names of the groups are read.
#[derive(Default, Deserialize)]
struct ListOfAll {
    groups: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Objects for Backend {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let Some(rest) = prefix.strip_prefix(FILES) else {
            return Ok(Vec::new());
        };
        // After the first search, a failure only means that no further tenant is found.
        if rest.is_empty()
            && self.searches
            && let Err(failed) = self.search()
            && !self.is_searched.load(Ordering::Relaxed)
        {
            let key = "all tenants (name them in `backend.tenants` if the backend cannot)";
            return Err(failed.of("list", key));
        }
        let tenants: Vec<String> = match rest.trim_end_matches('/') {
            "" => locked(&self.known).keys().cloned().collect(),
            tenant => vec![tenant.to_owned()],
        };
        let alone = !rest.is_empty();
        let mut listed = Vec::new();
        for tenant in tenants {
            let stamp = match self.fetch(&tenant) {
                Ok(found) => found.map(|found| found.stamp),
                // One failing tenant keeps its known stamp; the others are read.
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

/// The tenant that a key belongs to.
fn tenant_of(key: &str) -> Option<&str> {
    let tenant = key.strip_prefix(FILES)?.strip_suffix(FILE)?;
    key_of(tenant).is_some().then_some(tenant)
}

/// The key of a tenant's file, if the name needs no escaping in a path.
fn key_of(tenant: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let plain = !tenant.is_empty() && !tenant.starts_with('.') && tenant.bytes().all(valid);
    plain.then(|| format!("{FILES}{tenant}{FILE}"))
}
