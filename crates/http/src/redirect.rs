//! Redirects: their target, and whether it is on the same server.

use http::header::LOCATION;
use http::{HeaderMap, StatusCode, Uri};
use thiserror::Error;

/// Most redirects in a row, as in Prometheus.
pub const MAX_REDIRECTS: usize = 10;

/// A redirect without a usable target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("server answered {0} without a valid Location header")]
pub struct Nowhere(StatusCode);

/// The target of a redirect; `None` for any other answer.
///
/// # Errors
///
/// Fails when the answer is a redirect without a valid target.
pub fn redirected(
    from: &Uri,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Uri>, Nowhere> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers.get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| resolve(from, location));
    next.map(Some).ok_or(Nowhere(status))
}

/// Resolves a `Location` relative to the URL of the request.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let (folder, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{location}")
    };
    absolute
        .parse()
        .ok()
        .filter(|uri: &Uri| uri.host().is_some())
}

/// Whether two URLs belong to one server: credentials must not go to another one.
pub fn same_server(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        uri.port_u16().unwrap_or(default)
    };
    a.scheme() == b.scheme() && a.host() == b.host() && port(a) == port(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_other_servers_are_told_apart() {
        let from: Uri = "https://a.example/x/y?z".parse().unwrap();
        for (location, expected) in [
            ("https://b.example/q", "https://b.example/q"),
            ("//b.example/q", "https://b.example/q"),
            ("/q#part", "https://a.example/q"),
            ("q", "https://a.example/x/q"),
            ("?q", "https://a.example/x/y?q"),
        ] {
            let found = resolve(&from, location).unwrap();
            assert_eq!(found.to_string(), expected);
            assert_eq!(same_server(&from, &found), expected.contains("a.example"));
        }
        let same = |a: &str, b: &str| same_server(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("https://a/x", "http://a/x"));
        assert!(!same("http://a/x", "http://a:81/x"));
    }
}
