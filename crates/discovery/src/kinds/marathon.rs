//! `marathon`: tasks of applications that Marathon runs, as Prometheus' `marathon_sd_configs`.
//!
//! Several masters are asked in turn until one answers, which is then asked first. Each application is a
//! source of its own.

mod apps;
mod principal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Endpoint, Period, Problems, RunError, Secret, keys};
use metrifold_http::{ClientKeys, Credentials, SecretFrom, place};

use crate::answer::{Failure, Reason};
use crate::exchange::{Answered, Exchange, escape};
use crate::limits::{LimitKeys, Limits, OnEmpty};
use crate::poll::{Polled, aside, poll};
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::{Answer, Feed};

use apps::{App, AppList, OneApp};
use principal::{Login, Principal};

/// Source that fails when no master answers.
const MASTERS: &str = "masters";
/// The most applications that are requested by name.
const MAX_APPS: usize = 1000;

keys! {
    /// `[discovery.NAME] type = "marathon"`.
    #[derive(Clone, Debug)]
    pub struct MarathonConfig {
        /// URLs of the Marathon masters. They are tried in order until one answers.
        servers: Vec<Endpoint> = required(["http://marathon.example:8080"]),
        /// IDs of the applications whose tasks are targets; by default, all.
        apps: Vec<String> = unset(["/prometheus"]),
        /// Index, from 0, of the task's port that is a target; by default, all ports are.
        port_index: Option<usize> = unset(0),
        /// How often applications are requested.
        refresh_interval: Period = default("30s"),
        /// Maximum time for the answer of one master.
        timeout: Period = default("10s"),
        /// DC/OS token, sent as `Authorization: token=...`.
        auth_token: Option<Secret> = unset("${DCOS_TOKEN}"),
        /// File with the token, instead of `auth_token`. It is read again for each refresh.
        auth_token_file: Option<PathBuf> = unset("/etc/metrifold/dcos-token"),
        /// Secret of a DC/OS service account in JSON, with which tokens are obtained: `uid`, `login_endpoint`, and `private_key` or `password`.
        principal_secret: Option<Secret> = unset("${DCOS_PRINCIPAL_SECRET}"),
        /// File with the secret of the service account, instead of `principal_secret`.
        principal_secret_file: Option<PathBuf> = unset("/etc/metrifold/dcos-principal.json"),
        /// URL to obtain tokens from, instead of the secret's `login_endpoint`.
        auth_endpoint: Option<Endpoint> = unset("https://leader.mesos/acs/api/v1/auth/login"),
        client: ClientKeys = include,
        limits: LimitKeys = include,
    }
}

inventory::submit! {
    ProviderInfo {
        name: "marathon",
        summary: "tasks of Marathon applications, as with Prometheus' marathon_sd_configs",
        keys: MarathonConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "marathon")]
impl ProviderConfig for MarathonConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // One application without tasks is an answer; the case that none has any is handled below.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|it| place(it.uri())).collect();
        format!("{servers:?} {:?} {:?}", self.apps, self.port_index)
    }

    fn files(&self) -> Vec<&Path> {
        let mut files = self.client.files();
        files.extend(self.principal_secret_file.as_deref());
        files
    }

    fn validate(&self, problems: &mut Problems) {
        if self.servers.is_empty() {
            problems.at("servers", "must have at least one URL");
        }
        for (at, server) in self.servers.iter().enumerate() {
            if server.uri().query().is_some() {
                problems.at(format!("servers[{at}]"), "must have no query");
            }
        }
        for (at, app) in self.apps.iter().enumerate() {
            if app.trim_matches('/').is_empty() {
                problems.at(format!("apps[{at}]"), "must not be empty");
            }
        }
        if self.apps.len() > MAX_APPS {
            problems.at("apps", format!("must be at most {MAX_APPS}"));
        }
        if self.refresh_interval < Period::millis(100) {
            problems.at("refresh_interval", "must be at least 100ms");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        if self.has_token() {
            let keys = ["auth_token", "auth_token_file"];
            self.token().validate("", keys, problems);
        }
        if self.has_principal() {
            let keys = ["principal_secret", "principal_secret_file"];
            if self.principal_secret.is_some() && self.principal_secret_file.is_some() {
                let what = "cannot be set together with principal_secret";
                problems.at(keys[1], what);
            }
            if self.has_token() {
                let what = "there is a token already: keep one of them";
                problems.at("principal_secret", what);
            }
            if problems.environment()
                && let Err(error) = self.principal()
            {
                let at = usize::from(self.principal_secret.is_none());
                problems.at(keys[at], error);
            }
        } else if self.auth_endpoint.is_some() {
            let problem = problems.at("auth_endpoint", "is for a service account");
            problem.help("add principal_secret or principal_secret_file");
        }
        self.client.validate(problems);
        self.limits.validate(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let exchange = Exchange::new(self.client.client(2)?, self.timeout.0);
        let login = match self.has_principal() {
            true => {
                let principal = self.principal();
                let principal =
                    principal.map_err(|error| BuildError::new("principal_secret", error))?;
                Some(Login::new(principal, exchange.clone()))
            }
            false => None,
        };
        let root = |server: &Endpoint| {
            let root = place(server.uri()).trim_end_matches('/').to_owned();
            // The path at which DC/OS serves Marathon behind its own address.
            match login.is_some() && matches!(server.uri().path(), "" | "/") {
                true => format!("{root}/marathon"),
                false => root,
            }
        };
        Ok(Box::new(Marathon {
            roots: self.servers.iter().map(root).collect(),
            current: 0,
            credentials: self.client.credentials()?,
            login,
            exchange,
            config: self.clone(),
        }))
    }
}

impl MarathonConfig {
    fn has_token(&self) -> bool {
        self.auth_token.is_some() || self.auth_token_file.is_some()
    }

    fn token(&self) -> SecretFrom<'_> {
        SecretFrom::new(self.auth_token.as_ref(), self.auth_token_file.as_deref())
    }

    fn has_principal(&self) -> bool {
        self.principal_secret.is_some() || self.principal_secret_file.is_some()
    }

    fn principal(&self) -> Result<Principal, String> {
        let file = self.principal_secret_file.as_deref();
        Principal::read(
            self.principal_secret.as_ref(),
            file,
            self.auth_endpoint.as_ref(),
        )
    }
}

