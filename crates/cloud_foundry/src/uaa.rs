//! Tokens of UAA: one request for all concurrent callers, renewal before expiry, and refresh tokens
//! that may be valid for a single use.
//!
//! A [`Login`] outlives the client that uses it, so that a reload repeats none: a passcode and a
//! single-use refresh token cannot be sent twice.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use metrifold_base::{Secret, foreign, locked, read_text};
use metrifold_discovery::{Exchange, Failure, Reason, exchange::escape};
use metrifold_files::replace_private;
use metrifold_http::place;

use crate::config::{Grant, UaaKeys};

/// The most bytes of an answer from UAA or with the platform's links.
const MAX_ANSWER: usize = 1 << 20;
/// The most bytes of a file with a refresh token.
const MAX_TOKEN: u64 = 64 << 10;
/// Assumed lifetime of a token whose answer gives none, in seconds.
const UNSAID: f64 = 300.0;
/// Longest time for which a token is used, whatever its answer says, in seconds.
const LONGEST: f64 = 24.0 * 3600.0;
/// Time before its expiry at which a token is renewed; a tenth of its lifetime if that is less.
const MARGIN: Duration = Duration::from_secs(60);
/// The most characters of an error's description that are shown.
const MAX_DESCRIPTION: usize = 200;
/// Pause after UAA has refused a password or a client's secret; doubled with each further refusal.
/// UAA locks a user out after a few, for everyone who uses it.
const REFUSED: Duration = Duration::from_secs(30);
/// Longest pause after a refusal.
const REFUSED_LONGEST: Duration = Duration::from_secs(600);

/// A client of UAA.
pub(crate) struct Uaa {
    exchange: Exchange,
    account: Account,
    login: Arc<Login>,
}

/// A user or client of a foundation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// URL of the Cloud Controller, which names UAA's address, without a slash at its end.
    pub(crate) api: String,
    /// Query string for its URLs; may be empty.
    pub(crate) query: String,
    pub(crate) keys: UaaKeys,
}

/// The logins of a process: providers with the same account share one.
#[derive(Default)]
pub(crate) struct Logins(Mutex<Vec<(Account, Arc<Login>)>>);

/// The tokens that UAA has granted to an account.
#[derive(Default)]
pub(crate) struct Login {
    current: Mutex<Option<Arc<Token>>>,
    /// Lock of the caller that requests a token.
    asking: tokio::sync::Mutex<Asking>,
    /// The last refusal, until a token is granted.
    refused: Mutex<Option<Refusal>>,
}

/// A refusal of a password or a client's secret.
struct Refusal {
    /// Time until which they are not sent again.
    until: Instant,
    pause: Duration,
    failure: Failure,
}

/// An access token for the Cloud Controller.
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    /// Keeps the token registered as a secret, so that texts are scrubbed of it.
    _secret: Secret,
    /// From then on, a new token is requested.
    fresh_until: Instant,
    /// Until then, the token is used if there is no newer one.
    usable_until: Instant,
}

#[derive(Default)]
struct Asking {
    endpoint: Option<Uri>,
    refresh_token: Option<Secret>,
    /// Whether the file with the refresh token has been read.
    looked: bool,
    /// The last refresh token that was refused, which is not sent again, and the reason.
    refused_token: Option<(Secret, Failure)>,
    passcode_spent: bool,
    /// Time and reason of the last failure.
    failed: Option<(Instant, Failure)>,
}

/// Reason for which there is no token.
enum Denied {
    /// UAA refused the credentials.
    Refused(Failure),
    /// The request failed, which says nothing about the credentials.
    Failed(Failure),
}

#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    expires_in: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Root {
    links: Links,
}

#[derive(Default, Deserialize)]
struct Links {
    login: Option<Link>,
    uaa: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

#[derive(Default, Deserialize)]
struct Info {
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
}

impl Logins {
    /// The login of an account, which its client before a reload may have begun.
    pub(crate) fn of(&self, account: &Account) -> Arc<Login> {
        let mut logins = locked(&self.0);
        // Logins that no client uses any more are removed.
        logins.retain(|(known, login)| known == account || Arc::strong_count(login) > 1);
        if let Some((_, login)) = logins.iter().find(|(known, _)| known == account) {
            return login.clone();
        }
        let login = Arc::<Login>::default();
        logins.push((account.clone(), login.clone()));
        login
    }
}

impl Login {
    /// Lets refused credentials be sent again at once, for they may be right by now. The pause after
    /// another refusal is longer all the same.
    fn retry(&self) {
        if let Some(refusal) = &mut *locked(&self.refused) {
            refusal.until = Instant::now();
        }
    }

