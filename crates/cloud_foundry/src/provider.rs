//! The provider: reads its foundation again and again, and tells what selectors find in it.

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
use crate::pace::Pace;
use crate::reader::{Foundation, Reader};
use crate::select::Selector;
use crate::targets::Finder;
use crate::uaa::Uaa;

/// The shortest pause between refreshes that somebody asks for.
const NUDGED: Duration = Duration::from_secs(2);
/// The most selectors of a provider.
const MAX_SELECTORS: usize = 1000;

inventory::submit! {
    ProviderInfo {
        name: "cloud_foundry",
        summary: "instances of applications that a Cloud Foundry foundation runs",
        keys: CloudFoundryConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "cloud_foundry")]
impl ProviderConfig for CloudFoundryConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // The provider itself tells nothing found from nothing running.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        format!("{} {:?}", self.api.uri(), self.select)
    }

    fn files(&self) -> Vec<&Path> {
        // Not the refresh token's, which is written here.
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
                    let what = format!("{name:?} is the name of an entry before");
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

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        Ok(Box::new(CloudFoundry::build(self)?))
    }
}

impl CloudFoundryConfig {
    /// The selectors: one that takes everything if none is given.
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

/// A foundation that is read.
struct CloudFoundry {
    api: Arc<Api>,
    reader: Reader,
    selectors: Arc<[Selector]>,
    /// Its URL, as targets bear it.
    url: Arc<str>,
    interval: Duration,
    on_empty: OnEmpty,
}

impl CloudFoundry {
    fn build(config: &CloudFoundryConfig) -> Result<Self, BuildError> {
        let selectors: Arc<[Selector]> = config.selectors()?.into();
        let root = place(config.api.uri());
        let root = root.trim_end_matches('/').to_owned();
        let query = config.api.uri().query().unwrap_or_default().to_owned();
        let exchange = Exchange::new(config.client()?, config.timeout.0);
        let uaa = Arc::new(Uaa::new(
            exchange.clone(),
            config.uaa.clone(),
            root.clone(),
            &query,
        ));
        let pace = Pace::new(config.rate_limit_share);
        let most = config.limits.limits().answer_bytes;
        let api = Arc::new(Api::new(exchange, root.clone(), &query, uaa, pace, most));
        let reader = Reader::new(
            api.clone(),
            selectors.clone(),
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

    async fn refresh(&mut self, feed: &Feed) -> Result<(), RunError> {
        let read = self.reader.read().await;
        let read = read.map(Arc::new);
        let foundation = read.as_ref().ok().cloned();
        let (selectors, url, on_empty) = (self.selectors.clone(), self.url.clone(), self.on_empty);
        let feed = feed.clone();
        // Many targets take a while to be made and compared.
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
            if let Some(usages) = self.reader.usages() {
                feed.share(usages);
            }
            loop {
                let started = Instant::now();
                let before = self.api.pace.requests();
                self.refresh(&feed).await?;
                let requests = self.api.pace.requests() - before;
                let interval = self.interval.max(self.api.pace.pause(requests));
                let allowed = tokio::time::sleep(self.api.pace.blocked().max(NUDGED));
                tokio::select! {
                    () = tokio::time::sleep_until(started + interval) => {}
                    () = async {
                        allowed.await;
                        feed.nudged().await;
                    } => self.reader.forget(),
                }
            }
        })
    }
}

/// Tells what each selector finds. Where none of the applications can be seen any more of which there
/// were targets, or no process although some are started, that is taken for lost permission and not
/// for an answer; that none of them runs is one.
fn tell(
    feed: &Feed,
    foundation: &Foundation,
    selectors: &[Selector],
    url: &str,
    on_empty: OnEmpty,
) {
    let mut finder = Finder::new(url, foundation);
    let mut answers = Vec::with_capacity(selectors.len());
    for selector in selectors {
        let found = finder.find(selector);
        let known = feed.known(&selector.name);
        let unseen = match found.apps {
            0 => Some("no application matches"),
            // A started application has processes, whatever becomes of its instances.
            _ if found.started > 0 && foundation.has_no_processes() => Some("no process is listed"),
            _ => None,
        };
        let answer = match unseen {
            Some(what) if known > 0 && on_empty == OnEmpty::Keep => {
                let text = format!("{what}, and {known} targets were known: they stay");
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