struct Marathon {
    config: MarathonConfig,
    /// The masters' URLs, without a trailing slash.
    roots: Vec<String>,
    /// Index of the master that answered last.
    current: usize,
    exchange: Exchange,
    credentials: Credentials,
    login: Option<Login>,
}

impl Provider for Marathon {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        let interval: Duration = self.config.refresh_interval.0;
        poll(*self, interval, feed)
    }
}

impl Polled for Marathon {
    fn ask<'a>(
        &'a mut self,
        feed: &'a Feed,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>> {
        Box::pin(async move {
            let read = self.read().await;
            let keep = self.config.limits.on_empty == OnEmpty::Keep;
            let only = self.config.port_index;
            let feed = feed.clone();
            aside(move || {
                let found = match read {
                    Ok(found) => found,
                    Err(failure) => return feed.some(vec![(MASTERS.into(), Err(failure))]),
                };
                let answer = |(name, app): (Arc<str>, Result<Option<App>, Failure>)| {
                    let targets = app.map(|app| app.map(|app| app.targets(only)));
                    (name, targets.map(Option::unwrap_or_default))
                };
                let answers: Vec<Answer> = found.into_iter().map(answer).collect();
                let nothing = answers
                    .iter()
                    .all(|(_, answer)| answer.as_ref().is_ok_and(|targets| targets.is_empty()));
                let known = feed.count();
                if nothing && known > 0 && keep {
                    let text = format!(
                        "no application has a task: keeping the {known} targets known so far"
                    );
                    let failure = Failure::new(Reason::Empty, text);
                    return feed.some(vec![(MASTERS.into(), Err(failure))]);
                }
                feed.all(answers);
            })
            .await
        })
    }
}

/// Applications by the names of their sources; `None` for an application that does not exist.
type Found = Vec<(Arc<str>, Result<Option<App>, Failure>)>;

/// A request that no master has answered as asked.
enum Unanswered {
    /// Other requests may succeed.
    This(Failure),
    /// Other requests would fail alike, or as slowly: a master is unreachable and no other answers,
    /// or the credentials are wrong.
    Any(Failure),
}

impl Unanswered {
    fn into_failure(self) -> Failure {
        let (Self::This(failure) | Self::Any(failure)) = self;
        failure
    }
}

