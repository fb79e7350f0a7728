//! Tokens of an OpenID Connect issuer: checks signature, issuer, audience and expiry.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, get_current_timestamp};
use serde_json::Value;
use tokio::time::Instant;

use metrifold_base::BuildError;
use metrifold_model::Proof;

use super::issuer::{Issuer, Known};
use super::session::Login;
use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::config::OidcConfig;
use crate::digest;
use crate::shown::{Credentials, Shown};

/// Accepted signature algorithms. Neither `none` nor symmetric ones, for which an attacker could use
/// the issuer's public key as the secret.
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

/// Maximum time for which a valid token is cached.
const KNOWN: Duration = Duration::from_secs(300);

/// Maximum number of cached tokens per generation of the cache.
const CACHED: usize = 50_000;

/// Verifies tokens, and caches the valid ones.
pub(crate) struct Verifier {
    issuer: Arc<Issuer>,
    config: OidcConfig,
    /// Login with a browser; none if it is not configured.
    login: Option<Login>,
    /// Valid tokens, with the generation of the keys that verified them.
    known: Cache<(u64, Arc<Proven>)>,
}

impl Verifier {
    /// Creates a verifier. Reads the client's secret if login is configured.
    pub(crate) fn new(issuer: Arc<Issuer>, config: &OidcConfig) -> Result<Self, BuildError> {
        let login = config.login.as_ref();
        let login = login.map(|login| Login::new(config, login));
        Ok(Self {
            issuer,
            config: config.clone(),
            login: login.transpose()?,
            known: Cache::new(CACHED),
        })
    }

    /// Login with a browser; none if it is not configured.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(crate) async fn prove(self: &Arc<Self>, shown: &Shown<'_>) -> Verdict {
        let token = match (&shown.credentials, &self.login) {
            (Credentials::Bearer(token), _) => *token,
            (Credentials::None, Some(login)) => {
                return login.prove(shown.head.headers, self).await;
            }
            _ => return Verdict::Absent,
        };
        let key = digest::plain(token.as_bytes());
        if let Some((generation, proven)) = self.known.get(&key)
            && self.issuer.generation() == Some(generation)
        {
            return Verdict::Proven(proven);
        }
        if issuer_of(token).as_deref() != Some(&*self.config.issuer) {
            // Another method of the tenant may accept the token.
            return Verdict::wrong("token is from another issuer");
        }
        let header = match header_of(token) {
            Ok(header) => header,
            Err(reason) => return Verdict::wrong(reason),
        };
        let claims = self.claims(token, &header, self.config.audience()).await;
        let (claims, generation) = match claims {
            Ok(claims) => claims,
            Err(verdict) => return verdict,
        };
        match self.read(&claims) {
            Ok((proven, expires)) => {
                let left = expires.saturating_sub(get_current_timestamp());
                let left = Duration::from_secs(left) + self.config.clock_skew.0;
                let until = Instant::now() + left.min(KNOWN);
                let entry = (generation, Arc::clone(&proven));
                self.known.put(key, entry, until);
                Verdict::Proven(proven)
            }
            Err(reason) => Verdict::wrong(reason),
        }
    }

    /// Verifies an ID token that was issued to this client, with this nonce if one is given. Returns its
    /// owner and its expiry.
    pub(crate) async fn read_id(
        &self,
        token: &str,
        nonce: Option<&str>,
    ) -> Result<(Arc<Proven>, u64), Verdict> {
        let header = header_of(token);
        let header =
            header.map_err(|reason| Verdict::wrong(format!("the issuer's ID {reason}")))?;
        let client = self.config.client_id.as_deref().unwrap_or_default();
        let (claims, _) = self.claims(token, &header, client).await?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("azp").is_some_and(|party| party != client) {
            return Err(Verdict::wrong(
                "the issuer's ID token is for another client",
            ));
        }
        if nonce.is_some() && text("nonce") != nonce {
            return Err(Verdict::wrong(
                "the issuer's ID token has the nonce of another login",
            ));
        }
        self.read(&claims).map_err(Verdict::wrong)
    }

    /// Verifies a token. Returns its claims and the generation of the keys that verified it. If no known
    /// key has signed it, the issuer may have a new key, under a new id, under the previous one or
    /// without any: the keys are fetched again, at most once per pause for all tokens.
    async fn claims(
        &self,
        token: &str,
        header: &Header,
        audience: &str,
    ) -> Result<(Value, u64), Verdict> {
        let mut tried = None;
        let mut refreshed = None;
        loop {
            if let Some(keys) = self.issuer.known()
                && tried.replace(keys.generation) != Some(keys.generation)
            {
                match self.verify(token, header, &keys, audience) {
                    Ok(claims) => return Ok((claims, keys.generation)),
                    Err(ErrorKind::InvalidSignature) => {}
                    Err(kind) => return Err(Verdict::wrong(reason(&kind))),
                }
            }
            match refreshed {
                None => refreshed = Some(self.issuer.refresh().await),
                Some(Ok(())) => {
                    return Err(Verdict::wrong("token is not signed by a key of its issuer"));
                }
                Some(Err(reason)) => return Err(Verdict::Unknown(reason)),
            }
        }
    }

    /// Verifies a token by these keys and returns its claims.
    fn verify(
        &self,
        token: &str,
        header: &Header,
        keys: &Known,
        audience: &str,
    ) -> Result<Value, ErrorKind> {
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.config.clock_skew.0.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        for key in keys.for_token(header.kid.as_deref(), header.alg) {
            match decode::<Value>(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => match error.into_kind() {
                    ErrorKind::InvalidSignature => {}
                    kind => return Err(kind),
                },
            }
        }
        Err(ErrorKind::InvalidSignature)
    }

    fn read(&self, claims: &Value) -> Result<(Arc<Proven>, u64), String> {
        let claim = |path: &str| match claims.get(path) {
            Some(value) => Some(value),
            // Keycloak nests claims in objects, such as `realm_access.roles`.
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
        // `exp` may have a fraction (RFC 7519, NumericDate).
        let expires = claims
            .get("exp")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        Ok((Arc::new(proven), expires as u64))
    }
}

