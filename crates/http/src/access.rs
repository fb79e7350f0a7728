//! Who may call a route: decided by the dispatcher, before any handler runs.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, Uri};

use metrifold_model::Rejection;
use metrifold_model::{Caller, ClientCertificate};

use super::{Response, rejection};

/// Decides who calls, and whether the caller is let in.
pub trait Access: Send + Sync {
    /// Looks at the head of a request, whose body has not been read. The future is dropped if the
    /// caller goes away.
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a>;
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
    /// The certificate that the caller proved to own.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
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
        let mut response = rejection::answer(&self.rejection);
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