impl Marathon {
    async fn read(&mut self) -> Result<Found, Failure> {
        if self.config.apps.is_empty() {
            let answered = self.get("/v2/apps/?embed=apps.tasks").await;
            let answered = answered.map_err(Unanswered::into_failure)?;
            let list: AppList = read(&answered, "/v2/apps")?;
            let apps = list.apps.into_iter();
            return Ok(apps
                .map(|app| (app.id.as_str().into(), Ok(Some(app))))
                .collect());
        }
        let mut found = Vec::new();
        for name in self.config.apps.clone() {
            let parts: Vec<String> = name.trim_matches('/').split('/').map(escape).collect();
            let path = format!("/v2/apps/{}", parts.join("/"));
            let app = match self.get(&path).await {
                Ok(answered) if answered.status == StatusCode::NOT_FOUND => Ok(None),
                Ok(answered) => read::<OneApp>(&answered, &path).map(|one| Some(one.app)),
                Err(Unanswered::This(failure)) => Err(failure),
                // Hundreds of applications would each wait for masters that do not answer.
                Err(Unanswered::Any(failure)) => return Err(failure),
            };
            found.push((name.into(), app));
        }
        Ok(found)
    }

    /// Asks the masters in turn, starting with the one that answered last, until one answers
    /// for itself: without a server error, and without a redirect to another master, which would
    /// get the credentials.
    async fn get(&mut self, path: &str) -> Result<Answered, Unanswered> {
        let (mut refused, mut unreachable) = (None, None);
        for step in 0..self.roots.len() {
            let master = (self.current + step) % self.roots.len();
            let uri = format!("{}{path}", self.roots[master]);
            let uri: Uri = uri.parse().map_err(|error| {
                Unanswered::This(Failure::new(Reason::Invalid, format!("{path}: {error}")))
            })?;
            match self.send(&uri).await {
                Ok(answered)
                    if answered.status.is_server_error() || answered.status.is_redirection() =>
                {
                    let text = format!("{} answered {}", place(&uri), answered.status);
                    refused = Some(Failure::new(Reason::Refused, text));
                }
                Ok(answered) => {
                    self.current = master;
                    return judge(answered, &uri);
                }
                Err(failure) if failure.reason == Reason::Credentials => {
                    return Err(Unanswered::Any(failure));
                }
                Err(failure) => unreachable = Some(failure),
            }
        }
        Err(match (refused, unreachable) {
            (Some(refused), None) => Unanswered::This(refused),
            // The answer says more than its lack.
            (Some(refused), Some(_)) => Unanswered::Any(refused),
            (None, Some(unreachable)) => Unanswered::Any(unreachable),
            (None, None) => {
                Unanswered::Any(Failure::new(Reason::Unreachable, "no master is known"))
            }
        })
    }

    /// Asks one master; a second time with a new token if it refuses the first.
    async fn send(&self, uri: &Uri) -> Result<Answered, Failure> {
        let most = self.config.limits.limits().answer_bytes;
        for again in [true, false] {
            let mut headers = HeaderMap::new();
            let shown = self.authorization().await?;
            if let Some(value) = shown.clone() {
                headers.insert(AUTHORIZATION, value);
            }
            let answered = self
                .exchange
                .send(Method::GET, uri, headers, "", most)
                .await?;
            if answered.status != StatusCode::UNAUTHORIZED {
                return Ok(answered);
            }
            if let Some(shown) = shown {
                match &self.login {
                    Some(login) if again => {
                        login.refused(&shown).await;
                        continue;
                    }
                    Some(_) => {}
                    None => self.credentials.refused(&shown),
                }
            }
            return Ok(answered);
        }
        Err(Failure::new(Reason::Credentials, "every token was refused"))
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let lost = |error: String| Failure::new(Reason::Credentials, error);
        if let Some(login) = &self.login {
            return login.header().await.map(Some);
        }
        if self.config.has_token() {
            let token = self.config.token().read().map_err(lost)?;
            return principal::token_header(&token).map(Some).map_err(lost);
        }
        let header = self.credentials.header().await;
        header.map_err(|error| lost(error.to_string()))
    }
}

/// Turns refusals into failures.
fn judge(answered: Answered, uri: &Uri) -> Result<Answered, Unanswered> {
    let text = format!("{} answered {}", place(uri), answered.status);
    Err(match answered.status {
        StatusCode::OK | StatusCode::NOT_FOUND => return Ok(answered),
        StatusCode::UNAUTHORIZED => Unanswered::Any(Failure::new(Reason::Credentials, text)),
        // Permissions may be those of one application.
        StatusCode::FORBIDDEN => Unanswered::This(Failure::new(Reason::Credentials, text)),
        _ => Unanswered::This(Failure::new(Reason::Refused, text)),
    })
}

fn read<T: serde::de::DeserializeOwned>(answered: &Answered, path: &str) -> Result<T, Failure> {
    if answered.status != StatusCode::OK {
        let text = format!("{path}: a master answered {}", answered.status);
        return Err(Failure::new(Reason::Refused, text));
    }
    serde_json::from_slice(&answered.body)
        .map_err(|error| Failure::new(Reason::Invalid, format!("{path}: {error}")))
}
