//! Credentials of outgoing requests, as an `Authorization` header.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use metrifold_base::{Backoff, BuildError, Secret};

use crate::auth::oauth2::Tokens;
use crate::auth::{Authorization, BasicAuth, OAuth2, basic, header};

/// Interval at which a secret's file is read again, for rotated secrets.
const FILE_FRESH: Duration = Duration::from_secs(10);

/// Time for which a secret is used while its file cannot be read.
const FILE_USABLE: Duration = Duration::from_secs(300);

/// Credentials of a sink or a scrape. Clones share the cached token.
#[derive(Clone)]
pub struct Credentials(Option<Arc<Shared>>);

/// Why there are no credentials at the moment; a retry may succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct AuthError(pub String);

/// Least interval between renewals of a token because of a refusal: an endpoint that refuses every
/// token must not cause a token request with every request.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// Shortest and longest pause after a token request that failed. Meanwhile, all callers share its
/// error: thousands of scrapes must not keep an issuer busy, nor a client locked out.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(15));

/// A header with its lifetime.
pub(super) struct Cached {
    pub(super) value: HeaderValue,
    /// The secret in the header, held so that it stays registered and is scrubbed from texts.
    pub(super) _secret: Secret,
    /// End of the time without renewal.
    pub(super) fresh_until: Instant,
    /// End of the time in which it may be used if renewals fail.
    pub(super) usable_until: Instant,
}

struct Shared {
    kind: Kind,
    cached: ArcSwapOption<Cached>,
    /// Held during a renewal.
    asking: Mutex<Option<Failed>>,
    /// Time of the last renewal because of a refusal.
    renewed: std::sync::Mutex<Option<Instant>>,
}

/// A renewal that failed.
struct Failed {
    error: AuthError,
    at: Instant,
    /// End of the pause before the next one.
    until: Instant,
    pauses: Backoff,
}

enum Kind {
    BasicAuth(BasicAuth),
    Authorization(Authorization),
    OAuth2(Box<Tokens>),
}

impl Credentials {
    /// Builds credentials of at most one kind. No token is requested yet.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, or when more than one of them is given.
    pub fn build(
        basic_auth: Option<&BasicAuth>,
        authorization: Option<&Authorization>,
        oauth2: Option<&OAuth2>,
    ) -> Result<Self, BuildError> {
        let kind = match (basic_auth, authorization, oauth2) {
            (None, None, None) => return Ok(Self(None)),
            (Some(basic_auth), None, None) => Kind::BasicAuth(basic_auth.clone()),
            (None, Some(authorization), None) => Kind::Authorization(authorization.clone()),
            (None, None, Some(oauth2)) => Kind::OAuth2(Box::new(Tokens::new(oauth2)?)),
            _ => {
                return Err(BuildError::new(
                    "authorization",
                    "only one of basic_auth, authorization and oauth2 may be set",
                ));
            }
        };
        let cached = kind.read()?.map(Arc::new);
        Ok(Self(Some(Arc::new(Shared {
            kind,
            cached: ArcSwapOption::new(cached),
            asking: Mutex::new(None),
            renewed: Default::default(),
        }))))
    }

    /// The `Authorization` header, marked as sensitive; `None` without credentials.
    ///
    /// Concurrent callers share one token request, and those in the pause after a failed one its error.
    /// A token is kept until shortly before it expires. Files are read again every 10 s, so that rotated secrets are picked up. If a renewal fails,
    /// the old value is used while it is valid.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or the token endpoint returns no token in time.
    pub async fn header(&self) -> Result<Option<HeaderValue>, AuthError> {
        let Some(shared) = &self.0 else {
            return Ok(None);
        };
        let asked = Instant::now();
        if let Some(value) = shared.cached(|cached| cached.fresh_until > asked) {
            return Ok(Some(value));
        }
        let mut last = shared.asking.lock().await;
        if let Some(value) = shared.cached(|cached| cached.fresh_until > Instant::now()) {
            return Ok(Some(value));
        }
        let error = match &*last {
            // The caller waited for the attempt that failed, or comes too soon after it.
            Some(last) if last.at >= asked || last.until > Instant::now() => last.error.clone(),
            _ => match shared.kind.ask().await {
                Ok(cached) => {
                    let value = cached.value.clone();
                    shared.cached.store(Some(Arc::new(cached)));
                    *last = None;
                    return Ok(Some(value));
                }
                Err(error) => {
                    let pauses = last.take().map(|last| last.pauses);
                    let mut pauses = pauses.unwrap_or_else(|| Backoff::new(PAUSES.0, PAUSES.1));
                    let at = Instant::now();
                    let until = match shared.kind {
                        Kind::OAuth2(_) => at + pauses.next_pause(),
                        // To read a file again costs nothing.
                        _ => at,
                    };
                    *last = Some(Failed {
                        error: error.clone(),
                        at,
                        until,
                        pauses,
                    });
                    error
                }
            },
        };
        shared
            .cached(|cached| cached.usable_until > Instant::now())
            .map(Some)
            .ok_or(error)
    }

