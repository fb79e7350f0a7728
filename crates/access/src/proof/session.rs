//! Sessions of browsers: sealed in a cookie, and renewed by the issuer's refresh token.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jsonwebtoken::get_current_timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use metrifold_base::{BuildError, LogLimit, Secret, foreign, read_text};
use metrifold_http::form;
use metrifold_model::Proof;

use super::issuer::{Endpoints, Issuer};
use super::oidc::Verifier;
use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::config::{LoginConfig, OidcConfig};
use crate::digest::{self, Digest};
use crate::fetch;
use crate::login::seal::Sealer;

/// Maximum number of renewed sessions, and of ended ones, per generation of the caches.
const SESSIONS: usize = 10_000;

/// Maximum number of concurrent renewals.
const AT_ONCE: usize = 16;

/// Maximum number of requests that wait for a renewal.
const WAITING: usize = 1000;

/// Timeout for an answer of the issuer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of the secret's file, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Maximum size of a cookie's value: browsers drop cookies above about 4 KiB.
const MAX_COOKIE: usize = 3800;

/// Login at an issuer, and the state of the sessions that result from it.
pub(crate) struct Login {
    pub(crate) config: LoginConfig,
    client_id: String,
    /// Credentials of the client; none for a public client.
    credentials: Option<ClientCredentials>,
    /// Name of the session cookie, distinct for each login configuration.
    name: String,
    pub(crate) sealer: Sealer,
    /// Renewed sessions, by the digests of their ids.
    renewed: Cache<Arc<Renewed>>,
    /// Ended sessions, by the digests of their ids.
    over: Cache<()>,
    /// Locks, chosen by the session's digest, so that one request renews a session and others wait.
    turns: [Mutex<()>; AT_ONCE],
    renewals: Arc<Semaphore>,
    log: LogLimit,
}

/// Content of the session cookie.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Unique id of the session.
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) groups: Vec<String>,
    /// Expiry of the issuer's token, in seconds since 1970. The session is renewed after it.
    pub(crate) good_until: u64,
    /// End of the session, in seconds since 1970. It is not renewed beyond it.
    pub(crate) ends: u64,
    /// Refresh token; none if the issuer returned none or the cookie would be too large.
    pub(crate) refresh: Option<String>,
    /// ID token of the login, which tells the issuer at the logout which of its sessions to end; none if
    /// the cookie would be too large.
    pub(crate) id_token: Option<String>,
}

/// Outcome of a renewal.
struct Renewed {
    proven: Arc<Proven>,
    good_until: u64,
    refresh: Option<String>,
}

/// Answer of the token endpoint of an issuer.
pub(crate) enum Tokens {
    /// The document with the tokens.
    Given(Value),
    /// A final refusal, with the reason: a retry would not help.
    Refused(String),
    /// No usable answer at the moment, with the reason: a retry may help.
    Unknown(Arc<str>),
}

impl Login {
    /// Reads the client's secret.
    pub(crate) fn new(config: &OidcConfig, login: &LoginConfig) -> Result<Self, BuildError> {
        let secret = login.client_secret_file.as_deref().map(|path| {
            let text = read_text(path, MAX_SECRET);
            let text = text.map_err(|error| {
                let reason = format!("cannot read {}: {error}", path.display());
                BuildError::new("login.client_secret_file", reason)
            })?;
            Ok::<_, BuildError>(Secret::new(text.trim()))
        });
        let secret = match &login.client_secret {
            Some(secret) => Some(secret.clone()),
            None => secret.transpose()?,
        };
        let client_id = config.client_id.clone().unwrap_or_default();
        let print = digest::plain(format!("{config:?}").as_bytes());
        let suffix = print[..8].iter().map(|byte| format!("{byte:02x}"));
        Ok(Self {
            sealer: Sealer::new(login.session.0),
            credentials: secret.map(|it| ClientCredentials::new(&client_id, it)),
            name: [SESSION]
                .into_iter()
                .map(str::to_owned)
                .chain(suffix)
                .collect(),
            client_id,
            config: login.clone(),
            renewed: Cache::new(SESSIONS),
            over: Cache::new(SESSIONS),
            turns: Default::default(),
            renewals: Arc::new(Semaphore::new(WAITING)),
            log: LogLimit::default(),
        })
    }

