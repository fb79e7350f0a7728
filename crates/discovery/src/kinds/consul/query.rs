//! Queries to an agent, and the index that comes with each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use metrifold_base::{BuildError, Secret};
use metrifold_http::{Credentials, place};

use crate::answer::{Failure, Reason};
use crate::exchange::{Exchange, escape};
use crate::labels::Labels;

use super::answers::{Instance, Itself, targets};
use super::{CATALOG, ConsulConfig};

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
/// The most queries in flight that are answered at once.
const STARTING: usize = 32;
/// The most characters of an error that are shown.
const EXCERPT: usize = 300;

/// Client of an agent.
pub(super) struct Agent {
    pub(super) config: ConsulConfig,
    pub(super) starting: Semaphore,
    exchange: Exchange,
    credentials: Credentials,
    token: Option<(Secret, HeaderValue)>,
    /// The agent's URL, without a slash at its end.
    root: String,
}

/// An answer, and its index.
pub(super) struct Heard<T> {
    pub(super) index: u64,
    pub(super) content: T,
}

impl<T> Heard<T> {
    /// The index to wait beyond. One that goes back means that the servers have started over; 0
    /// would not block.
    pub(super) fn next(&self, before: u64) -> u64 {
        match self.index {
            now if now < before => 0,
            now => now.max(1),
        }
    }
}

impl Agent {
    pub(super) fn new(config: &ConsulConfig, token: Option<Secret>) -> Result<Self, BuildError> {
        let token = token.map(|token| {
            let mut value = HeaderValue::try_from(token.expose())
                .map_err(|error| BuildError::new("token", error))?;
            value.set_sensitive(true);
            Ok((token, value))
        });
        // One query for each service, and one for the catalog, is in flight all the time.
        let client = config
            .client
            .client(config.max_services.saturating_add(1))?;
        let root = place(config.server.uri());
        Ok(Self {
            exchange: Exchange::new(client, config.timeout.0),
            credentials: config.client.credentials()?,
            token: token.transpose()?,
            root: root.trim_end_matches('/').to_owned(),
            starting: Semaphore::new(STARTING),
            config: config.clone(),
        })
    }

    /// The configured datacenter, or the agent's own.
    pub(super) async fn datacenter(&self) -> Result<String, Failure> {
        if let Some(datacenter) = &self.config.datacenter {
            return Ok(datacenter.clone());
        }
        let itself: Heard<Itself> = self.ask("/v1/agent/self", None).await?;
        Ok(itself.content.config.datacenter)
    }

    /// The services of the catalog with their tags.
    pub(super) async fn catalog(
        &self,
        index: u64,
    ) -> Result<Heard<BTreeMap<String, Option<Vec<String>>>>, Failure> {
        let filter = self.config.filter.as_deref();
        let query = self.query(index, filter, &[]);
        self.ask(CATALOG, Some(query)).await
    }

    /// The instances of a service with their health.
    pub(super) async fn service(
        &self,
        name: &str,
        index: u64,
    ) -> Result<Heard<Vec<Instance>>, Failure> {
        let filter = self.config.health_filter.as_deref();
        let query = self.query(index, filter, &self.config.tags);
        let path = format!("/v1/health/service/{}", escape(name));
        self.ask(&path, Some(query)).await
    }

    /// The services of the catalog that match the configuration.
    pub(super) fn wanted(
        &self,
        services: BTreeMap<String, Option<Vec<String>>>,
    ) -> Result<BTreeSet<Arc<str>>, Failure> {
        let wanted = services
            .into_iter()
            .filter(|(name, tags)| self.config.wants(name, tags.as_deref().unwrap_or_default()));
        let wanted: BTreeSet<Arc<str>> = wanted.map(|(name, _)| name.into()).collect();
        if wanted.len() > self.config.max_services {
            let text = format!(
                "the catalog has {} services: max_services is {}",
                wanted.len(),
                self.config.max_services
            );
            return Err(Failure::new(Reason::TooLarge, text));
        }
        Ok(wanted)
    }

    pub(super) fn targets(
        &self,
        service: &str,
        datacenter: &str,
        instances: Vec<Instance>,
    ) -> Vec<Labels> {
        targets(service, datacenter, &self.config.tag_separator, instances)
    }

    fn query(&self, index: u64, filter: Option<&str>, tags: &[String]) -> String {
        let config = &self.config;
        let mut query = format!("index={index}&wait={}ms", config.wait.0.as_millis());
        let mut push = |name: &str, value: &str| {
            query.push_str(&format!("&{name}={}", escape(value)));
        };
        for (name, value) in [
            ("dc", config.datacenter.as_deref()),
            ("ns", config.namespace.as_deref()),
            ("partition", config.partition.as_deref()),
            ("filter", filter),
        ] {
            if let Some(value) = value {
                push(name, value);
            }
        }
        for (name, value) in &config.node_meta {
            push("node-meta", &format!("{name}:{value}"));
        }
        for tag in tags {
            push("tag", tag);
        }
        if config.allow_stale {
            query.push_str("&stale");
        }
        query
    }

    /// Sends a request. One with a query blocks for up to `wait`, which extends the time limit.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Option<String>,
    ) -> Result<Heard<T>, Failure> {
        let wait = match query {
            // The agent adds up to a sixteenth of jitter.
            Some(_) => self.config.wait.0 + self.config.wait.0 / 16,
            None => Duration::ZERO,
        };
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let uri: Uri = format!("{}{path}{query}", self.root)
            .parse()
            .map_err(|error| Failure::new(Reason::Invalid, format!("{path}: {error}")))?;
        let mut headers = HeaderMap::new();
        if let Some((_, token)) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        let authorization = self.credentials.header().await;
        let authorization =
            authorization.map_err(|error| Failure::new(Reason::Credentials, error))?;
        if let Some(value) = authorization.clone() {
            headers.insert(AUTHORIZATION, value);
        }
        let most = self.config.limits.limits().answer_bytes;
        let answered = self
            .exchange
            .send_within(
                Method::GET,
                &uri,
                headers,
                "",
                most,
                wait + self.config.timeout.0,
            )
            .await?;
        match answered.status {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                if let Some(value) = &authorization {
                    self.credentials.refused(value);
                }
                let text = format!("{path}: agent answered {status}");
                return Err(Failure::new(Reason::Credentials, text));
            }
            status => {
                let said = String::from_utf8_lossy(&answered.body);
                let said: String = said.trim().chars().take(EXCERPT).collect();
                let text = format!("{path}: agent answered {status}: {said}");
                return Err(Failure::new(Reason::Refused, text));
            }
        }
        let index = answered.headers.get(INDEX);
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        let content = serde_json::from_slice(&answered.body)
            .map_err(|error| Failure::new(Reason::Invalid, format!("{path}: {error}")))?;
        Ok(Heard {
            index: index.unwrap_or_default(),
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_begins_anew_and_none_is_waited_for_at_0() {
        let next = |before, now| {
            let heard = Heard {
                index: now,
                content: (),
            };
            heard.next(before)
        };
        assert_eq!(next(0, 7), 7);
        assert_eq!(next(7, 7), 7);
        assert_eq!(next(7, 9), 9);
        assert_eq!(next(9, 3), 0);
        assert_eq!(next(0, 0), 1);
    }
}
