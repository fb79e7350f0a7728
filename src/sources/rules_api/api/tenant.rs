//! All files of a tenant, and the rules of all tenants.

use http::StatusCode;

use metrifold_base::locked;
use metrifold_http::{Response, answer};
use metrifold_rules::store::{Action, Place, StoreError, Wanted};
use metrifold_rules::{Group, RuleFile, Version};

use super::{Api, Asked, Files, Made, change, not_modified, sound, stored_text, told};
use crate::sources::rules_api::document::{self, MAIN};
use crate::sources::rules_api::reply::{self, Failure, absent, invalid};
use crate::sources::rules_api::requests::{is_known, wanted, wants_json};

impl Api {
    /// The rules of all tenants, whose names go before those of the groups.
    pub(super) fn all(&self) -> Response {
        let set = locked(&self.shared.newest).clone();
        let mut tenants: Vec<_> = set.iter().collect();
        tenants.sort_by(|a, b| a.0.cmp(b.0));
        let groups = tenants.into_iter().flat_map(|(tenant, rules)| {
            let files = rules.files().map(|(name, stored)| (&**name, stored.file()));
            let joined = document::join(files).groups.into_iter();
            joined.map(move |group| Group {
                name: format!("{tenant}/{}", group.name),
                ..group
            })
        });
        let groups = groups.collect();
        reply::yaml(RuleFile { groups }.to_yaml())
    }

    pub(super) fn get_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let version = version_of(&files);
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let json = wants_json(&asked.headers);
        let answer = match files.get(MAIN) {
            Some(main) if files.len() == 1 && !json => reply::yaml(main.text.text.clone()),
            _ => {
                let joined = document::join(sound(&files)?);
                match json {
                    true => reply::json(StatusCode::OK, &document::to_json(&joined)),
                    false => reply::yaml(joined.to_yaml()),
                }
            }
        };
        Ok(reply::tagged(answer, version))
    }

    pub(super) fn put_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let mut files = self.files(&asked.tenant)?;
        let before = (!files.is_empty()).then(|| version_of(&files));
        let condition = wanted(&asked.headers)?;
        if !condition.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        let main = files.remove(MAIN);
        let (parsed, warnings) = self.parse(&asked.body)?;
        let others = files
            .iter()
            .filter_map(|(name, kept)| Some((name.clone(), kept.file.clone()?)));
        let file = document::split(parsed.clone(), &others.collect()).map_err(invalid)?;
        let text = match file == parsed {
            true => stored_text(&asked.body, &file),
            false => file.to_yaml().into_bytes(),
        };
        let wanted = match (condition, &main) {
            (Wanted::Any, _) => Wanted::Any,
            (_, Some(main)) => Wanted::Version(vec![main.text.version]),
            (_, None) => Wanted::Absent,
        };
        let made = self.write(asked, MAIN, &text, file, &wanted, Action::Put, files)?;
        let made = Made { warnings, ..made };
        let version = self.version_now(&asked.tenant)?.unwrap_or(made.version);
        Ok(told(asked, &made, version))
    }

    pub(super) fn delete_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let before = Some(version_of(&files));
        if !wanted(&asked.headers)?.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        if !asked.parameters.dry_run {
            for (name, kept) in &files {
                let place = Place::new(&*asked.tenant, &**name);
                let wanted = Wanted::Version(vec![kept.text.version]);
                self.shared
                    .store
                    .delete(&place, &wanted, change(asked, Action::Delete))?;
                self.shared.touch(&asked.tenant);
            }
        }
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    fn version_now(&self, tenant: &str) -> Result<Option<Version>, Failure> {
        let files = self.files(tenant)?;
        Ok((!files.is_empty()).then(|| version_of(&files)))
    }
}

/// The version of all files of a tenant.
fn version_of(files: &Files) -> Version {
    if let (Some(main), 1) = (files.get(MAIN), files.len()) {
        return main.text.version;
    }
    let parts = files
        .iter()
        .flat_map(|(name, kept)| [name.as_bytes(), &kept.text.version.as_bytes()[..]]);
    Version::of_parts(parts)
}
