//! The delivery state of rules at rulers behind other processes, which these tell when they are asked.

use std::path::Path;

use bytes::Bytes;
use http::header::ACCEPT;
use http::uri::InvalidUri;
use http::{HeaderValue, Request, StatusCode};
use serde_json::Value;
use tokio::runtime::Handle;

use metrifold_base::{BuildError, Endpoint, Period, Problems, keys};
use metrifold_http::ClientKeys;

use super::TENANT;
use crate::rules::{Asker, side_by_side};

keys! {
    /// Other processes that serve the same store.
    #[derive(Clone, Debug)]
    pub struct StatusFromKeys {
        /// URLs of the tenants at the `rules_api` of the other processes, in front of `/rules` and with `{tenant}` for the tenant's name.
        urls: Vec<String> = required(["http://rules-2:8080/api/metrics/v1/{tenant}"]),
        client: ClientKeys = include,
        /// Maximum time for a request.
        timeout: Period = default("5s"),
    }
}

/// Largest answer of another process.
const MAX_ANSWER: usize = 16 << 20;
/// Most processes that are asked at once.
const AT_ONCE: usize = 8;

impl StatusFromKeys {
    /// Files that the keys name.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    /// Reports problems at the keys.
    pub(super) fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        if self.urls.is_empty() {
            problems.at("urls", "must name at least one URL");
        }
        for (place, url) in self.urls.iter().enumerate() {
            let key = format!("urls[{place}]");
            match url.replacen(TENANT, "t", 1).parse::<Endpoint>() {
                _ if url.matches(TENANT).count() != 1 => {
                    let help = "as in \"http://rules-2:8080/api/metrics/v1/{tenant}\"";
                    problems.at(key, "must contain {tenant} once").help(help);
                }
                Ok(endpoint) if endpoint.uri().query().is_some() => {
                    problems.at(key, "must have no query string");
                }
                Ok(_) => {}
                Err(reason) => {
                    problems.at(key, reason);
                }
            }
        }
        if self.timeout < Period::millis(100) {
            problems.at("timeout", "must be at least 100ms");
        }
    }

    /// # Errors
    ///
    /// Fails if a secret or a certificate cannot be read.
    pub(super) fn build(&self) -> Result<Elsewhere, BuildError> {
        let failed = |error: tokio::runtime::TryCurrentError| {
            BuildError::new("status_from", error.to_string())
        };
        Ok(Elsewhere {
            asker: Asker {
                client: self.client.client(1)?,
                credentials: self.client.credentials()?,
                timeout: self.timeout.0,
            },
            urls: self.urls.clone(),
            runtime: Handle::try_current().map_err(failed)?,
        })
    }
}

/// The other processes.
pub(super) struct Elsewhere {
    asker: Asker,
    urls: Vec<String>,
    runtime: Handle,
}

impl Elsewhere {
    /// Asks all processes for the state of a tenant's rules: their answers, `null` if one has no rules
    /// of the tenant, or which one failed and why. Blocks.
    pub(super) fn ask(&self, tenant: &str) -> Vec<Result<Value, String>> {
        let questions = self.urls.iter().map(|url| {
            let url = url.replacen(TENANT, tenant, 1);
            let url = format!("{}/rules?status=local", url.trim_end_matches('/'));
            let asker = self.asker.clone();
            async move {
                let answer = ask(&asker, &url).await;
                answer.map_err(|reason| format!("{url}: {reason}"))
            }
        });
        let questions: Vec<_> = questions.collect();
        let mut answers = Vec::new();
        self.runtime
            .block_on(side_by_side(AT_ONCE, questions, |answer| {
                answers.push(answer);
                true
            }));
        answers
    }
}

async fn ask(asker: &Asker, url: &str) -> Result<Value, String> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.parse().map_err(|error: InvalidUri| error.to_string())?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(ACCEPT, json);
    let (head, text) = asker.ask(request, MAX_ANSWER).await?.into_parts();
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(Value::Null),
        status => return Err(format!("server answered {status}")),
    }
    let text = text.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
