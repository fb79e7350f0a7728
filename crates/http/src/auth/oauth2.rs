//! Tokens by OAuth 2.0's client credentials grant (RFC 6749, section 4.4).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION};
use serde_json::Value;
use tokio::time::Instant;

use metrifold_base::{BuildError, Secret, foreign};

use crate::auth::credentials::{AuthError, Cached};
use crate::auth::{OAuth2, basic, header};
use crate::describe::{chain, place};

/// Longest time of a token request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer of a token endpoint.
const MAX_ANSWER: usize = 64 << 10;

/// Lifetime of a token whose answer does not state it.
const UNSAID: Duration = Duration::from_secs(300);

/// Longest time that a token is kept, whatever the answer states.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Time before expiry at which a token is renewed; a tenth of its lifetime if that is less.
const MARGIN: Duration = Duration::from_secs(60);

/// Most characters of an error's description that are shown.
const MAX_DESCRIPTION: usize = 200;

/// A client of a token endpoint.
pub(super) struct Tokens {
    config: OAuth2,
    client: reqwest::Client,
    /// Whether the endpoint requires the client's secret in the body instead of a header.
    in_body: AtomicBool,
}

impl Tokens {
    /// Builds the client. Nothing is requested yet.
    pub(super) fn new(config: &OAuth2) -> Result<Self, BuildError> {
        let secret = config.read_secret();
        secret.map_err(|error| BuildError::new("oauth2", error))?;
        let tls = config
            .tls
            .config()
            .map_err(|error| BuildError::new(format!("oauth2.{}", error.what), error.reason))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT);
        let failed = |error: reqwest::Error| BuildError::new("oauth2", chain(&error.without_url()));
        let client = match &config.proxy.proxy_url {
            Some(url) => {
                let proxy = reqwest::Proxy::all(url.uri().to_string()).map_err(failed)?;
                client.proxy(match &config.proxy.proxy_basic_auth {
                    Some(auth) => {
                        let password = auth.secret().read();
                        let password = password
                            .map_err(|error| BuildError::new("oauth2.proxy_basic_auth", error))?;
                        proxy.basic_auth(&auth.username, password.expose())
                    }
                    None => proxy,
                })
            }
            None => client,
        };
        let client = client.build().map_err(failed)?;
        Ok(Self {
            config: config.clone(),
            client,
            in_body: AtomicBool::new(false),
        })
    }

    /// Requests a token. The secret is sent in a header, as the RFC prefers; if the endpoint
    /// refuses that, the request is repeated once with the secret in the body, which is then kept.
    pub(super) async fn ask(&self) -> Result<Cached, AuthError> {
        if !self.config.has_secret() {
            // The certificate authenticates, and the body names the client.
            let (status, answer) = self.send(true).await?;
            return self.parse(status, &answer);
        }
        let in_body = self.in_body.load(Ordering::Relaxed);
        let (mut status, mut answer) = self.send(in_body).await?;
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            let other = self.send(!in_body).await?;
            if other.0.is_success() {
                self.in_body.store(!in_body, Ordering::Relaxed);
                (status, answer) = other;
            }
        }
        self.parse(status, &answer)
    }

    async fn send(&self, in_body: bool) -> Result<(StatusCode, Vec<u8>), AuthError> {
        let config = &self.config;
        let secret = config.read_secret();
        let secret = secret.map_err(|error| AuthError(format!("oauth2: {error}")))?;
        let scopes = config.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        if let Some(audience) = &config.audience {
            form.push(("audience", audience));
        }
        for (name, value) in &config.endpoint_params {
            form.push((name, value.expose()));
        }
        let mut request = self
            .client
            .post(config.token_url.uri().to_string())
            .header(ACCEPT, "application/json");
        match &secret {
            Some(secret) if !in_body => {
                let pair = format!("{}:{}", escape(&config.client_id), escape(secret.expose()));
                request = request.header(AUTHORIZATION, basic(&pair).map_err(AuthError)?);
            }
            secret => {
                form.push(("client_id", &config.client_id));
                form.extend(secret.iter().map(|it| ("client_secret", it.expose())));
            }
        }
        let failed = |error: reqwest::Error| {
            self.error(&format!("did not answer: {}", chain(&error.without_url())))
        };
        let mut answer = request.form(&form).send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.error(&format!("answered more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((answer.status(), body))
    }

    fn parse(&self, status: StatusCode, answer: &[u8]) -> Result<Cached, AuthError> {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let text = |key: &str| answer.get(key).and_then(Value::as_str);
        if !status.is_success() {
            let mut what = format!("answered {}", status.as_u16());
            for text in ["error", "error_description"].into_iter().filter_map(text) {
                what = format!("{what}: {}", foreign(text, MAX_DESCRIPTION));
            }
            return Err(self.error(&what));
        }
        let Some(token) = text("access_token").filter(|token| !token.is_empty()) else {
            return Err(self.error("answered without an access_token"));
        };
        let scheme = text("token_type").unwrap_or("Bearer");
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(self.error("answered with a token that is not a bearer token"));
        }
        let token = Secret::new(token);
        let value = header("Bearer", token.expose()).map_err(|error| self.error(&error))?;
        // Some endpoints send the number as a string.
        let life = answer.get("expires_in").and_then(|life| match life {
            Value::String(life) => life.parse().ok(),
            life => life.as_f64(),
        });
        let life = life.filter(|secs: &f64| secs.is_finite());
        let life = life.map_or(UNSAID, |secs| {
            Duration::from_secs_f64(secs.clamp(0.0, LONGEST.as_secs_f64()))
        });
        let now = Instant::now();
        Ok(Cached {
            value,
            _secret: token,
            fresh_until: now + life - MARGIN.min(life / 10),
            usable_until: now + life,
        })
    }

    fn error(&self, what: &str) -> AuthError {
        let endpoint = place(self.config.token_url.uri());
        AuthError(format!("oauth2: token endpoint {endpoint} {what}"))
    }
}

/// Percent-encodes a part of the header, as the RFC demands.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte.into());
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
