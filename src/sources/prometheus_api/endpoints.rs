//! The endpoints of Prometheus' read API, and the paths that are refused.

use http::Method;

use metrifold_http::Methods;

/// Treatment of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// A query, to be answered by the sink.
    Ask,
    /// The endpoint accepts only these methods.
    Method(Methods),
    /// The request would change data or the server.
    Refused(&'static str),
    /// The API has no such endpoint.
    Unknown,
}

const GET: Methods = Methods::GET;
const FORM: Methods = Methods::GET.and(Methods::POST);
const POST: Methods = Methods::POST;

/// Paths of queries with their methods. `*` stands for one segment.
const ENDPOINTS: [(&str, Methods); 29] = [
    ("/api/v1/query", FORM),
    ("/api/v1/query_range", FORM),
    ("/api/v1/query_exemplars", FORM),
    ("/api/v1/series", FORM),
    ("/api/v1/labels", FORM),
    ("/api/v1/label/*/values", GET),
    ("/api/v1/format_query", FORM),
    ("/api/v1/parse_query", FORM),
    ("/api/v1/metadata", GET),
    ("/api/v1/features", GET),
    ("/api/v1/rules", GET),
    ("/api/v1/alerts", GET),
    ("/api/v1/alertmanagers", GET),
    ("/api/v1/targets", GET),
    ("/api/v1/targets/metadata", GET),
    ("/api/v1/targets/relabel_steps", GET),
    ("/api/v1/scrape_pools", GET),
    ("/api/v1/status/config", GET),
    ("/api/v1/status/flags", GET),
    ("/api/v1/status/runtimeinfo", GET),
    ("/api/v1/status/buildinfo", GET),
    ("/api/v1/status/tsdb", GET),
    ("/api/v1/status/tsdb/blocks", GET),
    ("/api/v1/status/walreplay", GET),
    ("/api/v1/notifications", GET),
    ("/api/v1/read", POST),
    ("/federate", GET),
    ("/-/healthy", GET),
    ("/-/ready", GET),
];

/// Prefixes of paths that are refused, each with its reason.
const REFUSED: [(&str, &str); 6] = [
    (
        "/api/v1/admin/",
        "the TSDB admin API of the server behind this source is not served",
    ),
    (
        "/api/v1/write",
        "samples are not accepted here: send them to a remote_write source",
    ),
    (
        "/api/v1/otlp/",
        "samples are not accepted here: send them to a remote_write source",
    ),
    (
        "/-/reload",
        "the lifecycle API of the server behind this source is not served",
    ),
    (
        "/-/quit",
        "the lifecycle API of the server behind this source is not served",
    ),
    (
        "/debug/",
        "profiles of the server behind this source are not served",
    ),
];

/// Decides about a request to a path below the root of the API.
pub(super) fn verdict(method: &Method, path: &str) -> Verdict {
    let refused = REFUSED.iter().find(|(prefix, _)| path.starts_with(prefix));
    if let Some((_, reason)) = refused {
        return Verdict::Refused(reason);
    }
    let known = ENDPOINTS.iter().find(|(pattern, _)| matches(pattern, path));
    match known {
        Some((_, methods)) if methods.contains(method) => Verdict::Ask,
        Some((_, methods)) => Verdict::Method(*methods),
        None => Verdict::Unknown,
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
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
                assert_eq!(verdict(&method, &path), expected, "{method} {path}");
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
            let verdict = verdict(&Method::POST, path);
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
            "",
        ] {
            assert_eq!(verdict(&Method::GET, path), Verdict::Unknown, "{path}");
        }
    }
}
