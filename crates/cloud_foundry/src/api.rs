//! Requests to the Cloud Controller: with a token that is renewed when it is refused, at the pace
//! that the platform allows, and complete paged lists.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use thiserror::Error;

use metrifold_base::foreign;
use metrifold_discovery::{Exchange, Failure, Reason};
use metrifold_http::place;

use crate::pace::Pace;
use crate::resources::{Errors, Included, Info, Page, Pagination, Resource};
use crate::uaa::Uaa;

/// Objects per page, the most that the API allows.
const PER_PAGE: usize = 5000;
/// The most pages of a list.
const MAX_PAGES: usize = 1000;
/// The most characters of an error's text that are shown.
const MAX_DETAIL: usize = 300;

/// A client of the Cloud Controller.
#[derive(Debug)]
pub(crate) struct Api {
    exchange: Exchange,
    /// The Cloud Controller's URL, without a slash at its end.
    root: String,
    /// Query string added to each request.
    query: String,
    uaa: Arc<Uaa>,
    pub(crate) pace: Pace,
    /// The most bytes of a list, over all of its pages.
    most: usize,
}

/// Failure of a request.
#[derive(Clone, Debug, Error)]
#[error("{failure}")]
pub(crate) struct ApiError {
    /// The status of the answer. `None` without an answer.
    pub(crate) status: Option<u16>,
    pub(crate) failure: Failure,
}

impl ApiError {
    /// Whether it concerns all requests and not only the object that was requested.
    pub(crate) fn is_general(&self) -> bool {
        matches!(self.status, None | Some(401 | 429))
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self {
            status: None,
            failure,
        }
    }
}

/// A complete list.
pub(crate) struct List<T> {
    pub(crate) resources: Vec<T>,
    pub(crate) included: Included,
}

impl Api {
    pub(crate) fn new(
        exchange: Exchange,
        root: String,
        query: &str,
        uaa: Arc<Uaa>,
        pace: Pace,
        most: usize,
    ) -> Self {
        Self {
            exchange,
            root,
            query: query.to_owned(),
            uaa,
            pace,
            most,
        }
    }

    /// Gets a token, without which no other request can succeed.
    pub(crate) async fn log_in(&self) -> Result<(), ApiError> {
        self.uaa.token().await?;
        Ok(())
    }

    /// Lets refused credentials be sent again at once.
    pub(crate) fn retry_login(&self) {
        self.uaa.retry();
    }

    /// Reads the rate limit that the platform publishes, if it does. Returns whether it has answered.
    pub(crate) async fn read_limits(&self) -> bool {
        let body = match self.get("/v3/info", self.most).await {
            Ok(body) => body,
            Err(error) => return error.status.is_some_and(|status| status < 500),
        };
        let info = serde_json::from_slice::<Info>(&body).ok();
        if let Some(limits) = info.and_then(|info| info.rate_limits)
            && limits.enabled
            && limits.reset_interval_in_minutes > 0
        {
            let minutes = limits.reset_interval_in_minutes.min(24 * 60);
            let window = Duration::from_secs(60 * minutes);
            self.pace.publish(limits.general_limit, window);
        }
        true
    }

    /// Reads a complete list, or fails: half of it would look like objects that have gone. Changes
    /// during the reading move objects between pages; the list is read a second time if its pages
    /// do not add up to the announced total.
    pub(crate) async fn list<T: Resource>(
        &self,
        path: &str,
        query: &str,
    ) -> Result<List<T>, ApiError> {
        let (list, expected) = self.pages(path, query).await?;
        if list.resources.len() == expected {
            return Ok(list);
        }
        let (list, expected) = self.pages(path, query).await?;
        let found = list.resources.len();
        if found == expected {
            return Ok(list);
        }
        let text = format!("{path} returned {found} objects, but reports {expected} in total");
        Err(Failure::new(Reason::Invalid, text).into())
    }

