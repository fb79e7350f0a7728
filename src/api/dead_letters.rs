//! Dead letters at the admin address: lists them, sends them again, discards them.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use metrifold_engine::dead_letters::{Filter, Resent, Stores};
use metrifold_http::{Request, Response, answer, body};

use super::json;

/// Path of the list.
pub const LIST: &str = "/api/v1/dead-letters";
/// Path of requests that send letters again.
pub const RESEND: &str = "/api/v1/dead-letters/resend";
/// Path of requests that discard letters.
pub const DISCARD: &str = "/api/v1/dead-letters/discard";

/// Most letters per request.
pub const NAMED_MAX: usize = 100;

/// Default number of letters in a list.
pub const LIMIT: usize = 100;

/// Longest time that a request sends letters again. Letters that are not delivered by then stay.
pub const RESEND_LIMIT: Duration = Duration::from_secs(20);

/// Bytes of a body, enough for [`NAMED_MAX`] ids.
const BODY_MAX: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The letters that a request names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Ids of the letters.
    pub ids: Vec<String>,
}

/// Outcomes of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// One per letter, in the order of the request.
    pub results: Vec<Done>,
}

/// Outcome for one letter.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// Id of the letter.
    pub id: String,
    /// Whether the letter was sent or discarded, and therefore removed.
    pub done: bool,
    /// Reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Done {
    fn new(id: String, failed: Option<String>) -> Self {
        Self {
            id,
            done: failed.is_none(),
            reason: failed,
        }
    }
}

const UNKNOWN: &str = "there is no such letter";

/// Lists letters, filtered by the query's `sink`, `tenant` and `limit`.
pub(super) async fn list(stores: &Stores, query: Option<&str>) -> Response {
    let filter = match filter(query.unwrap_or_default()) {
        Ok(filter) => filter,
        Err(reason) => return answer::text(StatusCode::BAD_REQUEST, &reason),
    };
    let stores = stores.clone();
    match spawn_blocking(move || stores.list(&filter)).await {
        Ok(listing) => json(&listing),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter {
        limit: LIMIT,
        ..Filter::default()
    };
    // The query is parsed as part of a made-up URL.
    let url = reqwest::Url::parse(&format!("http://query/?{query}"));
    let url = url.map_err(|error| error.to_string())?;
    for (key, value) in url.query_pairs() {
        match &*key {
            "sink" => filter.sink = Some(value.into_owned()),
            "tenant" => filter.tenant = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse();
                filter.limit = limit.map_err(|_| format!("limit {value:?} is not a number"))?;
            }
            _ => return Err(format!("there is no {key:?}: use sink, tenant and limit")),
        }
    }
    Ok(filter)
}

/// Sends the named letters again.
pub(super) async fn resend(stores: &Stores, request: Request) -> Response {
    let ids = match named(request).await {
        Ok(ids) => ids,
        Err(refusal) => return refusal,
    };
    let deadline = Instant::now() + RESEND_LIMIT;
    let mut under_way = JoinSet::new();
    for (place, id) in ids.iter().cloned().enumerate() {
        let stores = stores.clone();
        under_way.spawn(async move {
            let resent = timeout_at(deadline, stores.resend(&id)).await;
            let failed = match resent {
                Ok(Resent::Accepted) => None,
                Ok(Resent::Kept(reason)) => Some(reason),
                Ok(Resent::Unknown) => Some(UNKNOWN.to_owned()),
                Err(_) => Some("it was not delivered in time".to_owned()),
            };
            (place, failed)
        });
    }
    let mut failures = vec![Some("it could not be sent".to_owned()); ids.len()];
    while let Some(ended) = under_way.join_next().await {
        if let Ok((place, failed)) = ended {
            failures[place] = failed;
        }
    }
    let results = ids.into_iter().zip(failures);
    let results = results.map(|(id, failed)| Done::new(id, failed)).collect();
    json(&Results { results })
}

/// Discards the named letters.
pub(super) async fn discard(stores: &Stores, request: Request) -> Response {
    let ids = match named(request).await {
        Ok(ids) => ids,
        Err(refusal) => return refusal,
    };
    let stores = stores.clone();
    let discard = move |id: String| {
        let failed = match stores.discard(&id) {
            Ok(true) => None,
            Ok(false) => Some(UNKNOWN.to_owned()),
            Err(error) => Some(error.to_string()),
        };
        Done::new(id, failed)
    };
    match spawn_blocking(move || ids.into_iter().map(discard).collect()).await {
        Ok(results) => json(&Results { results }),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Reads the ids from a request, or returns the answer that refuses it.
async fn named(request: Request) -> Result<Vec<String>, Response> {
    let refuse = |reason: &str| answer::text(StatusCode::BAD_REQUEST, reason);
    let length = request.content_length();
    let body = body::read(request.body, length, BODY_MAX, BODY_TIMEOUT).await;
    let body = body.map_err(|error| refuse(&error.to_string()))?;
    let named: Named = serde_json::from_slice(&body)
        .map_err(|error| refuse(&format!("send {{\"ids\": [...]}}: {error}")))?;
    if named.ids.len() > NAMED_MAX {
        return Err(refuse(&format!("name at most {NAMED_MAX} letters at once")));
    }
    Ok(named.ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_letters_are_meant_and_nothing_else() {
        let all = filter("").unwrap();
        assert_eq!((all.sink, all.tenant, all.limit), (None, None, LIMIT));
        let some = filter("sink=a-1&tenant=team%20b&limit=7").unwrap();
        assert_eq!(some.sink.as_deref(), Some("a-1"));
        assert_eq!(some.tenant.as_deref(), Some("team b"));
        assert_eq!(some.limit, 7);
        for wrong in ["limit=x", "limit=-1", "sinks=a"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
