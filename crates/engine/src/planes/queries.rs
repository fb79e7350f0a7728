//! The plane of queries: an HTTP read request goes through transforms to exactly one sink, and one
//! answer comes back.
//!
//! Nothing queues here. Bodies stream both ways, except where a transform has to see one whole:
//! whoever reads an answer slowly slows the far end
//! down, whoever goes away has his request dropped there, and so has one whose deadline passes.

mod answer;
mod edge;
mod edit;
mod plane;
mod stage;
mod turns;

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::body::Body;
use metrifold_model::Rejection;
use metrifold_model::{Origin, Tenant};

pub use edge::{Edge, Input, Serving};
pub use plane::Queries;
pub use stage::{Output, Stage};
pub use turns::{Turn, TurnLimits, Turns};

/// A read request on its way to the sink that answers it.
#[derive(Debug)]
pub struct Query {
    /// The method.
    pub method: Method,
    /// The path below the root of the API, such as `/api/v1/query`, and the query string.
    pub uri: Uri,
    /// The headers, without those that hold credentials or speak of one connection alone.
    pub headers: HeaderMap,
    /// The caller's cookies, for a sink that set one. They go no further.
    pub cookies: Vec<HeaderValue>,
    /// The body, unread.
    pub body: Body,
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// Whose data it may see, once that is known.
    pub tenant: Option<Tenant>,
    /// What it waits for before it is asked, once its tenant is known.
    pub turns: Option<Turns>,
    /// Where whoever asked hears of whom it was asked for.
    pub asked_for: Option<Arc<OnceLock<Tenant>>>,
    /// When whoever asked does not wait any longer: the end of the answer's body must have been
    /// sent by then.
    pub deadline: Instant,
}

/// An answer: any status is one.
pub type Answer = http::Response<Body>;

/// A transform of queries: synchronous, without I/O. What it needs from outside, the stage gets for
/// it: the body of a query, the answer, and the answer to another query.
pub trait Transform: Debug + Send + Sync {
    /// The most bytes of the query's body, if [`Transform::apply`] is to see it whole; a larger body
    /// is refused. None lets it stream.
    fn reads_body(&self, query: &Query) -> Option<usize> {
        let _ = query;
        None
    }

    /// Changes a query, and says where it goes and what becomes of its answer.
    ///
    /// # Errors
    ///
    /// Fails when the query is refused to whoever asked.
    fn apply(&self, query: &mut Query) -> Result<Plan, Rejection>;
}

/// What a transform has decided about a query.
#[derive(Debug)]
pub struct Plan {
    /// Which of the transform's outputs it goes to.
    pub output: usize,
    /// What is done to the answer; without it, the answer is streamed as it is.
    pub edit: Option<Edit>,
}

impl From<usize> for Plan {
    fn from(output: usize) -> Self {
        Self { output, edit: None }
    }
}

/// What is done to an answer of status 200, once it has been read whole. An answer of another
/// status passes as it is if it is an error or a redirect.
pub struct Edit {
    /// Another query, asked at the same time behind the same transform, whose answer is needed for
    /// it. If it is answered with an error, that is the answer.
    pub beside: Option<Query>,
    /// The most bytes of each of these answers.
    pub max_bytes: usize,
    /// Makes the new answer of the old one, and of the one to the other query.
    pub apply: EditAnswer,
}

/// Makes a new answer's body of the old one, and of the one to the query beside.
pub type EditAnswer = Box<dyn FnOnce(&[u8], &[u8]) -> Result<Vec<u8>, Rejection> + Send>;

impl Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("beside", &self.beside)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Answers queries: the working side of a sink.
pub trait Answerer: Send + Sync {
    /// Answers one query. The future, and later the body of the answer, is dropped when whoever
    /// asked goes away or the deadline passes.
    fn answer(self: Arc<Self>, query: Query) -> BoxFuture<Result<Answer, Rejection>>;
}

#[cfg(test)]
mod tests;
