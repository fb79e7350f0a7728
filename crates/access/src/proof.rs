//! Authentication methods.

pub(crate) mod basic;
pub(crate) mod bearer;
pub(crate) mod issuer;
pub(crate) mod kubernetes;
pub(crate) mod mtls;
pub(crate) mod oidc;
pub(crate) mod session;
pub(crate) mod trusted_header;

use std::sync::Arc;

use metrifold_model::{ClientCertificate, Proof, Rejection, RejectionKind, Retry};

use crate::shown::Shown;

/// An authentication method, shared by all tenants that configure it alike. Small, as there may be
/// one for each of very many tenants.
pub(crate) enum Method {
    Bearer(bearer::Tokens),
    Basic(Box<basic::Users>),
    Mtls(Box<mtls::Certificates>),
    Oidc(Arc<oidc::Verifier>),
    Kubernetes(Box<kubernetes::Reviews>),
    TrustedHeader(Box<trusted_header::Proxy>),
}

/// Identity of an authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) groups: Arc<[Arc<str>]>,
    pub(crate) proof: Proof,
    /// The client certificate that authenticated the caller, if one did.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// Outcome of checking the credentials of a request by one method.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The credentials are valid for the tenant.
    Proven(Arc<Proven>),
    /// The request has no credentials of this method.
    Absent,
    /// The credentials are not valid, for this reason.
    Wrong(Arc<str>),
    /// The credentials cannot be checked at the moment, for this reason.
    Unknown(Unknown),
}

/// Why credentials cannot be checked at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Unknown {
    pub(crate) reason: Arc<str>,
    pub(crate) retry: Retry,
}

impl Proven {
    /// The caller, for messages.
    pub(crate) fn who(&self) -> &str {
        self.subject
            .as_deref()
            .unwrap_or("the caller, whose credentials have no name,")
    }
}

impl Method {
    /// Checks the credentials of a request.
    pub(crate) async fn prove(&self, shown: &Shown<'_>) -> Verdict {
        match self {
            Self::Bearer(tokens) => tokens.prove(shown),
            Self::Basic(users) => users.prove(shown).await,
            Self::Mtls(certificates) => certificates.prove(shown),
            Self::Oidc(verifier) => verifier.prove(shown).await,
            Self::Kubernetes(reviews) => reviews.prove(shown).await,
            Self::TrustedHeader(proxy) => proxy.prove(shown),
        }
    }

    /// Whether credentials are checked by this method only if the request names its tenant, or none: a
    /// token review shows the credentials to a server of the tenant, and a password check costs much.
    pub(crate) fn is_for_named_only(&self) -> bool {
        matches!(self, Self::Basic(_) | Self::Kubernetes(_))
    }

    /// Challenge for `WWW-Authenticate`; none for methods without an HTTP authentication scheme.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Bearer(_) | Self::Oidc(_) | Self::Kubernetes(_) => {
                Some("Bearer realm=\"metrifold\"")
            }
            Self::Basic(_) => Some("Basic realm=\"metrifold\", charset=\"UTF-8\""),
            Self::Mtls(_) | Self::TrustedHeader(_) => None,
        }
    }
}

impl From<Arc<str>> for Unknown {
    fn from(reason: Arc<str>) -> Self {
        let retry = Retry::Backoff;
        Self { reason, retry }
    }
}

impl From<&str> for Unknown {
    fn from(reason: &str) -> Self {
        Arc::<str>::from(reason).into()
    }
}

impl From<String> for Unknown {
    fn from(reason: String) -> Self {
        Arc::<str>::from(reason).into()
    }
}

impl From<Unknown> for Rejection {
    fn from(Unknown { reason, retry }: Unknown) -> Self {
        Self::unavailable(&*reason).with_retry(retry)
    }
}

impl Verdict {
    /// The answer to a caller that this verdict does not authenticate.
    pub(crate) fn into_rejection(self) -> Rejection {
        match self {
            Self::Unknown(reason) => reason.into(),
            Self::Wrong(reason) => Rejection::new(RejectionKind::Forbidden, &*reason),
            Self::Absent | Self::Proven(_) => {
                Rejection::new(RejectionKind::Forbidden, "the caller is not authenticated")
            }
        }
    }

    pub(crate) fn wrong(reason: impl Into<Arc<str>>) -> Self {
        Self::Wrong(reason.into())
    }
}
