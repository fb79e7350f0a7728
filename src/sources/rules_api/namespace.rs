//! Names of namespaces, which are arbitrary text in the rulers' configuration API, as names of files.
//!
//! A byte that no name of a file may hold is written as `!` and two hexadecimal digits, and so is a `!`
//! that would be read as the beginning of these. Each namespace is one file, and each file one namespace.

use std::fmt::Write as _;

use metrifold_rules::store::is_name_byte;

/// The file of a namespace.
pub(super) fn to_file(namespace: &str) -> String {
    let mut file = String::new();
    for (at, byte) in namespace.bytes().enumerate() {
        let behind = &namespace.as_bytes()[at + 1..];
        match byte {
            b'!' if escaped(behind, at == 0).is_none() => file.push('!'),
            b'.' if at == 0 => file.push_str("!2E"),
            byte if byte != b'!' && is_name_byte(byte) => file.push(char::from(byte)),
            byte => {
                // Writing to a `String` cannot fail.
                let _ = write!(file, "!{byte:02X}");
            }
        }
    }
    file
}

/// The namespace of a file.
pub(super) fn of_file(file: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), file.as_bytes());
    while let [first, behind @ ..] = rest {
        let byte = Some(first).filter(|first| **first == b'!');
        match byte.and_then(|_| escaped(behind, bytes.is_empty())) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    // A file that was not named by this API may hold any digits.
    String::from_utf8(bytes).unwrap_or_else(|_| file.to_owned())
}

/// The byte that the digits after a `!` stand for, if these are needed for it.
fn escaped(digits: &[u8], is_first: bool) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    let is_upper = |digit: u8| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit);
    if !digits.bytes().all(is_upper) {
        return None;
    }
    let byte = u8::from_str_radix(digits, 16).ok()?;
    let is_needed = !is_name_byte(byte) || byte == b'!' || (is_first && byte == b'.');
    is_needed.then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blanks_and_slashes_are_escaped_and_plain_names_are_not() {
        for (namespace, file) in [
            ("plain-name_1.a!b(c)", "plain-name_1.a!b(c)"),
            ("My Folder/sub", "My!20Folder!2Fsub"),
            (".hidden", "!2Ehidden"),
            ("a!20b", "a!2120b"),
            ("a!2120b", "a!212120b"),
            ("a!41b", "a!41b"),
            ("a!2eb", "a!2eb"),
            ("ä", "!C3!A4"),
            ("!2E", "!212E"),
            ("a!2E", "a!2E"),
        ] {
            assert_eq!(to_file(namespace), file);
            assert_eq!(of_file(file), namespace, "{file}");
        }
        assert_eq!(of_file("!FF"), "!FF");
    }

    proptest! {
        #[test]
        fn a_namespace_is_read_back(namespace in "[a!2E01./ %ä]{0,12}") {
            let file = to_file(&namespace);
            prop_assert!(file.bytes().all(is_name_byte) && !file.starts_with('.'));
            prop_assert_eq!(of_file(&file), namespace);
        }
    }
}
