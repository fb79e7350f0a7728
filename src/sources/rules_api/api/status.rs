//! Delivery state of a tenant's rules.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use metrifold_engine::planes::rules::{GroupReport, GroupState};
use metrifold_http::Response;
use metrifold_model::Tenant;
use metrifold_rules::store::Place;
use metrifold_rules::{Group, RuleFile, StoredFile, TenantRules};

use super::{Api, Asked, entry_to_json};
use crate::sources::rules_api::reply::{self, Failure, absent};

impl Api {
    /// State of each group: the stored version, the rulers that have loaded it, and those that refuse
    /// it, with the reason.
    pub(super) fn status(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let reports = self.reports.of(&asked.tenant);
        let mut listed = Vec::new();
        for (name, kept) in &files {
            let place = Place::new(&*asked.tenant, &**name);
            let stored = self.shared.store.history(&place)?.into_iter().next();
            let delivered = self.delivered(&asked.tenant, name, kept.file.as_ref());
            let groups = kept.file.iter().flat_map(|file| &file.groups).map(|group| {
                let of_group = reports
                    .iter()
                    .filter(|(_, report)| *report.file == **name && report.group == group.name);
                let rulers = of_group.map(|(sink, report)| {
                    let content = report.content();
                    let is_newest = content.is_some_and(|group| delivered.contains(group));
                    ruler_to_json(sink, report, is_newest)
                });
                json!({ "group": group.name, "rulers": rulers.collect::<Vec<_>>() })
            });
            listed.push(json!({
                "file": name,
                "version": kept.text.version.to_string(),
                "damaged": kept.file.is_none(),
                "stored": stored.as_ref().map(entry_to_json),
                "groups": groups.collect::<Vec<_>>(),
            }));
        }
        let refused = self.out.refused(&asked.tenant);
        let body = json!({ "tenant": asked.tenant, "files": listed, "refused": refused });
        Ok(reply::json(StatusCode::OK, &body))
    }

    /// The groups of a stored file as the sinks get them; none if a transform refuses the file.
    fn delivered(&self, tenant: &str, name: &str, file: Option<&RuleFile>) -> Vec<Group> {
        let Some(file) = file else { return Vec::new() };
        let file = Arc::new(StoredFile::new(file.clone()));
        let rules = Arc::new(TenantRules::new([(Arc::from(name), file)]));
        let made = self.out.check(&Tenant::from(tenant), &rules);
        let made = made.unwrap_or_default();
        let files = made.iter().flat_map(|rules| rules.files());
        let groups = files.flat_map(|(_, stored)| &stored.file().groups);
        groups.cloned().collect()
    }
}

/// A ruler's report. One about an earlier version of the group only means that the newest is not there
/// yet.
fn ruler_to_json(sink: &str, report: &GroupReport, is_newest: bool) -> Value {
    match is_newest {
        true => json!({
            "sink": sink,
            "ruler": report.ruler,
            "state": report.state,
            "since": report.since,
            "last_evaluation": report.last_evaluation,
            "error": report.error,
        }),
        false => json!({
            "sink": sink,
            "ruler": report.ruler,
            "state": GroupState::Pending,
            "since": 0,
            "last_evaluation": null,
            "error": null,
        }),
    }
}
