//! `dedupe`: of several replicas that send the same series, passes those of one on.
//!
//! A series with both labels, of the cluster and of the replica, is decided about by itself: it is kept,
//! without the label of the replica, if its replica is the elected one of the cluster. Series without
//! one of them pass untouched.
//!
//! Delivery: what another replica sends is left out, counted under `duplicate`, and its sender hears
//! 202: to it, the series count as stored. A cluster beyond `max_clusters` is refused (400), the rest of
//! its batch goes on. What goes wrong with the rest outranks both.
//!
//! Limits: clusters of a tenant and of all tenants together, the length of their names. Elections are
//! kept in the process; after a restart, the first replica that sends is elected.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use metrifold_base::keys::Keys;
use metrifold_base::{BuildError, Period, Problems, keys};
use metrifold_codec::{Batch, Name, SeriesMut};
use metrifold_dedupe::{Bounds, Elections, Registry, Vote};
use metrifold_engine::component::{
    BuildContext, BuildTransform, ComponentInfo, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{Metrics, Pass, Plan, Told, Transform};
use metrifold_model::{Counts, Kind, Outcome, Rejection, Tenant};

keys! {
    /// `[transforms.dedupe] type = "dedupe"`.
    #[derive(Debug)]
    pub struct DedupeConfig {
        /// Label with the name of the cluster, which all of its replicas have in common.
        cluster_label: String = default("cluster"),
        /// Label with the name of the replica; it is removed.
        replica_label: String = default("__replica__"),
        /// For how long nothing may come of an elected replica before another one takes its place.
        failover_timeout: Period = default("30s"),
        /// For how long nothing may come of a cluster before it is forgotten; at least `failover_timeout`.
        forget_after: Period = default("30m"),
        /// The most clusters of a tenant; series of further ones are refused with status 400.
        max_clusters: NonZeroUsize = default(100),
        /// The most clusters of all tenants together.
        max_total_clusters: NonZeroUsize = default(100_000),
        /// Labels of single tenants, by what they are called where the batch is.
        tenants: BTreeMap<String, OwnLabels> = unset({ acme = { replica_label = "replica" } }),
    }
}

keys! {
    /// Labels of a tenant.
    #[derive(Clone, Debug)]
    pub struct OwnLabels {
        /// Its label with the name of the cluster, in place of that of all.
        cluster_label: Option<String> = unset("cluster"),
        /// Its label with the name of the replica, in place of that of all.
        replica_label: Option<String> = unset("replica"),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "dedupe",
        summary: "passes on what one of several replicas sends that send the same",
        keys: DedupeConfig::ENTRIES,
    }
}

/// The longest name of a cluster or a replica.
const LONGEST_NAME: usize = 1024;

/// The most votes of one batch that are remembered.
const VOTES: usize = 64;

impl DedupeConfig {
    fn check(&self, problems: &mut Problems) {
        self.labels(None).check("", problems);
        for (tenant, own) in &self.tenants {
            let path = format!("tenants.{tenant}.");
            self.labels(Some(own)).check(&path, problems);
        }
        if self.failover_timeout.0.is_zero() {
            problems.at("failover_timeout", "must be longer than 0s");
        }
        if self.forget_after < self.failover_timeout {
            problems.at("forget_after", "must be at least failover_timeout");
        }
    }

    fn labels(&self, own: Option<&OwnLabels>) -> Labels {
        let cluster = own.and_then(|own| own.cluster_label.as_ref());
        let replica = own.and_then(|own| own.replica_label.as_ref());
        Labels {
            cluster: Name::new(cluster.unwrap_or(&self.cluster_label)),
            replica: Name::new(replica.unwrap_or(&self.replica_label)),
        }
    }

    fn make(&self, elections: Arc<dyn Elections>) -> DedupeTransform {
        let tenants = self.tenants.iter();
        let tenants = tenants.map(|(tenant, own)| (tenant.as_str().into(), self.labels(Some(own))));
        DedupeTransform {
            labels: self.labels(None),
            own: tenants.collect(),
            elections,
            most: self.max_clusters.get(),
            nobody: "".into(),
        }
    }
}

#[typetag::deserialize(name = "dedupe")]
impl TransformConfig for DedupeConfig {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn validate(&self, problems: &mut Problems) {
        self.check(problems);
    }
}

impl BuildTransform<Metrics> for DedupeConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        let elections = cx.shared.get::<Registry>().make(
            &cx.id,
            Bounds {
                failover: self.failover_timeout.0,
                forget: self.forget_after.0,
                clusters: self.max_clusters.get(),
                total: self.max_total_clusters.get(),
            },
        );
        Ok(Arc::new(self.make(Arc::new(elections))))
    }
}

/// The labels that name clusters and replicas.
#[derive(Debug)]
struct Labels {
    cluster: Name,
    replica: Name,
}

