//! Requests for all files of a tenant, and for the rules of all tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;

use metrifold_base::locked;
use metrifold_http::{Response, answer};
use metrifold_model::{Rejection, RejectionKind};
use metrifold_rules::store::{Action, StoreError, Wanted};
use metrifold_rules::{Group, RuleFile, StoredFile, Version};

use super::write::NewFile;
use super::{Api, Asked, Files, Made, not_modified, sound, stored_text, told, too_large};
use crate::sources::rules_api::document::{self, MAIN};
use crate::sources::rules_api::reply::{self, Failure, absent, invalid};
use crate::sources::rules_api::requests::{is_known, wanted, wants_json};

impl Api {
    /// The rules of all tenants in one document; each group's name is prefixed with its tenant.
    ///
    /// Before the store was read, there is no answer: a ruler would take an empty one for the truth, and drop
    /// what it has.
    pub(super) fn all(&self, asked: &Asked) -> Result<Response, Failure> {
        let unread = || Rejection::unavailable("the store of rules has not been read yet");
        let set = locked(&self.shared.newest).clone().ok_or_else(unread)?;
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
        let all = RuleFile { groups };
        let text = all.to_yaml();
        let version = Version::of(text.as_bytes());
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let answer = match wants_json(&asked.headers) {
            true => reply::json(StatusCode::OK, &document::to_json(&all)),
            false => reply::yaml(text),
        };
        Ok(reply::tagged(answer, version))
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
            Some(main) if files.len() == 1 && main.text.is_too_large => {
                return Err(too_large(&self.shared.config, MAIN));
            }
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
        let (parsed, warnings) = self.parse(&asked.body)?;
        let parsed = self.admit(asked, MAIN, parsed)?;
        let condition = wanted(&asked.headers)?;
        let files = self.files(&asked.tenant)?;
        let before = (!files.is_empty()).then(|| version_of(&files));
        if !condition.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        let others = files.iter().filter(|(name, _)| *name != MAIN);
        let others = others.filter_map(|(name, kept)| Some((name.clone(), kept.file.clone()?)));
        let others: BTreeMap<String, RuleFile> = others.collect();
        let file = match others.is_empty() {
            true => parsed.clone(),
            false => {
                let file = document::split(parsed.file().clone(), &others).map_err(invalid)?;
                Arc::new(StoredFile::new(file))
            }
        };
        let text = match file == parsed {
            true => stored_text(&asked.body, file.file()),
            false => file.file().to_yaml().into_bytes(),
        };
        let new = NewFile {
            name: MAIN,
            text: &text,
            file,
            is_admitted: true,
            wanted: match (condition, files.get(MAIN)) {
                (Wanted::Any, _) => Wanted::Any,
                (_, Some(main)) => Wanted::Version(vec![main.text.version]),
                (_, None) => Wanted::Absent,
            },
            action: Action::Put,
        };
        let mut versions: BTreeMap<String, Version> = files
            .iter()
            .map(|(name, kept)| (name.clone(), kept.text.version))
            .collect();
        let made = self.write(asked, new, files)?;
        let made = Made { warnings, ..made };
        versions.insert(MAIN.to_owned(), made.version);
        let versions = versions.iter().map(|(name, version)| (&**name, *version));
        Ok(told(asked, &made, version_of_all(versions)))
    }

    pub(super) fn delete_tenant(&self, asked: &Asked) -> Result<Response, Failure> {
        let files = self.files(&asked.tenant)?;
        if files.is_empty() {
            return Err(absent(format!("tenant {:?} has no rules", asked.tenant)));
        }
        let condition = wanted(&asked.headers)?;
        let before = Some(version_of(&files));
        if !condition.holds(before) {
            return Err(StoreError::Precondition { current: before }.into());
        }
        let mut removed = Vec::new();
        for (name, kept) in &files {
            let wanted = match condition {
                Wanted::Version(_) => Wanted::Version(vec![kept.text.version]),
                _ => Wanted::Any,
            };
            match self.remove(asked, name, &wanted) {
                Ok(_) => removed.push(&**name),
                // Another caller has removed it meanwhile.
                Err(Failure::Rejected(it)) if it.kind == RejectionKind::NotFound => {}
                Err(Failure::Changed(reason)) if !removed.is_empty() => {
                    let removed = removed.join(", ");
                    let reason = format!("file {name:?}: {reason}; removed before it: {removed}");
                    return Err(Failure::Changed(reason));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }
}

/// The version of all files of a tenant.
pub(in crate::sources::rules_api) fn version_of(files: &Files) -> Version {
    let files = files.iter();
    version_of_all(files.map(|(name, kept)| (&**name, kept.text.version)))
}

/// The version of all files of a tenant, given theirs.
fn version_of_all<'n>(files: impl ExactSizeIterator<Item = (&'n str, Version)>) -> Version {
    let files: Vec<_> = files.collect();
    if let [(MAIN, version)] = files[..] {
        return version;
    }
    let parts = files
        .iter()
        .flat_map(|(name, version)| [name.as_bytes(), &version.as_bytes()[..]]);
    Version::of_parts(parts)
}
