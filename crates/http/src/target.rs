//! A request's target and host, as RFC 9112 (3.2) reads them.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Uri, Version};

/// Leaves a request with its path and query for a target, and with one `Host` at most: whoever
/// reads either reads the same. An absolute target, which names a host of its own, is for proxies.
///
/// # Errors
///
/// Fails with the reason when the request names no host, several, or one that cannot be.
pub(super) fn settle<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("host is given more than once"),
        (None, None)
            if request.version() == Version::HTTP_11
                || (request.version() > Version::HTTP_11
                    && request.uri().authority().is_none()) =>
        {
            return Err("host is missing");
        }
        (Some(host), None) if !host.is_empty() && !is_host(host) => {
            return Err("host is malformed");
        }
        _ => {}
    }
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    if request.version() <= Version::HTTP_11 && request.uri().scheme().is_some() {
        return Err("target is absolute, as for a proxy: send the path alone");
    }
    if request.uri().scheme().is_none() {
        // What CONNECT names is a host and no path of ours.
        return Err("target has no path");
    }
    let host = HeaderValue::from_str(authority.as_str());
    let host = host.ok().filter(is_host).ok_or("target is malformed")?;
    // An empty path was read as a slash.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// Whether a value is a host with or without a port. A user's name before it is what phishing is
/// made of (RFC 9110, 4.2.4).
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
        // Nobody asked for one before.
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(settle(&mut old), Ok(()));
    }
}
