//! Conditions, parameters and content negotiation of requests.

use http::HeaderMap;
use http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH};

use metrifold_rules::Version;
use metrifold_rules::store::Wanted;

use super::reply::{Failure, invalid};

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Whether the request is only checked, and nothing changed.
    pub(super) dry_run: bool,
    /// Whether the answer is the file's history.
    pub(super) history: bool,
    /// Whether the answer is the state of the rules in the rulers, and in which.
    pub(super) status: Option<Status>,
    /// ID of the version to return.
    pub(super) version: Option<String>,
    /// ID of the version whose text is restored.
    pub(super) rollback: Option<String>,
}

/// The rulers about which a status tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Rulers behind this process, and rulers about which other processes tell.
    Everywhere,
    /// Rulers behind this process.
    Local,
}

impl Parameters {
    /// Parses a query string. Parameters that the resource does not have are refused, so that a misspelt
    /// `dry_run` changes nothing.
    pub(super) fn of(query: Option<&str>, known: &[&str]) -> Result<Self, Failure> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        // The URL exists only to have its query parsed.
        let url = format!("http://localhost/?{}", query.unwrap_or_default());
        let url = reqwest::Url::parse(&url).map_err(|error| invalid(error.to_string()))?;
        for (key, value) in url.query_pairs() {
            let Some(key) = known.iter().find(|known| **known == key) else {
                let known = match known {
                    [] => "it has none".to_owned(),
                    known => format!("known are {}", known.join(", ")),
                };
                return Err(invalid(format!(
                    "the resource has no parameter {key:?}: {known}"
                )));
            };
            if seen.contains(key) {
                return Err(invalid(format!("parameter {key} is given twice")));
            }
            seen.push(*key);
            let flag = || match &*value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(invalid(format!(
                    "parameter {key} is neither true nor false"
                ))),
            };
            match *key {
                "dry_run" => read.dry_run = flag()?,
                "history" => read.history = flag()?,
                "status" if value == "local" => read.status = Some(Status::Local),
                "status" => read.status = flag()?.then_some(Status::Everywhere),
                "version" => read.version = Some(value.into_owned()),
                "rollback" => read.rollback = Some(value.into_owned()),
                // Known, and without a meaning.
                _ => {}
            }
        }
        match read.history && read.version.is_some() {
            true => Err(invalid("parameters history and version exclude each other")),
            false => Ok(read),
        }
    }
}

/// The precondition in a request's headers for a change.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Wanted, Failure> {
    let matches = tags(headers, IF_MATCH)?;
    let others = tags(headers, IF_NONE_MATCH)?;
    match (matches, others) {
        (None, None) => Ok(Wanted::Any),
        (Some(None), None) => Ok(Wanted::Present),
        (Some(Some(versions)), None) => Ok(Wanted::Version(versions)),
        (None, Some(None)) => Ok(Wanted::Absent),
        // `If-Match` with `If-None-Match: *` contradict each other: no version meets both.
        (Some(_), Some(None)) => Ok(Wanted::Version(Vec::new())),
        _ => Err(invalid(
            "a change takes If-Match with an ETag or *, or If-None-Match with *",
        )),
    }
}

/// Whether `If-None-Match` says that the caller has this version.
pub(super) fn is_known(headers: &HeaderMap, version: Version) -> bool {
    match tags(headers, IF_NONE_MATCH) {
        Ok(Some(Some(versions))) => versions.contains(&version),
        Ok(Some(None)) => true,
        Ok(None) | Err(_) => false,
    }
}