    /// Logs why the issuer cannot be used. Returns what the browser learns, which may be anybody's and is
    /// not to learn addresses.
    pub(crate) fn unusable(&self, issuer: &Issuer, reason: &str) -> &'static str {
        if let Some(silent) = self.log.pass() {
            warn!(
                issuer = issuer.url(),
                error = reason,
                silent,
                "cannot log in at an issuer"
            );
        }
        "the issuer cannot be used at the moment: see the log of the gateway"
    }

    /// ID of the client that tokens are issued to.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Name of the session cookie.
    pub(crate) fn session_cookie(&self) -> &str {
        &self.name
    }

    /// Seals a session. If the cookie would be too large for browsers, the ID token is left out, and then
    /// the refresh token.
    pub(crate) fn seal(&self, mut session: Session) -> Result<String, &'static str> {
        let seal = |session: &Session| {
            let text = serde_json::to_vec(session).map_err(|_| "the session cannot be encoded")?;
            self.sealer.seal(&self.name, &text)
        };
        loop {
            let sealed = seal(&session)?;
            if sealed.len() <= MAX_COOKIE {
                return Ok(sealed);
            }
            let left_out = session.id_token.take().or_else(|| session.refresh.take());
            if left_out.is_none() {
                return Err(
                    "the session does not fit into a cookie, as the user is in too many groups",
                );
            }
        }
    }

    /// The session in the cookies of a request; none if there is no valid one.
    pub(crate) fn shown(&self, headers: &HeaderMap) -> Option<Session> {
        let sealed = cookie(headers, &self.name)?;
        let text = self.sealer.open(&self.name, sealed)?;
        serde_json::from_slice(&text).ok()
    }

    /// Marks a session as ended.
    pub(crate) fn end(&self, session: &Session) {
        let left = session.ends.saturating_sub(get_current_timestamp());
        let until = Instant::now() + Duration::from_secs(left);
        self.over
            .put(digest::plain(session.id.as_bytes()), (), until);
    }

    /// Verifies the session of a request, and renews it if necessary.
    pub(crate) async fn prove(&self, headers: &HeaderMap, verifier: &Arc<Verifier>) -> Verdict {
        if cookie(headers, &self.name).is_none() {
            return Verdict::Absent;
        }
        let Some(session) = self.shown(headers) else {
            return over();
        };
        let key = digest::plain(session.id.as_bytes());
        if let Some(verdict) = self.known(&session, &key) {
            return verdict;
        }
        let Ok(place) = Arc::clone(&self.renewals).try_acquire_owned() else {
            return Verdict::Unknown("too many session renewals are pending".into());
        };
        // A refresh token is valid once. The renewal runs in its own task, so that a caller that disconnects
        // does not lose the next token.
        let verifier = Arc::clone(verifier);
        let renewal = tokio::spawn(async move {
            let _place = place;
            match verifier.login() {
                Some(login) => login.renew_once(&session, &key, &verifier).await,
                None => Verdict::Absent,
            }
        });
        let renewed = renewal.await;
        renewed.unwrap_or_else(|_| Verdict::Unknown("the renewal of the session failed".into()))
    }

    /// Renews a session, or waits for the outcome of a concurrent renewal.
    async fn renew_once(
        &self,
        session: &Session,
        key: &Digest,
        verifier: &Arc<Verifier>,
    ) -> Verdict {
        let turn = &self.turns[usize::from(key[0]) % AT_ONCE];
        let _turn = turn.lock().await;
        match self.known(session, key) {
            Some(verdict) => verdict,
            None => self.renew(session, key, verifier).await,
        }
    }

    /// Verdict on a session from local state; none if it has to be renewed.
    fn known(&self, session: &Session, key: &Digest) -> Option<Verdict> {
        let now = get_current_timestamp();
        if now >= session.ends || self.over.get(key).is_some() {
            return Some(over());
        }
        if let Some(renewed) = self.renewed.get(key)
            && now < renewed.good_until
        {
            return Some(Verdict::Proven(Arc::clone(&renewed.proven)));
        }
        (now < session.good_until).then(|| Verdict::Proven(Arc::new(session.proven())))
    }

    async fn renew(&self, session: &Session, key: &Digest, verifier: &Arc<Verifier>) -> Verdict {
        let before = self.renewed.get(key);
        let refresh = match &before {
            Some(renewed) => renewed.refresh.as_deref(),
            None => session.refresh.as_deref(),
        };
        let Some(refresh) = refresh else {
            return over();
        };
        let mut asked = form::Form::default();
        asked.add("grant_type", "refresh_token");
        asked.add("refresh_token", refresh);
        let issuer = verifier.issuer();
        let endpoints = match issuer.endpoints().await {
            Ok(endpoints) => endpoints,
            Err(reason) => return Verdict::Unknown(reason),
        };
        let tokens = match self.ask(issuer, &endpoints, asked).await {
            Tokens::Given(tokens) => tokens,
            Tokens::Unknown(reason) => return Verdict::Unknown(reason.into()),
            Tokens::Refused(_) => {
                self.end(session);
                return over();
            }
        };
        let text = |key: &str| tokens.get(key).and_then(Value::as_str);
        let refresh = text("refresh_token").unwrap_or(refresh).to_owned();
        let was = match &before {
            Some(before) => Arc::clone(&before.proven),
            None => Arc::new(session.proven()),
        };
        let read = match text("id_token") {
            Some(token) => verifier.read_id(token, None).await,
            // The issuer may omit a new ID token: the identity stays the same.
            None => {
                let lasts = tokens.get("expires_in").and_then(Value::as_u64);
                Ok((
                    Arc::clone(&was),
                    get_current_timestamp() + lasts.unwrap_or(60),
                ))
            }
        };
        let (proven, good_until) = match read {
            Ok((proven, _)) if proven.subject != was.subject => {
                self.end(session);
                return Verdict::wrong(
                    "the issuer renewed the session for another user: log in again",
                );
            }
            Ok((proven, good_until)) => {
                let proof = Proof::Session;
                let proven = Proven {
                    proof,
                    ..(*proven).clone()
                };
                (Arc::new(proven), good_until)
            }
            Err(verdict) => {
                // Keeps the new refresh token, but marks the session expired: the next request renews it.
                self.keep(session, key, was, 0, refresh);
                return verdict;
            }
        };
        self.keep(session, key, Arc::clone(&proven), good_until, refresh);
        Verdict::Proven(proven)
    }

    /// Stores the outcome of a renewal.
    fn keep(
        &self,
        session: &Session,
        key: &Digest,
        proven: Arc<Proven>,
        good_until: u64,
        refresh: String,
    ) {
        let left = session.ends.saturating_sub(get_current_timestamp());
        let until = Instant::now() + Duration::from_secs(left);
        let renewed = Renewed {
            proven,
            good_until,
            refresh: Some(refresh),
        };
        self.renewed.put(*key, Arc::new(renewed), until);
    }

    /// Sends a request to the token endpoint of an issuer.
    pub(crate) async fn ask(
        &self,
        issuer: &Issuer,
        endpoints: &Endpoints,
        mut asked: form::Form,
    ) -> Tokens {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form::TYPE));
        match &self.credentials {
            Some(credentials) => match credentials.header() {
                Some(value) => {
                    headers.insert(AUTHORIZATION, value);
                }
                None => {
                    return Tokens::Unknown(
                        "the client's secret cannot be written into a header".into(),
                    );
                }
            },
            None => asked.add("client_id", &self.client_id),
        }
        let uri = match issuer.place(&endpoints.token) {
            Ok(uri) => uri,
            Err(reason) => return Tokens::Unknown(self.unusable(issuer, &reason).into()),
        };
        let body = Bytes::from(asked.to_string());
        let answer = fetch::answer(issuer.client(), Method::POST, &uri, headers, body, TIMEOUT);
        match answer.await {
            Ok((StatusCode::OK, tokens)) => Tokens::Given(tokens),
            Ok((StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, no)) => {
                let error = no.get("error").and_then(Value::as_str).unwrap_or_default();
                match error {
                    // The fault is the gateway's or the issuer's: the session may still be valid.
                    "invalid_client" | "unauthorized_client" | "temporarily_unavailable" => {
                        Tokens::Unknown(format!("the issuer answered {error}").into())
                    }
                    error => {
                        // Known as secrets while the issuer's words are scrubbed of them.
                        let sent = SENT.iter().flat_map(|name| asked.values(name));
                        let _sent: Vec<Secret> = sent.map(Secret::new).collect();
                        Tokens::Refused(foreign(error, 100))
                    }
                }
            }
            Ok((status, _)) => {
                Tokens::Unknown(format!("the issuer answered {}", status.as_u16()).into())
            }
            Err(reason) => Tokens::Unknown(self.unusable(issuer, &reason).into()),
        }
    }
}