    /// The last refusal, during its pause.
    fn pausing(&self) -> Result<(), Failure> {
        match &*locked(&self.refused) {
            Some(refusal) if refusal.until > Instant::now() => Err(refusal.failure.clone()),
            _ => Ok(()),
        }
    }

    /// Notes that credentials were refused, and begins a pause.
    fn refuse(&self, failure: Failure) -> Failure {
        let mut refused = locked(&self.refused);
        let pause = refused.as_ref().map_or(REFUSED, |last| last.pause * 2);
        let pause = pause.min(REFUSED_LONGEST);
        let text = format!(
            "{failure}: they are not sent again for {} s",
            pause.as_secs()
        );
        let failure = Failure::new(failure.reason, text);
        *refused = Some(Refusal {
            until: Instant::now() + pause,
            pause,
            failure: failure.clone(),
        });
        failure
    }
}

impl Uaa {
    /// A client that has sent nothing yet. It goes on with the login that its account already has.
    pub(crate) fn new(exchange: Exchange, account: Account, logins: &Logins) -> Self {
        let login = logins.of(&account);
        login.retry();
        Self {
            exchange,
            account,
            login,
        }
    }

    /// The current token, or a new one if that is absent or expires soon.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Failure> {
        let asked = Instant::now();
        if let Some(token) = self.current(|token| token.fresh_until > asked) {
            return Ok(token);
        }
        // A task of its own: a caller that gives up, as at a reload, would lose what UAA grants for
        // a passcode or a single-use refresh token.
        let uaa = self.clone();
        let renewed = tokio::spawn(async move { uaa.renewed(asked).await }).await;
        renewed.unwrap_or_else(|error| Err(Failure::new(Reason::Invalid, error)))
    }

    async fn renewed(&self, asked: Instant) -> Result<Arc<Token>, Failure> {
        let mut asking = self.login.asking.lock().await;
        if let Some(token) = self.current(|token| token.fresh_until > Instant::now()) {
            return Ok(token);
        }
        let failure = match &asking.failed {
            // An attempt that failed while this caller waited for the lock counts as its own.
            Some((at, failure)) if *at >= asked => failure.clone(),
            _ => match self.renew(&mut asking).await {
                Ok(token) => {
                    let token = Arc::new(token);
                    *locked(&self.login.current) = Some(token.clone());
                    *locked(&self.login.refused) = None;
                    asking.failed = None;
                    return Ok(token);
                }
                Err(failure) => {
                    asking.failed = Some((Instant::now(), failure.clone()));
                    failure
                }
            },
        };
        self.current(|token| token.usable_until > Instant::now())
            .ok_or(failure)
    }

    /// Lets refused credentials be sent again at once.
    pub(crate) fn retry(&self) {
        self.login.retry();
    }

