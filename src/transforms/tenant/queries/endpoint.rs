//! What is done with each endpoint of the API. One that is not here is refused.

/// How a query to an endpoint is held to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Its `query` is narrowed, which it must have.
    Expression,
    /// Its `match[]` are narrowed, of which it must have one.
    Selectors,
    /// The same; without one, it is asked for all of the tenant's.
    SelectorsOrAll,
    /// The queries of remote read are narrowed.
    Read,
    /// Rules are filtered by their labels.
    Rules,
    /// Alerts are filtered by their labels.
    Alerts,
    /// Metadata are filtered by the names of the tenant's series.
    Metadata,
    /// It tells nothing of anybody's data.
    Open,
    /// It tells of everybody's.
    Closed,
}

use Treatment::{
    Alerts, Closed, Expression, Metadata, Open, Read, Rules, Selectors, SelectorsOrAll,
};

/// The endpoints.
const ENDPOINTS: [(&str, Treatment); 29] = [
    ("/api/v1/query", Expression),
    ("/api/v1/query_range", Expression),
    ("/api/v1/query_exemplars", Expression),
    ("/api/v1/series", Selectors),
    ("/federate", Selectors),
    ("/api/v1/labels", SelectorsOrAll),
    ("/api/v1/label/*/values", SelectorsOrAll),
    ("/api/v1/read", Read),
    ("/api/v1/rules", Rules),
    ("/api/v1/alerts", Alerts),
    ("/api/v1/metadata", Metadata),
    ("/api/v1/format_query", Open),
    ("/api/v1/parse_query", Open),
    ("/api/v1/features", Open),
    ("/api/v1/status/buildinfo", Open),
    ("/-/healthy", Open),
    ("/-/ready", Open),
    ("/api/v1/alertmanagers", Closed),
    ("/api/v1/targets", Closed),
    ("/api/v1/targets/metadata", Closed),
    ("/api/v1/targets/relabel_steps", Closed),
    ("/api/v1/scrape_pools", Closed),
    ("/api/v1/status/config", Closed),
    ("/api/v1/status/flags", Closed),
    ("/api/v1/status/runtimeinfo", Closed),
    ("/api/v1/status/tsdb", Closed),
    ("/api/v1/status/tsdb/blocks", Closed),
    ("/api/v1/status/walreplay", Closed),
    ("/api/v1/notifications", Closed),
];

/// Parameters that choose times, sizes and replicas, not series: of Prometheus, and of Thanos.
const HARMLESS: [&str; 12] = [
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "lookback_delta",
    "stats",
    "dedup",
    "replicaLabels[]",
    "partial_response",
    "max_source_resolution",
];

/// Parameters of the list of rules, all of which only make it shorter.
const OF_RULES: [&str; 8] = [
    "type",
    "rule_name[]",
    "rule_group[]",
    "file[]",
    "match[]",
    "exclude_alerts",
    "group_limit",
    "group_next_token",
];

/// Parameters that select series, to some server at least.
pub(super) const SELECTING: [&str; 3] = ["query", "match[]", "match"];

/// An endpoint that is known.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) treatment: Treatment,
}

impl Endpoint {
    /// The endpoint at a path, or why there is none.
    pub(super) fn of(path: &str) -> Result<Self, String> {
        let known = ENDPOINTS.iter().find(|(pattern, _)| matches(pattern, path));
        match known {
            Some((_, treatment)) => Ok(Self {
                treatment: *treatment,
            }),
            None => Err(format!("{path:?} is not known to be held to a tenant")),
        }
    }

    /// Whether it takes a parameter.
    pub(super) fn takes(&self, name: &str) -> bool {
        let own: &[&str] = match self.treatment {
            Expression => &["query"],
            Selectors | SelectorsOrAll => &["match[]"],
            Rules => &OF_RULES,
            Metadata => &["metric", "limit_per_metric"],
            Alerts | Read | Open | Closed => &[],
        };
        own.contains(&name) || HARMLESS.contains(&name)
    }
}

/// The endpoints that are closed unless they are allowed.
pub(super) fn closed() -> impl Iterator<Item = &'static str> {
    let closed = ENDPOINTS.iter().filter(|(_, it)| *it == Closed);
    closed.map(|(path, _)| *path)
}

/// Whether a path is of such an endpoint.
pub(super) fn is_closed(path: &str) -> bool {
    closed().any(|closed| closed == path)
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, behind)) => path
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(behind))
            .is_some_and(is_segment),
    }
}

/// Whether a text is one segment of a path to everybody who reads it, however often it is decoded:
/// a label's name has other letters than these.
fn is_segment(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-%.".contains(&byte);
    let lower = text.to_ascii_lowercase();
    let hides = ["%2f", "%5c", "%25", "%00", "%3f", "%23"];
    !text.is_empty()
        && text != "."
        && !text.contains("..")
        && !lower.contains("%2e")
        && text.bytes().all(is_plain)
        && !hides.iter().any(|it| lower.contains(it))
}
