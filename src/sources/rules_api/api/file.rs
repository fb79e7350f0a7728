//! Requests for a file, its versions and a rollback to one of them.

use http::StatusCode;
use serde_json::json;

use metrifold_http::{Response, answer};
use metrifold_rules::Version;
use metrifold_rules::store::{Action, Place};

use super::write::NewFile;
use super::{Api, Asked, Made, entry_to_json, not_modified, place, stored_text, told};
use crate::sources::rules_api::document;
use crate::sources::rules_api::reply::{self, Failure, absent, invalid};
use crate::sources::rules_api::requests::{is_known, wanted, wants_json};

impl Api {
    pub(super) fn get_file(&self, asked: &Asked) -> Result<Response, Failure> {
        let place = place(asked);
        if let Some(id) = &asked.parameters.version {
            let entry = self.shared.store.entry(&place, id)?;
            let text = entry
                .text
                .ok_or_else(|| absent("the file was removed in that version"))?;
            return self.file(asked, &place, text.into_bytes());
        }
        let text = self.text(&place)?.text;
        self.file(asked, &place, text)
    }

    /// Answers with the text of a file.
    fn file(&self, asked: &Asked, place: &Place, text: Vec<u8>) -> Result<Response, Failure> {
        let version = Version::of(&text);
        if is_known(&asked.headers, version) {
            return Ok(not_modified(version));
        }
        let answer = match wants_json(&asked.headers) {
            true => {
                let file = self.parse_stored(place, &text)?;
                reply::json(StatusCode::OK, &document::to_json(&file))
            }
            false => reply::yaml(text),
        };
        Ok(reply::tagged(answer, version))
    }

    pub(super) fn put_file(&self, asked: &Asked) -> Result<Response, Failure> {
        let name = asked.file.as_deref().unwrap_or_default();
        let (file, warnings) = self.parse(&asked.body)?;
        let file = self.admit(asked, name, file)?;
        let new = NewFile {
            name,
            text: &stored_text(&asked.body, file.file()),
            file,
            is_admitted: true,
            wanted: wanted(&asked.headers)?,
            action: Action::Put,
        };
        let made = self.write(asked, new, self.files(&asked.tenant)?)?;
        let made = Made { warnings, ..made };
        Ok(told(asked, &made, made.version))
    }

    pub(in crate::sources::rules_api) fn delete_file(
        &self,
        asked: &Asked,
    ) -> Result<Response, Failure> {
        let name = asked.file.as_deref().unwrap_or_default();
        self.remove(asked, name, &wanted(&asked.headers)?)?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) fn history(&self, asked: &Asked) -> Result<Response, Failure> {
        let entries = self.shared.store.history(&place(asked))?;
        if entries.is_empty() {
            return Err(absent("the file has no history"));
        }
        let entries: Vec<_> = entries.iter().map(entry_to_json).collect();
        Ok(reply::json(StatusCode::OK, &json!({ "versions": entries })))
    }

    pub(super) fn rollback(&self, asked: &Asked) -> Result<Response, Failure> {
        let Some(id) = &asked.parameters.rollback else {
            return Err(invalid("name the version to go back to: ?rollback=ID"));
        };
        let name = asked.file.as_deref().unwrap_or_default();
        let entry = self.shared.store.entry(&place(asked), id)?;
        let text = entry.text.ok_or_else(|| {
            invalid("the file was removed in that version: delete it, or name another version")
        })?;
        let (file, warnings) = self.parse(text.as_bytes())?;
        let file = self.admit(asked, name, file)?;
        let new = NewFile {
            name,
            text: text.as_bytes(),
            file,
            is_admitted: true,
            wanted: wanted(&asked.headers)?,
            action: Action::Rollback,
        };
        let made = self.write(asked, new, self.files(&asked.tenant)?)?;
        let made = Made { warnings, ..made };
        Ok(told(asked, &made, made.version))
    }
}
