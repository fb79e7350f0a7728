//! An OpenID Connect issuer: its discovered endpoints and keys, which stay in use while it is down.
//!
//! Source: OpenID Connect Discovery 1.0, RFC 7517.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use metrifold_base::{BuildError, foreign};
use metrifold_http::Client;
use metrifold_model::Retry;

use super::Unknown;
use crate::config::OidcConfig;
use crate::fetch;
use crate::fetch::url;
use crate::trouble::FailingIssuer;

/// Path of the discovery document, below the issuer's URL.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Age at which keys are fetched again in the background.
const FRESH: Duration = Duration::from_secs(300);

/// Minimum time between two attempts. Anyone can send tokens that no known key has signed, and must
/// not cause a fetch by each.
const PAUSE: Duration = Duration::from_secs(5);

/// Timeout for each document.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a caller learns, who may be anybody and is not to learn where the issuer is.
const UNREACHED: &str =
    "the keys of the issuer cannot be fetched at the moment: see the log of the gateway";
const FETCHED: &str =
    "no known key of the issuer has signed the token, and the keys were fetched a moment ago";

/// Maximum number of keys per issuer.
const MAX_KEYS: usize = 100;

/// An issuer of tokens.
pub(crate) struct Issuer {
    url: String,
    allow_http: bool,
    client: Client,
    known: ArcSwapOption<Known>,
    /// The last attempt to fetch the keys.
    attempt: Mutex<Option<Attempt>>,
    /// Why it failed, for operators; none if it did not.
    failure: ArcSwapOption<String>,
    refreshing: AtomicBool,
}

/// Discovered state of an issuer.
#[derive(Debug)]
pub(crate) struct Known {
    keys: Vec<Key>,
    endpoints: Option<Arc<Endpoints>>,
    since: Instant,
    /// Incremented when the keys change, which invalidates verdicts on tokens of other generations.
    pub(crate) generation: u64,
}

/// Discovered endpoints of an issuer.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) authorization: String,
    pub(crate) token: String,
    pub(crate) end_session: Option<String>,
    /// Whether the answers to logins say which issuer they are from (RFC 9207).
    pub(crate) names_issuer: bool,
}

/// A public key that verifies tokens.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// Algorithms that the key may be used with, all asymmetric.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
    /// The key as the issuer wrote it, to detect changes.
    text: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

struct Attempt {
    began: Instant,
    ended: Instant,
    succeeded: bool,
}

