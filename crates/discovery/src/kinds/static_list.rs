//! `static`: targets listed in the configuration itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Problems, RunError, keys};

use crate::file_sd::{Group, targets};
use crate::labels::Labels;
use crate::limits::{Limits, OnEmpty};
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::Feed;

keys! {
    /// `[discovery.NAME] type = "static"`.
    #[derive(Clone, Debug)]
    pub struct StaticConfig {
        /// Addresses of the targets, `host:port`.
        targets: Vec<String> = suggested(["10.0.0.1:9090"]),
        /// Labels to add to these targets.
        labels: BTreeMap<String, String> = unset({ env = "prod" }),
        /// Additional targets, in groups with labels of their own.
        groups: Vec<GroupKeys> = unset([{ targets = ["10.0.0.2:9090"], labels = { env = "test" } }]),
    }
}

keys! {
    /// Targets that share labels.
    #[derive(Clone, Debug)]
    pub struct GroupKeys {
        /// Addresses of the targets, `host:port`.
        targets: Vec<String> = required(["10.0.0.2:9090"]),
        /// Labels to add to these targets.
        labels: BTreeMap<String, String> = unset({ env = "test" }),
    }
}

inventory::submit! {
    ProviderInfo {
        name: "static",
        summary: "targets listed in the configuration",
        keys: StaticConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "static")]
impl ProviderConfig for StaticConfig {
    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn on_empty(&self) -> OnEmpty {
        OnEmpty::Take
    }

    fn question(&self) -> String {
        // The targets are in the configuration: nothing is asked, and nothing has to be kept.
        String::new()
    }

    fn validate(&self, problems: &mut Problems) {
        if self.targets.is_empty() && self.groups.is_empty() {
            let problem = problems.at("", "it has no targets");
            problem.help("add targets = [\"host:port\"]");
        }
        check("", &self.targets, &self.labels, problems);
        for (at, group) in self.groups.iter().enumerate() {
            let prefix = format!("groups[{at}].");
            check(&prefix, &group.targets, &group.labels, problems);
        }
        let groups = self.all();
        if let Err(failure) = targets(groups, &[], &self.limits()) {
            problems.at("targets", failure);
        }
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let found = targets(self.all(), &[], &self.limits());
        let found = found.map_err(|failure| BuildError::new("targets", failure))?;
        Ok(Box::new(Static(found)))
    }
}

fn check(
    prefix: &str,
    targets: &[String],
    labels: &BTreeMap<String, String>,
    problems: &mut Problems,
) {
    for (at, target) in targets.iter().enumerate() {
        if target.is_empty() || target.contains(char::is_whitespace) {
            let path = format!("{prefix}targets[{at}]");
            problems
                .at(path, "is not the address of a target")
                .help("write host:port");
        }
    }
    if labels.contains_key("") {
        problems.at(format!("{prefix}labels"), "a label has no name");
    }
}

impl StaticConfig {
    fn all(&self) -> Vec<Group> {
        let first = Group {
            targets: self.targets.clone(),
            labels: self.labels.clone(),
        };
        let further = self.groups.iter().map(|group| Group {
            targets: group.targets.clone(),
            labels: group.labels.clone(),
        });
        std::iter::once(first).chain(further).collect()
    }
}

struct Static(Vec<Labels>);

impl Provider for Static {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            feed.all(vec![(Arc::from("configuration"), Ok(self.0))]);
            std::future::pending().await
        })
    }
}
