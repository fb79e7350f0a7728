//! Decisions of an Open Policy Agent, instead of roles. A request is rejected unless the agent allows
//! it, and also while the agent is unreachable.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::warn;

use metrifold_base::{BuildError, LogLimit};
use metrifold_http::Client;
use metrifold_http::access::Permission;
use metrifold_model::{Membership, Rejection, RejectionKind};

use crate::cache::Cache;
use crate::config::OpaConfig;
use crate::digest::{self, Digest};
use crate::fetch;
use crate::proof::Proven;
use crate::roles::METRICS;

/// Maximum number of concurrent queries to the agent.
const AT_ONCE: usize = 64;

/// Maximum number of cached decisions per generation of the cache.
const CACHED: usize = 10_000;

/// A policy agent.
pub(crate) struct Opa {
    config: OpaConfig,
    client: Client,
    turns: Semaphore,
    known: Cache<bool>,
    log: LogLimit,
}

impl Opa {
    pub(crate) fn new(config: &OpaConfig) -> Result<Self, BuildError> {
        Ok(Self {
            client: fetch::client(&config.tls)?,
            turns: Semaphore::new(AT_ONCE),
            known: Cache::new(CACHED),
            log: LogLimit::default(),
            config: config.clone(),
        })
    }

    /// The decision on a caller's permission for a tenant, if it is cached.
    pub(crate) fn known(
        &self,
        at: &Membership,
        proven: &Proven,
        permission: Permission,
    ) -> Option<Result<(), Rejection>> {
        let (_, key) = question(at, proven, permission);
        let allowed = self.known.get(&key)?;
        Some(decided(allowed, at, proven, permission))
    }

    /// Asks whether a caller has a permission for a tenant.
    pub(crate) async fn check(
        &self,
        at: &Membership,
        proven: &Proven,
        permission: Permission,
    ) -> Result<(), Rejection> {
        let (input, key) = question(at, proven, permission);
        let allowed = self.ask(input, &key).await.map_err(|reason: Arc<str>| {
            if let Some(silent) = self.log.pass() {
                warn!(error = %reason, silent, "no decision from an open policy agent");
            }
            // Where the agent is, is nothing for callers.
            let reason = "no decision from the Open Policy Agent: see the log of the gateway";
            Rejection::unavailable(reason)
        })?;
        let until = Instant::now() + self.config.cache.0;
        self.known.put(key, allowed, until);
        decided(allowed, at, proven, permission)
    }

    async fn ask(&self, input: String, key: &Digest) -> Result<bool, Arc<str>> {
        let limit: Duration = self.config.timeout.0;
        let deadline = Instant::now() + limit;
        let Ok(Ok(_turn)) = timeout(limit, self.turns.acquire()).await else {
            return Err("too many decisions are pending".into());
        };
        // A concurrent request may have been decided alike meanwhile.
        if let Some(allowed) = self.known.get(key) {
            return Ok(allowed);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let left = deadline.saturating_duration_since(Instant::now());
        let uri = self.config.url.uri();
        let answer = fetch::json(&self.client, Method::POST, uri, headers, input.into(), left);
        let answer = answer.await?;
        // An answer without a result means that the rule is undefined: nothing is allowed.
        let result = &answer["result"];
        Ok(*result == Value::Bool(true) || result["allowed"] == Value::Bool(true))
    }
}

/// The query about a permission, and the key of its decision.
fn question(at: &Membership, proven: &Proven, permission: Permission) -> (String, Digest) {
    let input = json!({ "input": {
        "subject": proven.subject.as_deref().unwrap_or_default(),
        "groups": proven.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
        "tenant": &*at.name,
        "tenantID": &*at.tenant,
        "resource": METRICS,
        "permission": permission.as_str(),
    }});
    let input = input.to_string();
    let key = digest::plain(input.as_bytes());
    (input, key)
}

fn decided(
    allowed: bool,
    at: &Membership,
    proven: &Proven,
    permission: Permission,
) -> Result<(), Rejection> {
    if allowed {
        return Ok(());
    }
    let (who, permission, tenant) = (proven.who(), permission.as_str(), &*at.name);
    let reason = format!(
        "the Open Policy Agent denies {who} the permission {permission} for tenant {tenant:?}"
    );
    Err(Rejection::new(RejectionKind::Forbidden, reason))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;

    use metrifold_model::Proof;

    use super::*;
    use crate::testing::serve;

    /// An agent that always sends `answer`, and records the queries.
    fn agent(answer: &'static str) -> (String, Arc<Mutex<Vec<Value>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&asked);
        let url = serve(move |asked| {
            let asked = serde_json::from_slice(&asked.body).unwrap();
            own.lock().unwrap().push(asked);
            (200, answer.to_owned())
        });
        (format!("{url}/v1/data/x/allow"), asked)
    }

    async fn ask(url: &str) -> Result<(), RejectionKind> {
        let config = format!("url = \"{url}\"\ntimeout = \"500ms\"");
        let opa = Opa::new(&toml::from_str(&config).unwrap()).unwrap();
        let at = Membership {
            name: "acme".into(),
            tenant: "id".into(),
        };
        let proven = Proven {
            subject: Some("jane".into()),
            groups: ["a".into()].into(),
            proof: Proof::Token,
            certificate: None,
        };
        for _ in 0..2 {
            let checked = opa.check(&at, &proven, Permission::Write).await;
            checked.map_err(|rejection| rejection.kind)?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_the_agent_does_not_allow_is_not_done() {
        use RejectionKind::{Forbidden, Unavailable};
        for (answer, expected) in [
            ("{\"result\":true}", Ok(())),
            ("{\"result\":{\"allowed\":true}}", Ok(())),
            ("{\"result\":false}", Err(Forbidden)),
            ("{\"result\":{\"allowed\":\"true\"}}", Err(Forbidden)),
            ("{\"result\":1}", Err(Forbidden)),
            ("{}", Err(Forbidden)),
            ("nonsense", Err(Unavailable)),
        ] {
            let (url, asked) = agent(answer);
            assert_eq!(ask(&url).await, expected, "{answer}");
            let asked = asked.lock().unwrap();
            assert_eq!(asked.len(), 1, "{answer}: the second time is known");
            let expected = json!({ "input": {
                "subject": "jane", "groups": ["a"], "tenant": "acme", "tenantID": "id",
                "resource": "metrics", "permission": "write",
            }});
            assert_eq!(asked[0], expected);
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_dead_or_slow_allows_nothing_and_is_nobody_elses_fault() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", taken.local_addr().unwrap());
        assert_eq!(
            ask(&url).await,
            Err(RejectionKind::Unavailable),
            "it never answers"
        );
        drop(taken);
        assert_eq!(
            ask(&url).await,
            Err(RejectionKind::Unavailable),
            "nobody listens"
        );
    }
}
