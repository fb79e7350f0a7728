//! Providers of targets as JSON: their state, their targets, and the published form of each.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tokio::task::spawn_blocking;

use metrifold_discovery::{Handles, Status, Target};
use metrifold_http::{Response, answer};
use metrifold_targets::{Directory, PublishStatus, Published, Relabelled};
use metrifold_telemetry::State;

use super::json;

/// Path of providers and targets.
pub(super) const DISCOVERY: &str = "/api/v1/discovery";

/// Default and largest number of targets in an answer.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

#[derive(Serialize)]
struct Answer {
    providers: Vec<Provider>,
    publish: Vec<PublishStatus>,
    /// Number of targets that match the query; `targets` holds one page of them.
    matched: usize,
    targets: Vec<Found>,
}

#[derive(Serialize)]
struct Provider {
    name: Arc<str>,
    #[serde(flatten)]
    status: Status,
}

#[derive(Serialize)]
struct Found {
    discovery: Arc<str>,
    /// Labels as the provider reports them.
    labels: Target,
    /// The target in the publishers that read this provider.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    published: Vec<After>,
}

#[derive(Serialize)]
struct After {
    publish: Arc<str>,
    /// Labels after relabelling; `None` if the target is not published.
    labels: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<&'static str>,
}

/// Parameters of the query.
struct Asked {
    provider: Option<String>,
    search: String,
    limit: usize,
    offset: usize,
}

/// Answers with providers and targets, filtered by the query's `provider`, `search`, `limit` and
/// `offset`.
pub(super) async fn discovery(directory: &Directory, query: Option<&str>) -> Response {
    let asked = match asked(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(reason) => return answer::text(StatusCode::BAD_REQUEST, &reason),
    };
    let directory = directory.clone();
    // Searching a hundred thousand targets takes too long for a worker thread.
    match spawn_blocking(move || look(&directory, &asked)).await {
        Ok(Some(found)) => json(&found),
        Ok(None) => answer::text(StatusCode::NOT_FOUND, "there is no such provider"),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Names of providers and publishers that do not run.
pub(super) fn waiting(providers: &Handles) -> Vec<String> {
    let providers = providers.iter();
    providers
        .filter(|slot| slot.status().state != State::Running)
        .map(|slot| format!("discovery {}", slot.name()))
        .collect()
}

fn look(directory: &Directory, asked: &Asked) -> Option<Answer> {
    let wanted = |name: &str| asked.provider.as_ref().is_none_or(|it| **it == *name);
    let handles = directory.providers();
    let slots: Vec<_> = handles.iter().filter(|slot| wanted(slot.name())).collect();
    if slots.is_empty() && asked.provider.is_some() {
        return None;
    }
    let published = directory.published();
    let of = |name: &str| -> Vec<&Arc<Published>> {
        let all = published.values();
        all.filter(|it| *it.discovery == *name).collect()
    };
    let mut matched = 0;
    let mut targets = Vec::new();
    for slot in &slots {
        let snapshot = slot.snapshot();
        let found = snapshot
            .targets()
            .iter()
            .filter(|target| target.contain(&asked.search));
        for target in found {
            if matched >= asked.offset && targets.len() < asked.limit {
                targets.push(Found {
                    discovery: slot.name().clone(),
                    labels: target.clone(),
                    published: of(slot.name())
                        .into_iter()
                        .map(|it| after(it, target))
                        .collect(),
                });
            }
            matched += 1;
        }
    }
    let providers = slots.iter().map(|slot| Provider {
        name: slot.name().clone(),
        status: slot.status(),
    });
    Some(Answer {
        providers: providers.collect(),
        publish: published
            .values()
            .filter(|it| wanted(&it.discovery))
            .map(|it| it.status())
            .collect(),
        matched,
        targets,
    })
}

/// The form in which a target is published.
fn after(published: &Arc<Published>, target: &Target) -> After {
    let relabelled = published.relabel(std::slice::from_ref(target)).pop();
    let (labels, dropped) = match relabelled {
        Some(Relabelled::Kept(labels)) => (Some(labels), None),
        Some(Relabelled::WithoutAddress) => (None, Some("it has no address")),
        Some(Relabelled::Dropped) | None => (None, Some("a rule drops it")),
    };
    After {
        publish: published.name.clone(),
        labels,
        dropped,
    }
}

fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked {
        provider: None,
        search: String::new(),
        limit: LIMIT,
        offset: 0,
    };
    // The query is parsed as part of a made-up URL.
    let url = reqwest::Url::parse(&format!("http://query/?{query}"));
    let url = url.map_err(|error| error.to_string())?;
    for (key, value) in url.query_pairs() {
        let number = value.parse::<usize>();
        match &*key {
            "provider" => asked.provider = Some(value.into_owned()),
            "search" => asked.search = value.into_owned(),
            "limit" => {
                let number = number.ok().filter(|number| *number <= LIMIT_MAX);
                asked.limit =
                    number.ok_or_else(|| format!("limit must be from 0 to {LIMIT_MAX}"))?;
            }
            "offset" => {
                asked.offset = number.map_err(|_| "offset must be a number".to_owned())?;
            }
            _ => {
                return Err(format!(
                    "there is no {key:?}: use provider, search, limit and offset"
                ));
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_targets_are_meant_and_nothing_else() {
        let all = asked("").unwrap();
        assert_eq!((all.provider, all.limit, all.offset), (None, LIMIT, 0));
        let some = asked("provider=a&search=x%20y&limit=1000&offset=7").unwrap();
        assert_eq!(some.provider.as_deref(), Some("a"));
        assert_eq!((&*some.search, some.limit, some.offset), ("x y", 1000, 7));
        for wrong in ["limit=1001", "limit=x", "offset=-1", "name=a"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
