//! A foreign rules backend as a store. Such a backend, like Observatorium's rules-objstore, has one
//! file per tenant, and neither versions nor conditional writes.
//!
//! The condition of a write is checked right before it, so that it protects writers in one process
//! only. The backend has no place for the history of changes.
//!
//! Unless the tenants are configured, they are found in the backend's list of all rules, in which a
//! tenant's name stands in front of that of each group, after which comes a dot (rules-objstore) or a
//! slash. Names may hold dots too, so every part that can be a tenant's name is asked for.
//!
//! Tenants are asked for side by side, and only an answer of 404 means that a tenant has no rules. One
//! whose answer is bad, or takes long, costs no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::runtime::Handle;

use metrifold_base::{BuildError, Endpoint, Period, Problems, foreign, keys, locked};
use metrifold_http::ClientKeys;
use metrifold_http::body::BodyError;
use metrifold_rules::Version;
use metrifold_rules::store::{Expected, Listed, Object, ObjectError, Objects};

use super::asker::Asker;
use super::side_by_side::Requests;

keys! {
    /// A rules backend with the API that Observatorium defines.
    #[derive(Clone, Debug)]
    pub struct BackendKeys {
        /// URL of the backend. The rules of a tenant are at `/TENANT` below it.
        url: Endpoint = required("http://rules-objstore:8080/api/v1/rules"),
        /// Names of the tenants whose rules are published. By default, all that the backend lists. A tenant that changes its rules through this process is added until the next start.
        tenants: Vec<String> = default([]),
        client: ClientKeys = include,
        /// Maximum number of concurrent requests for the rules of tenants, besides up to 32 that take longer than 2s.
        max_requests: usize = default(8),
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
        if self.max_requests == 0 {
            problems.at(format!("{key}.max_requests"), "must be at least 1");
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
        Ok(Box::new(Backend {
            requester: Requester {
                asker: Asker {
                    client: self.client.client(self.max_requests)?,
                    credentials: self.client.credentials()?,
                    timeout: self.timeout.0,
                },
                url: self.url.uri().clone(),
                max_bytes,
            },
            max_requests: self.max_requests,
            known: Mutex::new(self.tenants.iter().cloned().collect()),
            searches: self.tenants.is_empty(),
            searched: Mutex::default(),
            is_searched: AtomicBool::new(false),
            requests: Requests::default(),
            runtime: Handle::try_current().map_err(failed)?,
        }))
    }
}

struct Backend {
    requester: Requester,
    max_requests: usize,
    /// Followed tenants.
    known: Mutex<BTreeSet<String>>,
    /// Whether tenants are searched for in the list of all rules.
    searches: bool,
    /// Version of the list in which tenants were searched for last.
    searched: Mutex<Option<Version>>,
    /// Whether a search has succeeded.
    is_searched: AtomicBool,
    requests: Requests<Stamp>,
    runtime: Handle,
}

/// Stamp of a tenant's file; `None` if it has none.
type Stamp = Result<Option<String>, Failed>;

/// Sends the requests. Clones share the connections.
#[derive(Clone)]
struct Requester {
    asker: Asker,
    url: Uri,
    max_bytes: usize,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

/// Stamp of every file that is too large to be read: two such files are not told apart.
const TOO_LARGE: &str = "too large";

/// Why a request to the backend failed.
#[derive(Debug)]
enum Failed {
    /// The backend answered with an error.
    Answered(StatusCode, String),
    /// The answer is larger than this number of bytes.
    TooLarge(usize),
    /// The backend did not answer.
    Silent(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status, reason) if reason.is_empty() => {
                write!(f, "the backend answered {status}")
            }
            Self::Answered(status, reason) => write!(f, "the backend answered {status}: {reason}"),
            Self::TooLarge(max) => write!(f, "the answer is larger than {max} bytes"),
            Self::Silent(reason) => f.write_str(reason),
        }
    }
}

