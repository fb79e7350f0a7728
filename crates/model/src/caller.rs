//! The caller of a request, as far as it has been authenticated.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Tenant;

/// The caller of a request, determined before anything else reads the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Identity of the caller; `None` for an anonymous one.
    pub identity: Option<Arc<Identity>>,
    /// Certificate that the caller has proven to own, whether or not the identity comes from it.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// Authenticated properties of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Tenants that the caller was let in for: those that the request names, or else all that the
    /// caller belongs to. Empty where access does not go by tenant.
    pub tenants: Arc<[Membership]>,
    /// Name of the caller; `None` if its credential has no name, such as a shared token.
    pub subject: Option<Arc<str>>,
    /// Groups of the caller.
    pub groups: Arc<[Arc<str>]>,
    /// Kind of credential that was used.
    pub proof: Proof,
}

/// A tenant that a caller was let in for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// Name of the tenant, as callers write it.
    pub name: Arc<str>,
    /// Name under which the tenant's data is stored.
    pub tenant: Tenant,
}

/// Kind of credential that an identity was proven with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A user and a password.
    Password,
    /// A secret token.
    Token,
    /// A client certificate.
    Certificate,
    /// A header set by a trusted proxy.
    Header,
    /// A session of a browser that logged in.
    Session,
}

impl Caller {
    /// A caller without an identity.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The tenants that the caller was let in for; empty where access does not go by tenant.
    pub fn tenants(&self) -> &[Membership] {
        let identity = self.identity.as_ref();
        identity.map_or(&[], |identity| &identity.tenants)
    }

    /// The tenant that the caller was let in for, if there is exactly one.
    pub fn tenant(&self) -> Option<&Tenant> {
        match self.tenants() {
            [only] => Some(&only.tenant),
            _ => None,
        }
    }

    /// The caller's name.
    pub fn subject(&self) -> Option<&str> {
        self.identity.as_ref()?.subject.as_deref()
    }
}

/// A verified client certificate, with the names in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The whole certificate in DER, as it was received.
    pub der: Arc<[u8]>,
    /// The serial number, in lowercase hexadecimal digits, two for each byte.
    pub serial: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The subject's organizational units.
    pub organizational_units: Vec<String>,
    /// The subject alternative names, in the certificate's order.
    pub alternative_names: Vec<AlternativeName>,
    /// Time at which the certificate expires, if it can be represented.
    pub not_after: Option<SystemTime>,
}

/// A subject alternative name, of a kind that can name a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
    /// An e-mail address.
    Email(String),
    /// An IP address.
    Ip(IpAddr),
}

impl ClientCertificate {
    /// The alternative names that are DNS names.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.alternative_names.iter().filter_map(|name| match name {
            AlternativeName::Dns(name) => Some(name.as_str()),
            _ => None,
        })
    }
}
