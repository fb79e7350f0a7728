//! `dedupe`: passes on one of several replicas that send the same series.
//!
//! Each series with both labels, cluster and replica, is judged by itself: it is kept, without the
//! replica label, if its replica is the elected one of the cluster. Series that lack one of the
//! labels pass unchanged.
//!
//! Delivery: series of other replicas are left out, counted under `duplicate`, and their sender is
//! answered 202: to it they count as stored. Series of a cluster beyond `max_clusters` are refused
//! (400), and the rest of the batch goes on. A failure of the rest outranks both answers.
//!
//! Limits: clusters of a tenant and of all tenants together, the length of their names. Elections
//! are held in memory; after a restart, the first replica that sends is elected.

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
        /// Label with the name of the cluster, the same for all replicas of the cluster.
        cluster_label: String = default("cluster"),
        /// Label with the name of the replica. It is removed.
        replica_label: String = default("__replica__"),
        /// Time without data from the elected replica of a cluster after which another replica is elected.
        failover_timeout: Period = default("30s"),
        /// Time without data from a cluster after which it is forgotten; at least `failover_timeout`.
        forget_after: Period = default("30m"),
        /// Maximum number of clusters per tenant. Series of further clusters are rejected with status 400.
        max_clusters: NonZeroUsize = default(100),
        /// Maximum number of clusters of all tenants together.
        max_total_clusters: NonZeroUsize = default(100_000),
        /// Labels of individual tenants, by the tenant's name in the batch.
        tenants: BTreeMap<String, OwnLabels> = unset({ acme = { replica_label = "replica" } }),
    }
}

keys! {
    /// Labels of a tenant.
    #[derive(Clone, Debug)]
    pub struct OwnLabels {
        /// Label with the name of the cluster for this tenant, instead of the common `cluster_label`.
        cluster_label: Option<String> = unset("cluster"),
        /// Label with the name of the replica for this tenant, instead of the common `replica_label`.
        replica_label: Option<String> = unset("replica"),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "dedupe",
        summary: "Deduplicates the series of high-availability replicas: only one replica's series pass.",
        keys: DedupeConfig::ENTRIES,
    }
}

/// Longest name of a cluster or a replica, in bytes.
const LONGEST_NAME: usize = 1024;

/// Most votes that are cached per batch.
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
                let what = format!("{:?} cannot be this label", name.as_str());
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
    /// Labels of tenants that configure their own.
    own: HashMap<Box<str>, Labels, RandomState>,
    elections: Arc<dyn Elections>,
    most: usize,
    /// Tenant that a batch without one counts for.
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

/// Cached verdict on a replica of a cluster.
struct Known {
    cluster: Box<[u8]>,
    replica: Box<[u8]>,
    verdict: Verdict,
}

/// What to do with the series of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Drop(&'static str),
}

/// The walk over one batch, which asks for a vote once per replica.
struct DedupePass<'a> {
    transform: &'a DedupeTransform,
    labels: &'a Labels,
    tenant: Tenant,
    at: Instant,
    votes: Vec<Known>,
    /// Index in `votes` for the last series, which the next one usually shares.
    last: usize,
    /// Positions of the two labels in the last series.
    hints: (usize, usize),
    reason: &'static str,
    duplicates: bool,
    refused: Counts,
    /// Reason of the refusal, for the sender.
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
                        "cluster {cluster:?} is refused: max_clusters = {most} are already known of tenant {:?}",
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