/// Verdict on a session that has ended.
fn over() -> Verdict {
    Verdict::wrong("the session has ended: log in again")
}

impl Session {
    fn proven(&self) -> Proven {
        Proven {
            subject: Some(self.subject.as_str().into()),
            groups: self
                .groups
                .iter()
                .map(|group| group.as_str().into())
                .collect(),
            proof: Proof::Session,
            certificate: None,
        }
    }
}

/// Prefix of the names of session cookies.
const SESSION: &str = "__Host-metrifold-session-";

/// The cookies of a request: names and values. Those of others on this host may be no text.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let pairs = pairs.filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| pair.trim().split_once('='))
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers).find_map(|(known, value)| (known == name).then_some(value))
}

/// Names of the session cookies of a request.
pub(crate) fn sessions(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let names = cookies(headers).map(|(name, _)| name);
    names
        .filter(|name| name.starts_with(SESSION))
        .take(MOST_SESSIONS)
}

/// Maximum number of session cookies that are considered per request.
const MOST_SESSIONS: usize = 16;

/// Parameters of requests to the token endpoint that are secrets.
const SENT: [&str; 3] = ["code", "code_verifier", "refresh_token"];

/// Credentials of the client at the token endpoint: the secret, and the text of the header with it.
/// Both are secrets, which an issuer may repeat in its messages.
struct ClientCredentials {
    _secret: Secret,
    encoded: Secret,
}

