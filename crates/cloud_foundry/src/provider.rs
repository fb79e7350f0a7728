//! The provider: it reads its foundation at an interval and reports what the selectors find in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::keys::{Keys, defaults};
use metrifold_base::{BoxFuture, BuildError, Period, Problems, RunError};
use metrifold_discovery::{
    Exchange, Failure, Feed, Limits, OnEmpty, Provider, ProviderConfig, ProviderContext,
    ProviderInfo, Reason,
};
use metrifold_http::place;

use crate::api::Api;
use crate::config::{CloudFoundryConfig, SelectKeys};
use crate::facts::Facts;
use crate::foundation::Foundation;
use crate::pace::Pace;
use crate::reader::Reader;
use crate::select::Selector;
use crate::targets::{Finder, Found};
use crate::tell_apart::tell_apart;
use crate::uaa::{Account, Logins, Uaa};

/// Shortest time between two refreshes on request.
const NUDGED: Duration = Duration::from_secs(2);
/// The most selectors of a provider.
pub(crate) const MAX_SELECTORS: usize = 1000;

inventory::submit! {
    ProviderInfo {
        name: "cloud_foundry",
        summary: "instances of the applications of a Cloud Foundry foundation",
        keys: CloudFoundryConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "cloud_foundry")]
impl ProviderConfig for CloudFoundryConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // `tell` itself distinguishes nothing found from nothing running.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        format!("{} {:?}", self.api.uri(), self.select)
    }

    fn files(&self) -> Vec<&Path> {
        // Without the refresh token's file, which the provider writes itself.
        let uaa = [&self.uaa.password_file, &self.uaa.client_secret_file];
        let uaa = uaa.into_iter().flatten().map(PathBuf::as_path);
        let tls = self.tls.files().chain(self.proxy.files());
        tls.chain(uaa).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.uaa.validate(problems);
        if self.select.len() > MAX_SELECTORS {
            problems.at("select", format!("must be at most {MAX_SELECTORS}"));
        }
        let mut names = Vec::new();
        for (at, select) in self.select.iter().enumerate() {
            Selector::compile(select, at, problems);
            if let Some(name) = &select.name {
                if names.contains(&name) {
                    let what = format!("{name:?} is already the name of another entry");
                    problems.at(format!("select[{at}].name"), what);
                }
                names.push(name);
            }
        }
        if !(1..=100).contains(&self.rate_limit_share) {
            problems.at("rate_limit_share", "must be from 1 to 100");
        }
        for (key, value) in [
            ("refresh_interval", self.refresh_interval),
            ("metadata_interval", self.metadata_interval),
            (
                "stats_interval",
                self.stats_interval.unwrap_or(self.refresh_interval),
            ),
        ] {
            if value < Period::millis(100) {
                problems.at(key, "must be at least 100ms");
            }
        }
        for (key, value) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("max_connection_age", self.max_connection_age),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        self.tls.validate("tls", problems);
        self.proxy.validate("", problems);
        self.limits.validate(problems);
    }

    fn build(&self, cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        Ok(Box::new(CloudFoundry::build(self, &cx.shared.get())?))
    }
}

impl CloudFoundryConfig {
    /// The selectors; without any, one that selects everything.
    fn selectors(&self) -> Result<Vec<Selector>, BuildError> {
        let everything = [defaults::<SelectKeys>()];
        let given = match self.select.is_empty() {
            true => everything.as_slice(),
            false => &self.select,
        };
        let mut problems = Problems::new(true);
        let given = given.iter().enumerate();
        let compiled: Option<Vec<_>> = given
            .map(|(at, select)| Selector::compile(select, at, &mut problems))
            .collect();
        compiled.ok_or_else(|| {
            let reasons = problems.into_list().into_iter();
            let reasons: Vec<_> = reasons.map(|problem| problem.message).collect();
            BuildError::new("select", reasons.join("; "))
        })
    }
}

/// A provider of one foundation.
struct CloudFoundry {
    api: Arc<Api>,
    reader: Reader,
    selectors: Arc<[Selector]>,
    /// URL of the foundation, as in the targets' labels.
    url: Arc<str>,
    interval: Duration,
    on_empty: OnEmpty,
}

impl CloudFoundry {
    fn build(config: &CloudFoundryConfig, logins: &Logins) -> Result<Self, BuildError> {
        let selectors: Arc<[Selector]> = config.selectors()?.into();
        let root = place(config.api.uri());
        let root = root.trim_end_matches('/').to_owned();
        let query = config.api.uri().query().unwrap_or_default().to_owned();
        let exchange = Exchange::new(config.client()?, config.timeout.0);
        let account = Account {
            api: root.clone(),
            query: query.clone(),
            keys: config.uaa.clone(),
        };
        let uaa = Arc::new(Uaa::new(exchange.clone(), account, logins));
        let pace = Pace::new(config.rate_limit_share);
        let most = config.limits.limits().answer_bytes;
        let api = Arc::new(Api::new(exchange, root.clone(), &query, uaa, pace, most));
        let reader = Reader::new(
            api.clone(),
            selectors.clone(),
            config.refresh_interval.0,
            config.metadata_interval.0,
            config.max_stats_requests,
            config.stats_interval.map(|it| it.0),
        );
        Ok(Self {
            api,
            reader,
            selectors,
            url: root.into(),
            interval: config.refresh_interval.0,
            on_empty: config.limits.on_empty,
        })
    }

