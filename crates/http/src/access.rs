//! Who may call a route: decided by the dispatcher, before any handler runs.

use std::any::Any;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use rustls::pki_types::CertificateDer;

use metrifold_base::words;
use metrifold_model::Rejection;
use metrifold_model::{Caller, ClientCertificate};

use super::{Response, rejection};

/// Decides who calls, and whether the caller is let in.
pub trait Access: Send + Sync {
    /// Looks at the head of a request, whose body has not been read. The future is dropped if the
    /// caller goes away.
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a>;

    /// Whether a caller that is let in may come now. What is returned is dropped once its answer has
    /// been sent, or it is gone.
    ///
    /// # Errors
    ///
    /// Fails when it asks for more than is its.
    fn enter(&self, caller: &Caller, head: Head<'_>) -> Result<Pass, Refusal> {
        let _ = (caller, head);
        Ok(None)
    }

    /// The headers that were for the decision alone. The handler does not see them, nor those that
    /// hold credentials.
    fn hidden(&self) -> Arc<[HeaderName]> {
        Arc::default()
    }
}

words! {
    /// What a caller wants to do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Permission {
        /// Read what a tenant has.
        Read = "read",
        /// Write samples.
        Write = "write",
        /// Change rules.
        Rules = "rules",
        /// Change what the process does.
        Admin = "admin",
    }
}

impl Permission {
    /// In messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Rules => "rules",
            Self::Admin => "admin",
        }
    }
}

/// What is held while a request is under way.
pub type Pass = Option<Arc<dyn Any + Send + Sync>>;

/// What a request of a method wants to do on a route.
pub type Wanted = fn(&Method) -> Permission;

/// Makes the access of routes that are for callers of tenants.
pub trait Doors: Send + Sync {
    /// Lets those in who may do what a request wants.
    fn tenants(&self, wanted: Wanted) -> Arc<dyn Access>;
}

/// What becomes of a request at the door.
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<Caller, Refusal>> + Send + 'a>>;

/// The head of a request that has found its route.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method: one that the route answers.
    pub method: &'a Method,
    /// The target: path and query.
    pub uri: &'a Uri,
    /// The headers, as they were sent.
    pub headers: &'a HeaderMap,
    /// What the path's parameters matched, percent-decoded.
    pub params: &'a [(Box<str>, Box<str>)],
    /// The caller's address.
    pub peer: SocketAddr,
    /// The certificate that the caller proved to own, which the listener's `client_ca_file` verified.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// The certificate that the caller proved to own, with those above it, whoever signed it; empty
    /// if it showed none.
    pub presented: &'a [CertificateDer<'static>],
}

/// Why a caller is not let in. The reason is the caller's to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of no it is, and whether to ask again.
    pub rejection: Rejection,
    /// How callers whom nobody knows can prove who they are: a `WWW-Authenticate` for each way.
    pub challenges: Vec<HeaderValue>,
}

impl Refusal {
    /// The answer that tells the caller.
    pub fn answer(&self) -> Response {
        let mut response = rejection::json(&self.rejection);
        for challenge in &self.challenges {
            let headers = response.headers_mut();
            headers.append(WWW_AUTHENTICATE, challenge.clone());
        }
        response
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            challenges: Vec::new(),
        }
    }
}

/// Lets everybody in. A caller stays anonymous, whatever certificate it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

impl Access for Everybody {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(ready(Ok(Caller {
            identity: None,
            certificate: head.certificate.cloned(),
        })))
    }
}
