//! The plane of queries: an HTTP read request goes through transforms to exactly one sink, and one
//! answer comes back.
//!
//! Nothing queues here. Bodies stream both ways: whoever reads an answer slowly slows the far end
//! down, whoever goes away has his request dropped there, and so has one whose deadline passes.

mod answer;
mod edge;
mod plane;
mod stage;

use std::fmt::Debug;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::body::Body;
use metrifold_model::Rejection;
use metrifold_model::{Origin, Tenant};

pub use edge::{Edge, Input, Serving};
pub use plane::Queries;
pub use stage::{Output, Stage};

/// A read request on its way to the sink that answers it.
#[derive(Debug)]
pub struct Query {
    /// The method.
    pub method: Method,
    /// The path below the root of the API, such as `/api/v1/query`, and the query string.
    pub uri: Uri,
    /// The headers, without those that hold credentials or speak of one connection alone.
    pub headers: HeaderMap,
    /// The body, unread.
    pub body: Body,
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// Whose data it may see, once that is known.
    pub tenant: Option<Tenant>,
    /// When whoever asked does not wait any longer: the end of the answer's body must have been
    /// sent by then.
    pub deadline: Instant,
}

/// An answer: any status is one.
pub type Answer = http::Response<Body>;

/// A transform of queries: synchronous, without I/O.
pub trait Transform: Debug + Send + Sync {
    /// Changes a query, and says which of the transform's outputs it goes to.
    ///
    /// # Errors
    ///
    /// Fails when the query is refused to whoever asked.
    fn apply(&self, query: &mut Query) -> Result<usize, Rejection>;
}

/// Answers queries: the working side of a sink.
pub trait Answerer: Send + Sync {
    /// Answers one query. The future, and later the body of the answer, is dropped when whoever
    /// asked goes away or the deadline passes.
    fn answer(self: Arc<Self>, query: Query) -> BoxFuture<Result<Answer, Rejection>>;
}

#[cfg(test)]
mod tests;
