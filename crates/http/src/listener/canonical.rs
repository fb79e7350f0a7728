//! Checks that a path is canonical: it has only one reading.
//!
//! A path that another program might read differently is refused before routing. A parameter, such
//! as a tenant, then means the same to every program that decodes, cleans or joins it later. Free
//! text, such as the name of a group of rules, is the one exception: a route declares the
//! parameters that may hold it; it is decoded once, and never becomes part of a path.

use std::str;

/// Whether a path has only one reading: no empty, `.` or `..` segment, no backslash and no
/// semicolon; escapes with upper-case digits, only of bytes that must be escaped, and none of a
/// slash, a backslash, a semicolon or a control character; valid UTF-8 after decoding. A trailing
/// slash is allowed.
pub(super) fn is_canonical(path: &str) -> bool {
    reads(path, false)
}

/// As [`is_canonical`], but with escapes of any character except NUL, for paths with free text.
pub(super) fn may_hold_free_text(path: &str) -> bool {
    reads(path, true)
}

fn reads(path: &str, free: bool) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !last) {
            return false;
        }
        if !segment_reads(segment, free) {
            return false;
        }
    }
    true
}

fn segment_reads(segment: &str, free: bool) -> bool {
    if segment
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    {
        return true;
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else {
                    return false;
                };
                let (Some(high), Some(low)) = (capital(high), capital(low)) else {
                    return false;
                };
                let byte = high << 4 | low;
                let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                let strange = b"/\\;".contains(&byte) || byte.is_ascii_control();
                if byte == 0 || (!free && (unreserved || strange)) {
                    return false;
                }
                byte
            }
            b'\\' | b';' => return false,
            byte if byte.is_ascii_control() || !byte.is_ascii() => return false,
            byte => byte,
        };
        decoded.push(byte);
    }
    // Overlong encodings are not valid UTF-8.
    str::from_utf8(&decoded).is_ok()
}

/// Percent-decodes a parameter once. `None` if it is malformed or not UTF-8.
pub(super) fn decode(value: &str) -> Option<Box<str>> {
    if !value.contains('%') {
        return Some(value.into());
    }
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            capital(bytes.next()?)? << 4 | capital(bytes.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok().map(String::into_boxed_str)
}

/// Value of an upper-case hexadecimal digit, the form that RFC 3986 (2.1) recommends.
fn capital(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_not_canonical() {
        for path in [
            "/a//b",
            "//a",
            "/a/./b",
            "/a/../b",
            "/a/.",
            "/a/..",
            "/..",
            "/a%2fb",
            "/a%2Fb",
            "/a%2eb",
            "/%2E%2e/b",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%00",
            "/a%0A",
            "/a%7F",
            "/%71uery",
            "/a%2Db",
            "/a%7E",
            "/%c3%a9",
            "/%C3%a9",
            "/%C0%AF",
            "/%E0%80%AF",
            "/%FF",
            "/%C3",
            "/a;b",
            "/a%3Bb",
            "/a;x=1/b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/é",
            "",
            "*",
            "a/b",
        ] {
            assert!(!is_canonical(path), "{path}");
        }
        for path in [
            "/",
            "/a",
            "/a/",
            "/a.b/..c/...",
            "/a%20b",
            "/%C3%A9",
            "/a%252fb",
            "/a!$&'()*+,=:@b",
            "/%7B%7D",
        ] {
            assert!(is_canonical(path), "{path}");
        }
    }

    #[test]
    fn free_text_may_be_any_but_is_never_a_step_in_a_path() {
        for path in ["/a%2Fb", "/%2E%2E", "/a%3Bb", "/%71", "/a%0Ab"] {
            assert!(may_hold_free_text(path), "{path}");
        }
        for path in ["/a%00", "/a//b", "/../b", "/a%2fb", "/%FF", "/a;b"] {
            assert!(!may_hold_free_text(path), "{path}");
        }
    }

    #[test]
    fn parameters_are_decoded_once_and_must_be_utf8() {
        assert_eq!(decode("team%20a").as_deref(), Some("team a"));
        assert_eq!(decode("%C3%A9").as_deref(), Some("é"));
        assert_eq!(decode("a%252fb").as_deref(), Some("a%2fb"));
        for value in ["%", "%4", "%zz", "%+1", "%FF", "%2f"] {
            assert_eq!(decode(value), None, "{value}");
        }
    }
}