/// The header of a token, if it is of a kind that is accepted.
fn header_of(token: &str) -> Result<Header, &'static str> {
    let header = decode_header(token);
    let header =
        header.map_err(|_| "token is malformed, or has an unsupported signature algorithm")?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err("token has an unsupported signature algorithm");
    }
    // RFC 7515, section 4.1.11: none of these extensions is supported.
    if header.crit.is_some() {
        return Err("token has critical header parameters, which are not supported");
    }
    Ok(header)
}

/// Reason for a rejected token, as its owner sees it.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "token has expired",
        ErrorKind::ImmatureSignature => "token is not valid yet",
        ErrorKind::InvalidAudience => "token is for another audience",
        ErrorKind::InvalidIssuer => "token is from another issuer",
        ErrorKind::MissingRequiredClaim(_) => "token lacks exp, iss or aud",
        _ => "token is malformed",
    }
}

/// The `iss` claim of a token that is not verified yet, to find its verifier.
pub(crate) fn issuer_of(token: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        iss: String,
    }
    unverified(token).map(|claims: Claims| claims.iss)
}

/// The time of the `exp` claim of a token, which must be verified otherwise; none if it has no claims.
pub(crate) fn expiry_of(token: &str) -> Option<SystemTime> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims: Claims = unverified(token)?;
    let since = Duration::try_from_secs_f64(claims.exp).ok()?;
    UNIX_EPOCH.checked_add(since)
}

/// Claims of a token that is not verified here.
fn unverified<T: serde::de::DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_token_with_critical_extensions_is_refused_before_anybody_is_asked() {
        let config = "issuer = \"http://127.0.0.1:1\"\nclient_id = \"c\"";
        let config: OidcConfig = toml::from_str(config).unwrap();
        let issuer = Arc::new(Issuer::new(&config).unwrap());
        let verifier = Verifier::new(issuer, &config).unwrap();
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!(
            "{}.{}.AAAA",
            part(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#),
            part(r#"{"iss":"http://127.0.0.1:1"}"#)
        );
        match verifier.read_id(&token, None).await {
            Err(Verdict::Wrong(reason)) => assert!(reason.contains("critical"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
