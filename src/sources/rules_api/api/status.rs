//! How it goes with a tenant's rules.

use http::StatusCode;
use serde_json::json;

use metrifold_http::Response;
use metrifold_rules::store::Place;

use super::{Api, Asked, entry_to_json};
use crate::sources::rules_api::reply::{self, Failure, absent};

impl Api {
    /// How it goes with each group: what was stored, who has loaded it, and who refuses it why.
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
            let groups = kept.file.iter().flat_map(|file| &file.groups).map(|group| {
                let of_group = reports
                    .iter()
                    .filter(|(_, report)| *report.file == **name && report.group == group.name);
                let rulers = of_group.map(|(sink, report)| {
                    json!({
                        "sink": sink,
                        "ruler": report.ruler,
                        "state": report.state,
                        "since": report.since,
                        "last_evaluation": report.last_evaluation,
                        "error": report.error,
                    })
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
}
