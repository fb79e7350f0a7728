//! Upper and lower case as in Go's `strings.ToUpper` and `strings.ToLower`: each character maps to
//! exactly one, whatever its neighbours. `ß` stays, `İ` becomes `i`.

/// Appends the text in upper case.
pub(super) fn upper(text: &[u8], into: &mut Vec<u8>) {
    map(text, into, u8::to_ascii_uppercase, upper_char);
}

/// Appends the text in lower case.
pub(super) fn lower(text: &[u8], into: &mut Vec<u8>) {
    map(text, into, u8::to_ascii_lowercase, lower_char);
}

fn map(text: &[u8], into: &mut Vec<u8>, ascii: fn(&u8) -> u8, wide: fn(char) -> char) {
    match std::str::from_utf8(text) {
        Ok(text) if !text.is_ascii() => {
            let mut buffer = [0; 4];
            for c in text.chars() {
                into.extend_from_slice(wide(c).encode_utf8(&mut buffer).as_bytes());
            }
        }
        _ => into.extend(text.iter().map(ascii)),
    }
}

fn upper_char(c: char) -> char {
    match only(c.to_uppercase()) {
        Some(upper) => known(c, upper),
        // Greek letters with an iota subscript: the capital with an adscript iota is one character.
        None => match c as u32 {
            0x1F80..=0x1F87 | 0x1F90..=0x1F97 | 0x1FA0..=0x1FA7 => shifted(c, 8),
            0x1FB3 | 0x1FC3 | 0x1FF3 => shifted(c, 9),
            _ => c,
        },
    }
}

fn lower_char(c: char) -> char {
    match only(c.to_lowercase()) {
        Some(lower) => known(c, lower),
        None if c == 'İ' => 'i',
        None => c,
    }
}

fn shifted(c: char, by: u32) -> char {
    char::from_u32(c as u32 + by).unwrap_or(c)
}

fn only(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// Keeps characters unchanged whose mapping was added in Unicode 16 or 17, which Go does not know.
fn known(c: char, mapped: char) -> char {
    match c as u32 {
        0x19B
        | 0x264
        | 0x1C89..=0x1C8A
        | 0xA7CB..=0xA7CF
        | 0xA7D2..=0xA7D5
        | 0xA7DA..=0xA7DC
        | 0x10D50..=0x10D85
        | 0x16EA0..=0x16ED3 => c,
        _ => mapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Tables {
        upper: Vec<(u32, u32)>,
        lower: Vec<(u32, u32)>,
    }

    #[test]
    fn every_character_becomes_what_go_makes_of_it() {
        let text = include_str!("../../../regex/tests/data/unicode.json");
        let tables: Tables = serde_json::from_str(text).unwrap();
        let mut wrong = Vec::new();
        for (map, table) in [
            (upper as fn(&[u8], &mut Vec<u8>), tables.upper),
            (lower, tables.lower),
        ] {
            let table: std::collections::HashMap<u32, u32> = table.into_iter().collect();
            for c in '\0'..=char::MAX {
                let to = table
                    .get(&(c as u32))
                    .map_or(c, |&to| char::from_u32(to).unwrap());
                let mut out = Vec::new();
                map(c.to_string().as_bytes(), &mut out);
                if out != to.to_string().as_bytes() {
                    let out = String::from_utf8(out).unwrap();
                    wrong.push(format!("{:X} {out:?} {to:?}", c as u32));
                }
            }
        }
        assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join(", "));
    }

    #[test]
    fn words_do_not_grow() {
        let mut out = Vec::new();
        upper("straße ΐ".as_bytes(), &mut out);
        lower("İΣ".as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "STRAßE ΐiσ");
    }
}