impl ClientCredentials {
    /// Id and secret are form-encoded, as RFC 6749 requires.
    fn new(client: &str, secret: Secret) -> Self {
        let encode = |text: &str| {
            let mut form = form::Form::default();
            form.add("", text);
            form.to_string().trim_start_matches('=').to_owned()
        };
        let pair = format!("{}:{}", encode(client), encode(secret.expose()));
        Self {
            _secret: secret,
            encoded: Secret::new(STANDARD.encode(pair)),
        }
    }

    /// The `Authorization` header.
    fn header(&self) -> Option<HeaderValue> {
        let text = format!("Basic {}", self.encoded.expose());
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_of_somebody_else_that_is_no_text_hides_no_session() {
        let mut headers = HeaderMap::new();
        let line = b"theirs=\xff\xfe; __Host-metrifold-session-a=mine; more=\xe9";
        headers.insert(COOKIE, HeaderValue::from_bytes(line).unwrap());
        assert_eq!(cookie(&headers, "__Host-metrifold-session-a"), Some("mine"));
        assert_eq!(sessions(&headers).count(), 1);
    }

    #[test]
    fn a_cookie_that_would_be_too_large_goes_without_the_id_token_and_then_the_refresh_token() {
        let config: OidcConfig = toml::from_str(
            "issuer = \"http://127.0.0.1:1\"\nclient_id = \"c\"\n[login]\nexternal_url = \"https://x\"",
        )
        .unwrap();
        let login = Login::new(&config, config.login.as_ref().unwrap()).unwrap();
        for (id_token, refresh, groups, expected) in [
            (500, 500, 0, Some((true, true))),
            (2500, 500, 0, Some((false, true))),
            (2500, 2500, 0, Some((false, true))),
            (2500, 4000, 0, Some((false, false))),
            (500, 500, 4000, None),
        ] {
            let text = |length| Some("x".repeat(length));
            let sealed = login.seal(Session {
                id: "id".to_owned(),
                subject: "jane".to_owned(),
                groups: vec!["x".repeat(groups)],
                good_until: 1,
                ends: 2,
                refresh: text(refresh),
                id_token: text(id_token),
            });
            let kept = sealed.ok().map(|sealed| {
                assert!(sealed.len() <= MAX_COOKIE);
                let mut headers = HeaderMap::new();
                let cookie = format!("{}={sealed}", login.session_cookie());
                headers.insert(COOKIE, cookie.parse().unwrap());
                let session = login.shown(&headers).unwrap();
                (session.id_token.is_some(), session.refresh.is_some())
            });
            assert_eq!(kept, expected, "{id_token} {refresh} {groups}");
        }
    }
}
