//! The headers of a query that travel on to the server: those that have a meaning there.

use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

use metrifold_base::Problems;
use metrifold_http::hop_by_hop;

/// Headers about the answer that is wanted, the body, caches, traces, the dashboard that asks, and the address
/// of the client. Those that choose a tenant at the server are not among them: a caller could choose any.
const FORWARDED: [&str; 28] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "b3",
    "baggage",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-query-tags",
    "x-request-id",
];

/// Beginnings of the names of further ones.
const FAMILIES: [&str; 4] = ["x-b3-", "x-dashboard-", "x-panel-", "x-prometheus-"];

/// Reads the names of headers that are forwarded in addition.
pub(super) fn names(forwarded: &[String], problems: &mut Problems) -> Arc<[HeaderName]> {
    let names = forwarded.iter().enumerate().filter_map(|(at, text)| {
        let name = text.parse::<HeaderName>();
        if name.is_err() {
            let key = format!("forward_headers[{at}]");
            problems.at(key, format!("{text:?} is not the name of a header"));
        }
        name.ok()
    });
    names.collect()
}

/// The headers that travel on. The caller's credentials have been removed earlier.
pub(super) fn forwarded(headers: &HeaderMap, more: &[HeaderName]) -> HeaderMap {
    let travels = |name: &HeaderName| {
        let text = name.as_str();
        FORWARDED.binary_search(&text).is_ok()
            || FAMILIES.iter().any(|family| text.starts_with(family))
            || more.contains(name)
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    // The header that names others of this connection alone is needed to leave them out.
    let travel = headers
        .iter()
        .filter(|(name, _)| travels(name) || *name == CONNECTION);
    kept.extend(travel.map(|(name, value)| (name.clone(), value.clone())));
    hop_by_hop::remove(&mut kept);
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_has_no_meaning_at_the_server_does_not_travel_on() {
        assert!(FORWARDED.is_sorted());
        let names = [
            ("accept", true),
            ("x-dashboard-uid", true),
            ("x-prometheus-remote-read-version", true),
            ("traceparent", true),
            ("x-own", true),
            ("x-api-key", false),
            ("x-amz-security-token", false),
            ("x-forwarded-user", false),
            ("x-tenant", false),
            ("x-scope-orgid", false),
            ("thanos-tenant", false),
            ("connection", false),
            ("te", false),
            // The value of `connection` here.
            ("pragma", false),
        ];
        let all = names.iter().map(|(name, _)| {
            let value = HeaderValue::from_static("pragma");
            (HeaderName::from_static(name), value)
        });
        let mut problems = Problems::new(true);
        let more = super::names(&["X-Own".to_owned()], &mut problems);
        let kept = forwarded(&all.collect(), &more);
        for (name, travels) in names {
            assert_eq!(kept.contains_key(name), travels, "{name}");
        }
    }
}