/// The versions in a header: `None` if it is absent, `Some(None)` for `*`.
fn tags(
    headers: &HeaderMap,
    name: http::HeaderName,
) -> Result<Option<Option<Vec<Version>>>, Failure> {
    let values = headers.get_all(&name).iter();
    let values: Vec<&str> = values
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    if values.iter().map(|value| value.trim()).eq(["*"]) {
        return Ok(Some(None));
    }
    let mut versions = None;
    for text in values {
        for tag in text.split(',').map(str::trim) {
            let known: &mut Vec<Version> = versions.get_or_insert_default();
            // A tag that is not a version matches nothing. A proxy that compresses makes tags weak:
            // If-None-Match compares weakly, and for If-Match a weak tag matches nothing (RFC 9110
            // section 13.1).
            let weak = tag.strip_prefix("W/");
            let may_match = weak.is_none() || name == IF_NONE_MATCH;
            let inner = weak.unwrap_or(tag);
            let inner = inner
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .filter(|tag| {
                    tag.bytes()
                        .all(|byte| byte.is_ascii_graphic() && byte != b'"')
                });
            match inner {
                Some(hex) => known.extend(hex.parse::<Version>().ok().filter(|_| may_match)),
                None => {
                    return Err(invalid(format!(
                        "{name} contains {tag:?}, which is not an ETag"
                    )));
                }
            }
        }
    }
    Ok(versions.map(Some))
}

/// Whether the caller prefers JSON to YAML.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut types = accepted.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    // The first of the two formats in the list wins.
    types
        .find_map(|accepted| {
            let kind = accepted.split(';').next().unwrap_or_default().trim();
            match kind {
                "application/json" => Some(true),
                kind if kind.contains("yaml") => Some(false),
                _ => None,
            }
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(http::HeaderName, &str)| (name.clone(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn conditions_are_read_and_what_is_none_is_refused() {
        let version = Version::of(b"x");
        let tag = format!("\"{version}\"");
        let weak = format!("W/{tag}");
        let wanted_of = |pairs: &[_]| wanted(&headers(pairs)).ok();
        assert_eq!(wanted_of(&[]), Some(Wanted::Any));
        assert_eq!(wanted_of(&[(IF_MATCH, "*")]), Some(Wanted::Present));
        assert_eq!(wanted_of(&[(IF_NONE_MATCH, "*")]), Some(Wanted::Absent));
        let several = format!("\"other\", {tag}");
        assert_eq!(
            wanted_of(&[(IF_MATCH, &several)]),
            Some(Wanted::Version(vec![version]))
        );
        // A weak tag is one, and a change on its condition is never made.
        let nothing = Some(Wanted::Version(Vec::new()));
        assert_eq!(wanted_of(&[(IF_MATCH, &weak)]), nothing);
        for wrong in [
            "abc", "W/", "w/\"a\"", "\"", "\"a b\"", "\"a\"\"", "\"a\", *", "",
        ] {
            assert_eq!(wanted_of(&[(IF_MATCH, wrong)]), None, "{wrong}");
        }
        assert_eq!(wanted_of(&[(IF_NONE_MATCH, &tag)]), None);
        assert!(is_known(&headers(&[(IF_NONE_MATCH, &tag)]), version));
        assert!(is_known(&headers(&[(IF_NONE_MATCH, &weak)]), version));
        assert!(!is_known(&headers(&[(IF_NONE_MATCH, "\"x\"")]), version));
    }

    #[test]
    fn parameters_that_a_resource_does_not_have_are_refused() {
        let known = ["dry_run", "version", "history"];
        let read = Parameters::of(Some("dry_run=true&version=a%20b"), &known).unwrap();
        assert!(read.dry_run && read.version.as_deref() == Some("a b"));
        for wrong in [
            "dryrun=true",
            "dry_run=yes",
            "dry_run",
            "status=true",
            "dry_run=false&dry_run=true",
            "history=true&version=a",
        ] {
            assert!(Parameters::of(Some(wrong), &known).is_err(), "{wrong}");
        }
        assert!(wants_json(&headers(&[(
            ACCEPT,
            "text/html, application/json;q=0.9"
        )])));
        assert!(!wants_json(&headers(&[(ACCEPT, "*/*")])));
    }
}