impl Failed {
    fn of(self, action: &'static str, key: &str) -> ObjectError {
        match self {
            Self::Answered(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, reason) => {
                ObjectError::Refused(format!("the rules backend refuses the file: {reason}"))
            }
            Self::TooLarge(max) => ObjectError::TooLarge {
                key: key.to_owned(),
                max,
                stamp: TOO_LARGE.to_owned(),
            },
            failed => ObjectError::Store {
                action,
                key: key.to_owned(),
                reason: failed.to_string(),
            },
        }
    }
}

impl Requester {
    /// Sends a request for the rules of a tenant, or of all tenants. `None` if there are none.
    async fn ask(
        &self,
        method: Method,
        tenant: Option<&str>,
        body: Bytes,
    ) -> Result<Option<Bytes>, Failed> {
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
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let answer = self.asker.ask(request, max_bytes).await;
        let (head, text) = answer.map_err(Failed::Silent)?.into_parts();
        let text = text.map_err(|error| match error {
            BodyError::TooLarge { limit } => Failed::TooLarge(limit),
            error => Failed::Silent(error.to_string()),
        });
        match head.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => text.map(Some),
            status => {
                let text = text.unwrap_or_default();
                let told = foreign(&String::from_utf8_lossy(&text), EXCERPT);
                Err(Failed::Answered(status, told))
            }
        }
    }

    /// Reads a tenant's file with its stamp.
    async fn fetch(&self, tenant: &str) -> Result<Option<Object>, Failed> {
        let text = self.ask(Method::GET, Some(tenant), Bytes::new()).await?;
        Ok(text.filter(|text| text != REMOVED).map(|text| Object {
            stamp: Version::of(&text).to_string(),
            text: text.to_vec(),
        }))
    }

    /// Reads the stamp of a tenant's file, which may be too large.
    async fn any_stamp(&self, tenant: &str) -> Stamp {
        match self.fetch(tenant).await {
            Ok(found) => Ok(found.map(|object| object.stamp)),
            Err(Failed::TooLarge(_)) => Ok(Some(TOO_LARGE.to_owned())),
            Err(failed) => Err(failed),
        }
    }

    /// Reads the stamp of a tenant's file.
    async fn stamp(self, tenant: String) -> Stamp {
        let found = self.fetch(&tenant).await?;
        Ok(found.map(|object| object.stamp))
    }
}

impl Backend {
    fn fetch(&self, tenant: &str) -> Result<Option<Object>, Failed> {
        self.runtime.block_on(self.requester.fetch(tenant))
    }

    /// The stamps of tenants' files.
    fn stamps(&self, tenants: BTreeSet<String>) -> BTreeMap<String, Stamp> {
        let ask = |tenant: &str| self.requester.clone().stamp(tenant.to_owned());
        let sent = self.requests.send(self.max_requests, tenants.clone(), ask);
        let mut stamps = self.runtime.block_on(sent);
        for tenant in tenants {
            let silent = || Err(Failed::Silent("the backend does not answer".to_owned()));
            stamps.entry(tenant).or_insert_with(silent);
        }
        stamps
    }

