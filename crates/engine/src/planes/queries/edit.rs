//! Reads bodies whole where a transform needs it: a query's before the transform, and its answer's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::body::{self, Body, BodyError};
use metrifold_model::{Rejection, RejectionKind};

use crate::planes::Target;

use super::{Answer, Edit, Query, Stage};

/// Replaces a query's streamed body by its bytes.
pub(super) async fn read_body(query: &mut Query, most: usize) -> Result<(), Rejection> {
    let left = query.deadline.saturating_duration_since(Instant::now());
    let body = std::mem::take(&mut query.body);
    let read = body::read(body, None, most, left).await;
    let whole = read.map_err(|error| match error {
        BodyError::TooLarge { limit } => {
            let reason = format!("the request's body is larger than {limit} bytes");
            Rejection::new(RejectionKind::TooLarge, reason)
        }
        BodyError::Timeout => {
            let reason = "the request's body did not arrive in time";
            Rejection::new(RejectionKind::TimedOut, reason)
        }
        BodyError::Refused(rejection) => rejection,
        error => Rejection::invalid(error.to_string()),
    })?;
    query.body = whole.into();
    Ok(())
}

/// Lets the components behind `next` answer a query, and edits the answer.
pub(super) fn ask(
    stage: Arc<Stage>,
    next: Option<Target>,
    query: Query,
    edit: Edit,
) -> BoxFuture<Result<Answer, Rejection>> {
    Box::pin(async move {
        let deadline = query.deadline;
        let is_head = query.method == Method::HEAD;
        let answer = stage.clone().ask(next, query);
        let (mut answer, beside) = match edit.beside {
            None => (answer.await?, None),
            Some(query) => {
                let beside = stage.ask(next, query);
                let (answer, beside) = tokio::try_join!(answer, beside)?;
                (answer, Some(beside))
            }
        };
        if !is_whole(&answer)? {
            return Ok(answer);
        }
        // These headers describe the body before the edit.
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, ETAG, LAST_MODIFIED] {
            answer.headers_mut().remove(name);
        }
        if is_head {
            *answer.body_mut() = Body::empty();
            return Ok(answer);
        }
        let mut known = Bytes::new();
        if let Some(beside) = beside {
            if !is_whole(&beside)? {
                return Ok(beside);
            }
            known = read(beside.into_body(), edit.max_bytes, deadline).await?;
        }
        let (head, body) = answer.into_parts();
        let body = read(body, edit.max_bytes, deadline).await?;
        let edited = catch_unwind(AssertUnwindSafe(|| (edit.apply)(&body, &known)));
        let edited = edited.unwrap_or_else(|_| {
            let reason = "a transform panicked on the answer";
            Err(Rejection::new(RejectionKind::Internal, reason))
        })?;
        Ok(Answer::from_parts(head, edited.into()))
    })
}

/// Whether the answer can be edited; if not, it is passed on unchanged.
fn is_whole(answer: &Answer) -> Result<bool, Rejection> {
    let status = answer.status();
    if status.as_u16() >= 300 {
        return Ok(false);
    }
    let encoding = answer.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let reason = "the answer is compressed though that was not asked for";
        return Err(Rejection::new(RejectionKind::Unreachable, reason));
    }
    if status != StatusCode::OK {
        let reason = format!("status {status} is not an answer to this query");
        return Err(Rejection::new(RejectionKind::Unreachable, reason));
    }
    Ok(true)
}

/// Reads the body of an answer.
async fn read(body: Body, most: usize, deadline: Instant) -> Result<Bytes, Rejection> {
    let left = deadline.saturating_duration_since(Instant::now());
    body::read(body, None, most, left)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge { limit } => {
                let reason =
                    format!("the answer is larger than {limit} bytes: raise max_answer_bytes");
                Rejection::new(RejectionKind::Unreachable, reason)
            }
            BodyError::Timeout => {
                let reason = "the answer did not end in time";
                Rejection::new(RejectionKind::TimedOut, reason)
            }
            error => {
                let reason = format!("the answer cannot be read: {error}");
                Rejection::new(RejectionKind::Unreachable, reason)
            }
        })
}
