//! `/oidc/{tenant}/{action}`: login, callback from the issuer, and logout.
//!
//! The authorization code flow of OpenID Connect with PKCE (RFC 7636), a state and a nonce. The state
//! of an attempt is in a sealed cookie of ten minutes; the server keeps none.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use jsonwebtoken::get_current_timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use metrifold_base::{BoxFuture, foreign};
use metrifold_http::{Handler, Request, Response, answer, form, rejection};
use metrifold_model::{Membership, Rejection, RejectionKind};

use crate::digest;
use crate::login::seal::random;
use crate::login::{cross_site, is_own};
use crate::proof::oidc::Verifier;
use crate::proof::session::{Login, Session, Tokens, cookie, cookies};
use crate::tenants::Tenants;

/// Maximum time between the redirect to the issuer and the callback.
const PATIENCE: Duration = Duration::from_secs(600);

/// Maximum number of concurrent requests to issuers, over all browsers.
const AT_ONCE: usize = 64;

/// Handler of the login pages.
pub(crate) struct Pages {
    tenants: Box<dyn Fn() -> Arc<Tenants> + Send + Sync>,
    asking: Semaphore,
}

/// A request for a page.
struct Visit {
    uri: Uri,
    /// The headers of the request, its cookies among them.
    headers: HeaderMap,
    tenant: String,
    action: String,
}

impl Visit {
    fn of(request: Request) -> Self {
        let param = |name| request.param(name).unwrap_or_default().to_owned();
        let (tenant, action) = (param("tenant"), param("action"));
        let mut headers = request.headers;
        for line in request.cookies {
            headers.append(COOKIE, line);
        }
        Self {
            tenant,
            action,
            headers,
            uri: request.uri,
        }
    }
}

/// State of an attempt to log in, which the browser keeps in a sealed cookie.
#[derive(Serialize, Deserialize)]
struct Away {
    state: String,
    nonce: String,
    /// PKCE code verifier: proves to the issuer that the callback belongs to this attempt.
    verifier: String,
    tenant: String,
    back_to: String,
    until: u64,
}

impl Pages {
    /// Pages of the tenants that `tenants` returns at the time of a request.
    pub(crate) fn new(tenants: impl Fn() -> Arc<Tenants> + Send + Sync + 'static) -> Self {
        Self {
            tenants: Box::new(tenants),
            asking: Semaphore::new(AT_ONCE),
        }
    }

    async fn page(&self, visit: &Visit) -> Result<Response, Rejection> {
        let tenants = (self.tenants)();
        let found = tenants.login(&visit.tenant);
        let (at, verifier, login) = found.ok_or_else(|| nobody(&visit.tenant))?;
        match &*visit.action {
            "login" => begin(&at, verifier, login, visit).await,
            "callback" => {
                let asking = self.asking.try_acquire();
                let _asking = asking
                    .map_err(|_| Rejection::unavailable("too many logins are in progress"))?;
                complete(&at, verifier, login, visit).await
            }
            "logout" => leave(verifier, login, visit).await,
            _ => Err(nobody(&visit.tenant)),
        }
    }
}

impl Handler for Pages {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let page = self.page(&Visit::of(request)).await;
            let mut page = page.unwrap_or_else(|no| rejection::json(&no));
            let headers = page.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            page
        })
    }
}

/// Answer for a tenant without login. It is the same for tenants that do not exist.
fn nobody(tenant: &str) -> Rejection {
    let reason = format!("there is no login for tenant {tenant:?}");
    Rejection::new(RejectionKind::NotFound, reason)
}

/// Redirect URI that the issuer sends the browser back to.
fn callback(login: &Login, at: &Membership) -> String {
    let base = login.config.external_url.trim_end_matches('/');
    format!("{base}/oidc/{}/callback", at.name)
}

