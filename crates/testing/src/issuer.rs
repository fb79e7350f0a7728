//! A fake OpenID Connect issuer for logins: discovery, keys, the authorization code flow with PKCE and
//! single-use refresh tokens, by RFC 6749, RFC 7636 and OpenID Connect Core.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use rustls::crypto::hash::Hash;
use serde_json::{Value, json};

use crate::endpoint::{Endpoint, Reply, Seen};

/// Id and secret of the only client that the issuer knows.
pub const CLIENT: &str = "gateway";
pub const SECRET: &str = "client s3cret";

/// A fake issuer.
pub struct OpenIdIssuer {
    endpoint: Endpoint,
    state: Arc<Mutex<State>>,
}

struct State {
    key: KeyPair,
    /// Subject of the next login.
    subject: String,
    groups: Vec<String>,
    /// Lifetime of tokens, in seconds.
    seconds: u64,
    /// Wrong nonce for ID tokens; none for the right one.
    nonce: Option<String>,
    down: bool,
    counter: u64,
    codes: HashMap<String, Attempt>,
    refresh: HashMap<String, String>,
    refreshed: usize,
    /// Number of requests for tokens that were refused with an echo; none if requests are answered.
    echoes: Option<usize>,
}

/// Parameters of an authorization request, kept with the code.
struct Attempt {
    redirect: String,
    challenge: String,
    nonce: String,
}

impl OpenIdIssuer {
    /// Starts an issuer at which `subject` logs in. Its tokens are valid for `seconds`.
    pub fn start(subject: &str, seconds: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            key: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            subject: subject.into(),
            groups: vec!["people".into()],
            seconds,
            nonce: None,
            down: false,
            counter: 0,
            codes: HashMap::new(),
            refresh: HashMap::new(),
            refreshed: 0,
            echoes: None,
        }));
        let shared = state.clone();
        let endpoint = Endpoint::new(move |seen| {
            let host = seen.header("host").unwrap_or_default().to_owned();
            shared
                .lock()
                .unwrap()
                .answer(&format!("http://{host}"), seen)
        });
        Self { endpoint, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.endpoint.address())
    }

    /// A token of the subject.
    pub fn token(&self) -> String {
        self.state.lock().unwrap().id_token(&self.url(), None)
    }

    /// Sets whether the issuer answers every request with 503.
    pub fn is_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    /// Issues ID tokens with a wrong nonce from now on.
    pub fn confuses_nonces(&self) {
        self.state.lock().unwrap().nonce = Some("another".into());
    }

    /// Sets the subject of future logins.
    pub fn logs_in(&self, subject: &str) {
        self.state.lock().unwrap().subject = subject.into();
    }

    /// Revokes all refresh tokens.
    pub fn withdraws(&self) {
        self.state.lock().unwrap().refresh.clear();
    }

    /// Refuses all requests for tokens from now on, and repeats a part of them in the error: in turn, the
    /// credentials, the same decoded, the body, and the body from its end.
    pub fn echoes(&self) {
        self.state.lock().unwrap().echoes = Some(0);
    }

    /// Number of codes and refresh tokens that were issued.
    pub fn issued(&self) -> u64 {
        self.state.lock().unwrap().counter
    }

    /// Number of refresh tokens that were exchanged for new tokens.
    pub fn refreshed(&self) -> usize {
        self.state.lock().unwrap().refreshed
    }
}

