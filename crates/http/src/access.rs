//! Access to routes: the dispatcher decides about it before any handler runs.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderName, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use rustls::pki_types::CertificateDer;

use metrifold_base::words;
use metrifold_model::Rejection;
use metrifold_model::{Caller, ClientCertificate};

use super::{Response, answer, rejection};

/// Identifies callers, and decides whether a caller is admitted.
pub trait Access: Send + Sync {
    /// Decides from the head of a request, whose body has not been read. The future is dropped if
    /// the caller disconnects.
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a>;

    /// Admits a request of an identified caller under its limits. `length` is the length of its
    /// body, and `None` if it is not announced. The returned guard is dropped once the answer has
    /// been sent, or the caller has disconnected.
    ///
    /// # Errors
    ///
    /// Fails when the caller exceeds a limit.
    fn enter(&self, caller: &Caller, head: Head<'_>, length: Option<u64>) -> Result<Pass, Refusal> {
        let _ = (caller, head, length);
        Ok(None)
    }

    /// Headers that only serve the decision. They are removed before the handler sees the request,
    /// as are those with credentials.
    fn hidden(&self) -> Arc<[HeaderName]> {
        Arc::default()
    }
}

words! {
    /// A right that a request requires.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Permission {
        /// Read a tenant's data.
        Read = "read",
        /// Write samples.
        Write = "write",
        /// Change rules.
        Rules = "rules",
        /// Administer the process.
        Admin = "admin",
    }
}

impl Permission {
    /// Its name in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Rules => "rules",
            Self::Admin => "admin",
        }
    }
}

/// A guard that is held while a request is in flight.
pub type Pass = Option<Arc<dyn InFlight>>;

/// An admitted request, in flight until this is dropped.
pub trait InFlight: Send + Sync {
    /// Counts a piece of a body whose length was not announced, as it arrives.
    ///
    /// # Errors
    ///
    /// Fails when the caller exceeds a limit; the rest of the body is not read then.
    fn received(&self, bytes: u64) -> Result<(), Rejection>;
}

/// The right that a method requires on a route.
pub type Wanted = fn(&Method) -> Permission;

/// Makes the access checks of routes for tenants' callers.
pub trait Doors: Send + Sync {
    /// Admits callers of tenants that have the right that their request requires.
    fn tenants(&self, wanted: Wanted) -> Arc<dyn Access>;
}

/// The pending decision about a request.
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
    /// Parameters of the path, percent-decoded.
    pub params: &'a [(Box<str>, Box<str>)],
    /// The caller's address.
    pub peer: SocketAddr,
    /// The caller's certificate, if the listener's `client_ca_file` verified it.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// The caller's certificate chain, whoever signed it; the caller owns the key of the first one.
    /// Empty without a certificate.
    pub presented: &'a [CertificateDer<'static>],
}

/// Why a caller is refused. The caller sees the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of refusal, reason, and whether to retry.
    pub rejection: Rejection,
    /// Ways to authenticate, for unknown callers: one `WWW-Authenticate` each.
    pub challenges: Vec<HeaderValue>,
    /// Where a browser is sent instead, to come back as somebody who is known.
    pub entrance: Option<HeaderValue>,
}

impl Refusal {
    /// The answer to the caller.
    pub fn answer(&self) -> Response {
        if let Some(entrance) = &self.entrance {
            let mut response = answer::empty(StatusCode::SEE_OTHER);
            let headers = response.headers_mut();
            headers.insert(LOCATION, entrance.clone());
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return response;
        }
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
            entrance: None,
        }
    }
}

/// Admits everybody. Callers stay anonymous, whatever certificate they have.
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
