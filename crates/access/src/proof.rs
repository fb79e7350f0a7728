//! The ways to prove to be of a tenant.

pub(crate) mod basic;
pub(crate) mod bearer;
pub(crate) mod issuer;
pub(crate) mod kubernetes;
pub(crate) mod mtls;
pub(crate) mod oidc;
pub(crate) mod trusted_header;

use std::sync::Arc;

use metrifold_model::{ClientCertificate, Proof};

use crate::shown::Shown;

/// A way to prove to be of a tenant, or of several that have the same.
pub(crate) enum Method {
    Bearer(bearer::Tokens),
    Basic(basic::Users),
    Mtls(mtls::Certificates),
    Oidc(oidc::Verifier),
    Kubernetes(kubernetes::Reviews),
    TrustedHeader(trusted_header::Proxy),
}

/// What was proven about a caller.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) groups: Arc<[Arc<str>]>,
    pub(crate) proof: Proof,
    /// The certificate that proves it.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// What came of looking at what a request shows.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The caller is of the tenant.
    Proven(Arc<Proven>),
    /// Nothing that could prove it this way was shown.
    Absent,
    /// What was shown proves nothing, for this reason.
    Wrong(Arc<str>),
    /// Nobody can tell at the moment, for this reason.
    Unknown(Arc<str>),
}

impl Method {
    /// Whether what a request shows proves that its caller is of the tenant.
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

    /// How a caller is told of it in `WWW-Authenticate`, if it can be.
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

impl Verdict {
    pub(crate) fn wrong(reason: impl Into<Arc<str>>) -> Self {
        Self::Wrong(reason.into())
    }
}
