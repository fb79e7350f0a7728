//! Patterns that are seen to be valid without being compiled, as nearly all in rules and queries are:
//! `api|web`, `5..`, `.*(etcd|dns).*`, `node-[0-9]+`.

use super::MAX_DEPTH;

/// Longest pattern that is looked at, in bytes: even of dots, it compiles to far less than the bound.
const LONGEST: usize = 1 << 10;

/// Whether a pattern is certainly valid. Compiling decides about the others.
pub(super) fn is_valid(pattern: &str) -> bool {
    if pattern.len() > LONGEST {
        return false;
    }
    let mut rest = pattern.as_bytes();
    let mut depth = 0;
    // Whether a repetition can follow.
    let mut atom = false;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        atom = match byte {
            b'*' | b'+' | b'?' if atom => false,
            b'|' | b'^' | b'$' => false,
            // `(?` begins flags or a name.
            b'(' if depth < MAX_DEPTH && behind.first() != Some(&b'?') => {
                depth += 1;
                false
            }
            b')' if depth > 0 => {
                depth -= 1;
                true
            }
            b'[' => match class(behind) {
                Some(behind) => {
                    rest = behind;
                    true
                }
                None => return false,
            },
            b'\\' => match behind.split_first() {
                Some((escaped, behind)) if is_escape(*escaped) => {
                    rest = behind;
                    true
                }
                _ => return false,
            },
            b'*' | b'+' | b'?' | b'(' | b')' | b'{' => return false,
            _ => true,
        };
    }
    depth == 0
}

/// Whether a backslash in front of the byte makes an atom.
fn is_escape(byte: u8) -> bool {
    byte.is_ascii_punctuation() || b"dDsSwW".contains(&byte)
}

/// The rest behind a class of ASCII letters, digits, some punctuation, and ranges of these.
fn class(behind: &[u8]) -> Option<&[u8]> {
    let mut rest = behind.strip_prefix(b"^").unwrap_or(behind);
    let mut empty = true;
    loop {
        let (&first, behind) = rest.split_first()?;
        rest = match (first, behind) {
            (b']', _) => return (!empty).then_some(behind),
            (b'_' | b'.' | b'/' | b':' | b',' | b' ', _) => behind,
            (from, [b'-', to, behind @ ..]) if is_range(from, *to) => behind,
            (letter, [next, ..]) if letter.is_ascii_alphanumeric() && *next != b'-' => behind,
            _ => return None,
        };
        empty = false;
    }
}

fn is_range(from: u8, to: u8) -> bool {
    let kinds = [
        u8::is_ascii_digit,
        u8::is_ascii_lowercase,
        u8::is_ascii_uppercase,
    ];
    from <= to && kinds.iter().any(|kind| kind(&from) && kind(&to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Regex;

    #[test]
    fn patterns_of_real_rules_are_seen_to_be_valid() {
        for pattern in [
            "",
            "api|web",
            "5..",
            ".*(etcd|kube-dns).*",
            "^node-[0-9]+$",
            "[^/]+",
            r"10\.0\.\d+\.1:9100",
            "ext[234]|btrfs|xfs",
            "größe.*",
            "|a",
        ] {
            assert!(is_valid(pattern), "{pattern:?}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_the_compiler() {
        for pattern in [
            "a**",
            "*",
            "(*a)",
            "a|*",
            "(",
            ")",
            "(?i:a)",
            "[",
            "[]",
            "[z-a]",
            "[a-Z]",
            "[[:alpha:]]",
            r"\",
            r"\pN",
            r"\C",
            "a{2}",
            "a{1001}",
            "^*",
        ] {
            assert!(!is_valid(pattern), "{pattern:?}");
        }
        assert!(!is_valid(&"a".repeat(LONGEST + 1)));
        assert!(!is_valid(&"(".repeat(MAX_DEPTH + 1)));
    }

    #[test]
    fn the_longest_of_any_kind_compile() {
        for atom in [".", "ä", r"\W", "[^a-z]", "(.+)", "(|.)*"] {
            let pattern = atom.repeat(LONGEST / atom.len());
            assert!(is_valid(&pattern), "{atom:?}");
            Regex::new(&pattern).unwrap();
        }
        let nested = format!("{}.{}", "(".repeat(MAX_DEPTH), ")*".repeat(MAX_DEPTH));
        assert!(is_valid(&nested));
        Regex::new(&nested).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn only_valid_patterns_are_seen_to_be_valid(
            pattern in r"([ab09ZäQpd_]|[.*+?|()^$\[\]{}\\/, :-]){0,12}"
        ) {
            if is_valid(&pattern) {
                prop_assert!(Regex::new(&pattern).is_ok(), "{:?}", pattern);
            }
        }
    }
}
