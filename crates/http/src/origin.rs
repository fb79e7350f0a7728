//! Requests that a page of another origin makes a browser send, with the credentials that the
//! browser adds by itself (CSRF).

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Uri};

/// Whether a page of another origin caused a request, by the headers that browsers add and that
/// scripts cannot set: `Sec-Fetch-Site`, or in its absence `Origin`, which is compared with `Host`.
/// Clients other than browsers send neither.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"same-origin" | b"none") => false,
        Some(_) => true,
        None => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let mut origins = headers.get_all(ORIGIN).iter();
            origins.any(|origin| !is_of(origin, host))
        }
    }
}

fn is_of(origin: &HeaderValue, host: Option<&str>) -> bool {
    let origin = origin.to_str().ok();
    let origin = origin.and_then(|origin| origin.parse::<Uri>().ok());
    let authority = origin.as_ref().and_then(Uri::authority);
    authority
        .zip(host)
        .is_some_and(|(origin, host)| origin.as_str().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_told_by_fetch_metadata_and_by_the_origin() {
        for (pairs, foreign) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("origin", "https://own.example")], false),
            (&[("origin", "https://OWN.example")], false),
            (&[("origin", "https://own.example:8443")], true),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
            // A proxy in front may have changed the host.
            (
                &[
                    ("origin", "https://front.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                false,
            ),
            (
                &[
                    ("origin", "https://own.example"),
                    ("origin", "https://evil.example"),
                ],
                true,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("own.example"));
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&headers), foreign, "{pairs:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://own.example"));
        assert!(is_cross_site(&headers), "without a host");
    }
}