    /// Adds the tenants that the backend lists and that are not known yet.
    fn search(&self) -> Result<(), Failed> {
        let asked = self.requester.ask(Method::GET, None, Bytes::new());
        let unlisted = |status, what: &str| Err(Failed::Answered(status, what.to_owned()));
        let text = match self.runtime.block_on(asked)? {
            None => return unlisted(StatusCode::NOT_FOUND, "it has no list of all rules"),
            // A backend without rules says so; an answer without content is that of something else.
            Some(text) if text.trim_ascii().is_empty() => {
                return unlisted(StatusCode::OK, "its list of all rules is empty text");
            }
            Some(text) => text,
        };
        let version = Some(Version::of(&text));
        if *locked(&self.searched) == version {
            return Ok(());
        }
        let wrong = |error: serde_saphyr::Error| {
            let told = foreign(&error.to_string(), EXCERPT);
            let reason = format!("the list of all rules cannot be read: {told}");
            Failed::Answered(StatusCode::OK, reason)
        };
        let listed: ListOfAll = serde_saphyr::from_slice(&text).map_err(wrong)?;
        let mut candidates = BTreeSet::new();
        for Named { name } in &listed.groups {
            let ends = name.match_indices(['.', '/']).map(|(end, _)| end);
            let known = locked(&self.known);
            let new = ends
                .map(|end| &name[..end])
                .filter(|name| key_of(name).is_some() && !known.contains(*name));
            candidates.extend(new.map(str::to_owned));
        }
        let is_all = candidates.len() <= MAX_CANDIDATES;
        let candidates = candidates.into_iter().take(MAX_CANDIDATES).collect();
        for (tenant, stamp) in self.stamps(candidates) {
            // Unless the backend denies it, the name may be a tenant's, whose rules must not count as
            // removed.
            if !matches!(stamp, Ok(None)) {
                self.follow(&tenant);
            }
        }
        *locked(&self.searched) = version.filter(|_| is_all);
        self.is_searched.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn follow(&self, tenant: &str) {
        let mut known = locked(&self.known);
        if known.len() < MAX_TENANTS {
            known.insert(tenant.to_owned());
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
        let stamp = self.runtime.block_on(self.requester.any_stamp(tenant));
        let stamp = stamp.map_err(|failed| failed.of(action, key))?;
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => stamp.is_none(),
            Expected::Stamp(expected) => stamp.as_deref() == Some(expected),
        };
        if !holds {
            return Err(ObjectError::Changed);
        }
        let text = Bytes::copy_from_slice(text);
        let asked = self.requester.ask(Method::PUT, Some(tenant), text);
        let answered = match self.runtime.block_on(asked) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Failed::Answered(StatusCode::NOT_FOUND, String::new())),
            Err(failed) => Err(failed),
        };
        // A late answer may be older than this change.
        self.requests.forget(tenant);
        answered.map_err(|failed| failed.of(action, key))?;
        self.follow(tenant);
        Ok(())
    }
}

/// The rules of all tenants, of which only the names of the groups are read.
#[derive(Deserialize)]
struct ListOfAll {
    #[serde(deserialize_with = "listed_groups")]
    groups: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// The groups of a list, which the key must be present for: `groups:` alone has none.
fn listed_groups<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Named>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
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
        let tenant = rest.trim_end_matches('/');
        if !tenant.is_empty() {
            let stamp = self.runtime.block_on(self.requester.any_stamp(tenant));
            let stamp = stamp.map_err(|failed| failed.of("read", tenant))?;
            let found = stamp.and_then(|stamp| listed(tenant, Ok(stamp)));
            return Ok(found.into_iter().collect());
        }
        let tenants = locked(&self.known).clone();
        let mut stamps = self.stamps(tenants);
        // If the backend answers about nobody, the failure is its own.
        if stamps.values().all(Result::is_err)
            && let Some((tenant, Err(failed))) = stamps.pop_first()
        {
            return Err(failed.of("read", &tenant));
        }
        let found = stamps
            .into_iter()
            .filter_map(|(tenant, stamp)| match stamp {
                Ok(stamp) => listed(&tenant, Ok(stamp?)),
                Err(failed) => listed(&tenant, Err(failed)),
            });
        Ok(found.collect())
    }

    fn readers(&self) -> usize {
        self.max_requests
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
                stamp: object.stamp,
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

/// A tenant's file in a list, or why its stamp is not known.
fn listed(tenant: &str, stamp: Result<String, Failed>) -> Option<Listed> {
    let (stamp, problem) = match stamp {
        Ok(stamp) => (stamp, None),
        Err(failed) => (String::new(), Some(failed.to_string())),
    };
    let key = key_of(tenant)?;
    Some(Listed {
        key,
        stamp,
        problem,
    })
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