impl Issuer {
    pub(crate) fn new(config: &OidcConfig) -> Result<Self, BuildError> {
        Ok(Self {
            url: config.issuer.clone(),
            allow_http: config.allow_http,
            client: fetch::client(&config.tls)?,
            known: ArcSwapOption::empty(),
            attempt: Mutex::default(),
            failure: ArcSwapOption::empty(),
            refreshing: AtomicBool::new(false),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the issuer was ever reached.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load().is_some()
    }

    /// Why the keys could not be fetched at the last attempt, and the age of those in use; none if they could.
    pub(crate) fn trouble(&self) -> Option<FailingIssuer> {
        let failure = self.failure.load_full()?;
        let known = self.known.load();
        Some(FailingIssuer {
            issuer: self.url.clone(),
            keys_age_seconds: known.as_ref().map(|it| it.since.elapsed().as_secs_f64()),
            error: failure.as_ref().clone(),
        })
    }

    /// The keys; none if the issuer was never reached.
    pub(crate) fn known(self: &Arc<Self>) -> Option<Arc<Known>> {
        let known = self.known.load_full()?;
        self.keep_fresh(&known);
        Some(known)
    }

    /// The discovered endpoints.
    ///
    /// # Errors
    ///
    /// Fails with the reason when the issuer was never reached, or offers no login.
    pub(crate) async fn endpoints(self: &Arc<Self>) -> Result<Arc<Endpoints>, Unknown> {
        let known = match self.known() {
            Some(known) => known,
            None => {
                let fetched = self.refresh().await;
                let known = self.known();
                known.ok_or_else(|| match fetched {
                    Err(reason) => reason,
                    Ok(()) => "the issuer could not be reached".into(),
                })?
            }
        };
        let endpoints = known.endpoints.clone();
        endpoints.ok_or_else(|| {
            "the issuer's discovery document has no authorization_endpoint or no token_endpoint"
                .into()
        })
    }

    /// The HTTP client for requests to the issuer.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Parses a URL of the issuer that is safe to use: `https`, or what `allow_http` permits.
    ///
    /// # Errors
    ///
    /// Fails with the reason for any other URL.
    pub(crate) fn place(&self, at: &str) -> Result<Uri, String> {
        url(at, self.allow_http).map_err(|reason| format!("{:?} {reason}", foreign(at, 200)))
    }

    /// Generation of the current keys; none if the issuer was never reached.
    pub(crate) fn generation(self: &Arc<Self>) -> Option<u64> {
        let known = self.known.load();
        let known = known.as_ref()?;
        self.keep_fresh(known);
        Some(known.generation)
    }

    /// Fetches the keys in the background if they are old.
    fn keep_fresh(self: &Arc<Self>, known: &Known) {
        if known.since.elapsed() >= FRESH && !self.refreshing.swap(true, Ordering::Relaxed) {
            let issuer = Arc::clone(self);
            tokio::spawn(async move {
                // A failure is logged there, and the known keys stay in use.
                let _ = issuer.refresh().await;
                issuer.refreshing.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Fetches discovery document and keys, unless the last attempt ended less than [`PAUSE`] ago.
    /// Concurrent callers wait for one attempt.
    ///
    /// # Errors
    ///
    /// Fails unless an attempt that began after this call has succeeded: otherwise, the issuer may have
    /// new keys.
    pub(crate) async fn refresh(&self) -> Result<(), Unknown> {
        let asked = Instant::now();
        let mut attempt = self.attempt.lock().await;
        if let Some(last) = &*attempt {
            let pause = PAUSE.saturating_sub(last.ended.elapsed());
            if last.succeeded && last.began >= asked {
                return Ok(());
            }
            if !pause.is_zero() {
                let reason = if last.succeeded { FETCHED } else { UNREACHED };
                return Err(Unknown {
                    reason: reason.into(),
                    retry: Retry::After(pause),
                });
            }
        }
        let began = Instant::now();
        let fetched = self.fetch().await;
        let fetched = fetched.map(|(keys, endpoints)| self.take(keys, endpoints));
        *attempt = Some(Attempt {
            began,
            ended: Instant::now(),
            succeeded: fetched.is_ok(),
        });
        let failure = fetched.err().map(|reason| {
            let kept = self.is_known();
            warn!(issuer = %self.url, kept, error = %reason, "cannot fetch the keys of an issuer");
            Arc::new(format!(
                "cannot fetch the keys of issuer {}: {reason}",
                self.url
            ))
        });
        let unreached = failure.is_some();
        self.failure.store(failure);
        match unreached {
            false => Ok(()),
            true => Err(Unknown {
                reason: UNREACHED.into(),
                retry: Retry::After(PAUSE),
            }),
        }
    }

    fn take(&self, keys: Vec<Key>, endpoints: Option<Endpoints>) {
        let before = self.known.load_full();
        let same = before.as_ref().is_some_and(|known| {
            let (was, is) = (known.keys.iter(), keys.iter());
            was.map(|key| &key.text).eq(is.map(|key| &key.text))
        });
        let generation = before.map_or(0, |known| known.generation + u64::from(!same));
        debug!(issuer = %self.url, keys = keys.len(), generation, "fetched the keys of an issuer");
        self.known.store(Some(Arc::new(Known {
            keys,
            endpoints: endpoints.map(Arc::new),
            since: Instant::now(),
            generation,
        })));
    }

    async fn fetch(&self) -> Result<(Vec<Key>, Option<Endpoints>), String> {
        let at = format!("{}{DISCOVERY}", self.url.trim_end_matches('/'));
        let found = self.get(&at).await?;
        let text = |key: &str| found.get(key).and_then(Value::as_str);
        let says = text("issuer").unwrap_or_default();
        if says != self.url {
            return Err(format!(
                "its discovery document is of the issuer {:?}",
                foreign(says, 200)
            ));
        }
        let own = |key: &str| text(key).map(str::to_owned);
        let endpoints = own("authorization_endpoint").zip(own("token_endpoint"));
        let endpoints = endpoints.map(|(authorization, token)| Endpoints {
            authorization,
            token,
            end_session: own("end_session_endpoint"),
            names_issuer: found.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        });
        let keys = text("jwks_uri").ok_or("its discovery document has no jwks_uri")?;
        let found = self.get(keys).await?;
        let keys = keys_of(&found)?;
        match keys.is_empty() {
            true => Err("its key set has no usable key for signatures".to_owned()),
            false => Ok((keys, endpoints)),
        }
    }

    async fn get(&self, at: &str) -> Result<Value, String> {
        let uri = self.place(at)?;
        let headers = HeaderMap::new();
        fetch::json(
            &self.client,
            Method::GET,
            &uri,
            headers,
            Bytes::new(),
            TIMEOUT,
        )
        .await
    }
}

impl Known {
    /// The keys that may have signed a token with this header: those with its key id, or all if it has
    /// none.
    pub(crate) fn for_token<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        let keys = self.keys.iter();
        keys.filter(move |key| id.is_none_or(|id| key.id.as_deref() == Some(id)))
            .filter(move |key| key.algorithms.contains(&algorithm))
    }
}

/// The usable signing keys of a set (JWKS). Keys of unsupported types are skipped, and so are symmetric
/// ones: a key that verifies must not be able to sign.
fn keys_of(set: &Value) -> Result<Vec<Key>, String> {
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or("its jwks_uri does not have a key set")?;
    let keys = keys.iter().take(MAX_KEYS).filter_map(|key| {
        let text = key.to_string();
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        if matches!(&jwk.common.public_key_use, Some(used) if *used != PublicKeyUse::Signature) {
            return None;
        }
        let of_kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
            _ => return None,
        };
        let algorithms = match jwk.common.key_algorithm {
            None => of_kind.to_vec(),
            Some(own) => {
                let own: Algorithm = own.to_string().parse().ok()?;
                of_kind.iter().copied().filter(|it| *it == own).collect()
            }
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Key {
            id: jwk.common.key_id,
            algorithms,
            key,
            text,
        })
    });
    Ok(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symmetric_keys_and_those_for_encryption_are_passed_over() {
        let set = serde_json::json!({ "keys": [
            { "kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256" },
            { "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "b", "use": "enc" },
            { "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "c", "use": "sig", "alg": "RS256" },
            { "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "d" },
            { "kty": "xyz" }, 7,
        ]});
        let keys = keys_of(&set).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["c", "d"]);
        assert_eq!(keys[0].algorithms, [Algorithm::RS256]);
        assert_eq!(keys[1].algorithms.len(), 6);
        assert!(keys_of(&serde_json::json!({})).is_err());
    }
}
