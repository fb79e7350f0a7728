//! Client certificates signed by a tenant's authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::time::Instant;

use metrifold_base::BuildError;
use metrifold_http::tls;
use metrifold_model::{AlternativeName, ClientCertificate, Proof};

use super::{Proven, Verdict};
use crate::cache::Cache;
use crate::config::{MtlsConfig, SubjectOf};
use crate::digest;
use crate::shown::Shown;

/// Time for which a verdict is cached. A sender has few connections, and every request on them
/// has the same certificate.
const KNOWN: Duration = Duration::from_secs(60);

/// Maximum number of cached verdicts per generation of the cache.
const CACHED: usize = 10_000;

/// Verifies the client certificates of a tenant.
pub(crate) struct Certificates {
    verifier: Arc<dyn ClientCertVerifier>,
    subject: SubjectOf,
    known: Cache<Verdict>,
}

impl Certificates {
    /// Reads the authorities and revocation lists.
    pub(crate) fn read(config: &MtlsConfig) -> Result<Self, BuildError> {
        let verifier = tls::client_verifier(&config.ca_file, config.crl_file.as_deref());
        Ok(Self {
            verifier: verifier.map_err(|error| BuildError::new("mtls", error))?,
            subject: config.subject,
            known: Cache::new(CACHED),
        })
    }

    /// Names of the authorities, in DER.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.verifier.root_hint_subjects().iter().map(AsRef::as_ref)
    }

    pub(crate) fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let chain = shown.head.presented;
        if chain.is_empty() {
            return Verdict::Absent;
        }
        let key = digest::of(chain.iter().map(|certificate| &**certificate));
        if let Some(verdict) = self.known.get(&key) {
            return verdict;
        }
        let (verdict, known) = self.verify(chain);
        self.known.put(key, verdict.clone(), Instant::now() + known);
        verdict
    }

    /// Verifies a chain. Returns the verdict and the time for which it may be cached.
    fn verify(&self, chain: &[CertificateDer<'static>]) -> (Verdict, Duration) {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return (Verdict::Absent, KNOWN);
        };
        let now = UnixTime::now();
        if let Err(error) = self.verifier.verify_client_cert(leaf, intermediates, now) {
            return (Verdict::wrong(reason(&error)), KNOWN);
        }
        let Some(certificate) = tls::client_certificate(leaf) else {
            return (Verdict::wrong("certificate is malformed"), KNOWN);
        };
        let left = certificate.not_after.map(|end| {
            let left = end.duration_since(SystemTime::now());
            left.unwrap_or_default()
        });
        let Some(subject) = self.named(&certificate) else {
            return (Verdict::wrong(self.nameless()), KNOWN);
        };
        let groups = certificate.organizational_units.iter();
        let proven = Proven {
            subject: Some(subject.into()),
            groups: groups.map(|unit| Arc::from(unit.as_str())).collect(),
            proof: Proof::Certificate,
            certificate: Some(Arc::new(certificate)),
        };
        let known = left.map_or(KNOWN, |left| left.min(KNOWN));
        (Verdict::Proven(Arc::new(proven)), known)
    }

    /// Name of the certificate's owner, from the configured field; none if the field is absent.
    fn named(&self, certificate: &ClientCertificate) -> Option<String> {
        let names = &certificate.alternative_names;
        let first = |kind: SubjectOf| {
            names.iter().find_map(|name| match (kind, name) {
                (SubjectOf::Email, AlternativeName::Email(name))
                | (SubjectOf::Uri, AlternativeName::Uri(name))
                | (SubjectOf::Dns, AlternativeName::Dns(name)) => Some(name.clone()),
                (SubjectOf::Ip, AlternativeName::Ip(address)) => Some(address.to_string()),
                _ => None,
            })
        };
        let named = match self.subject {
            SubjectOf::CommonName => certificate.common_name.clone(),
            SubjectOf::Any => {
                let kinds = [
                    SubjectOf::Email,
                    SubjectOf::Uri,
                    SubjectOf::Dns,
                    SubjectOf::Ip,
                ];
                kinds.into_iter().find_map(first)
            }
            kind => first(kind),
        };
        named.filter(|name| !name.is_empty())
    }

    fn nameless(&self) -> &'static str {
        match self.subject {
            SubjectOf::Any => "certificate has no alternative name",
            SubjectOf::Email => "certificate has no e-mail address among its alternative names",
            SubjectOf::Uri => "certificate has no URI among its alternative names",
            SubjectOf::Dns => "certificate has no DNS name among its alternative names",
            SubjectOf::Ip => "certificate has no IP address among its alternative names",
            SubjectOf::CommonName => "certificate has no common name",
        }
    }
}

/// Reason for a rejected certificate, as its owner sees it.
fn reason(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => "certificate has expired",
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "certificate is not valid yet",
            Wrong::Revoked => "certificate is revoked",
            Wrong::UnknownRevocationStatus
            | Wrong::ExpiredRevocationList
            | Wrong::ExpiredRevocationListContext { .. } => {
                "certificate may be revoked: its authority has no revocation list, or an expired one"
            }
            _ => "certificate is not trusted",
        },
        _ => "certificate is not trusted",
    }
}

#[cfg(test)]
mod tests;
