//! Tokens of Kubernetes service accounts, verified by the API server (`TokenReview`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::warn;

use metrifold_base::{BuildError, LogLimit, Secret, read_text};
use metrifold_http::{Client, ClientTls};
use metrifold_model::Proof;

use super::{Proven, Verdict, oidc};
use crate::cache::Cache;
use crate::config::KubernetesConfig;
use crate::digest;
use crate::fetch;
use crate::shown::{Credentials, Shown};

/// Path of the review API.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Maximum size of the token file, in bytes.
const MAX_TOKEN: u64 = 64 << 10;

/// Maximum number of concurrent reviews.
const AT_ONCE: usize = 8;

/// Maximum time that a caller waits for its review to start, and timeout of the review.
const TURN: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which a rejection is cached: short, as a new token may not be known to all API servers yet.
const WRONG: Duration = Duration::from_secs(10);

/// Maximum number of cached verdicts per generation of the cache.
const CACHED: usize = 10_000;

/// Reviews tokens by the API server, and caches the verdicts.
pub(crate) struct Reviews {
    client: Client,
    uri: Uri,
    token_file: PathBuf,
    audiences: Vec<String>,
    cache: Duration,
    turns: Semaphore,
    known: Cache<Verdict>,
    log: LogLimit,
}

impl Reviews {
    pub(crate) fn new(config: &KubernetesConfig) -> Result<Self, BuildError> {
        let config = config.clone();
        let tls = ClientTls {
            ca_file: config.ca_file().map(Path::to_owned),
            ..config.tls
        };
        let server = config.api_server.uri().to_string();
        let uri = format!("{}{PATH}", server.trim_end_matches('/'));
        Ok(Self {
            client: fetch::client(&tls)?,
            uri: uri
                .parse()
                .map_err(|error| BuildError::new("api_server", error))?,
            token_file: config.token_file,
            audiences: config.audiences,
            cache: config.cache.0,
            turns: Semaphore::new(AT_ONCE),
            known: Cache::new(CACHED),
            log: LogLimit::default(),
        })
    }

    /// URL of the API server's reviews.
    pub(crate) fn server(&self) -> &Uri {
        &self.uri
    }

    pub(crate) async fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let Credentials::Bearer(token) = shown.credentials else {
            return Verdict::Absent;
        };
        let key = digest::plain(token.as_bytes());
        if let Some(verdict) = self.known.get(&key) {
            return verdict;
        }
        let Ok(Ok(_turn)) = timeout(TURN, self.turns.acquire()).await else {
            return Verdict::Unknown("too many token reviews are pending".into());
        };
        // A concurrent request with the same token may have been reviewed meanwhile.
        if let Some(verdict) = self.known.get(&key) {
            return verdict;
        }
        let verdict = match self.review(token).await {
            Ok(verdict) => verdict,
            Err(reason) => {
                if let Some(silent) = self.log.pass() {
                    warn!(error = %reason, silent, "cannot review a token");
                }
                // The caller may be anybody, who is not to learn addresses and paths.
                let reason = "the Kubernetes API server did not review the token: see the log of the gateway";
                return Verdict::Unknown(reason.into());
            }
        };
        let time = match &verdict {
            Verdict::Proven(_) => self.cache.min(left(token)),
            _ => WRONG.min(self.cache),
        };
        self.known.put(key, verdict.clone(), Instant::now() + time);
        verdict
    }

    async fn review(&self, token: &str) -> Result<Verdict, String> {
        // Read each time, as Kubernetes rotates the file.
        let own = read_text(&self.token_file, MAX_TOKEN);
        let file = self.token_file.display();
        let own = own.map_err(|error| format!("cannot read {file}: {error}"))?;
        let own = Secret::new(own.trim());
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("Bearer {}", own.expose()));
        let mut value = value.map_err(|_| format!("{file} does not contain a token"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": self.audiences },
        });
        let body = body.to_string().into();
        let (client, uri) = (&self.client, &self.uri);
        let answer = fetch::json(client, Method::POST, uri, headers, body, TIMEOUT).await?;
        Ok(self.read(&answer))
    }

    fn read(&self, answer: &Value) -> Verdict {
        let status = &answer["status"];
        if status["authenticated"] != true {
            return Verdict::wrong("token is not valid in this cluster, or has expired");
        }
        let list = |value: &Value| -> Vec<Arc<str>> {
            let values = value.as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(Arc::from).collect()
        };
        // A server without support for audiences returns none.
        let audiences = list(&status["audiences"]);
        let wanted = self.audiences.iter();
        let mut wanted = wanted.filter(|it| audiences.iter().any(|other| **other == ***it));
        if !self.audiences.is_empty() && wanted.next().is_none() {
            return Verdict::wrong("token is for another audience");
        }
        let user = &status["user"];
        let Some(name) = user["username"].as_str().filter(|name| !name.is_empty()) else {
            return Verdict::wrong("token review has no user name");
        };
        Verdict::Proven(Arc::new(Proven {
            subject: Some(name.into()),
            groups: list(&user["groups"]).into(),
            proof: Proof::Token,
            certificate: None,
        }))
    }
}

