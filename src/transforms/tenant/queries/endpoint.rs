//! The treatment of each endpoint of the API. Unknown endpoints are refused.

/// How a query to an endpoint is restricted to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// `query` is required and narrowed.
    Expression,
    /// At least one `match[]` is required; each is narrowed.
    Selectors,
    /// Each `match[]` is narrowed; without one, a selector of all the tenant's series is added.
    SelectorsOrAll,
    /// As `SelectorsOrAll`, with the parameters of a search for names.
    Search,
    /// The queries of remote read are narrowed.
    Read,
    /// The answer's rules are filtered by their labels.
    Rules,
    /// The answer's alerts are filtered by their labels.
    Alerts,
    /// The answer's metadata is filtered by the names of the tenant's series.
    Metadata,
    /// The answer shows no tenant's data.
    Open,
    /// The answer shows data of all tenants.
    Closed,
    /// A page of the server's user interface, which shows no data itself: it queries the API.
    Ui,
}

use Treatment::{
    Alerts, Closed, Expression, Metadata, Open, Read, Rules, Search, Selectors, SelectorsOrAll, Ui,
};

/// Paths of known endpoints. `*` stands for one segment, `**` at the end for any rest.
const ENDPOINTS: [(&str, Treatment); 58] = [
    ("/api/v1/query", Expression),
    ("/api/v1/query_range", Expression),
    ("/api/v1/query_exemplars", Expression),
    ("/api/v1/query_cost", Expression),
    ("/api/v1/query_range_cost", Expression),
    ("/api/v1/series", Selectors),
    ("/federate", Selectors),
    ("/api/v1/labels", SelectorsOrAll),
    ("/api/v1/label/*/values", SelectorsOrAll),
    ("/api/v1/search/metric_names", Search),
    ("/api/v1/search/label_names", Search),
    ("/api/v1/search/label_values", Search),
    ("/api/v1/read", Read),
    ("/api/v1/rules", Rules),
    ("/api/v1/alerts", Alerts),
    ("/api/v1/metadata", Metadata),
    ("/api/v1/format_query", Open),
    ("/api/v1/parse_query", Open),
    ("/api/v1/features", Open),
    ("/api/v1/openapi.yaml", Open),
    ("/api/v1/status/buildinfo", Open),
    ("/-/healthy", Open),
    ("/-/ready", Open),
    ("/api/v1/alertmanagers", Closed),
    ("/api/v1/targets", Closed),
    ("/api/v1/targets/metadata", Closed),
    ("/api/v1/targets/relabel_steps", Closed),
    ("/api/v1/scrape_pools", Closed),
    ("/api/v1/scrape_pools/config", Closed),
    ("/api/v1/status/config", Closed),
    ("/api/v1/status/flags", Closed),
    ("/api/v1/status/runtimeinfo", Closed),
    ("/api/v1/status/tsdb", Closed),
    ("/api/v1/status/tsdb/blocks", Closed),
    ("/api/v1/status/walreplay", Closed),
    ("/api/v1/status/self_metrics", Closed),
    ("/api/v1/notifications", Closed),
    ("/api/v1/notifications/live", Closed),
    ("/", Ui),
    ("/graph", Ui),
    ("/graph/", Ui),
    ("/query", Ui),
    ("/alerts", Ui),
    ("/rules", Ui),
    ("/targets", Ui),
    ("/service-discovery", Ui),
    ("/alertmanager-discovery", Ui),
    ("/status", Ui),
    ("/tsdb-status", Ui),
    ("/config", Ui),
    ("/flags", Ui),
    ("/starting", Ui),
    ("/version", Ui),
    ("/favicon.ico", Ui),
    ("/favicon.svg", Ui),
    ("/manifest.json", Ui),
    ("/assets/**", Ui),
    ("/static/**", Ui),
];

/// Parameters of Prometheus and Thanos that choose times, sizes and replicas, not series.
const HARMLESS: [&str; 16] = [
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "lookback_delta",
    "stats",
    "cost",
    "max_series",
    "max_samples_read",
    "max_query_duration",
    "dedup",
    "replicaLabels[]",
    "partial_response",
    "max_source_resolution",
];

/// Parameters of the list of rules; all of them only shorten it.
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

/// Parameters of a search; all of them but `match[]` only choose and order what is found.
const OF_SEARCH: [&str; 11] = [
    "match[]",
    "search[]",
    "fuzz_threshold",
    "fuzz_alg",
    "case_sensitive",
    "include_score",
    "include_metadata",
    "sort_by",
    "sort_dir",
    "batch_size",
    "label",
];

/// Parameters of metadata.
const OF_METADATA: [&str; 2] = ["metric", "limit_per_metric"];

/// Parameters by which at least one server selects series.
pub(super) const SELECTING: [&str; 3] = ["query", "match[]", "match"];

/// Whether an endpoint has a parameter of this name.
pub(in super::super) fn has_meaning(parameter: &str) -> bool {
    let known = [
        &SELECTING[..],
        &HARMLESS,
        &OF_RULES,
        &OF_SEARCH,
        &OF_METADATA,
    ];
    known.iter().any(|names| names.contains(&parameter))
}

/// A known endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) treatment: Treatment,
}

impl Endpoint {
    /// The endpoint at a path, or the reason for a refusal.
    pub(super) fn of(path: &str) -> Result<Self, String> {
        let known = ENDPOINTS.iter().find(|(pattern, _)| matches(pattern, path));
        match known {
            Some((_, treatment)) => Ok(Self {
                treatment: *treatment,
            }),
            None => Err(format!(
                "{path:?} is not known and cannot be restricted to a tenant"
            )),
        }
    }

    /// Whether the endpoint accepts a parameter.
    pub(super) fn takes(&self, name: &str) -> bool {
        let own: &[&str] = match self.treatment {
            Expression => &["query"],
            Selectors | SelectorsOrAll => &["match[]"],
            Rules => &OF_RULES,
            Metadata => &OF_METADATA,
            Search => &OF_SEARCH,
            Alerts | Read | Open | Closed | Ui => &[],
        };
        own.contains(&name) || HARMLESS.contains(&name)
    }
}

/// Word in `allow` for all pages of the user interface.
pub(super) const UI: &str = "ui";

/// What `allow` can name: paths that are refused otherwise, and the user interface.
pub(super) fn closed() -> impl Iterator<Item = &'static str> {
    let closed = ENDPOINTS.iter().filter(|(_, it)| *it == Closed);
    closed.map(|(path, _)| *path).chain([UI])
}

/// Whether `allow` can name it.
pub(super) fn is_closed(path: &str) -> bool {
    closed().any(|closed| closed == path)
}

fn matches(pattern: &str, path: &str) -> bool {
    if let Some(before) = pattern.strip_suffix("**") {
        let rest = path.strip_prefix(before);
        return rest.is_some_and(|rest| rest.split('/').all(is_segment));
    }
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, behind)) => path
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(behind))
            .is_some_and(is_segment),
    }
}

/// Whether every server reads the text as one path segment, however often it is decoded. Label
/// names and files need no other characters.
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