impl Labels {
    fn check(&self, path: &str, problems: &mut Problems) {
        for (key, name) in [
            ("cluster_label", &self.cluster),
            ("replica_label", &self.replica),
        ] {
            if name.as_str().is_empty() || name.as_str() == "__name__" {
                let what = format!("{:?} cannot name it", name.as_str());
                problems
                    .at(format!("{path}{key}"), what)
                    .help("name another label");
            }
        }
        if self.cluster == self.replica {
            let what = "must be another label than cluster_label";
            problems.at(format!("{path}replica_label"), what);
        }
    }
}

#[derive(Debug)]
struct DedupeTransform {
    labels: Labels,
    /// Those of tenants that have labels of their own.
    own: HashMap<Box<str>, Labels, RandomState>,
    elections: Arc<dyn Elections>,
    most: usize,
    /// Whose a batch without a tenant is.
    nobody: Tenant,
}

impl Transform for DedupeTransform {
    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        let tenant = batch.tenant().or_else(|| batch.origin().caller.tenant());
        let tenant = tenant.unwrap_or(&self.nobody).clone();
        Ok(Plan::Pass(Box::new(DedupePass {
            labels: self.own.get(&*tenant).unwrap_or(&self.labels),
            transform: self,
            tenant,
            at: batch.arrived(),
            votes: Vec::new(),
            last: 0,
            hints: (0, 0),
            reason: DUPLICATE,
            duplicates: false,
            refused: Counts::default(),
            why: None,
        })))
    }
}

const DUPLICATE: &str = "duplicate";
const TOO_MANY: &str = "too_many_ha_clusters";
const TOO_LONG: &str = "ha_name_too_long";

/// What was found out about a replica of a cluster.
struct Known {
    cluster: Box<[u8]>,
    replica: Box<[u8]>,
    verdict: Verdict,
}

/// What is done with series of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Drop(&'static str),
}

/// The walk over one batch: a replica is asked about once.
struct DedupePass<'a> {
    transform: &'a DedupeTransform,
    labels: &'a Labels,
    tenant: Tenant,
    at: Instant,
    votes: Vec<Known>,
    /// Where the last series' replica is among them.
    last: usize,
    /// Where the labels were in the last series.
    hints: (usize, usize),
    reason: &'static str,
    duplicates: bool,
    refused: Counts,
    /// Why, for the sender.
    why: Option<String>,
}

impl DedupePass<'_> {
    fn verdict(&mut self, cluster: &[u8], replica: &[u8]) -> Verdict {
        let is = |known: &Known| *known.replica == *replica && *known.cluster == *cluster;
        if let Some(known) = self.votes.get(self.last).filter(|known| is(known)) {
            return known.verdict;
        }
        if let Some(place) = self.votes.iter().position(is) {
            self.last = place;
            return self.votes[place].verdict;
        }
        let verdict = self.ask(cluster, replica);
        if self.votes.len() < VOTES {
            self.last = self.votes.len();
            self.votes.push(Known {
                cluster: cluster.into(),
                replica: replica.into(),
                verdict,
            });
        }
        verdict
    }

    fn ask(&mut self, cluster: &[u8], replica: &[u8]) -> Verdict {
        if cluster.len().max(replica.len()) > LONGEST_NAME {
            let why =
                || format!("the name of a cluster or replica is longer than {LONGEST_NAME} bytes");
            self.why.get_or_insert_with(why);
            return Verdict::Drop(TOO_LONG);
        }
        let [cluster, replica] = [cluster, replica].map(String::from_utf8_lossy);
        let elections = &self.transform.elections;
        match elections.vote(&self.tenant, &cluster, &replica, self.at) {
            Vote::Elected => Verdict::Keep,
            Vote::Duplicate => Verdict::Drop(DUPLICATE),
            Vote::TooManyClusters => {
                let most = self.transform.most;
                let why = || {
                    format!(
                        "cluster {cluster:?} is one too many: max_clusters = {most} are known of tenant {:?}",
                        self.tenant
                    )
                };
                self.why.get_or_insert_with(why);
                Verdict::Drop(TOO_MANY)
            }
        }
    }
}

impl Pass for DedupePass<'_> {
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        let replica = series.position(&self.labels.replica, &mut self.hints.0);
        let cluster = series.position(&self.labels.cluster, &mut self.hints.1);
        let (Ok(replica), Ok(cluster)) = (replica, cluster) else {
            return true;
        };
        let (own, of) = (series.value_at(replica), series.value_at(cluster));
        if own.is_empty() || of.is_empty() {
            return true;
        }
        match self.verdict(of, own) {
            Verdict::Keep => {
                series.remove_at(replica);
                true
            }
            Verdict::Drop(reason) => {
                self.reason = reason;
                match reason {
                    DUPLICATE => self.duplicates = true,
                    _ => self.refused.add(series.counts()),
                }
                false
            }
        }
    }

    fn reason(&self) -> &'static str {
        self.reason
    }

    fn finish(&mut self) -> Result<Told, Rejection> {
        let refused = self.why.take().map(|why| Outcome::Rejected {
            rejection: Rejection::invalid(why),
            lost: Some(self.refused),
        });
        Ok(Told {
            refused,
            duplicates: self.duplicates,
        })
    }
}

#[cfg(test)]
mod tests;
