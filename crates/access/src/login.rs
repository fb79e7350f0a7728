//! Login with a browser, which is redirected to its tenant's issuer and returns with a session.

pub(crate) mod seal;

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, Method, Uri};

use metrifold_http::form;

/// Maximum length of the path that a browser returns to after the login.
const LONGEST_PLACE: usize = 2000;

/// Whether a page of another origin caused a request that could do harm (CSRF). Navigation by a
/// request that only reads is allowed from anywhere; a fetch is not.
pub(crate) fn cross_site(headers: &HeaderMap, external_url: &str, method: &Method) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let word = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    match word("sec-fetch-site") {
        Some(b"same-origin" | b"none") => false,
        Some(_) => !(reads && word("sec-fetch-mode") == Some(b"navigate")),
        // Browsers without fetch metadata send at least the origin with requests that change something.
        None => match word("origin") {
            Some(origin) => {
                !is_own_origin(origin, external_url) || headers.get_all(ORIGIN).iter().count() > 1
            }
            None if reads || !headers.contains_key("cookie") => false,
            None => !word("referer").is_some_and(|page| is_own_origin(page, external_url)),
        },
    }
}

fn is_own_origin(origin: &[u8], external_url: &str) -> bool {
    let origin = std::str::from_utf8(origin).ok();
    let origin = origin.and_then(|origin| origin.parse::<Uri>().ok());
    let own = external_url.parse::<Uri>().ok();
    let parts = |uri: &Uri| {
        let scheme = uri.scheme_str()?.to_owned();
        let default = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    let origin = origin.as_ref().and_then(parts);
    origin.is_some() && origin == own.as_ref().and_then(parts)
}

/// Whether a path stays on this server in every browser's reading, so that it is no open redirect.
pub(crate) fn is_own(place: &str) -> bool {
    let plain = place
        .bytes()
        .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\');
    plain && place.starts_with('/') && !place.starts_with("//") && place.len() <= LONGEST_PLACE
}

/// Login URL of a tenant, with the path to return to afterwards.
pub(crate) fn entrance(tenant: &str, back_to: &str) -> Option<HeaderValue> {
    let mut asked = form::Form::default();
    if is_own(back_to) {
        asked.add("return", back_to);
    }
    HeaderValue::try_from(format!("/oidc/{tenant}/login?{asked}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_origin_has_a_browser_send_is_told_apart() {
        let own = "https://gateway.example";
        let get = Method::GET;
        let post = Method::POST;
        for (method, headers, foreign) in [
            (&get, &[("sec-fetch-site", "same-origin")][..], false),
            (&get, &[("sec-fetch-site", "none")], false),
            (&get, &[("sec-fetch-site", "cross-site")], true),
            (
                &get,
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                false,
            ),
            (
                &post,
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                true,
            ),
            (&post, &[("sec-fetch-site", "same-site")], true),
            (&post, &[("origin", "https://gateway.example")], false),
            (&post, &[("origin", "https://GATEWAY.example:443")], false),
            (&post, &[("origin", "http://gateway.example")], true),
            (&post, &[("origin", "https://evil.example")], true),
            (&post, &[("origin", "null")], true),
            (&post, &[("cookie", "a=b")], true),
            (
                &post,
                &[("cookie", "a=b"), ("referer", "https://evil.example/x")],
                true,
            ),
            (
                &post,
                &[
                    ("cookie", "a=b"),
                    ("referer", "https://gateway.example/x?y"),
                ],
                false,
            ),
            (&get, &[("cookie", "a=b")], false),
            (&get, &[], false),
        ] {
            let pairs = headers.iter().map(|(name, value)| {
                let name: http::HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            });
            let map: HeaderMap = pairs.collect();
            assert_eq!(
                cross_site(&map, own, method),
                foreign,
                "{method} {headers:?}"
            );
        }
    }

    #[test]
    fn nobody_is_led_back_to_another_server() {
        for place in ["/", "/a/b?c=d&e", "/api/v1/query?query=up%7B%7D"] {
            assert!(is_own(place), "{place}");
        }
        for place in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a b",
            "/a\nb",
            "/\u{e9}",
            "\\/evil",
        ] {
            assert!(!is_own(place), "{place}");
        }
        let entrance = entrance("acme", "/api/v1/query?query=up").unwrap();
        let expected = "/oidc/acme/login?return=%2Fapi%2Fv1%2Fquery%3Fquery%3Dup";
        assert_eq!(entrance, expected);
    }
}
