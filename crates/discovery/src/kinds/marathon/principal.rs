//! Service accounts of DC/OS, whose secret buys tokens.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use metrifold_base::{Endpoint, Secret, read_text};
use metrifold_http::place;

use crate::answer::{Failure, Reason};
use crate::exchange::Exchange;

/// The most bytes of a secret file.
const MAX_SECRET: u64 = 64 << 10;
/// The most bytes of an answer with a token.
const MAX_ANSWER: usize = 64 << 10;

/// A service account.
pub(super) struct Principal {
    uid: String,
    endpoint: Endpoint,
    proof: Proof,
}

enum Proof {
    Password(Secret),
    Key(Box<RsaKeyPair>),
}

#[derive(Deserialize)]
struct Written {
    uid: String,
    #[serde(default)]
    login_endpoint: Option<String>,
    #[serde(default)]
    private_key: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

impl Principal {
    /// Reads a secret. Errors do not quote it.
    pub(super) fn read(
        inline: Option<&Secret>,
        file: Option<&Path>,
        endpoint: Option<&Endpoint>,
    ) -> Result<Self, String> {
        let text = match (inline, file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => {
                let text = read_text(file, MAX_SECRET)
                    .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
                Secret::new(text)
            }
            (None, None) => return Err("there is no secret".to_owned()),
        };
        let written: Written = serde_json::from_str(text.expose()).map_err(|error| {
            format!(
                "is not the secret of a service account: JSON with uid, login_endpoint and private_key or password (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        let endpoint = match (endpoint, written.login_endpoint) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, Some(text)) => text
                .parse()
                .map_err(|error| format!("its login_endpoint {error}"))?,
            (None, None) => return Err("has no login_endpoint: set auth_endpoint".to_owned()),
        };
        let proof = match (written.private_key, written.password) {
            (Some(key), _) => Proof::Key(Box::new(private_key(&Secret::new(key))?)),
            (None, Some(password)) => Proof::Password(Secret::new(password)),
            (None, None) => return Err("has neither private_key nor password".to_owned()),
        };
        Ok(Self {
            uid: written.uid,
            endpoint,
            proof,
        })
    }

    /// Body of the login request.
    fn body(&self) -> Result<String, Failure> {
        let uid = &self.uid;
        let body = match &self.proof {
            Proof::Password(password) => {
                serde_json::json!({ "uid": uid, "password": password.expose() })
            }
            Proof::Key(key) => serde_json::json!({ "uid": uid, "token": signed(uid, key)? }),
        };
        Ok(body.to_string())
    }
}

/// Reads a key in PEM, as PKCS#1 or PKCS#8.
fn private_key(pem: &Secret) -> Result<RsaKeyPair, String> {
    let lines = pem.expose().lines().map(str::trim);
    let inside = lines.filter(|line| !line.is_empty() && !line.starts_with("-----"));
    let text: String = inside.collect();
    let der = STANDARD
        .decode(text)
        .map_err(|_| "its private_key is not PEM".to_owned())?;
    RsaKeyPair::from_pkcs8(&der)
        .or_else(|_| RsaKeyPair::from_der(&der))
        .map_err(|error| format!("its private_key is not an RSA key: {error}"))
}

/// A JWT that names the account, signed with RS256.
fn signed(uid: &str, key: &RsaKeyPair) -> Result<String, Failure> {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let head = encode(r#"{"alg":"RS256","typ":"JWT"}"#.to_owned());
    let claims = encode(serde_json::json!({ "uid": uid }).to_string());
    let message = format!("{head}.{claims}");
    let mut signature = vec![0; key.public_modulus_len()];
    let random = SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        message.as_bytes(),
        &mut signature,
    )
    .map_err(|_| Failure::new(Reason::Credentials, "private_key cannot sign"))?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The `Authorization` header in the form of DC/OS.
pub(super) fn token_header(token: &Secret) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("token={}", token.expose()))
        .map_err(|_| "the token holds a control character".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Gets tokens, and caches the last one until it is refused.
pub(super) struct Login {
    principal: Principal,
    exchange: Exchange,
    /// The token and its header. Holding the token keeps it registered as a secret.
    token: Mutex<Option<(Secret, HeaderValue)>>,
}

#[derive(Deserialize)]
struct Given {
    token: String,
}

impl Login {
    pub(super) fn new(principal: Principal, exchange: Exchange) -> Self {
        Self {
            principal,
            exchange,
            token: Mutex::new(None),
        }
    }

    pub(super) async fn header(&self) -> Result<HeaderValue, Failure> {
        let mut token = self.token.lock().await;
        if let Some((_, value)) = &*token {
            return Ok(value.clone());
        }
        let given = self.ask().await?;
        let value = token_header(&given);
        let value = value.map_err(|error| Failure::new(Reason::Credentials, error))?;
        *token = Some((given, value.clone()));
        Ok(value)
    }

    /// Drops a token that was refused, unless another one has replaced it.
    pub(super) async fn refused(&self, shown: &HeaderValue) {
        let mut token = self.token.lock().await;
        if token.as_ref().is_some_and(|(_, value)| value == shown) {
            *token = None;
        }
    }

    async fn ask(&self) -> Result<Secret, Failure> {
        let uri = self.principal.endpoint.uri();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = self.principal.body()?;
        let answered = self
            .exchange
            .send(Method::POST, uri, headers, body, MAX_ANSWER)
            .await?;
        if answered.status != StatusCode::OK {
            let text = format!("{} answered {} to the login", place(uri), answered.status);
            return Err(Failure::new(Reason::Credentials, text));
        }
        // The parser's error would quote the answer.
        let given: Given = serde_json::from_slice(&answered.body).map_err(|_| {
            Failure::new(Reason::Credentials, format!("{} gave no token", place(uri)))
        })?;
        Ok(Secret::new(given.token))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    fn principal(secret: &str) -> Result<Principal, String> {
        Principal::read(Some(&Secret::new(secret)), None, None)
    }

    #[test]
    fn a_token_says_who_asks_and_is_signed_with_the_key() {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let secret = serde_json::json!({
            "scheme": "RS256", "uid": "prom", "login_endpoint": "https://l/auth", "private_key": pem
        });
        let read = principal(&secret.to_string()).unwrap();
        let body: serde_json::Value = serde_json::from_str(&read.body().unwrap()).unwrap();
        assert_eq!(body["uid"], "prom");
        let token = body["token"].as_str().unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        public.verify(message.as_bytes(), &signature).unwrap();
        let (head, claims) = message.split_once('.').unwrap();
        let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(text(head), r#"{"alg":"RS256","typ":"JWT"}"#);
        assert_eq!(text(claims), r#"{"uid":"prom"}"#);
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_without_it() {
        for (secret, says) in [
            ("hidden", "is not the secret"),
            (r#"{"uid":"u","password":"hidden"}"#, "login_endpoint"),
            (r#"{"uid":"u","login_endpoint":"http://a"}"#, "neither"),
            (
                r#"{"uid":"u","login_endpoint":"http://a","private_key":"hidden"}"#,
                "PEM",
            ),
        ] {
            let error = principal(secret).err().unwrap();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