/// Time until a valid token expires. One without the usual form may be cached as long as any.
fn left(token: &str) -> Duration {
    let left = oidc::expiry_of(token).map(|at| at.duration_since(SystemTime::now()));
    left.map_or(Duration::MAX, Result::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::HeaderMap;
    use metrifold_http::access::Head;

    use super::*;
    use crate::testing::{Asked, serve};

    /// State of the fake API server: its tokens, and the number of reviews.
    #[derive(Default)]
    struct Server {
        down: bool,
        /// Whether it is later than the expiry of all tokens.
        later: bool,
        asked: usize,
    }

    impl Server {
        fn review(&mut self, asked: &Asked) -> (u16, String) {
            self.asked += 1;
            assert_eq!(asked.line, format!("POST {PATH} HTTP/1.1"));
            let own = ("authorization".to_owned(), "Bearer own-token".to_owned());
            if self.down || !asked.headers.contains(&own) {
                return (503, String::new());
            }
            let review: Value = serde_json::from_slice(&asked.body).unwrap();
            assert_eq!(review["kind"], "TokenReview");
            let wanted = review["spec"]["audiences"].as_array().unwrap();
            let token = review["spec"]["token"].as_str().unwrap();
            // Like the real one, rejects a token that has expired.
            let expiry = oidc::expiry_of(token);
            let good = match expiry {
                Some(expiry) => expiry > SystemTime::now() && !self.later,
                None => ["agent-token", "other-token"].contains(&token),
            };
            let audience = if token == "other-token" {
                "other"
            } else {
                "metrics"
            };
            // Like the real one, rejects a token for another audience.
            let good = good && (wanted.is_empty() || wanted.iter().any(|it| it == audience));
            let status = match good {
                true => json!({ "authenticated": true, "audiences": [audience], "user": {
                    "username": "system:serviceaccount:ns:agent",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:ns"],
                }}),
                false => json!({ "authenticated": false, "error": "invalid bearer token" }),
            };
            (
                201,
                json!({ "kind": "TokenReview", "status": status }).to_string(),
            )
        }
    }

    async fn prove(reviews: &Reviews, token: &str) -> String {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}").parse().unwrap();
        headers.insert(AUTHORIZATION, value);
        let uri = Uri::from_static("/");
        let shown = Shown::of(Head {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            params: &[],
            peer: ([127, 0, 0, 1], 1).into(),
            certificate: None,
            presented: &[],
        });
        match reviews.prove(&shown).await {
            Verdict::Proven(proven) => format!(
                "{} {}",
                proven.subject.as_deref().unwrap(),
                proven.groups.len()
            ),
            Verdict::Absent => "absent".to_owned(),
            Verdict::Wrong(_) => "wrong".to_owned(),
            Verdict::Unknown(_) => "unknown".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_server_says_whose_a_token_is_and_is_believed_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "own-token\n").unwrap();
        let server = Arc::new(Mutex::new(Server::default()));
        let own = Arc::clone(&server);
        let url = serve(move |asked| own.lock().unwrap().review(asked));
        let text = format!(
            "api_server = \"{url}\"\ntoken_file = {token_file:?}\naudiences = [\"metrics\"]\n"
        );
        let reviews = Reviews::new(&toml::from_str(&text).unwrap()).unwrap();
        let agent = "system:serviceaccount:ns:agent 2";
        for _ in 0..2 {
            assert_eq!(prove(&reviews, "agent-token").await, agent);
            assert_eq!(
                prove(&reviews, "other-token").await,
                "wrong",
                "its audience is another"
            );
            assert_eq!(prove(&reviews, "bad-token").await, "wrong");
        }
        let asked = || server.lock().unwrap().asked;
        assert_eq!(asked(), 3);
        server.lock().unwrap().down = true;
        assert_eq!(prove(&reviews, "agent-token").await, agent, "known");
        assert_eq!(prove(&reviews, "new-token").await, "unknown");
        let pass = async |time| {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        };
        pass(Duration::from_secs(61)).await;
        assert_eq!(
            prove(&reviews, "agent-token").await,
            "unknown",
            "no longer known"
        );
        server.lock().unwrap().down = false;
        assert_eq!(prove(&reviews, "agent-token").await, agent);

        // A token that expires within the minute is accepted no longer than that.
        let token = |left: i64| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let exp = i64::try_from(now.unwrap().as_secs()).unwrap() + left;
            let claims = URL_SAFE_NO_PAD.encode(json!({ "exp": exp }).to_string());
            format!("e30.{claims}.AAAA")
        };
        assert_eq!(prove(&reviews, &token(-1)).await, "wrong");
        let (soon, late) = (token(20), token(3600));
        for token in [&soon, &late] {
            assert_eq!(prove(&reviews, token).await, agent);
        }
        server.lock().unwrap().later = true;
        pass(Duration::from_secs(21)).await;
        assert_eq!(prove(&reviews, &soon).await, "wrong", "it has expired");
        assert_eq!(prove(&reviews, &late).await, agent, "cached");
    }
}