    /// Drops a token that was refused, unless another one has replaced it.
    pub(crate) fn refused(&self, token: &Arc<Token>) {
        let mut current = locked(&self.login.current);
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, token)) {
            *current = None;
        }
    }

    fn current(&self, good: impl Fn(&Token) -> bool) -> Option<Arc<Token>> {
        let current = locked(&self.login.current);
        current.as_ref().filter(|token| good(token)).cloned()
    }

    async fn renew(&self, asking: &mut Asking) -> Result<Token, Failure> {
        self.login.pausing()?;
        let endpoint = match &asking.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => self.find().await?,
        };
        let got = self.grant(asking, &endpoint).await;
        match got {
            Ok(granted) => {
                asking.endpoint = Some(endpoint);
                self.take(asking, granted).await
            }
            Err(Denied::Refused(failure)) => {
                asking.endpoint = Some(endpoint);
                Err(failure)
            }
            // UAA may have moved.
            Err(Denied::Failed(failure)) => {
                asking.endpoint = None;
                Err(failure)
            }
        }
    }

    /// Finds UAA's token endpoint.
    async fn find(&self) -> Result<Uri, Failure> {
        let root: Root = self.read("/").await?.unwrap_or_default();
        let links = root.links;
        let found = match links.login.or(links.uaa) {
            Some(link) => Some(link.href),
            None => {
                let info: Info = self.read("/v2/info").await?.unwrap_or_default();
                info.authorization_endpoint.or(info.token_endpoint)
            }
        };
        let found = found.ok_or_else(|| {
            let text = format!("{} does not give the URL of UAA", self.account.api);
            Failure::new(
                Reason::Invalid,
                format!("{text}: is it a Cloud Controller?"),
            )
        })?;
        let uri: Uri = format!("{}/oauth/token", found.trim_end_matches('/'))
            .parse()
            .map_err(|error| Failure::new(Reason::Invalid, format!("{found:?}: {error}")))?;
        // The request to UAA carries a password.
        let safe = uri.scheme_str() == Some("https") || self.account.api.starts_with("http://");
        match safe && uri.host().is_some() {
            true => Ok(uri),
            false => {
                let text = format!(
                    "{} gives {found:?} as the URL of UAA, which is not an https URL",
                    self.account.api
                );
                Err(Failure::new(Reason::Invalid, text))
            }
        }
    }

    /// Reads a page about the platform. `None` if the platform does not have it.
    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        let Account { api, query, .. } = &self.account;
        let mark = if query.is_empty() { "" } else { "?" };
        let uri: Uri = format!("{api}{path}{mark}{query}")
            .parse()
            .map_err(|error| Failure::new(Reason::Invalid, format!("{path}: {error}")))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self
            .exchange
            .send(Method::GET, &uri, headers, "", MAX_ANSWER)
            .await?;
        match answer.status.as_u16() {
            200 => serde_json::from_slice(&answer.body)
                .map(Some)
                .map_err(|error| {
                    Failure::new(Reason::Invalid, format!("{}: {error}", place(&uri)))
                }),
            404 => Ok(None),
            status => {
                let text = format!("{} answered {status}", place(&uri));
                Err(Failure::new(Reason::Refused, text))
            }
        }
    }

    /// Requests a token with the refresh token; without a valid one, by the configured grant.
    async fn grant(&self, asking: &mut Asking, endpoint: &Uri) -> Result<Granted, Denied> {
        let keys = &self.account.keys;
        if !std::mem::replace(&mut asking.looked, true) {
            let kept = kept(keys.refresh_token_file.clone()).await?;
            let refused = asking.refused_token.as_ref().map(|(token, _)| token);
            asking.refresh_token = kept.filter(|token| Some(token) != refused);
        }
        if let Some(token) = &asking.refresh_token {
            let form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
            ];
            match self.ask(endpoint, &form).await {
                Ok(granted) => return Ok(granted),
                Err(Denied::Refused(failure)) => {
                    let token = asking.refresh_token.take();
                    asking.refused_token = token.map(|token| (token, failure));
                }
                Err(failed) => return Err(failed),
            }
        }
        let login = &self.login;
        let pause = |denied| match denied {
            Denied::Refused(failure) => Denied::Refused(login.refuse(failure)),
            failed => failed,
        };
        let refused = asking.refused_token.as_ref();
        let nothing_left = || refused.map_or_else(spent, |(_, failure)| failure.clone());
        match keys.grant {
            Grant::ClientCredentials => {
                let form = [("grant_type", "client_credentials")];
                self.ask(endpoint, &form).await.map_err(pause)
            }
            Grant::Password => {
                let password = keys.password().read().map_err(unreadable)?;
                let username = keys.username.as_deref().unwrap_or_default();
                let mut form = vec![
                    ("grant_type", "password"),
                    ("username", username),
                    ("password", password.expose()),
                ];
                let hint = self.hint();
                form.extend(hint.as_deref().map(|hint| ("login_hint", hint)));
                self.ask(endpoint, &form).await.map_err(pause)
            }
            Grant::Passcode if !asking.passcode_spent => {
                let Some(passcode) = &keys.passcode else {
                    return Err(Denied::Refused(nothing_left()));
                };
                let mut form = vec![("grant_type", "password"), ("passcode", passcode.expose())];
                let hint = self.hint();
                form.extend(hint.as_deref().map(|hint| ("login_hint", hint)));
                let got = self.ask(endpoint, &form).await;
                asking.passcode_spent = !matches!(got, Err(Denied::Failed(_)));
                got
            }
            Grant::Passcode | Grant::RefreshToken => {
                let failure = nothing_left();
                // A user may have put a new token into the file.
                asking.looked = false;
                Err(Denied::Refused(failure))
            }
        }
    }

    /// `login_hint` that names the user's identity provider.
    fn hint(&self) -> Option<String> {
        let origin = self.account.keys.origin.as_ref()?;
        Some(serde_json::json!({ "origin": origin }).to_string())
    }

    async fn ask(&self, endpoint: &Uri, form: &[(&str, &str)]) -> Result<Granted, Denied> {
        let secret = match self.account.keys.client_secret() {
            Some(secret) => secret.read().map_err(unreadable)?,
            None => Secret::new(""),
        };
        let pair = format!("{}:{}", self.account.keys.client_id, secret.expose());
        let value = format!("Basic {}", STANDARD.encode(pair));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, sensitive(&value).map_err(Denied::Failed)?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        let pairs = form.iter();
        let pairs: Vec<_> = pairs
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        let answer = self
            .exchange
            .send(Method::POST, endpoint, headers, pairs.join("&"), MAX_ANSWER)
            .await
            .map_err(Denied::Failed)?;
        let place = place(endpoint);
        if answer.status.as_u16() == 200 {
            return serde_json::from_slice(&answer.body).map_err(|_| {
                let text = format!("{place} answered without a valid token");
                Denied::Failed(Failure::new(Reason::Invalid, text))
            });
        }
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut text = format!("{place} answered {}", answer.status.as_u16());
        for key in ["error", "error_description"] {
            if let Some(words) = said.get(key).and_then(Value::as_str) {
                text = format!("{text}: {}", foreign(words, MAX_DESCRIPTION));
            }
        }
        Err(match answer.status.as_u16() {
            400 | 401 | 403 => Denied::Refused(Failure::new(Reason::Credentials, text)),
            _ => Denied::Failed(Failure::new(Reason::Refused, text)),
        })
    }

    async fn take(&self, asking: &mut Asking, granted: Granted) -> Result<Token, Failure> {
        let kind = granted.token_type.as_deref().unwrap_or("bearer");
        if !kind.eq_ignore_ascii_case("bearer") || granted.access_token.expose().is_empty() {
            let text = "UAA answered with a token that is not a bearer token";
            return Err(Failure::new(Reason::Invalid, text));
        }
        if let Some(token) = granted.refresh_token {
            let file = self.account.keys.refresh_token_file.clone();
            if let Some(file) = file.filter(|_| asking.refresh_token.as_ref() != Some(&token)) {
                keep(file, token.clone()).await;
            }
            asking.refresh_token = Some(token);
        }
        let life = granted.expires_in.filter(|life| life.is_finite());
        let life = Duration::from_secs_f64(life.unwrap_or(UNSAID).clamp(0.0, LONGEST));
        let now = Instant::now();
        Ok(Token {
            header: sensitive(&format!("Bearer {}", granted.access_token.expose()))?,
            _secret: granted.access_token,
            fresh_until: now + life - MARGIN.min(life / 10),
            usable_until: now + life,
        })
    }
}

