//! The plane of queries: an HTTP read request goes through transforms to exactly one sink, and one
//! answer comes back.
//!
//! Nothing queues here. Bodies stream both ways, except where a transform must see one whole: a
//! caller that reads slowly slows the upstream down. When a caller disconnects or a deadline passes,
//! the request to the upstream is dropped as well.

mod answer;
mod edge;
mod edit;
mod plane;
mod stage;
mod turns;

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::body::Body;
use metrifold_model::Rejection;
use metrifold_model::{Origin, Tenant};

pub use edge::{Edge, Input, Serving};
pub use plane::Queries;
pub use stage::{Output, Stage};
pub use turns::{Turn, TurnLimits, Turns};

/// A read request, until a sink answers it.
#[derive(Debug)]
pub struct Query {
    /// The method.
    pub method: Method,
    /// The path below the root of the API, such as `/api/v1/query`, and the query string.
    pub uri: Uri,
    /// The headers, without credentials and without those that concern a single connection.
    pub headers: HeaderMap,
    /// The caller's cookies, for a sink that set one. They are not sent upstream.
    pub cookies: Vec<HeaderValue>,
    /// The body, unread.
    pub body: Body,
    /// Caller and source of the query.
    pub origin: Arc<Origin>,
    /// Tenant whose data the query may see; `None` until it is known.
    pub tenant: Option<Tenant>,
    /// Limits on concurrent queries, in which the query waits before it is sent to the sink.
    pub turns: Option<Turns>,
    /// Receives the tenant for which the query was sent, for the source.
    pub asked_for: Option<Arc<OnceLock<Tenant>>>,
    /// Time after which the caller does not wait any longer: the body of the answer must have ended
    /// by then.
    pub deadline: Instant,
}

impl Query {
    /// Names the tenant, and no other one, to a server that chooses the tenant by this header.
    pub fn name_tenant(&mut self, header: &HeaderName) {
        let tenant = self.tenant.as_deref().map(HeaderValue::from_str);
        match tenant {
            Some(Ok(tenant)) => drop(self.headers.insert(header, tenant)),
            _ => drop(self.headers.remove(header)),
        }
    }
}

/// An answer, with any status.
pub type Answer = http::Response<Body>;

/// A transform of queries: synchronous, without I/O. The stage supplies the inputs that need I/O:
/// the body of the query, its answer, and the answer to a second query.
pub trait Transform: Debug + Send + Sync {
    /// The most bytes of the query's body, if [`Transform::apply`] must see it whole; a larger body
    /// is refused. `None` streams the body.
    fn reads_body(&self, query: &Query) -> Option<usize> {
        let _ = query;
        None
    }

    /// Changes a query, and decides on its output and on the edit of its answer.
    ///
    /// # Errors
    ///
    /// Fails when the query is refused to the caller.
    fn apply(&self, query: &mut Query) -> Result<Plan, Rejection>;
}

/// A transform's decision about a query.
#[derive(Debug)]
pub struct Plan {
    /// Index of the output that the query goes to.
    pub output: usize,
    /// Edit of the answer; without one, the answer is streamed unchanged.
    pub edit: Option<Edit>,
}

impl From<usize> for Plan {
    fn from(output: usize) -> Self {
        Self { output, edit: None }
    }
}

/// Edit of an answer with status 200, which is read whole for it. Errors and redirects pass
/// unchanged.
pub struct Edit {
    /// A second query, sent at the same time behind the same transform, whose answer the edit needs.
    /// If its answer is an error, that becomes the answer.
    pub beside: Option<Query>,
    /// The most bytes of each of the two answers.
    pub max_bytes: usize,
    /// Computes the new body from the body of the answer and that of the second query.
    pub apply: EditAnswer,
}

/// Computes a new body from the body of the answer and that of the query beside it.
pub type EditAnswer = Box<dyn FnOnce(&[u8], &[u8]) -> Result<Vec<u8>, Rejection> + Send>;

impl Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("beside", &self.beside)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Answers queries on behalf of a sink.
pub trait Answerer: Send + Sync {
    /// Answers one query. The future, and later the body of the answer, is dropped when the caller
    /// disconnects or the deadline passes.
    fn answer(self: Arc<Self>, query: Query) -> BoxFuture<Result<Answer, Rejection>>;
}

#[cfg(test)]
mod tests;
