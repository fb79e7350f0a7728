//! Traits of a provider: its configuration, which validates and builds, and the running part, which
//! asks.

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
    /// Limits on what it may find.
    fn limits(&self) -> Limits;

    /// Meaning of an answer without targets after one that had some, per source.
    fn on_empty(&self) -> OnEmpty {
        OnEmpty::Keep
    }

    /// Identifies what it asks. While this stays the same over a reload, the known targets stay
    /// valid. Holds no secret.
    fn question(&self) -> String;

    /// The files that it reads when it is built. When their content changes, it is rebuilt.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);

    /// Builds a provider, which sends nothing before it runs.
    ///
    /// # Errors
    ///
    /// Fails when a part of it cannot be built, such as a client from its certificate.
    fn build(&self, cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError>;
}

/// Environment in which a provider is built.
#[derive(Clone)]
pub struct ProviderContext {
    /// The provider's name.
    pub name: Arc<str>,
    /// State that users of its targets share.
    pub shared: Shared,
    /// The metrics of the process.
    pub telemetry: Telemetry,
    /// Whether it may change things at the far end, if its configuration says so. Otherwise it only
    /// reads.
    pub changes: bool,
}

impl ProviderContext {
    /// The context of a provider that shares and changes nothing, for commands and tests.
    pub fn alone(name: &str) -> Self {
        Self {
            name: name.into(),
            shared: Shared::default(),
            telemetry: Telemetry::new(),
            changes: false,
        }
    }
}

/// A provider that has been built.
pub trait Provider: Send {
    /// Asks at once, and goes on asking until the future is dropped. Reports each attempt to the
    /// feed, failed ones included.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then rebuilt and started again after a pause.
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>>;
}

/// Runs a provider, and keeps its targets on disk.
///
/// # Errors
///
/// Returns the error of the provider.
pub async fn run(provider: Box<dyn Provider>, feed: Feed) -> Result<(), RunError> {
    let keeper = feed.clone();
    tokio::select! {
        ended = provider.run(feed) => ended,
        () = keeper.keep() => Ok(()),
    }
}

/// A type of provider, as reference pages and commands list it.
pub struct ProviderInfo {
    /// The provider's `type`.
    pub name: &'static str,
    /// Description in one line.
    pub summary: &'static str,
    /// The provider's keys, in the order of its reference page.
    pub keys: &'static [Entry],
}

inventory::collect!(ProviderInfo);

impl ProviderInfo {
    /// All types of providers, sorted by name.
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<&Self> = inventory::iter::<Self>.into_iter().collect();
        all.sort_unstable_by_key(|info| info.name);
        all
    }

    /// The provider's keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }
}
