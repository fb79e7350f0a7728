//! Analysis of regular expressions for selectors: whether one matches an empty value. Validity is
//! checked by [`Options::validate_regex`](crate::Options).

/// Whether a valid RE2 expression, anchored at both ends, matches the empty string.
///
/// An empty string has only one position, so that the structure decides: a literal never matches,
/// an optional repetition always does, and an assertion depends on its kind.
pub(crate) fn matches_empty(pattern: &[u8]) -> bool {
    // Whether any finished alternative matches, whether all atoms of the current one do except the
    // last, and whether the last one does.
    #[derive(Clone, Copy)]
    struct Group {
        any: bool,
        all: bool,
        last: bool,
    }
    const FRESH: Group = Group {
        any: false,
        all: true,
        last: true,
    };
    let mut outer = Vec::new();
    let mut group = FRESH;
    let mut rest = pattern;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        // A repetition applies to the last atom; anything else begins a new one.
        let atom = match byte {
            b'*' | b'?' => {
                group.last = true;
                continue;
            }
            b'+' => continue,
            b'{' => match repetition(behind) {
                Some((least, length)) => {
                    group.last |= least == 0;
                    rest = &behind[length..];
                    continue;
                }
                None => false,
            },
            b'|' => {
                group.any |= group.all && group.last;
                group.all = true;
                group.last = true;
                continue;
            }
            b'(' => match flags(behind) {
                Some(length) => {
                    rest = &behind[length..];
                    continue;
                }
                None => {
                    rest = &behind[prefix(behind)..];
                    outer.push(group);
                    group = FRESH;
                    continue;
                }
            },
            b')' => {
                let inner = group.any || (group.all && group.last);
                group = outer.pop().unwrap_or(FRESH);
                inner
            }
            b'^' | b'$' => true,
            b'[' => {
                rest = &behind[class(behind)..];
                false
            }
            b'\\' if behind.first() == Some(&b'Q') => {
                let (text, length) = literal(behind);
                rest = &behind[length..];
                if text.is_empty() {
                    continue;
                }
                // A repetition behind the literal applies to its last character.
                group.all &= text.len() == 1;
                false
            }
            b'\\' => {
                rest = &behind[escape(behind)..];
                matches!(behind.first(), Some(b'A' | b'z' | b'B'))
            }
            _ => false,
        };
        group.all &= group.last;
        group.last = atom;
    }
    group.any || (group.all && group.last)
}

/// A regular expression that matches exactly this text.
pub(crate) fn literal_of(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if SYNTAX.contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Characters with a meaning in regular expressions, outside of classes.
pub(crate) const SYNTAX: &str = r"\.+*?()|[]{}^$";

/// The minimum of a repetition, and its length behind the brace. `None` for a literal brace.
fn repetition(behind: &[u8]) -> Option<(u32, usize)> {
    let end = behind.iter().position(|byte| *byte == b'}')?;
    let mut bounds = behind[..end].split(|byte| *byte == b',');
    let number = |digits: &[u8]| -> Option<u32> {
        let digits = std::str::from_utf8(digits).ok()?;
        digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then_some(())?;
        digits.parse().ok()
    };
    let least = number(bounds.next()?)?;
    match bounds.next() {
        Some(b"") | None => {}
        Some(most) => {
            number(most)?;
        }
    }
    bounds.next().is_none().then_some((least, end + 1))
}

/// Length of a group that only sets flags, such as `?i)`.
fn flags(behind: &[u8]) -> Option<usize> {
    let set = behind.strip_prefix(b"?")?;
    let end = set.iter().position(|byte| !b"imsU-".contains(byte))?;
    (set[end] == b')').then_some(end + 2)
}

/// Length of the name or flags at the beginning of a group.
fn prefix(behind: &[u8]) -> usize {
    if behind.first() != Some(&b'?') {
        return 0;
    }
    let end = behind.iter().position(|byte| matches!(byte, b':' | b'>'));
    end.map_or(behind.len(), |end| end + 1)
}

/// Length of a class behind its bracket.
fn class(behind: &[u8]) -> usize {
    let mut at = usize::from(behind.first() == Some(&b'^'));
    let mut first = true;
    while let Some(byte) = behind.get(at) {
        match byte {
            b']' if !first => return at + 1,
            b'\\' => at += 2,
            b'[' if behind[at..].starts_with(b"[:") => {
                let name = &behind[at + 2..];
                let end = name.windows(2).position(|pair| pair == b":]");
                at += end.map_or(1, |end| end + 4);
            }
            _ => at += 1,
        }
        first = false;
    }
    behind.len()
}

/// The text between `\Q` and `\E`, whose backslash has been consumed, and the length including
/// both.
fn literal(behind: &[u8]) -> (&[u8], usize) {
    match behind.windows(2).position(|pair| pair == br"\E") {
        Some(end) => (&behind[1..end], end + 2),
        None => (&behind[1..], behind.len()),
    }
}

/// Length of an escape behind its backslash.
fn escape(behind: &[u8]) -> usize {
    let digits = |from: usize, most: usize, test: fn(&u8) -> bool| {
        let digits = behind.iter().skip(from).take(most);
        from + digits.take_while(|byte| test(byte)).count()
    };
    match behind {
        [] => 0,
        [b'p' | b'P' | b'x', b'{', ..] => {
            let end = behind.iter().position(|byte| *byte == b'}');
            end.map_or(behind.len(), |end| end + 1)
        }
        [b'x', ..] => digits(1, 2, u8::is_ascii_hexdigit),
        [b'p' | b'P', _, ..] => 2,
        [b'0'..=b'7', ..] => digits(0, 3, |byte| matches!(byte, b'0'..=b'7')),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_syntax_is_escaped() {
        assert_eq!(literal_of("a.b|c\\-é"), r"a\.b\|c\\-é");
    }

    #[test]
    fn the_structure_says_whether_the_empty_string_matches() {
        for pattern in [
            "",
            ".*",
            "a*",
            "a?",
            "a|",
            "|a",
            "(a|b*)",
            "(?:)",
            "(?i)",
            "(?i)a*",
            "(?i:a)?",
            "^$",
            r"\A\z",
            r"\B",
            "a{0}",
            "a{0,3}",
            "(a+){0,}",
            "[a]*",
            r"\Qa\E*",
            r"\Q\E",
            r"\x41*",
            r"\pN?",
            r"\101*",
            "a+?|",
            "((((a*))))",
            "a**",
            "(?P<x>a*)b*",
            "(a|)(b|)",
            "$|a",
            "x*|y",
            "[[:alpha:]]?",
        ] {
            assert!(matches_empty(pattern.as_bytes()), "{pattern}");
        }
        for pattern in [
            "a",
            ".+",
            "a+",
            "a*b",
            "ab*",
            "(a|b)",
            "(?i)a",
            r"\b",
            r"\bx*",
            "a{1,}",
            "{",
            "a{,3}",
            "[*]",
            "[]*]",
            "[^]*]",
            r"[\]*]",
            "[[:alpha:]*]",
            r"\*",
            r"\pN",
            r"\p{Greek}",
            r"\x{10FFFF}",
            r"\x41",
            r"\Qa*\E",
            r"\Qab\E*",
            "(a*|b)c",
            "a|b",
            "(?:a|b*)+c",
            "é",
        ] {
            assert!(!matches_empty(pattern.as_bytes()), "{pattern}");
        }
    }
}