impl fmt::Debug for Uaa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Uaa").field(&self.account.api).finish()
    }
}

fn spent() -> Failure {
    let text = "there is no refresh token, and the passcode has been used: get a new passcode";
    Failure::new(Reason::Credentials, text)
}

fn unreadable(reason: String) -> Denied {
    Denied::Failed(Failure::new(Reason::Credentials, reason))
}

/// A header value that is marked as sensitive.
fn sensitive(value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        let text = "credentials contain a character that an HTTP header cannot contain";
        Failure::new(Reason::Credentials, text)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The refresh token in a file, if there is one.
async fn kept(file: Option<PathBuf>) -> Result<Option<Secret>, Denied> {
    let Some(file) = file else { return Ok(None) };
    let name = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || read_text(&file, MAX_TOKEN)).await;
    match read {
        Ok(Ok(text)) if text.trim().is_empty() => Ok(None),
        Ok(Ok(text)) => Ok(Some(Secret::new(text.trim()))),
        Ok(Err(error)) if error.is_absent() => Ok(None),
        Ok(Err(error)) => Err(unreadable(format!("{name}: {error}"))),
        Err(error) => Err(unreadable(format!("{name}: {error}"))),
    }
}

/// Writes the refresh token to its file. If that fails, the token is valid until the process ends.
async fn keep(file: PathBuf, token: Secret) {
    let name = file.display().to_string();
    let written = tokio::task::spawn_blocking(move || {
        replace_private(&file, |it| it.write_all(token.expose().as_bytes()))
    });
    let error = match written.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    warn!(file = %name, %error, "cannot store the refresh token");
}
