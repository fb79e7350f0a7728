//! Target and host of a request, according to RFC 9112 (3.2).

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Uri, Version};

/// Normalizes a request to a target of path and query, and at most one `Host`, so that every reader
/// sees the same. An absolute target, with a host of its own, is a proxy's request.
///
/// # Errors
///
/// Fails with the reason when the request names no host, several, or an invalid one.
pub(super) fn settle<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("the Host header is repeated"),
        (None, None)
            if request.version() == Version::HTTP_11
                || (request.version() > Version::HTTP_11
                    && request.uri().authority().is_none()) =>
        {
            return Err("the Host header is missing");
        }
        (Some(host), None) if !host.is_empty() && !is_host(host) => {
            return Err("the Host header is malformed");
        }
        _ => {}
    }
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    if request.version() <= Version::HTTP_11 && request.uri().scheme().is_some() {
        return Err("the target is in absolute form, as for a proxy: send only the path");
    }
    if request.uri().scheme().is_none() {
        // The target of CONNECT is a host without a path.
        return Err("the target has no path");
    }
    let host = HeaderValue::from_str(authority.as_str());
    let host = host.ok().filter(is_host).ok_or("the target is malformed")?;
    let given = request.headers().get(HOST);
    if given.is_some_and(|given| !given.as_bytes().eq_ignore_ascii_case(host.as_bytes())) {
        return Err("the Host header differs from the authority of the target");
    }
    // An empty path was parsed as a slash.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// Whether a value is a host with or without a port. User information is refused, since phishing
/// uses it (RFC 9110, 4.2.4).
fn is_host(value: &HeaderValue) -> bool {
    let authority = Authority::try_from(value.as_bytes());
    authority.is_ok_and(|authority| {
        !authority.as_str().contains('@')
            && !authority.host().is_empty()
            && (authority.port_u16().is_some() || authority.as_str() == authority.host())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(target: &str, hosts: &[&str]) -> Result<(String, String), &'static str> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let mut request = request.body(()).unwrap();
        settle(&mut request)?;
        let host = request.headers().get(HOST);
        let host = host.map_or("", |host| host.to_str().unwrap());
        Ok((request.uri().to_string(), host.to_owned()))
    }

    #[test]
    fn a_target_is_a_path_and_the_host_stands_beside_it() {
        for (target, host) in [("/a?b=c", "own.test:1"), ("/a", "[::1]:1"), ("/a", "")] {
            let expected = (target.to_owned(), host.to_owned());
            assert_eq!(settled(target, &[host]), Ok(expected), "{target}");
        }
        for target in [
            "http://far.test:2/a?b=c",
            "http://own.test",
            "https://own.test?b",
        ] {
            let refused = settled(target, &["own.test"]).unwrap_err();
            assert!(refused.contains("absolute"), "{target}: {refused}");
        }
    }

    #[test]
    fn in_http_2_the_authority_is_the_host() {
        let mut request = Request::builder()
            .uri("https://own.test:1/a?b")
            .body(())
            .unwrap();
        *request.version_mut() = Version::HTTP_2;
        settle(&mut request).unwrap();
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()[HOST], "own.test:1");
        let mut two = Request::builder()
            .uri("https://own.test/a")
            .body(())
            .unwrap();
        *two.version_mut() = Version::HTTP_2;
        let other = HeaderValue::from_static("far.test");
        two.headers_mut().insert(HOST, other);
        assert_eq!(
            settle(&mut two),
            Err("the Host header differs from the authority of the target")
        );
    }

    #[test]
    fn a_request_without_exactly_one_host_is_refused() {
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["a.test", "a.test"]),
            ("/", &["a.test", "b.test"]),
            ("/", &["a.test, b.test"]),
            ("/", &["a.test/path"]),
            ("/", &["user@a.test"]),
            ("/", &["a.test:port"]),
            ("http://a.test/", &[]),
            ("http://user@a.test/", &["a.test"]),
            ("a.test:443", &["a.test:443"]),
        ] {
            assert!(settled(target, hosts).is_err(), "{target} {hosts:?}");
        }
        // HTTP/1.0 does not require one.
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(settle(&mut old), Ok(()));
    }
}
