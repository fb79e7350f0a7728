//! The configuration API of the rulers of Mimir and Cortex over the same files: a namespace is a
//! file, and a group is written alone.

use http::{Method, StatusCode};
use serde_json::json;

use metrifold_http::Response;
use metrifold_rules::RuleFile;
use metrifold_rules::store::{Action, Place, Wanted};

use super::api::{Api, Asked, Files, change, find, place, position, sound};
use super::reply::{self, Failure, absent};

pub(super) fn answer(api: &Api, asked: &Asked) -> Result<Response, Failure> {
    match (&asked.method, &asked.file, &asked.group) {
        (&Method::POST, Some(_), _) => {
            let (group, _) = api.parse_group(&asked.body)?;
            api.edit(asked, &mut |groups| match position(groups, &group.name) {
                Some(at) => groups[at] = group.clone(),
                None => groups.push(group.clone()),
            })?;
            Ok(accepted())
        }
        (&Method::DELETE, Some(_), Some(name)) => {
            let files = namespace(api, asked)?;
            let [(_, file)] = sound(&files)?[..] else {
                return Err(none());
            };
            find(file, asked)?;
            if file.groups.len() == 1 {
                remove(api, asked)?;
            } else {
                api.edit(asked, &mut |groups| {
                    groups.retain(|group| group.name != *name)
                })?;
            }
            Ok(accepted())
        }
        (&Method::DELETE, Some(_), None) => {
            namespace(api, asked)?;
            remove(api, asked)?;
            Ok(accepted())
        }
        (_, Some(_), Some(_)) => {
            let files = namespace(api, asked)?;
            let [(_, file)] = sound(&files)?[..] else {
                return Err(none());
            };
            Ok(reply::yaml(find(file, asked)?.to_yaml()))
        }
        (_, Some(_), None) => Ok(listed(&namespace(api, asked)?)?),
        (_, None, _) => {
            let files = api.files(&asked.tenant)?;
            match files.is_empty() {
                true => Err(none()),
                false => listed(&files),
            }
        }
    }
}

/// The file of a namespace alone.
fn namespace(api: &Api, asked: &Asked) -> Result<Files, Failure> {
    let mut files = api.files(&asked.tenant)?;
    files.retain(|name, _| Some(name) == asked.file.as_ref());
    match files.is_empty() {
        true => Err(none()),
        false => Ok(files),
    }
}

fn remove(api: &Api, asked: &Asked) -> Result<(), Failure> {
    let place: Place = place(asked);
    api.shared
        .store
        .delete(&place, &Wanted::Present, change(asked, Action::Delete))?;
    api.shared.touch(&asked.tenant);
    Ok(())
}

/// Namespaces with their groups.
fn listed(files: &Files) -> Result<Response, Failure> {
    let mut out = String::new();
    for (name, file) in sound(files)? {
        // A JSON string is one of YAML.
        let key = json!(name).to_string();
        out.push_str(&under(&key, file));
    }
    Ok(reply::yaml(out))
}

/// The groups of a file under another key.
fn under(key: &str, file: &RuleFile) -> String {
    let text = file.to_yaml();
    match text.strip_prefix("groups:") {
        Some(groups) => format!("{key}:{groups}"),
        None => text,
    }
}

fn none() -> Failure {
    absent("no rule groups found")
}

fn accepted() -> Response {
    let body = json!({ "status": "success", "data": null, "errorType": "", "error": "" });
    reply::json(StatusCode::ACCEPTED, &body)
}