/// Name of the cookie of one attempt to log in, as a browser may make several at once.
fn away_cookie(state: &str) -> String {
    let print = digest::plain(state.as_bytes());
    let short: String = print[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{AWAY}{short}")
}

/// Prefix of the names of these cookies.
const AWAY: &str = "__Host-metrifold-login-";

/// Maximum number of attempts to log in that a browser keeps: the cookies of more, for example of the many
/// tabs that it opens again, would not fit into the head of a request.
const ATTEMPTS: usize = 8;

/// Cookies of attempts for which one more leaves no room: the oldest, which browsers send first
/// (RFC 6265, section 5.4).
fn forgotten(headers: &HeaderMap) -> Vec<String> {
    let names = cookies(headers).map(|(name, _)| name);
    let mut names: Vec<String> = names
        .filter(|name| {
            let suffix = name.strip_prefix(AWAY);
            suffix.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
        .map(str::to_owned)
        .collect();
    names.truncate((names.len() + 1).saturating_sub(ATTEMPTS));
    names
}

/// Redirects a browser to the issuer.
async fn begin(
    at: &Membership,
    verifier: &Verifier,
    login: &Login,
    visit: &Visit,
) -> Result<Response, Rejection> {
    let given = form::Form::parse(visit.uri.query().unwrap_or_default());
    let given = given.map_err(Rejection::invalid)?;
    let back_to = given.values("return").next().filter(|place| is_own(place));
    let issuer = verifier.issuer();
    let endpoints = issuer.endpoints().await;
    let endpoints = endpoints.map_err(Rejection::from)?;
    let there = issuer.place(&endpoints.authorization);
    let there = there.map_err(|reason| Rejection::unavailable(login.unusable(issuer, &reason)))?;
    let away = Away {
        state: random::<24>().map_err(internal)?,
        nonce: random::<24>().map_err(internal)?,
        verifier: random::<32>().map_err(internal)?,
        tenant: at.name.to_string(),
        back_to: back_to.unwrap_or("/").to_owned(),
        until: get_current_timestamp() + PATIENCE.as_secs(),
    };
    let redirect = callback(login, at);
    let scopes = login.config.scopes.join(" ");
    let challenge = URL_SAFE_NO_PAD.encode(digest::plain(away.verifier.as_bytes()));
    let mut asked = form::Form::parse(there.query().unwrap_or_default()).unwrap_or_default();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", login.client_id()),
        ("redirect_uri", redirect.as_str()),
        ("scope", scopes.as_str()),
        ("state", away.state.as_str()),
        ("nonce", away.nonce.as_str()),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ] {
        asked.remove(name);
        asked.add(name, value);
    }
    let base = there.to_string();
    let base = base.split('?').next().unwrap_or_default();
    let name = away_cookie(&away.state);
    let text =
        serde_json::to_vec(&away).map_err(|_| internal("the login cookie cannot be encoded"))?;
    let sealed = login.sealer.seal(&name, &text).map_err(internal)?;
    let mut response = sent_to(&format!("{base}?{asked}"))?;
    set_cookie(&mut response, &name, &sealed, PATIENCE)?;
    for name in forgotten(&visit.headers) {
        set_cookie(&mut response, &name, "", Duration::ZERO)?;
    }
    Ok(response)
}

/// Completes a login when the issuer sends the browser back.
async fn complete(
    at: &Membership,
    verifier: &Verifier,
    login: &Login,
    visit: &Visit,
) -> Result<Response, Rejection> {
    let given = form::Form::parse(visit.uri.query().unwrap_or_default());
    let given = given.map_err(Rejection::invalid)?;
    let state = one(&given, "state").ok_or_else(|| Rejection::invalid("state is missing"))?;
    let name = away_cookie(&state);
    let away = cookie(&visit.headers, &name).and_then(|sealed| login.sealer.open(&name, sealed));
    let away = away.and_then(|text| serde_json::from_slice::<Away>(&text).ok());
    let away = away.filter(|away| {
        away.state == state && *away.tenant == *at.name && get_current_timestamp() < away.until
    });
    let away = away.ok_or_else(|| {
        Rejection::new(
            RejectionKind::Forbidden,
            "the login was not started by this browser, or took too long: start again",
        )
    })?;
    let page = log_in(at, verifier, login, &given, &away).await;
    // The browser forgets the attempt, whatever its outcome is.
    let mut page = page.unwrap_or_else(|no| rejection::json(&no));
    set_cookie(&mut page, &name, "", Duration::ZERO)?;
    Ok(page)
}

/// The only value of a parameter.
fn one(given: &form::Form, name: &str) -> Option<String> {
    let mut values = given.values(name);
    let value = values.next().filter(|_| values.next().is_none());
    value.map(str::to_owned)
}

/// Exchanges the code of an attempt for a session.
async fn log_in(
    at: &Membership,
    verifier: &Verifier,
    login: &Login,
    given: &form::Form,
    away: &Away,
) -> Result<Response, Rejection> {
    let one = |name| one(given, name);
    if let Some(error) = one("error") {
        let reason = format!("the issuer refuses the login: {}", foreign(&error, 100));
        return Err(Rejection::new(RejectionKind::Forbidden, reason));
    }
    let issuer = verifier.issuer();
    let endpoints = issuer.endpoints().await;
    let endpoints = endpoints.map_err(Rejection::from)?;
    // RFC 9207: the answer of another issuer (mix-up attack).
    let mut named = given.values("iss").peekable();
    let nameless = endpoints.names_issuer && named.peek().is_none();
    if nameless || named.any(|name| name != issuer.url()) {
        let reason = "the answer is from another issuer";
        return Err(Rejection::new(RejectionKind::Forbidden, reason));
    }
    let code = one("code").ok_or_else(|| Rejection::invalid("code is missing"))?;
    let mut asked = form::Form::default();
    asked.add("grant_type", "authorization_code");
    asked.add("code", &code);
    asked.add("redirect_uri", &callback(login, at));
    asked.add("code_verifier", &away.verifier);
    let tokens = match login.ask(issuer, &endpoints, asked).await {
        Tokens::Given(tokens) => tokens,
        Tokens::Unknown(reason) => return Err(Rejection::unavailable(&*reason)),
        Tokens::Refused(error) => {
            let reason = format!("the issuer refuses the code: {error}");
            return Err(Rejection::new(RejectionKind::Forbidden, reason));
        }
    };
    let token = tokens.get("id_token").and_then(Value::as_str);
    let token = token.ok_or_else(|| Rejection::unavailable("the issuer returned no ID token"))?;
    let read = verifier.read_id(token, Some(&away.nonce)).await;
    let (proven, good_until) = read.map_err(|no| no.into_rejection())?;
    let now = get_current_timestamp();
    let session = Session {
        id: random::<16>().map_err(internal)?,
        subject: proven.subject.as_deref().unwrap_or_default().to_owned(),
        groups: proven.groups.iter().map(ToString::to_string).collect(),
        good_until,
        ends: now + login.config.session.0.as_secs(),
        refresh: tokens
            .get("refresh_token")
            .and_then(Value::as_str)
            .map(str::to_owned),
        id_token: Some(token.to_owned()),
    };
    let sealed = login.seal(session).map_err(internal)?;
    let mut response = sent_to(&away.back_to)?;
    set_cookie(
        &mut response,
        login.session_cookie(),
        &sealed,
        login.config.session.0,
    )?;
    Ok(response)
}

/// Ends a session.
async fn leave(verifier: &Verifier, login: &Login, visit: &Visit) -> Result<Response, Rejection> {
    if cross_site(&visit.headers, &login.config.external_url, &Method::POST) {
        let reason = "a page of another origin cannot log a user out";
        return Err(Rejection::new(RejectionKind::Forbidden, reason));
    }
    let session = login.shown(&visit.headers);
    if let Some(session) = &session {
        login.end(session);
    }
    let issuer = verifier.issuer();
    let end = match issuer.endpoints().await {
        Ok(endpoints) => endpoints.end_session.clone(),
        // The session ends here, even if the issuer cannot be told.
        Err(_) => None,
    };
    let end = end.and_then(|end| issuer.place(&end).ok());
    let mut response = match end {
        Some(end) => {
            let mut asked = form::Form::parse(end.query().unwrap_or_default()).unwrap_or_default();
            asked.add("client_id", login.client_id());
            let hint = session.and_then(|session| session.id_token);
            for (name, value) in [
                ("id_token_hint", hint.as_ref()),
                (
                    "post_logout_redirect_uri",
                    login.config.after_logout_url.as_ref(),
                ),
            ] {
                if let Some(value) = value {
                    asked.add(name, value);
                }
            }
            let base = end.to_string();
            let base = base.split('?').next().unwrap_or_default();
            sent_to(&format!("{base}?{asked}"))?
        }
        None => answer::text(StatusCode::OK, "logged out"),
    };
    set_cookie(&mut response, login.session_cookie(), "", Duration::ZERO)?;
    Ok(response)
}

fn sent_to(place: &str) -> Result<Response, Rejection> {
    let place = HeaderValue::try_from(place);
    let place = place.map_err(|_| internal("the redirect URL is not valid"))?;
    let mut response = answer::empty(StatusCode::SEE_OTHER);
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

/// Sets a cookie for this host only. A lifetime of zero deletes it.
fn set_cookie(
    response: &mut Response,
    name: &str,
    value: &str,
    lasts: Duration,
) -> Result<(), Rejection> {
    let secs = lasts.as_secs();
    let text = format!("{name}={value}; Path=/; Max-Age={secs}; Secure; HttpOnly; SameSite=Lax");
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| internal("a cookie cannot be written into a header"))?;
    value.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, value);
    Ok(())
}

fn internal(reason: &str) -> Rejection {
    Rejection::new(RejectionKind::Internal, reason)
}
