//! Scraped targets in the shape of Prometheus' `/api/v1/targets`, and the page that shows them.
//!
//! Beside Prometheus' `state` and `scrapePool`, a query may have `health`, `search`, `limit` and
//! `offset`, since there may be many thousands of targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tokio::task::spawn_blocking;

use metrifold_base::{Period, Shared};
use metrifold_discovery::Target;
use metrifold_http::{Response, answer};
use metrifold_scrape::{Dropped, Health, Pools, TargetStatus};
use metrifold_targets::Directory;

use super::json;

/// Path of the targets.
pub(super) const TARGETS: &str = "/api/v1/targets";
/// The page that shows the targets.
pub(super) const PAGE: &str = include_str!("targets.html");

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    data: Data,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    active_targets: Vec<Active>,
    dropped_targets: Vec<DroppedTarget>,
    dropped_target_counts: BTreeMap<Arc<str>, usize>,
    /// Number of active targets that match the query; `active` holds one page of them.
    matched: usize,
    /// Number of dropped targets that match the query, of those that are kept.
    matched_dropped: usize,
    /// Number of matching targets by health.
    healths: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    discovered_labels: Target,
    labels: Target,
    scrape_pool: Arc<str>,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: Health,
    scrape_interval: String,
    scrape_timeout: String,
    samples: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DroppedTarget {
    discovered_labels: Target,
    scrape_pool: Arc<str>,
    /// Why the target is not scraped.
    reason: String,
}

/// Parameters of the query.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    active: bool,
    dropped: bool,
    pool: Option<String>,
    health: Option<Health>,
    search: String,
    limit: usize,
    offset: usize,
}

/// Answers with the targets that match the query.
pub(super) async fn targets(directory: &Directory, query: Option<&str>) -> Response {
    let asked = match asked(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(reason) => return answer::text(StatusCode::BAD_REQUEST, &reason),
    };
    let shared = directory.shared().clone();
    // Searching many thousands takes too long for a worker thread.
    match spawn_blocking(move || look(&shared, &asked)).await {
        Ok(data) => json(&Answer {
            status: "success",
            data,
        }),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn look(shared: &Shared, asked: &Asked) -> Data {
    let pools: Arc<Pools> = shared.get();
    let in_pool = |pool: &str| asked.pool.as_ref().is_none_or(|asked| **asked == *pool);
    let mut healths = BTreeMap::new();
    let mut active = Vec::new();
    if asked.active {
        active = pools.active(|target| in_pool(&target.pool) && has(target, &asked.search));
        for target in &active {
            *healths.entry(name(target.health)).or_default() += 1;
        }
        active.retain(|target| asked.health.is_none_or(|health| health == target.health));
    }
    let matched = active.len();
    let listed = active.into_iter().skip(asked.offset).take(asked.limit);
    let mut dropped = Vec::new();
    if asked.dropped {
        dropped = pools.dropped();
        dropped.retain(|it| in_pool(&it.pool) && it.discovered.contain(&asked.search));
    }
    let matched_dropped = dropped.len();
    let dropped = dropped.into_iter().skip(asked.offset).take(asked.limit);
    Data {
        active_targets: listed.map(Active::from).collect(),
        dropped_targets: dropped.map(DroppedTarget::from).collect(),
        dropped_target_counts: pools.dropped_counts(),
        matched,
        matched_dropped,
        healths,
    }
}

fn has(target: &TargetStatus, search: &str) -> bool {
    search.is_empty()
        || target.url.contains(search)
        || target.error.contains(search)
        || target.labels.contain(search)
        || target.discovered.contain(search)
}

fn name(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    }
}

impl From<TargetStatus> for Active {
    fn from(target: TargetStatus) -> Self {
        Self {
            discovered_labels: target.discovered,
            labels: target.labels,
            scrape_pool: target.pool,
            global_url: target.url.clone(),
            scrape_url: target.url,
            last_error: target.error,
            last_scrape: target.last_scrape.map_or(NEVER.to_owned(), rfc3339),
            last_scrape_duration: target.duration.as_secs_f64(),
            health: target.health,
            scrape_interval: Period(target.interval).to_string(),
            scrape_timeout: Period(target.timeout).to_string(),
            samples: target.samples,
        }
    }
}

impl From<Dropped> for DroppedTarget {
    fn from(dropped: Dropped) -> Self {
        Self {
            discovered_labels: dropped.discovered,
            scrape_pool: dropped.pool,
            reason: dropped.reason,
        }
    }
}

/// The zero time as Go writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A time in milliseconds since the epoch as Prometheus writes it.
fn rfc3339(at: i64) -> String {
    let (days, rest) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000));
    // Proleptic Gregorian calendar, counted in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

fn asked(query: &str) -> Result<Asked, String> {
    let mut asked = Asked {
        active: true,
        dropped: true,
        pool: None,
        health: None,
        search: String::new(),
        limit: usize::MAX,
        offset: 0,
    };
    // The query is parsed as part of a made-up URL.
    let url = reqwest::Url::parse(&format!("http://query/?{query}"));
    let url = url.map_err(|error| error.to_string())?;
    for (key, value) in url.query_pairs() {
        let number = value.parse::<usize>();
        match (&*key, &*value) {
            ("state", "" | "any") => {}
            ("state", "active") => asked.dropped = false,
            ("state", "dropped") => asked.active = false,
            ("state", _) => return Err("state must be active, dropped or any".to_owned()),
            ("scrapePool", "") | ("health", "") => {}
            ("scrapePool", pool) => asked.pool = Some(pool.to_owned()),
            ("health", "up") => asked.health = Some(Health::Up),
            ("health", "down") => asked.health = Some(Health::Down),
            ("health", "unknown") => asked.health = Some(Health::Unknown),
            ("health", _) => return Err("health must be up, down or unknown".to_owned()),
            ("search", search) => asked.search = search.to_owned(),
            ("limit", _) => {
                asked.limit = number.map_err(|_| "limit must be a number".to_owned())?;
            }
            ("offset", _) => {
                asked.offset = number.map_err(|_| "offset must be a number".to_owned())?;
            }
            _ => {
                return Err(format!(
                    "there is no {key:?}: use state, scrapePool, health, search, limit and offset"
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
    fn times_are_written_as_prometheus_writes_them() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(at), text);
        }
    }

    #[test]
    fn a_query_says_which_targets_are_meant_and_nothing_else() {
        let all = asked("").unwrap();
        assert!(all.active && all.dropped);
        let some = asked("state=active&scrapePool=a&health=down&search=x%20y&limit=7").unwrap();
        assert!(some.active && !some.dropped);
        assert_eq!(
            (some.pool.as_deref(), some.health),
            (Some("a"), Some(Health::Down))
        );
        assert_eq!((&*some.search, some.limit, some.offset), ("x y", 7, 0));
        for wrong in ["state=x", "health=x", "limit=x", "name=a"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
