//! `limit`: holds every tenant to its limits: requests, bytes and samples per second, active series,
//! series of a request, labels.
//!
//! Delivery: a batch over a rate is refused as a whole (429 or 503 with `Retry-After`) before any
//! part of it is passed on, one with too many series with 413. A series over any other limit is
//! left out and counted under `limit_…`; the rest goes on, and the sender is answered 400 with what
//! was left out. Metadata passes.
//!
//! Limits: state of tenants is bounded by `max_tenants`, and of their series by
//! `max_active_series`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{BuildError, Problems, keys, read_text};
use metrifold_codec::Batch;
use metrifold_engine::component::{
    BuildContext, BuildTransform, ComponentInfo, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{LimitPass, Metrics, Plan, Transform};
use metrifold_limits::{LimitKeys, Many, OverCounts, Registry};
use metrifold_model::{Kind, Rejection, Tenant};

keys! {
    /// `[transforms.limit] type = "limit"`.
    #[derive(Debug)]
    pub struct LimitConfig {
        limits: LimitKeys = include,
        /// Limits of individual tenants, by the tenant's name in the batch. Keys that are not set here have the common values.
        tenants: BTreeMap<String, LimitKeys> = unset({ acme = { samples_per_second = 1000 } }),
        /// YAML file with limits of individual tenants under the key `tenants`, at most 16 MiB. It is reloaded when it changes. A tenant must not be both here and in `tenants`.
        tenants_file: Option<PathBuf> = unset("/etc/metrifold/limits.yaml"),
        /// Maximum number of tenants that are tracked at a time. Further tenants share the limits of a single one. A tenant is forgotten after `active_series_idle_timeout`.
        max_tenants: NonZeroUsize = default(10_000),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "limit",
        summary: "Limits rates, active series and labels of each tenant.",
        keys: LimitConfig::ENTRIES,
    }
}

/// Largest file of tenants.
const MAX_FILE: u64 = 16 << 20;

/// The file of tenants.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsFile {
    #[serde(default)]
    tenants: BTreeMap<String, LimitKeys>,
}

fn read(path: &Path) -> Result<BTreeMap<String, LimitKeys>, String> {
    let shown = path.display();
    let text = read_text(path, MAX_FILE);
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The size of the file is the bound; the parser's own ones are for fewer tenants.
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_nodes, budget.max_events) = (text.len() + 16, 2 * text.len() + 32);
    let options = serde_saphyr::options! { budget: Some(budget) };
    let file = serde_saphyr::from_str_with_options::<TenantsFile>(&text, options);
    file.map(|file| file.tenants)
        .map_err(|error| match error.location() {
            Some(at) => format!("{shown}:{}: is not a map of tenants to limits", at.line()),
            None => format!("{shown}: is not a map of tenants to limits"),
        })
}

impl LimitConfig {
    /// Limits of single tenants, from the table and from the file.
    fn own(&self, problems: &mut Problems) -> BTreeMap<String, LimitKeys> {
        self.limits.validate("", problems);
        for (tenant, own) in &self.tenants {
            own.validate(&format!("tenants.{tenant}."), problems);
        }
        let mut all = self.tenants.clone();
        let Some(path) = self.tenants_file.as_deref() else {
            return all;
        };
        if !problems.environment() {
            return all;
        }
        match read(path) {
            Ok(file) => {
                for (tenant, own) in file {
                    let mut wrong = Problems::new(true);
                    own.validate("", &mut wrong);
                    for problem in wrong.into_list() {
                        let what =
                            format!("tenant {tenant:?}: {}: {}", problem.path, problem.message);
                        problems.at("tenants_file", what);
                    }
                    if all.insert(tenant.clone(), own).is_some() {
                        let what = format!("tenant {tenant:?} has limits under tenants too");
                        problems.at("tenants_file", what).help("remove one of them");
                    }
                }
            }
            Err(reason) => {
                problems.at("tenants_file", reason);
            }
        }
        all
    }
}

#[typetag::deserialize(name = "limit")]
impl TransformConfig for LimitConfig {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn files(&self) -> Vec<&Path> {
        self.tenants_file.iter().map(PathBuf::as_path).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.own(problems);
    }
}

impl BuildTransform<Metrics> for LimitConfig {
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        let mut problems = Problems::new(true);
        let own = self.own(&mut problems);
        if let Some(problem) = problems.into_list().into_iter().next() {
            return Err(BuildError::new(problem.path, problem.message));
        }
        let metrics = cx.metrics.clone();
        let over =
            OverCounts::told_to(move |limit, times| metrics.over_limit(limit.as_str(), times));
        let registry = cx.shared.get::<Registry>();
        Ok(Arc::new(LimitTransform {
            many: registry.make(&cx.id, self.limits.clone(), own, over),
            most: self.max_tenants.get(),
            nobody: "".into(),
        }))
    }
}

