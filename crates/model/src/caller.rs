//! Who sends a request, as far as it has been proven.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Tenant;

/// Who sends a request. Decided once, before anything else looks at the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who it is; none for an anonymous caller.
    pub identity: Option<Arc<Identity>>,
    /// The certificate that the caller proved to own, whether or not it says who the caller is.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What has been proven about a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenants that the caller was let in for: those that the request names, or else all that its
    /// proof is good for. None where access is not decided by tenants.
    pub tenants: Arc<[Membership]>,
    /// The caller's name; none when the proof bears none, as a token that many share.
    pub subject: Option<Arc<str>>,
    /// The groups that the caller is in.
    pub groups: Arc<[Arc<str>]>,
    /// What it was proven by.
    pub proof: Proof,
}

/// A tenant that a caller was let in for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// Its name, by which callers may call it.
    pub name: Arc<str>,
    /// What it is called where its data is stored.
    pub tenant: Tenant,
}

/// What an identity was proven by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A user and a password.
    Password,
    /// A secret that only those have who may call.
    Token,
    /// A client certificate.
    Certificate,
    /// The word of a proxy in front.
    Header,
}

impl Caller {
    /// A caller of whom nothing has been proven.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The tenants that the caller was let in for; none where access is not decided by tenants.
    pub fn tenants(&self) -> &[Membership] {
        let identity = self.identity.as_ref();
        identity.map_or(&[], |identity| &identity.tenants)
    }

    /// The tenant that the caller was let in for, if it is one.
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

/// A client certificate that was verified, and what it says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The whole certificate, as it was sent.
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
    /// When it expires, if that can be told.
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
