//! Serving a list of targets to `http_sd_configs`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use metrifold_base::{BoxFuture, locked};
use metrifold_http::{Body, Handler, Request, Response, answer};

use super::Published;

/// Seconds in `Retry-After` while no targets are known.
const RETRY_AFTER: u64 = 5;

/// A list of targets and its `ETag`.
#[derive(Clone, Debug)]
pub(super) struct Served {
    body: Bytes,
    tag: HeaderValue,
}

impl Served {
    pub(super) fn new(body: Bytes) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // Seeded per process: a caller with an `ETag` of an earlier process gets the whole list.
        let tag = format!("\"{:016x}\"", RandomState::new().hash_one(&body));
        let tag = HeaderValue::try_from(tag);
        Self {
            tag: tag.unwrap_or(HeaderValue::from_static("\"\"")),
            body,
        }
    }

    pub(super) fn is(&self, body: &Bytes) -> bool {
        self.body == body
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter();
        let known = known.filter_map(|value| value.to_str().ok());
        let tag = self.tag.to_str().unwrap_or_default();
        let mut tags = known.flat_map(|value| value.split(','));
        let same = tags.any(|known| known.trim().trim_start_matches("W/") == tag);
        let mut response = match same {
            true => answer::empty(StatusCode::NOT_MODIFIED),
            false => Response::new(Body::from(self.body.clone())),
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, self.tag.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Handler for Published {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let list = locked(&self.inner).list.clone();
            match list {
                Some(list) => list.answer(&request.headers),
                // Prometheus keeps its targets when it gets an error.
                None => {
                    let text = "targets are not known yet";
                    answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, text)
                }
            }
        })
    }
}
