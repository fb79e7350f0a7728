//! The ruler configuration API of Mimir and Cortex over the same files: a namespace is a file, and
//! groups are written one by one.

use http::{Method, StatusCode};
use serde_json::json;

use metrifold_http::Response;
use metrifold_rules::RuleFile;

use super::api::group::Emptied;
use super::api::{Api, Asked, Files, find, sound};
use super::reply::{self, Failure, absent};

pub(super) fn answer(api: &Api, asked: &Asked) -> Result<Response, Failure> {
    match (&asked.method, &asked.file, &asked.group) {
        (&Method::POST, Some(_), _) => {
            let (group, _) = api.parse_group(&asked.body)?;
            api.set_group(asked, group)?;
            Ok(accepted())
        }
        (&Method::DELETE, Some(_), Some(_)) => {
            api.drop_group(asked, Emptied::Goes)?;
            Ok(accepted())
        }
        (&Method::DELETE, Some(_), None) => {
            api.delete_file(asked)?;
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

/// A namespace's file, as the only one in the map.
fn namespace(api: &Api, asked: &Asked) -> Result<Files, Failure> {
    let mut files = api.files(&asked.tenant)?;
    files.retain(|name, _| Some(name) == asked.file.as_ref());
    match files.is_empty() {
        true => Err(none()),
        false => Ok(files),
    }
}

/// Lists namespaces with their groups, as YAML.
fn listed(files: &Files) -> Result<Response, Failure> {
    let mut out = String::new();
    for (name, file) in sound(files)? {
        // Every JSON string is a valid YAML string.
        let key = json!(name).to_string();
        out.push_str(&under(&key, file));
    }
    Ok(reply::yaml(out))
}

/// The YAML of a file with `groups` replaced by another key.
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
