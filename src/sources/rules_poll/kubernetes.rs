//! Rules from PrometheusRule objects: each object is a file of its tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::BuildError;
use metrifold_engine::planes::rules::RuleSet;
use metrifold_kubernetes::{RuleObject, RuleObjectKeys, RuleObjects};
use metrifold_model::Tenant;
use metrifold_rules::{RuleFile, StoredFile, TenantRules};

use super::{Looked, MAX_TOLD, RulesPollConfig};

/// Files of a tenant by name.
type Files = Vec<(Arc<str>, Arc<StoredFile>)>;

/// The watched objects and the rules that were read from them.
pub(super) struct Objects {
    objects: RuleObjects,
    config: RulesPollConfig,
    /// The last reading of each object, by the object's key.
    read: BTreeMap<Arc<str>, Read>,
}

/// An object as it was read last.
struct Read {
    object: Arc<RuleObject>,
    /// The newest valid version, with its tenant.
    good: Option<(Tenant, Arc<StoredFile>)>,
    /// Why the current object is invalid; `good` is then an older version.
    problem: Option<String>,
}

impl Objects {
    pub(super) fn build(
        config: &RulesPollConfig,
        keys: &RuleObjectKeys,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            objects: RuleObjects::build(keys, config.max_answer_bytes.bytes())?,
            config: config.clone(),
            read: BTreeMap::new(),
        })
    }

    /// Waits until an object changes.
    pub(super) async fn changed(&mut self) {
        self.objects.changed().await;
    }

    /// The rules of all objects. Only changed objects are read again.
    pub(super) fn look(&mut self) -> Looked {
        let mut problems: Vec<String> = self.objects.failures().map(str::to_owned).collect();
        let is_complete = self.objects.is_complete();
        let Some(known) = self.objects.known() else {
            return Looked {
                set: None,
                is_complete,
                problems,
            };
        };
        self.read.retain(|key, _| known.contains_key(key));
        for (key, object) in known {
            let before = self.read.remove(key);
            let read = match before {
                Some(read) if Arc::ptr_eq(&read.object, object) => read,
                before => self.config.read(object, before.and_then(|it| it.good)),
            };
            if let Some(problem) = &read.problem {
                problems.push(format!("{}/{}: {problem}", object.namespace, object.name));
            }
            self.read.insert(key.clone(), read);
        }
        let mut files: BTreeMap<Tenant, Files> = BTreeMap::new();
        for read in self.read.values() {
            let Some((tenant, file)) = &read.good else {
                continue;
            };
            // Namespaces have no dots in their names, so the file names of two objects differ.
            let name = format!("{}.{}", read.object.namespace, read.object.name);
            let of_tenant = files.entry(tenant.clone()).or_default();
            of_tenant.push((name.into(), file.clone()));
        }
        let rules = files
            .into_iter()
            .map(|(tenant, files)| (tenant, Arc::new(TenantRules::new(files))));
        Looked {
            set: Some(rules.collect::<RuleSet>()),
            is_complete,
            problems,
        }
    }
}

impl RulesPollConfig {
    /// Reads an object. An invalid one keeps its last valid version, if it has one.
    fn read(&self, object: &Arc<RuleObject>, before: Option<(Tenant, Arc<StoredFile>)>) -> Read {
        let read = object.tenant.clone().and_then(|tenant| {
            let expr = self.checker();
            let parsed = RuleFile::parse(object.file.as_bytes(), &self.checks(&expr));
            let parsed = parsed.map_err(|found| {
                let told = found
                    .iter()
                    .take(MAX_TOLD)
                    .map(|it| format!("{}: {}", it.key, it.message));
                told.collect::<Vec<_>>().join("; ")
            })?;
            Ok((
                Tenant::from(tenant.as_str()),
                Arc::new(StoredFile::new(parsed.file)),
            ))
        });
        let (good, problem) = match read {
            Ok(good) => (Some(good), None),
            Err(problem) => (before, Some(problem)),
        };
        Read {
            object: object.clone(),
            good,
            problem,
        }
    }
}
