//! A group of a file, which is changed within the file.

use http::StatusCode;

use metrifold_http::{Response, answer};
use metrifold_rules::store::{Action, StoreError, Wanted};
use metrifold_rules::{Group, RuleFile, Version};

use super::{Api, Asked, Made, find, not_modified, place, position, told};
use crate::sources::rules_api::document;
use crate::sources::rules_api::reply::{self, Failure, invalid};
use crate::sources::rules_api::requests::{is_known, wanted, wants_json};

/// How often a change within a file is tried again that others change meanwhile.
const ATTEMPTS: usize = 50;

impl Api {
    pub(super) fn get_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let place = place(asked);
        let text = self.text(&place)?;
        let file = self.parse_stored(&place, &text)?;
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
        let made = self.edit(asked, &mut |groups| match position(groups, name) {
            Some(at) => groups[at] = group.clone(),
            None => groups.push(group.clone()),
        })?;
        Ok(told(asked, &Made { warnings, ..made }, version))
    }

    pub(super) fn delete_group(&self, asked: &Asked) -> Result<Response, Failure> {
        let name = asked.group.as_deref().unwrap_or_default();
        let text = self.text(&place(asked))?;
        find(&self.parse_stored(&place(asked), &text)?, asked)?;
        self.edit(asked, &mut |groups| {
            groups.retain(|group| group.name != name)
        })?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Changes the groups of a file, if the one of the path is what is wanted.
    pub(in crate::sources::rules_api) fn edit(
        &self,
        asked: &Asked,
        edit: &mut dyn FnMut(&mut Vec<Group>),
    ) -> Result<Made, Failure> {
        let (name, place) = (asked.file.as_deref().unwrap_or_default(), place(asked));
        let condition = wanted(&asked.headers)?;
        let group = asked.group.as_deref();
        for _ in 0..ATTEMPTS {
            let current = self.shared.store.get(&place)?;
            let mut file = match &current {
                Some(text) => self.parse_stored(&place, text)?,
                None => RuleFile::default(),
            };
            let at = group.and_then(|group| position(&file.groups, group));
            let before = at.map(|at| group_version(&file.groups[at]));
            if !condition.holds(before) {
                return Err(StoreError::Precondition { current: before }.into());
            }
            let old = file.clone();
            edit(&mut file.groups);
            // What is not changed keeps its comments.
            let text = match &current {
                Some(current) if old == file => current.text.clone(),
                _ => file.to_yaml().into_bytes(),
            };
            let wanted = match &current {
                Some(current) => Wanted::Version(vec![current.version]),
                None => Wanted::Absent,
            };
            let others = self.others(&asked.tenant, name)?;
            match self.write(asked, name, &text, file, &wanted, Action::Put, others) {
                Err(Failure::Changed(_)) => {}
                made => return made,
            }
        }
        Err(StoreError::Contended.into())
    }
}

fn group_version(group: &Group) -> Version {
    Version::of(group.to_yaml().as_bytes())
}
