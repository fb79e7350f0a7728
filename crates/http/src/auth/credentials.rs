//! Who we are: the `Authorization` of requests that go out.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use metrifold_base::{BuildError, Secret};

use crate::auth::oauth2::Tokens;
use crate::auth::{Authorization, BasicAuth, OAuth2, basic, header};

/// How often a file is read again, so that a rotated secret is picked up.
const FILE_FRESH: Duration = Duration::from_secs(10);

/// How long the last content of a file is used while the file cannot be read.
const FILE_USABLE: Duration = Duration::from_secs(300);

/// What a sink or a scrape shows to prove who it is. A clone shares the cached token.
#[derive(Clone)]
pub struct Credentials(Option<Arc<Shared>>);

/// Why there are no credentials right now. It is always worth a retry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct AuthError(pub String);

/// How often refusals may have a token renewed before its time: an endpoint that refuses all of
/// them must not have one asked for with every request.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// The value of a header and how long it is good.
pub(super) struct Cached {
    pub(super) value: HeaderValue,
    /// What it was made of: known, and scrubbed from texts, as long as it is shown to others.
    pub(super) _secret: Secret,
    /// From then on, a new one is asked for.
    pub(super) fresh_until: Instant,
    /// Until then, it may be used if there is no new one.
    pub(super) usable_until: Instant,
}

struct Shared {
    kind: Kind,
    cached: ArcSwapOption<Cached>,
    /// Held by whoever asks for a new value; holds when and why that failed last.
    asking: Mutex<Option<(Instant, AuthError)>>,
    /// When a refusal last had a new value asked for.
    renewed: std::sync::Mutex<Option<Instant>>,
}

enum Kind {
    BasicAuth(BasicAuth),
    Authorization(Authorization),
    OAuth2(Box<Tokens>),
}

impl Credentials {
    /// Makes credentials of at most one of the three; asks no token endpoint yet.
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

    /// The value of the `Authorization` header, marked as sensitive; none without credentials.
    ///
    /// A token is asked for once, however many wait for it, and kept until shortly before it
    /// expires. Files are read again every 10 s, so that rotated secrets are picked up. If a
    /// renewal fails, the old value serves as long as it is good.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or the token endpoint gives no token in time.
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
        // Whoever waited for an attempt that failed has had its attempt.
        let error = match &*last {
            Some((at, error)) if *at >= asked => error.clone(),
            _ => match shared.kind.ask().await {
                Ok(cached) => {
                    let value = cached.value.clone();
                    shared.cached.store(Some(Arc::new(cached)));
                    *last = None;
                    return Ok(Some(value));
                }
                Err(error) => {
                    *last = Some((Instant::now(), error.clone()));
                    error
                }
            },
        };
        shared
            .cached(|cached| cached.usable_until > Instant::now())
            .map(Some)
            .ok_or(error)
    }

    /// Forgets what is cached if it is still `header`, with which a request was refused. With
    /// several requests under way, this asks for one new token and not for one each. A token that
    /// is refused within 10 s of that is kept: the next one would be refused like it.
    pub fn refused(&self, header: &HeaderValue) {
        let Some(shared) = &self.0 else { return };
        let cached = shared.cached.load();
        let is_cached = cached.as_ref().is_some_and(|cached| cached.value == header);
        if is_cached && shared.may_renew() {
            // Unless it was renewed just now.
            shared.cached.compare_and_swap(&cached, None);
        }
    }
}

impl Shared {
    /// Whether a refusal may have a new value asked for. To read a file again costs next to nothing.
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
    /// Reads what can be had without the network: nothing for tokens.
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
        // What stands in the configuration does not change either: once a day costs nothing.
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
            // A small local file, every few seconds: not worth another thread.
            files => match files.read() {
                Ok(Some(cached)) => Ok(cached),
                Ok(None) => Err(AuthError("there are no credentials".to_owned())),
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