#[derive(Debug)]
struct LimitTransform {
    many: Arc<Many>,
    most: usize,
    /// Tenant that a batch without one counts for.
    nobody: Tenant,
}

impl Transform for LimitTransform {
    fn reads_labels(&self) -> bool {
        self.many.looks_inside()
    }

    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        let own = batch.tenant().or_else(|| batch.origin().caller.tenant());
        let tenant = own.unwrap_or(&self.nobody);
        let (bytes, now) = (batch.received(), batch.arrived());
        let check = self.many.begin(tenant, self.most, bytes, now)?;
        Ok(LimitPass::plan(check))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, batch, labels, origin};
    use super::*;

    fn transform(text: &str) -> LimitTransform {
        let config: LimitConfig = toml::from_str(text).unwrap();
        let mut problems = Problems::new(true);
        let own = config.own(&mut problems);
        assert!(problems.into_list().is_empty());
        let registry = Registry::default();
        LimitTransform {
            many: registry.make(&"limit".into(), config.limits, own, OverCounts::default()),
            most: config.max_tenants.get(),
            nobody: "".into(),
        }
    }

    fn numbered(count: usize) -> Vec<super::super::testing::Labels> {
        let one = |number: usize| labels(&[("__name__", "up"), ("n", &number.to_string())]);
        (0..count).map(one).collect()
    }

    #[test]
    fn series_over_a_limit_are_dropped_under_its_name_and_the_others_pass() {
        let transform = transform("max_active_series = 2");
        let (_, outcome) = apply(&transform, batch(&numbered(5), &["f"], origin())).unwrap();
        assert_eq!(outcome.dropped, [("limit_active_series", 3)]);
        let (_, _, series, metadata) = &outcome.emitted[0];
        assert_eq!((series.len(), *metadata), (2, 1));
    }

    #[test]
    fn a_tenant_has_limits_of_its_own_and_a_batch_over_a_rate_is_refused() {
        let transform =
            transform("samples_per_second = 1\n[tenants.big]\nsamples_per_second = 100");
        let send = |tenant: &str| {
            let mut batch = batch(&numbered(10), &[], origin());
            batch.set_tenant(tenant.into());
            apply(&transform, batch).is_ok()
        };
        assert_eq!((send("small"), send("small")), (true, false));
        assert_eq!((send("big"), send("big")), (true, true));
        assert!(send("other"));
    }

    #[test]
    fn without_limits_that_look_into_batches_they_leave_as_they_came() {
        let transform = transform("requests_per_second = 1\nbytes_per_second = '1MiB'");
        assert!(!transform.reads_labels());
        assert!(apply(&transform, batch(&numbered(1), &[], origin())).is_ok());
        assert!(apply(&transform, batch(&numbered(1), &[], origin())).is_err());
    }

    #[test]
    fn a_file_of_tenants_is_read_and_what_is_wrong_in_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.yaml");
        let problems = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let more = "[tenants.acme]\nsamples_per_second = 1";
            let text = format!("tenants_file = {:?}\n{more}", path.to_str().unwrap());
            let config: LimitConfig = toml::from_str(&text).unwrap();
            let mut problems = Problems::new(true);
            let own = config.own(&mut problems).len();
            let list = problems.into_list().into_iter();
            (own, list.map(|it| it.message).collect::<Vec<_>>())
        };
        let good =
            "tenants:\n  zeta:\n    samples_per_second: 5\n    max_label_value_bytes: 2KiB\n";
        assert_eq!(problems(good), (2, vec![]));
        // More nodes than the parser allows by default.
        let entry = |number| format!("  t{number}: {{samples_per_second: 1, soft: true}}\n");
        let many: String = (0..60_000).map(entry).collect();
        assert_eq!(problems(&format!("tenants:\n{many}")), (60_001, vec![]));
        let (_, found) = problems("tenants:\n  zeta:\n    nonsense: 5\n");
        assert!(found[0].contains("limits.yaml"), "{found:?}");
        let (_, found) = problems("tenants:\n  zeta:\n    samples_per_second: 0\n");
        assert_eq!(
            found,
            ["tenant \"zeta\": samples_per_second: must be at least 1"]
        );
        let (_, found) = problems("tenants:\n  acme: {}\n");
        assert_eq!(found, ["tenant \"acme\" has limits under tenants too"]);
    }
}
