//! Delivery state of a tenant's rules.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tracing::warn;

use metrifold_engine::planes::rules::{GroupReport, GroupState};
use metrifold_http::Response;
use metrifold_model::Tenant;
use metrifold_rules::store::Place;
use metrifold_rules::{Group, RuleFile, StoredFile, TenantRules};

use super::{Api, Asked, entry_to_json};
use crate::sources::rules_api::reply::{self, Failure, absent};
use crate::sources::rules_api::requests::Status;

/// Keys of what a ruler says about a group.
const OF_RULER: [&str; 7] = [
    "sink",
    "ruler",
    "state",
    "since",
    "confirmed",
    "last_evaluation",
    "error",
];

impl Api {
    /// State of each group: the stored version, the rulers that have loaded it, and those that refuse
    /// it, with the reason.
    pub(super) fn status(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let (others, mut unknown) = self.others(asked);
        let reports = self.reports.of(&asked.tenant);
        let mut listed = Vec::new();
        for (name, kept) in &files {
            let place = Place::new(&*asked.tenant, &**name);
            let stored = self.shared.store.entry_of(&place, kept.text.version)?;
            let delivered = self.delivered(&asked.tenant, name, kept.file.as_ref());
            let version = kept.text.version.to_string();
            let groups = kept.file.iter().flat_map(|file| &file.groups).map(|group| {
                let of_group = reports
                    .iter()
                    .filter(|(_, report)| *report.file == **name && report.group == group.name);
                let mut told: Vec<_> = of_group
                    .map(|(sink, report)| {
                        let content = report.content();
                        let is_newest = content.is_some_and(|group| delivered.contains(group));
                        (is_newest, sink, report)
                    })
                    .collect();
                // A ruler reports each version of a group that several sources have.
                let newest: Vec<_> = told
                    .iter()
                    .filter(|(is_newest, ..)| *is_newest)
                    .copied()
                    .collect();
                told.retain(|(is_newest, sink, report)| {
                    *is_newest
                        || !newest
                            .iter()
                            .any(|(_, own, newest)| own == sink && newest.ruler == report.ruler)
                });
                let rulers = told
                    .into_iter()
                    .map(|(is_newest, sink, report)| ruler_to_json(sink, report, is_newest));
                let elsewhere = others.iter().flat_map(|other| {
                    let (file, groups) = part(&other["files"], "file", name, "groups");
                    let (_, rulers) = part(groups, "group", &group.name, "rulers");
                    let is_newest = file["version"] == *version;
                    let rulers = rulers.as_array().into_iter().flatten();
                    rulers.map(move |ruler| ruler_elsewhere(ruler, is_newest))
                });
                let rulers: Vec<_> = rulers.chain(elsewhere).collect();
                json!({ "group": group.name, "rulers": rulers })
            });
            listed.push(json!({
                "file": name,
                "version": version,
                "damaged": kept.file.is_none(),
                "stored": stored.as_ref().map(entry_to_json),
                "groups": groups.collect::<Vec<_>>(),
            }));
        }
        let mut refused: Vec<Value> = self
            .out
            .refused(&asked.tenant)
            .into_iter()
            .map(Value::from)
            .collect();
        for other in &others {
            let theirs = other["refused"].as_array().into_iter().flatten();
            unknown.extend(strings(&other["unknown"]));
            for reason in theirs.filter(|reason| reason.is_string()) {
                if !refused.contains(reason) {
                    refused.push(reason.clone());
                }
            }
        }
        let body = json!({
            "tenant": asked.tenant,
            "files": listed,
            "refused": refused,
            "unknown": unknown,
        });
        Ok(reply::json(StatusCode::OK, &body))
    }

    /// What other processes say, and what is not known.
    fn others(&self, asked: &Asked) -> (Vec<Value>, Vec<String>) {
        let elsewhere = match (&self.elsewhere, asked.parameters.status) {
            (Some(elsewhere), Some(Status::Everywhere)) => elsewhere,
            (None, Some(Status::Everywhere)) if self.reports.is_empty() => {
                let reason = "no ruler reports to this process, which asks no other (status_from)";
                return (Vec::new(), vec![reason.to_owned()]);
            }
            _ => return (Vec::new(), Vec::new()),
        };
        let name = asked.name.as_deref().unwrap_or(&asked.tenant);
        let (mut others, mut unknown) = (Vec::new(), Vec::new());
        for answer in elsewhere.ask(name) {
            match answer {
                Ok(other) => others.push(other),
                Err(reason) => {
                    // The reason tells addresses, which are not the tenants' business.
                    warn!(source = %self.id, %reason, "another process does not tell the state of rules at its rulers");
                    unknown
                        .push("another process does not tell the state at its rulers".to_owned());
                }
            }
        }
        (others, unknown)
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

/// The object of a list in which a key has a value, and what another key of it has.
fn part<'v>(list: &'v Value, key: &str, value: &str, inner: &str) -> (&'v Value, &'v Value) {
    let found = list.as_array().into_iter().flatten();
    let found = found.into_iter().find(|object| object[key] == value);
    let found = found.unwrap_or(&Value::Null);
    (found, &found[inner])
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
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
            "confirmed": report.confirmed,
            "last_evaluation": report.last_evaluation,
            "error": report.error,
        }),
        false => pending(&json!(sink), &json!(report.ruler)),
    }
}

/// As [`ruler_to_json`], of what another process says about one of its rulers.
fn ruler_elsewhere(ruler: &Value, is_newest: bool) -> Value {
    match is_newest {
        true => OF_RULER
            .iter()
            .map(|key| ((*key).to_owned(), ruler[key].clone()))
            .collect(),
        false => pending(&ruler["sink"], &ruler["ruler"]),
    }
}

fn pending(sink: &Value, ruler: &Value) -> Value {
    json!({
        "sink": sink,
        "ruler": ruler,
        "state": GroupState::Pending,
        "since": 0,
        "confirmed": null,
        "last_evaluation": null,
        "error": null,
    })
}
