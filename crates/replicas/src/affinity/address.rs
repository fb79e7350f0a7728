//! The address of a caller behind proxies.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};

/// Header to which each proxy appends the address of its client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The caller's address: the peer's, or the entry of the outermost of `hops` trusted proxies.
/// Entries beyond that come from the caller and are ignored. `None` if the entry is not an address.
pub(crate) fn client_address(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    hops: usize,
) -> Option<IpAddr> {
    if hops == 0 {
        return peer;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let lines = lines.filter_map(|line| HeaderValue::to_str(line).ok());
    let mut listed: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    listed.reverse();
    // Fewer entries than hops: the request came in at an inner proxy, which added the first entry.
    let entry = listed.get(hops - 1).or(listed.last());
    match entry {
        Some(entry) => parse(entry.trim()),
        None => peer,
    }
}

/// An address with or without a port, IPv6 with or without brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text);
    address
        .parse()
        .ok()
        .or_else(|| address.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(header: Option<&str>, hops: usize) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(FORWARDED_FOR, header.parse().unwrap());
        }
        let peer = Some([10, 0, 0, 9].into());
        client_address(&headers, peer, hops).map(|found| found.to_string())
    }

    #[test]
    fn as_many_hops_are_believed_as_are_trusted() {
        let header = Some("6.6.6.6, 1.2.3.4, 10.0.0.1");
        for (hops, expected) in [
            (0, "10.0.0.9"),
            (1, "10.0.0.1"),
            (2, "1.2.3.4"),
            (3, "6.6.6.6"),
            (4, "6.6.6.6"),
        ] {
            assert_eq!(address(header, hops).as_deref(), Some(expected), "{hops}");
        }
        assert_eq!(address(None, 1).as_deref(), Some("10.0.0.9"));
    }

    #[test]
    fn ports_and_both_kinds_of_addresses_are_read() {
        for (text, expected) in [
            ("1.2.3.4:5678", Some("1.2.3.4")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("\"[2001:db8::1]:443\"", Some("2001:db8::1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(address(Some(text), 1).as_deref(), expected, "{text}");
        }
    }
}
