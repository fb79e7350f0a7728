//! An OpenID Connect issuer: where it is found to be, and its keys, kept while it is down.
//!
//! Source: OpenID Connect Discovery 1.0, RFC 7517.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use metrifold_base::{BuildError, foreign};
use metrifold_http::Client;

use crate::config::OidcConfig;
use crate::fetch;
use crate::fetch::url;

/// Where an issuer says what else it has.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// How old keys become before they are asked for again, without anybody waiting for it.
const FRESH: Duration = Duration::from_secs(300);

/// How long after an attempt the next is made, at least: a token with a key that nobody knows may be
/// anybody's.
const PAUSE: Duration = Duration::from_secs(5);

/// The longest time for each document.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most keys that are taken of an issuer.
const MAX_KEYS: usize = 100;

/// Who issues tokens.
pub(crate) struct Issuer {
    url: String,
    allow_http: bool,
    client: Client,
    known: ArcSwapOption<Known>,
    attempt: Mutex<Attempt>,
    refreshing: AtomicBool,
}

/// What is known of an issuer.
#[derive(Debug)]
pub(crate) struct Known {
    keys: Vec<Key>,
    since: Instant,
    /// Counts how often the keys have changed: what was found out with others is forgotten.
    pub(crate) generation: u64,
}

/// A key that signs tokens.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// The algorithms that it may be used with; none of them is symmetric.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
    /// As the issuer wrote it.
    text: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

#[derive(Default)]
struct Attempt {
    last: Option<(Instant, Result<(), Arc<str>>)>,
}

impl Issuer {
    pub(crate) fn new(config: &OidcConfig) -> Result<Self, BuildError> {
        Ok(Self {
            url: config.issuer.clone(),
            allow_http: config.allow_http,
            client: fetch::client(&config.tls)?,
            known: ArcSwapOption::empty(),
            attempt: Mutex::default(),
            refreshing: AtomicBool::new(false),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it was ever reached.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load().is_some()
    }

    /// The keys, among them that with this id if the issuer has it.
    ///
    /// # Errors
    ///
    /// Fails with the reason when nobody can tell which keys it has.
    pub(crate) async fn keys(self: &Arc<Self>, id: Option<&str>) -> Result<Arc<Known>, Arc<str>> {
        if let Some(known) = self.known.load_full()
            && known.has(id)
        {
            self.keep_fresh(&known);
            return Ok(known);
        }
        // A key that was not there before: the issuer may have changed its keys.
        self.refresh().await?;
        self.known
            .load_full()
            .ok_or_else(|| "the issuer was not reached".into())
    }

    /// Which keys are the issuer's, told apart from those before and after them.
    pub(crate) fn generation(self: &Arc<Self>) -> Option<u64> {
        let known = self.known.load();
        let known = known.as_ref()?;
        self.keep_fresh(known);
        Some(known.generation)
    }

    /// Asks for the keys again if they are old, without anybody waiting for it.
    fn keep_fresh(self: &Arc<Self>, known: &Known) {
        if known.since.elapsed() >= FRESH && !self.refreshing.swap(true, Ordering::Relaxed) {
            let issuer = Arc::clone(self);
            tokio::spawn(async move {
                // The reason is logged there; the keys that are known stay.
                let _ = issuer.refresh().await;
                issuer.refreshing.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Asks the issuer, unless that was done a moment ago. Whoever comes meanwhile waits for the same
    /// answer.
    pub(crate) async fn refresh(&self) -> Result<(), Arc<str>> {
        let mut attempt = self.attempt.lock().await;
        if let Some((when, result)) = &attempt.last
            && when.elapsed() < PAUSE
        {
            return result.clone();
        }
        let result = self.fetch().await;
        let result = match result {
            Ok(keys) => {
                self.take(keys);
                Ok(())
            }
            Err(reason) => {
                let kept = self.is_known();
                warn!(issuer = %self.url, kept, error = %reason, "keys of an issuer were not got");
                Err(format!("issuer {} cannot be asked for its keys: {reason}", self.url).into())
            }
        };
        attempt.last = Some((Instant::now(), result.clone()));
        result
    }

    fn take(&self, keys: Vec<Key>) {
        let before = self.known.load_full();
        let same = before.as_ref().is_some_and(|known| {
            let (was, is) = (known.keys.iter(), keys.iter());
            was.map(|key| &key.text).eq(is.map(|key| &key.text))
        });
        let generation = before.map_or(0, |known| known.generation + u64::from(!same));
        debug!(issuer = %self.url, keys = keys.len(), generation, "keys of an issuer were got");
        self.known.store(Some(Arc::new(Known {
            keys,
            since: Instant::now(),
            generation,
        })));
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let at = format!("{}{DISCOVERY}", self.url.trim_end_matches('/'));
        let found = self.get(&at).await?;
        let text = |key: &str| found.get(key).and_then(Value::as_str);
        let says = text("issuer").unwrap_or_default();
        if says != self.url {
            return Err(format!("it says that it is {:?}", foreign(says, 200)));
        }
        let keys = text("jwks_uri").ok_or("it says nothing of its keys (jwks_uri)")?;
        let found = self.get(keys).await?;
        let keys = keys_of(&found)?;
        match keys.is_empty() {
            true => Err("it has no key that tokens may be signed with".to_owned()),
            false => Ok(keys),
        }
    }

    async fn get(&self, at: &str) -> Result<Value, String> {
        let uri = url(at, self.allow_http)
            .map_err(|reason| format!("{:?} {reason}", foreign(at, 200)))?;
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
    fn has(&self, id: Option<&str>) -> bool {
        id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)))
    }

    /// The keys that may have signed a token with this header: those with its key's id, or all if it
    /// names none.
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

/// The keys of a set that tokens may be signed with. Those of kinds that nobody here can use are passed
/// over, symmetric ones above all: what verifies a token could make one.
fn keys_of(set: &Value) -> Result<Vec<Key>, String> {
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or("its keys are no set of keys")?;
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
