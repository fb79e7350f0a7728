//! The ruler configuration API of Mimir and Cortex over the same files: a namespace is a file, and
//! groups are written one by one.

use http::{Method, StatusCode};
use serde_json::json;

use metrifold_http::Response;
use metrifold_rules::{RuleFile, Version};

use super::api::group::{Emptied, group_version};
use super::api::tenant::version_of;
use super::api::{Api, Asked, Files, Made, find, not_modified, sound};
use super::namespace;
use super::reply::{self, Failure, absent};
use super::requests::is_known;

pub(super) fn answer(api: &Api, asked: &Asked) -> Result<Response, Failure> {
    match (&asked.method, &asked.file, &asked.group) {
        (&Method::POST, Some(_), _) => {
            let (group, warnings) = api.parse_group(&asked.body)?;
            let version = group_version(&group);
            let made = api.set_group(asked, group)?;
            let made = Made { warnings, ..made };
            Ok(reply::tagged(accepted(&made.all_warnings()), version))
        }
        (&Method::DELETE, Some(_), Some(_)) => {
            let made = api.drop_group(asked, Emptied::Goes)?;
            Ok(accepted(&made.all_warnings()))
        }
        (&Method::DELETE, Some(_), None) => {
            api.delete_file(asked)?;
            Ok(accepted(&[]))
        }
        (_, Some(_), Some(_)) => {
            let files = file_of(api, asked)?;
            let [(_, file)] = sound(&files)?[..] else {
                return Err(none());
            };
            let group = find(file, asked)?;
            tagged(asked, group_version(group), || Ok(group.to_yaml()))
        }
        (_, Some(_), None) => {
            let files = file_of(api, asked)?;
            let version = files.values().map(|kept| kept.text.version).next();
            let version = version.ok_or_else(none)?;
            tagged(asked, version, || listed(&files))
        }
        (_, None, _) => {
            let files = api.files(&asked.tenant)?;
            match files.is_empty() {
                true => Err(none()),
                false => tagged(asked, version_of(&files), || listed(&files)),
            }
        }
    }
}

/// An answer of YAML, unless the caller has this version of it.
fn tagged(
    asked: &Asked,
    version: Version,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<Response, Failure> {
    match is_known(&asked.headers, version) {
        true => Ok(not_modified(version)),
        false => Ok(reply::tagged(reply::yaml(text()?), version)),
    }
}

/// A namespace's file, as the only one in the map.
fn file_of(api: &Api, asked: &Asked) -> Result<Files, Failure> {
    let mut files = api.files(&asked.tenant)?;
    files.retain(|name, _| Some(name) == asked.file.as_ref());
    match files.is_empty() {
        true => Err(none()),
        false => Ok(files),
    }
}

/// Lists namespaces with their groups, as YAML.
fn listed(files: &Files) -> Result<String, Failure> {
    let mut out = String::new();
    for (name, file) in sound(files)? {
        // Every JSON string is a valid YAML string.
        let key = json!(namespace::of_file(name)).to_string();
        out.push_str(&under(&key, file));
    }
    Ok(out)
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

fn accepted(warnings: &[String]) -> Response {
    let mut body = json!({ "status": "success", "data": null, "errorType": "", "error": "" });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    reply::json(StatusCode::ACCEPTED, &body)
}
