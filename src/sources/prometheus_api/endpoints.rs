//! The endpoints of Prometheus' HTTP API: those that are served, those that `allow` opens, and those
//! that are refused.

use http::Method;

use metrifold_base::words;
use metrifold_http::Methods;

words! {
    /// Groups of endpoints that are served only if `allow` names them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Group {
        /// State and settings of the server.
        Status = "status",
        /// The pages of the user interface.
        Ui = "ui",
        /// The administration of the TSDB.
        Admin = "admin",
        /// Reloading and stopping the server.
        Lifecycle = "lifecycle",
        /// Profiles of the server.
        Debug = "debug",
    }
}

impl Group {
    /// The reason for refusing the endpoints of a group that is not allowed.
    fn refusal(self) -> &'static str {
        match self {
            Self::Status => {
                "the state of the server behind this source is not served unless `allow` has \"status\""
            }
            Self::Ui => {
                "the user interface of the server behind this source is not served unless `allow` has \"ui\""
            }
            Self::Admin => {
                "the TSDB admin API of the server behind this source is not served unless `allow` has \"admin\""
            }
            Self::Lifecycle => {
                "the lifecycle API of the server behind this source is not served unless `allow` has \"lifecycle\""
            }
            Self::Debug => {
                "profiles of the server behind this source are not served unless `allow` has \"debug\""
            }
        }
    }
}

/// Treatment of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// A query, to be answered by the sink.
    Ask,
    /// The endpoint accepts only these methods.
    Method(Methods),
    /// The endpoint is not served.
    Refused(&'static str),
    /// The API has no such endpoint.
    Unknown,
}

const GET: Methods = Methods::GET;
const FORM: Methods = Methods::GET.and(Methods::POST);
const POST: Methods = Methods::POST;
const CHANGE: Methods = Methods::POST.and(Methods::PUT);

/// Paths of queries with their methods. `*` stands for one segment.
const ENDPOINTS: [(&str, Methods); 31] = [
    ("/api/v1/query", FORM),
    ("/api/v1/query_range", FORM),
    ("/api/v1/query_exemplars", FORM),
    ("/api/v1/query_cost", FORM),
    ("/api/v1/query_range_cost", FORM),
    ("/api/v1/series", FORM),
    ("/api/v1/labels", FORM),
    ("/api/v1/label/*/values", GET),
    ("/api/v1/search/metric_names", FORM),
    ("/api/v1/search/label_names", FORM),
    ("/api/v1/search/label_values", FORM),
    ("/api/v1/format_query", FORM),
    ("/api/v1/parse_query", FORM),
    ("/api/v1/metadata", GET),
    ("/api/v1/features", GET),
    ("/api/v1/openapi.yaml", GET),
    ("/api/v1/rules", GET),
    ("/api/v1/alerts", GET),
    ("/api/v1/alertmanagers", GET),
    ("/api/v1/targets", GET),
    ("/api/v1/targets/metadata", GET),
    ("/api/v1/targets/relabel_steps", GET),
    ("/api/v1/scrape_pools", GET),
    ("/api/v1/scrape_pools/config", GET),
    ("/api/v1/status/buildinfo", GET),
    ("/api/v1/notifications", GET),
    ("/api/v1/notifications/live", GET),
    ("/api/v1/read", POST),
    ("/federate", GET),
    ("/-/healthy", GET),
    ("/-/ready", GET),
];

/// Paths that `allow` opens. `**` at the end stands for any rest.
const GROUPS: [(Group, &str, Methods); 33] = [
    (Group::Status, "/api/v1/status/config", GET),
    (Group::Status, "/api/v1/status/flags", GET),
    (Group::Status, "/api/v1/status/runtimeinfo", GET),
    (Group::Status, "/api/v1/status/tsdb", GET),
    (Group::Status, "/api/v1/status/tsdb/blocks", GET),
    (Group::Status, "/api/v1/status/walreplay", GET),
    (Group::Status, "/api/v1/status/self_metrics", GET),
    (Group::Ui, "/", GET),
    (Group::Ui, "/graph", GET),
    (Group::Ui, "/graph/", GET),
    (Group::Ui, "/query", GET),
    (Group::Ui, "/alerts", GET),
    (Group::Ui, "/rules", GET),
    (Group::Ui, "/targets", GET),
    (Group::Ui, "/service-discovery", GET),
    (Group::Ui, "/alertmanager-discovery", GET),
    (Group::Ui, "/status", GET),
    (Group::Ui, "/tsdb-status", GET),
    (Group::Ui, "/config", GET),
    (Group::Ui, "/flags", GET),
    (Group::Ui, "/starting", GET),
    (Group::Ui, "/version", GET),
    (Group::Ui, "/favicon.ico", GET),
    (Group::Ui, "/favicon.svg", GET),
    (Group::Ui, "/manifest.json", GET),
    (Group::Ui, "/assets/**", GET),
    (Group::Ui, "/static/**", GET),
    (Group::Ui, "/classic/", GET),
    (Group::Ui, "/classic/**", GET),
    (Group::Admin, "/api/v1/admin/**", CHANGE),
    (Group::Lifecycle, "/-/reload", CHANGE),
    (Group::Lifecycle, "/-/quit", CHANGE),
    (Group::Debug, "/debug/**", FORM),
];