    /// Drops the cached value if it is still `header`, which an endpoint has refused. Several
    /// refused requests cause one new token, not one each. A token that is refused within 10 s of a
    /// renewal is kept, since another one would be refused as well.
    pub fn refused(&self, header: &HeaderValue) {
        let Some(shared) = &self.0 else { return };
        let cached = shared.cached.load();
        let is_cached = cached.as_ref().is_some_and(|cached| cached.value == header);
        if is_cached && shared.may_renew() {
            // Unless another task has renewed it.
            shared.cached.compare_and_swap(&cached, None);
        }
    }
}

impl Shared {
    /// Whether a refusal may cause a renewal. Reading a file again is cheap, and always allowed.
    fn may_renew(&self) -> bool {
        if !matches!(self.kind, Kind::OAuth2(_)) {
            return true;
        }
        let now = Instant::now();
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let may = renewed.is_none_or(|at| now >= at + RENEWED_EVERY);
        if may {
            *renewed = Some(now);
        }
        may
    }

    fn cached(&self, good: impl Fn(&Cached) -> bool) -> Option<HeaderValue> {
        let cached = self.cached.load();
        let cached = cached.as_ref().filter(|cached| good(cached))?;
        Some(cached.value.clone())
    }
}

impl Kind {
    /// Reads the secret without network access; `None` for tokens.
    fn read(&self) -> Result<Option<Cached>, BuildError> {
        let (key, value, file) = match self {
            Self::BasicAuth(auth) => {
                let password = auth.secret().read();
                let value = password
                    .and_then(|password| Ok((basic(&auth.pair(password.expose()))?, password)));
                ("basic_auth", value, auth.secret().file())
            }
            Self::Authorization(auth) => {
                let secret = auth.secret().read();
                let value =
                    secret.and_then(|secret| Ok((header(&auth.scheme, secret.expose())?, secret)));
                ("authorization", value, auth.secret().file())
            }
            Self::OAuth2(_) => return Ok(None),
        };
        let (value, secret) = value.map_err(|error| BuildError::new(key, error))?;
        let now = Instant::now();
        // An inline secret never changes; renewing it once a day costs nothing.
        let (fresh, usable) = match file {
            Some(_) => (FILE_FRESH, FILE_USABLE),
            None => (FILE_FRESH * 8640, FILE_FRESH * 8640),
        };
        Ok(Some(Cached {
            value,
            _secret: secret,
            fresh_until: now + fresh,
            usable_until: now + usable,
        }))
    }

    async fn ask(&self) -> Result<Cached, AuthError> {
        match self {
            Self::OAuth2(tokens) => tokens.ask().await,
            // A small local file, read every few seconds: not worth a blocking thread.
            files => match files.read() {
                Ok(Some(cached)) => Ok(cached),
                Ok(None) => Err(AuthError("no credentials are configured".to_owned())),
                Err(error) => Err(AuthError(error.to_string())),
            },
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.as_deref().map(|shared| &shared.kind) {
            None => "none",
            Some(Kind::BasicAuth(_)) => "basic_auth",
            Some(Kind::Authorization(_)) => "authorization",
            Some(Kind::OAuth2(_)) => "oauth2",
        };
        f.debug_tuple("Credentials").field(&kind).finish()
    }
}
