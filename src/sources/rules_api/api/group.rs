//! Requests for a group, which is changed by rewriting its file.

use std::sync::Arc;

use http::StatusCode;

use metrifold_http::{Response, answer};
use metrifold_rules::store::{Action, StoreError, Wanted};
use metrifold_rules::{Group, RuleFile, StoredFile, Version};

use super::write::NewFile;
use super::{Api, Asked, Made, damaged, find, missing_group, not_modified, place, position, told};
use crate::sources::rules_api::document;
use crate::sources::rules_api::reply::{self, Failure, invalid};
use crate::sources::rules_api::requests::{is_known, wanted, wants_json};

/// Maximum attempts at changing a group while other writers change its file.
const ATTEMPTS: usize = 50;

/// Changes the groups of a file, of which the named one is at the position, if there is one.
type Edit<'e> = dyn FnMut(&mut Vec<Group>, Option<usize>) -> Result<(), Failure> + 'e;

impl Api {
    pub(super) fn get_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let place = place(asked);
        let text = self.text(&place)?;
        let file = self.parse_stored(&place, &text.text)?;
        let group = find(&file, asked)?;
        let version = group_version(group);
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let answer = match wants_json(&asked.headers) {
            true => reply::json(StatusCode::OK, &document::group_to_json(group)),
            false => reply::yaml(group.to_yaml()),
        };
        Ok(reply::tagged(answer, version))
    }

    pub(super) fn put_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let (group, warnings) = self.parse_group(&asked.body)?;
        let name = asked.group.as_deref().unwrap_or_default();
        if group.name != name {
            let reason = format!(
                "the group is called {:?}, and its path says {name:?}",
                group.name
            );
            return Err(invalid(reason));
        }
        let version = group_version(&group);
        let made = self.set_group(asked, group)?;
        Ok(told(asked, &Made { warnings, ..made }, version))
    }

    pub(super) fn delete_group(&self, asked: &Asked) -> Result<Response, Failure> {
        self.drop_group(asked, Emptied::Stays)?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Adds a group to a file, or replaces the one of its name.
    pub(in crate::sources::rules_api) fn set_group(
        &self,
        asked: &Asked,
        group: Group,
    ) -> Result<Made, Failure> {
        let file = RuleFile {
            groups: vec![group.clone()],
        };
        self.admit(asked, asked.file.as_deref().unwrap_or_default(), file)?;
        self.edit(asked, &group.name, Emptied::Stays, &mut |groups, at| {
            match at {
                Some(at) => groups[at] = group.clone(),
                None => groups.push(group.clone()),
            }
            Ok(())
        })
    }

    /// Removes the group in the path from its file.
    pub(in crate::sources::rules_api) fn drop_group(
        &self,
        asked: &Asked,
        emptied: Emptied,
    ) -> Result<Made, Failure> {
        let name = asked.group.as_deref().unwrap_or_default();
        self.edit(asked, name, emptied, &mut |groups, at| {
            groups.remove(at.ok_or_else(|| missing_group(asked))?);
            Ok(())
        })
    }

    /// Changes the groups of a file, if the named group meets the request's condition. `edit` gets the
    /// groups and the position of that one.
    fn edit(
        &self,
        asked: &Asked,
        group: &str,
        emptied: Emptied,
        edit: &mut Edit<'_>,
    ) -> Result<Made, Failure> {
        let name = asked.file.as_deref().unwrap_or_default();
        let condition = wanted(&asked.headers)?;
        for _ in 0..ATTEMPTS {
            let files = self.files(&asked.tenant)?;
            let current = files.get(name);
            let old = match current {
                Some(kept) => kept.file.clone().ok_or_else(|| damaged(name))?,
                None => RuleFile::default(),
            };
            let mut file = old.clone();
            let at = position(&file.groups, group);
            edit(&mut file.groups, at)?;
            let before = at.map(|at| group_version(&old.groups[at]));
            if !condition.holds(before) {
                return Err(StoreError::Precondition { current: before }.into());
            }
            // An unchanged file keeps its text, with comments.
            let text = match current {
                Some(kept) if old == file => kept.text.text.clone(),
                _ => file.to_yaml().into_bytes(),
            };
            let wanted = match current {
                Some(kept) => Wanted::Version(vec![kept.text.version]),
                None => Wanted::Absent,
            };
            let made = match emptied {
                Emptied::Goes if file.groups.is_empty() => self.remove(asked, name, &wanted),
                _ => {
                    let new = NewFile {
                        name,
                        text: &text,
                        file: Arc::new(StoredFile::new(file)),
                        is_admitted: false,
                        wanted,
                        action: Action::Put,
                    };
                    self.write(asked, new, files)
                }
            };
            match made {
                // Another caller has changed the file meanwhile.
                Err(Failure::Changed(_)) => {}
                made => return made,
            }
        }
        Err(StoreError::Contended.into())
    }
}

/// Treatment of a file whose last group is removed: it stays without groups, or is removed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources::rules_api) enum Emptied {
    Stays,
    Goes,
}

pub(in crate::sources::rules_api) fn group_version(group: &Group) -> Version {
    Version::of(group.to_yaml().as_bytes())
}
