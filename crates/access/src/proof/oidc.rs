//! Tokens of an OpenID Connect issuer: signed by one of its keys, for our audience, in their time.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use serde_json::Value;
use tokio::time::Instant;

use metrifold_model::Proof;

use super::issuer::{Issuer, Known};
use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::config::OidcConfig;
use crate::digest;
use crate::shown::{Credentials, Shown};

/// The algorithms that tokens may be signed with: none with which the issuer's public key could be
/// taken for a secret, and not `none`.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The longest that a token is known to be good without looking at it again.
const KNOWN: Duration = Duration::from_secs(300);

/// How many are known.
const CACHED: usize = 50_000;

/// Holds tokens against what they must say.
pub(crate) struct Verifier {
    issuer: Arc<Issuer>,
    config: OidcConfig,
    /// Good tokens, with the generation of the keys that they were verified with.
    known: Cache<(u64, Arc<Proven>)>,
}

impl Verifier {
    pub(crate) fn new(issuer: Arc<Issuer>, config: &OidcConfig) -> Self {
        Self {
            issuer,
            config: config.clone(),
            known: Cache::new(CACHED),
        }
    }

    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(crate) async fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let Credentials::Bearer(token) = shown.credentials else {
            return Verdict::Absent;
        };
        let key = digest::plain(token.as_bytes());
        if let Some((generation, proven)) = self.known.get(&key)
            && self.issuer.generation() == Some(generation)
        {
            return Verdict::Proven(proven);
        }
        if issuer_of(token).as_deref() != Some(&*self.config.issuer) {
            // Whoever else it is of may know it.
            return Verdict::wrong("token is of another issuer");
        }
        let Ok(header) = decode_header(token) else {
            return Verdict::wrong(
                "token is malformed, or signed by an algorithm that is not taken",
            );
        };
        if !ALGORITHMS.contains(&header.alg) {
            return Verdict::wrong("token is signed by an algorithm that is not taken");
        }
        let keys = match self.issuer.keys(header.kid.as_deref()).await {
            Ok(keys) => keys,
            Err(reason) => return Verdict::Unknown(reason),
        };
        match self.verify(token, header.kid.as_deref(), header.alg, &keys) {
            Ok((proven, expires)) => {
                let left = expires.saturating_sub(get_current_timestamp());
                let left = Duration::from_secs(left) + self.config.clock_skew.0;
                let until = Instant::now() + left.min(KNOWN);
                let entry = (keys.generation, Arc::clone(&proven));
                self.known.put(key, entry, until);
                Verdict::Proven(proven)
            }
            Err(reason) => Verdict::wrong(reason),
        }
    }

    /// Who a token says its owner is, and when it expires.
    fn verify(
        &self,
        token: &str,
        key: Option<&str>,
        algorithm: Algorithm,
        keys: &Known,
    ) -> Result<(Arc<Proven>, u64), String> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.clock_skew.0.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&[self.config.audience()]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let mut wrong = "token is not signed by a key of its issuer";
        for key in keys.for_token(key, algorithm) {
            match decode::<Value>(token, &key.key, &validation) {
                Ok(token) => return self.read(&token.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    kind => {
                        wrong = reason(kind);
                        break;
                    }
                },
            }
        }
        Err(wrong.to_owned())
    }

    fn read(&self, claims: &Value) -> Result<(Arc<Proven>, u64), String> {
        let claim = |path: &str| match claims.get(path) {
            Some(value) => Some(value),
            // Keycloak has them in tables, such as `realm_access.roles`.
            None => path
                .split('.')
                .try_fold(claims, |claims, key| claims.get(key)),
        };
        let subject = claim(&self.config.username_claim).and_then(Value::as_str);
        let subject = subject
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| format!("token has no claim {:?}", self.config.username_claim))?;
        let groups = match claim(&self.config.groups_claim) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group.as_str()],
            _ => Vec::new(),
        };
        let proven = Proven {
            subject: Some(subject.into()),
            groups: groups.into_iter().map(Arc::from).collect(),
            proof: Proof::Token,
            certificate: None,
        };
        // Fractions of a second are allowed.
        let expires = claims
            .get("exp")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        Ok((Arc::new(proven), expires as u64))
    }
}

/// What is wrong with a token, for its owner.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "token has expired",
        ErrorKind::ImmatureSignature => "token is not valid yet",
        ErrorKind::InvalidAudience => "token is for another audience",
        ErrorKind::InvalidIssuer => "token is of another issuer",
        ErrorKind::MissingRequiredClaim(_) => "token lacks exp, iss or aud",
        _ => "token is malformed",
    }
}

/// The issuer that a token claims to be of, before anything of it is believed.
pub(crate) fn issuer_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    #[derive(serde::Deserialize)]
    struct Claims {
        iss: String,
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.iss)
}