    /// All pages without duplicates, and the total that the last page announces.
    async fn pages<T: Resource>(
        &self,
        path: &str,
        query: &str,
    ) -> Result<(List<T>, usize), ApiError> {
        let mut list = List {
            resources: Vec::new(),
            included: Included::default(),
        };
        let mut known = HashSet::new();
        let mut left = self.most;
        let mut number = 1;
        loop {
            let target = format!("{path}?per_page={PER_PAGE}&page={number}{query}");
            let body = self.get(&target, left).await?;
            left = left.saturating_sub(body.len());
            let page: Page<T> = parse(path, body).await?;
            let new = page.resources.into_iter();
            list.resources
                .extend(new.filter(|it| known.insert(it.guid().to_owned())));
            list.included.spaces.extend(page.included.spaces);
            list.included
                .organizations
                .extend(page.included.organizations);
            list.included.domains.extend(page.included.domains);
            let Pagination {
                total_results,
                total_pages,
            } = page.pagination;
            if number >= total_pages {
                return Ok((list, total_results));
            }
            if number >= MAX_PAGES {
                let text = format!("{path} has more than {MAX_PAGES} pages");
                return Err(Failure::new(Reason::TooLarge, text).into());
            }
            number += 1;
        }
    }

    /// Reads a single object.
    pub(crate) async fn one<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
    ) -> Result<T, ApiError> {
        let body = self.get(path, self.most).await?;
        parse(path, body).await
    }

    async fn get(&self, target: &str, most: usize) -> Result<Bytes, ApiError> {
        let joint = match (self.query.as_str(), target.contains('?')) {
            ("", _) => "",
            (_, true) => "&",
            (_, false) => "?",
        };
        let uri: Uri = format!("{}{target}{joint}{}", self.root, self.query)
            .parse()
            .map_err(|error| Failure::new(Reason::Invalid, format!("{target}: {error}")))?;
        let token = self.uaa.token().await?;
        match self.ask(&uri, &token.header, most).await {
            // A token may expire in the midst of a list, or be signed with a key that UAA has
            // rotated.
            Err(ApiError {
                status: Some(401), ..
            }) => {
                self.uaa.refused(&token);
                let token = self.uaa.token().await?;
                self.ask(&uri, &token.header, most).await
            }
            answer => answer,
        }
    }

    async fn ask(&self, uri: &Uri, token: &HeaderValue, most: usize) -> Result<Bytes, ApiError> {
        let wait = self.pace.blocked();
        if !wait.is_zero() {
            let text = format!(
                "{} limits the rate of requests: next request in {} s",
                place(uri),
                wait.as_secs_f64().ceil()
            );
            return Err(Failure::new(Reason::Refused, text).into());
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, token.clone());
        let answer = self
            .exchange
            .send(Method::GET, uri, headers, "", most)
            .await?;
        self.pace.answered(answer.status, &answer.headers);
        if answer.status == StatusCode::OK {
            return Ok(answer.body);
        }
        let reason = match answer.status.as_u16() {
            401 | 403 => Reason::Credentials,
            _ => Reason::Refused,
        };
        let mut text = format!("{} answered {}", place(uri), answer.status.as_u16());
        let said: Errors = serde_json::from_slice(&answer.body).unwrap_or_default();
        for error in said.errors {
            let detail = foreign(&error.detail, MAX_DETAIL);
            text = format!("{text}: {}: {detail}", foreign(&error.title, MAX_DETAIL));
        }
        Err(ApiError {
            status: Some(answer.status.as_u16()),
            failure: Failure::new(reason, text),
        })
    }
}

/// Parses JSON off the workers: a large text takes a while.
async fn parse<T: serde::de::DeserializeOwned + Send + 'static>(
    path: &str,
    body: Bytes,
) -> Result<T, ApiError> {
    let parsed = tokio::task::spawn_blocking(move || serde_json::from_slice(&body)).await;
    let text = match parsed {
        Ok(Ok(parsed)) => return Ok(parsed),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(Reason::Invalid, format!("{path}: {text}")).into())
}