    /// Reads the foundation and reports what is found. `facts` are shared with the first answer: those
    /// of a predecessor hold until then.
    async fn refresh(&mut self, feed: &Feed, facts: &mut Option<Facts>) -> Result<(), RunError> {
        let read = self.reader.read().await;
        let read = read.map(Arc::new);
        if read.is_ok()
            && let Some(facts) = facts.take()
        {
            feed.share(Arc::new(facts));
        }
        let foundation = read.as_ref().ok().cloned();
        let (selectors, url, on_empty) = (self.selectors.clone(), self.url.clone(), self.on_empty);
        if let Some(failure) = self.reader.states_failed() {
            feed.part_failed("states of instances", failure);
        }
        let feed = feed.clone();
        // Off the workers: making and comparing many targets takes a while.
        let told = tokio::task::spawn_blocking(move || match read {
            Ok(foundation) => tell(&feed, &foundation, &selectors, &url, on_empty),
            Err(failure) => {
                let names = selectors.iter().map(|it| it.name.as_str().into());
                feed.all(names.map(|name| (name, Err(failure.clone()))).collect());
            }
        });
        told.await.map_err(|error| RunError(error.to_string()))?;
        if let Some(foundation) = foundation {
            self.reader.measure(&foundation).await;
        }
        Ok(())
    }
}

impl Provider for CloudFoundry {
    fn run(mut self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let mut facts = Some(self.reader.facts());
            let mut nudgeable = Instant::now();
            loop {
                let started = Instant::now();
                let before = self.api.pace.requests();
                self.refresh(&feed, &mut facts).await?;
                let requests = self.api.pace.requests() - before;
                let pause = self.api.pace.pause(requests);
                let interval = self.interval.max(pause);
                let allowed = nudgeable.max(Instant::now() + pause);
                tokio::select! {
                    () = tokio::time::sleep_until(started + interval) => {}
                    () = async {
                        tokio::time::sleep_until(allowed).await;
                        feed.nudged().await;
                    } => {
                        nudgeable = Instant::now() + NUDGED;
                        self.reader.forget();
                        self.api.retry_login();
                    }
                }
            }
        })
    }
}

/// Reports what each selector finds. If targets were known and no application of theirs can be seen
/// any more, or nothing of a kind that started applications have, such as processes, that is treated
/// as lost permission and not as an answer. Applications of which none runs are an answer.
fn tell(
    feed: &Feed,
    foundation: &Foundation,
    selectors: &[Selector],
    url: &str,
    on_empty: OnEmpty,
) {
    let mut finder = Finder::new(url, foundation);
    let mut answers = Vec::with_capacity(selectors.len());
    let all = selectors.iter().enumerate();
    let mut all: Vec<Found> = all.map(|(at, it)| finder.find(at, it)).collect();
    tell_apart(&mut all);
    for (selector, found) in selectors.iter().zip(all) {
        let known = feed.known(&selector.name).len();
        let unseen = unseen(selector, &found, foundation);
        let answer = match unseen {
            Some(what) if known > 0 && on_empty == OnEmpty::Keep => {
                let text = format!("{what}: keeping the {known} targets known so far");
                Err(Failure::new(Reason::Empty, text))
            }
            _ => Ok(found.targets),
        };
        if found.apps == 0 {
            finder.leave(selector.name.clone(), "no application matches it");
        }
        answers.push((selector.name.as_str().into(), answer));
    }
    feed.leave_out(finder.left_out);
    feed.all(answers);
}

/// Says which empty list, if any, leaves a selector without targets.
fn unseen(selector: &Selector, found: &Found, foundation: &Foundation) -> Option<String> {
    if found.apps == 0 {
        return Some("no application matches".to_owned());
    }
    if found.started == 0 {
        return None;
    }
    let metadata = &foundation.metadata;
    let service = selector.service_credentials.as_ref();
    let unbound = service.filter(|it| !metadata.has_bindings(it));
    // A started application has processes, whatever the state of its instances.
    if foundation.has_no_processes() {
        Some("no process is listed".to_owned())
    } else if !metadata.sees_routes {
        Some("no route is listed".to_owned())
    } else {
        unbound.map(|service| format!("no application is bound to {service:?}"))
    }
}
