//! Index of authentication methods, to find those that may accept a request's credentials without
//! trying all of them.

use std::collections::HashMap;
use std::sync::Arc;

use metrifold_http::tls;

use crate::digest::{self, Digest};
use crate::indices::Indices;
use crate::proof::oidc;
use crate::proof::session::sessions;
use crate::shown::{Credentials, Shown};

/// Maximum number of certificates of a chain that are considered; verification accepts no longer one.
const LONGEST_CHAIN: usize = 8;

/// Maximum number of passwords that are checked for a request that names no tenant, as each check
/// occupies a core. A user of more tenants has to name one.
const MOST_PASSWORDS: usize = 4;

/// Finds the authentication methods that may accept the credentials of a request.
#[derive(Default)]
pub(super) struct Index {
    pub(super) tokens: HashMap<Digest, Indices>,
    pub(super) users: HashMap<Arc<str>, Indices>,
    pub(super) issuers: HashMap<String, Indices>,
    /// Methods by the names of their certificate authorities, in DER.
    pub(super) authorities: HashMap<Box<[u8]>, Indices>,
    pub(super) reviews: Vec<usize>,
    /// Whether `reviews` ask several Kubernetes API servers. Then a token is only shown to that of the
    /// tenant that its request names.
    pub(super) has_several_servers: bool,
    pub(super) proxies: Vec<usize>,
    /// Methods by the names of their session cookies.
    pub(super) sessions: HashMap<String, Indices>,
}

impl Index {
    /// Whether a bearer token is, or claims to be, one of a configured hash or issuer. Such a token is
    /// never shown to a Kubernetes API server, which may be another tenant's.
    pub(super) fn knows_token(&self, shown: &Shown<'_>) -> bool {
        let Credentials::Bearer(token) = &shown.credentials else {
            return false;
        };
        let known = self.tokens.contains_key(&digest::plain(token.as_bytes()));
        let issuer = || oidc::issuer_of(token);
        known || issuer().is_some_and(|issuer| self.issuers.contains_key(&issuer))
    }

    /// The methods that may accept the credentials of a request that names no tenant, each once.
    pub(super) fn ways(&self, shown: &Shown<'_>) -> impl Iterator<Item = usize> {
        let mut ways: Vec<usize> = Vec::new();
        match &shown.credentials {
            Credentials::Bearer(token) => {
                let known = self.tokens.get(&digest::plain(token.as_bytes()));
                ways.extend(known.map_or(&[][..], Indices::as_slice));
                if known.is_none() {
                    let issuer = oidc::issuer_of(token);
                    let issued = issuer.and_then(|issuer| self.issuers.get(&issuer));
                    ways.extend(issued.map_or(&[][..], Indices::as_slice));
                    // As `knows_token`, which this does not call, to hash the token only once.
                    if issued.is_none() && !self.has_several_servers {
                        ways.extend(&self.reviews);
                    }
                }
            }
            Credentials::Basic(user, _) => {
                let known = self.users.get(user.as_str());
                let known = known.map_or(&[][..], Indices::as_slice);
                if known.len() <= MOST_PASSWORDS {
                    ways.extend(known);
                }
            }
            Credentials::None => {
                let names = sessions(shown.head.headers);
                let known = names.filter_map(|name| self.sessions.get(name));
                ways.extend(known.flat_map(Indices::as_slice));
            }
            Credentials::Unusable(_) => {}
        }
        // An authority that signed the chain is the issuer of one of its certificates. So a stranger's
        // certificate is not verified by each tenant in turn.
        let chain = shown.head.presented.iter().take(LONGEST_CHAIN);
        let issuers = chain.filter_map(tls::issuer_name);
        let known = issuers.filter_map(|name| self.authorities.get(&*name));
        let mut verifiers: Vec<usize> = known.flat_map(Indices::as_slice).copied().collect();
        verifiers.sort_unstable();
        verifiers.dedup();
        ways.extend(verifiers);
        ways.extend(&self.proxies);
        ways.into_iter()
    }
}