/// Beginnings of the paths of writes.
const WRITES: [&str; 2] = ["/api/v1/write", "/api/v1/otlp/"];

/// Decides about a request to a path below the root of the API.
pub(super) fn verdict(method: &Method, path: &str, allowed: &[Group]) -> Verdict {
    if WRITES.iter().any(|prefix| path.starts_with(prefix)) {
        return Verdict::Refused(
            "samples are not accepted here: send them to a remote_write source",
        );
    }
    let known = ENDPOINTS.iter().find(|(pattern, _)| matches(pattern, path));
    let methods = match known {
        Some((_, methods)) => *methods,
        None => match group(path) {
            Some((group, _)) if !allowed.contains(&group) => {
                return Verdict::Refused(group.refusal());
            }
            Some((_, methods)) => methods,
            None => return Verdict::Unknown,
        },
    };
    match methods.contains(method) {
        true => Verdict::Ask,
        false => Verdict::Method(methods),
    }
}

/// The group of a path, and its methods.
fn group(path: &str) -> Option<(Group, Methods)> {
    let mut found = GROUPS
        .iter()
        .filter(|(_, pattern, _)| matches(pattern, path));
    found.next().map(|(group, _, methods)| (*group, *methods))
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("**"), Some(segment)) if !segment.is_empty() => return true,
            (Some("*"), Some(segment)) if !segment.is_empty() => {}
            (Some(expected), Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_asked_by_its_methods_alone() {
        for (pattern, methods) in ENDPOINTS {
            let path = pattern.replace('*', "job");
            for method in [
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::DELETE,
            ] {
                let expected = match methods.contains(&method) {
                    true => Verdict::Ask,
                    false => Verdict::Method(methods),
                };
                assert_eq!(verdict(&method, &path, &[]), expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn a_group_is_served_only_if_it_is_allowed() {
        for (group, pattern, methods) in GROUPS {
            let path = pattern.replace("**", "a/b.js");
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                let others: Vec<Group> = GROUPS.iter().map(|it| it.0).collect();
                let others: Vec<Group> = others.into_iter().filter(|it| *it != group).collect();
                let refused = verdict(&method, &path, &others);
                assert_eq!(
                    refused,
                    Verdict::Refused(group.refusal()),
                    "{method} {path}"
                );
                let expected = match methods.contains(&method) {
                    true => Verdict::Ask,
                    false => Verdict::Method(methods),
                };
                assert_eq!(
                    verdict(&method, &path, &[group]),
                    expected,
                    "{method} {path}"
                );
            }
        }
    }

    #[test]
    fn what_changes_data_or_the_server_is_refused() {
        for path in [
            "/api/v1/admin/tsdb/delete_series",
            "/api/v1/write",
            "/api/v1/otlp/v1/metrics",
            "/-/reload",
            "/-/quit",
            "/debug/pprof/heap",
        ] {
            let verdict = verdict(&Method::POST, path, &[]);
            assert!(matches!(verdict, Verdict::Refused(_)), "{path}");
        }
    }

    #[test]
    fn spellings_of_an_endpoint_are_unknown() {
        for path in [
            "/api/v1/query/",
            "//api/v1/query",
            "/api/v1//query",
            "/api/v1/../v1/query",
            "/api/v1/%71uery",
            "/api/v1/label//values",
            "/api/v1/label/a/b/values",
            "/API/v1/query",
            "/query/",
            "/assets/",
            "/api/v1/admin/",
            "/api/v1/status/",
            "",
        ] {
            let all = [Group::Status, Group::Ui, Group::Admin];
            assert_eq!(
                verdict(&Method::GET, path, &all),
                Verdict::Unknown,
                "{path}"
            );
        }
    }
}
