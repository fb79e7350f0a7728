//! What a provider is: a configuration that validates and builds, and what asks.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::keys::{Entry, Listed, list};
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, Shared};
use metrifold_telemetry::Telemetry;

use super::limits::{Limits, OnEmpty};
use super::slot::Feed;

/// The configuration of a provider, `[discovery.NAME]`.
#[typetag::deserialize]
pub trait ProviderConfig: Debug + Send + Sync {
    /// How much it may find.
    fn limits(&self) -> Limits;

    /// What an answer of a source without a target means after one that had some.
    fn on_empty(&self) -> OnEmpty {
        OnEmpty::Keep
    }

    /// What it asks: as long as this is the same, what is known stays true when it is configured
    /// anew. Holds no secret.
    fn question(&self) -> String;

    /// The files that it reads when it is built. When what they hold changes, it is built anew.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);

    /// Makes a provider that has not asked yet.
    ///
    /// # Errors
    ///
    /// Fails when something cannot be made of it, such as a client of a certificate.
    fn build(&self, cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError>;
}

/// What a provider may use to build itself.
#[derive(Clone)]
pub struct ProviderContext {
    /// Its name.
    pub name: Arc<str>,
    /// What those who use its targets share.
    pub shared: Shared,
    /// The metrics of the process.
    pub telemetry: Telemetry,
    /// Whether it may change what it asks, if its configuration says so. Otherwise it only looks.
    pub changes: bool,
}

impl ProviderContext {
    /// That of a provider by itself, which shares nothing and changes nothing.
    pub fn alone(name: &str) -> Self {
        Self {
            name: name.into(),
            shared: Shared::default(),
            telemetry: Telemetry::new(),
            changes: false,
        }
    }
}

/// A provider, built.
pub trait Provider: Send {
    /// Asks at once, and goes on asking until the future is dropped. Each attempt is told to the
    /// feed, whatever comes of it.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>>;
}

/// Runs a provider, and keeps on disk what it tells.
///
/// # Errors
///
/// Fails when the provider does.
pub async fn run(provider: Box<dyn Provider>, feed: Feed) -> Result<(), RunError> {
    let keeper = feed.clone();
    tokio::select! {
        ended = provider.run(feed) => ended,
        () = keeper.keep() => Ok(()),
    }
}

/// What reference pages and commands know of a type of provider.
pub struct ProviderInfo {
    /// Its `type`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its keys, in the order in which they are best read.
    pub keys: &'static [Entry],
}

inventory::collect!(ProviderInfo);

impl ProviderInfo {
    /// All that there are, by name.
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<&Self> = inventory::iter::<Self>.into_iter().collect();
        all.sort_unstable_by_key(|info| info.name);
        all
    }

    /// Its keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }
}