impl State {
    fn answer(&mut self, own: &str, seen: &Seen) -> Reply {
        if self.down {
            return Reply::new(503);
        }
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        match path {
            "/.well-known/openid-configuration" => reply(&json!({
                "issuer": own,
                "jwks_uri": format!("{own}/keys"),
                "authorization_endpoint": format!("{own}/authorize"),
                "token_endpoint": format!("{own}/token"),
                "end_session_endpoint": format!("{own}/logout"),
                "authorization_response_iss_parameter_supported": true,
            })),
            "/keys" => reply(&json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "one",
                "x": URL_SAFE_NO_PAD.encode(self.key.der_bytes()),
            }]})),
            "/authorize" => self.authorize(own, &form(query)),
            "/token" => self.token(own, seen),
            _ => Reply::new(404),
        }
    }

    /// Logs the subject in without asking for credentials.
    fn authorize(&mut self, own: &str, asked: &HashMap<String, String>) -> Reply {
        let is = |name: &str, value: &str| asked.get(name).is_some_and(|it| it == value);
        let scopes = asked.get("scope").map_or("", String::as_str);
        let good = is("response_type", "code")
            && is("client_id", CLIENT)
            && is("code_challenge_method", "S256")
            && scopes.split(' ').any(|scope| scope == "openid");
        if !good {
            return Reply::new(400);
        }
        let code = self.fresh("code");
        let redirect = asked["redirect_uri"].clone();
        let back = format!("{redirect}?code={code}&state={}&iss={own}", asked["state"]);
        let attempt = Attempt {
            redirect,
            challenge: asked["code_challenge"].clone(),
            nonce: asked["nonce"].clone(),
        };
        self.codes.insert(code, attempt);
        Reply::new(302).header("Location", back)
    }

    fn token(&mut self, own: &str, seen: &Seen) -> Reply {
        let basic = seen.header("authorization").unwrap_or_default();
        let pair = STANDARD.decode(basic.trim_start_matches("Basic ")).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let pair = pair
            .split_once(':')
            .map(|(client, secret)| (decode(client), decode(secret)));
        if pair != Some((CLIENT.into(), SECRET.into())) {
            return error(401, "invalid_client");
        }
        let body = std::str::from_utf8(&seen.body).unwrap();
        if let Some(echoes) = &mut self.echoes {
            *echoes += 1;
            let mut pairs: Vec<&str> = body.split('&').collect();
            pairs.reverse();
            let decoded = STANDARD.decode(basic.trim_start_matches("Basic ")).unwrap();
            let echo = match *echoes % 4 {
                1 => basic.to_owned(),
                2 => String::from_utf8(decoded).unwrap(),
                3 => body.to_owned(),
                _ => pairs.join("&"),
            };
            return error(400, &echo);
        }
        let asked = form(body);
        let nonce = match asked.get("grant_type").map(String::as_str) {
            Some("authorization_code") => {
                // A code is valid once.
                let Some(attempt) = self.codes.remove(&asked["code"]) else {
                    return error(400, "invalid_grant");
                };
                let digest = sha256(asked["code_verifier"].as_bytes());
                let proven = URL_SAFE_NO_PAD.encode(digest) == attempt.challenge;
                if !proven || asked["redirect_uri"] != attempt.redirect {
                    return error(400, "invalid_grant");
                }
                Some(self.nonce.clone().unwrap_or(attempt.nonce))
            }
            Some("refresh_token") => {
                let Some(subject) = self.refresh.remove(&asked["refresh_token"]) else {
                    return error(400, "invalid_grant");
                };
                self.subject = subject;
                self.refreshed += 1;
                None
            }
            _ => return error(400, "unsupported_grant_type"),
        };
        let refresh = self.fresh("refresh");
        self.refresh.insert(refresh.clone(), self.subject.clone());
        reply(&json!({
            "access_token": "opaque", "token_type": "Bearer", "expires_in": self.seconds,
            "refresh_token": refresh, "id_token": self.id_token(own, nonce),
        }))
    }

    fn id_token(&self, own: &str, nonce: Option<String>) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": own, "aud": CLIENT, "sub": self.subject, "groups": self.groups,
            "iat": now, "exp": now + self.seconds,
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": "one" }));
        let signed = format!("{head}.{}", encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}-{}x", self.counter)
    }
}

fn reply(value: &Value) -> Reply {
    let reply = Reply::new(200).header("Content-Type", "application/json");
    reply.body(value.to_string())
}

fn error(status: u16, error: &str) -> Reply {
    Reply {
        status,
        ..reply(&json!({ "error": error }))
    }
}

/// Parses the parameters of a form or a query.
fn form(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (bytes.next().unwrap() as char).to_digit(16).unwrap() as u8;
                digit() << 4 | digit()
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).unwrap()
}

/// Forges a token with these claims. `HS256` signs it with `secret`; any other algorithm has `secret`
/// in place of its signature.
pub fn forged(claims: &Value, algorithm: &str, secret: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({ "alg": algorithm, "typ": "JWT" }));
    let signed = format!("{head}.{}", encode(claims));
    let signature = match algorithm {
        "HS256" => hmac(secret, signed.as_bytes()),
        _ => secret.to_vec(),
    };
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Decodes the claims of a token, without verifying it.
pub fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut key = match secret.len() {
        0..=64 => secret.to_vec(),
        _ => sha256(secret),
    };
    key.resize(64, 0);
    let pad = |with: u8| key.iter().map(|byte| byte ^ with).collect::<Vec<_>>();
    let inner = sha256(&[&*pad(0x36), text].concat());
    sha256(&[pad(0x5c), inner].concat())
}

fn sha256(text: &[u8]) -> Vec<u8> {
    let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let hashes = suites.map(|suite| suite.tls13().map(|it| it.common.hash_provider));
    let hash: &dyn Hash = hashes
        .flatten()
        .find(|hash| hash.output_len() == 32)
        .unwrap();
    hash.hash(text).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_is_signed_as_rfc_4231_has_it() {
        let hex =
            |bytes: Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let signed = hmac(b"Jefe", b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(signed), expected);
    }
}
