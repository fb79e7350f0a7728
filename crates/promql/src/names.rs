//! Characters of names, and names that need quotes.

mod letters;

/// For each byte, whether a name can begin with it.
pub(crate) const STARTS: [bool; 256] = table(false);
/// For each byte, whether a name can continue with it.
pub(crate) const CONTINUES: [bool; 256] = table(true);

const fn table(digits: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        let is_letter = byte == b'_' || byte.is_ascii_alphabetic();
        table[byte as usize] = is_letter || (digits && byte.is_ascii_digit());
        byte += 1;
    }
    table
}

/// Whether a name can begin with this character.
pub(crate) fn is_start(c: char, unquoted: bool) -> bool {
    c == '_' || c.is_ascii_alphabetic() || (unquoted && !c.is_ascii() && letters::is_letter(c))
}

/// Whether a name can continue with this character.
pub(crate) fn is_continue(c: char, unquoted: bool) -> bool {
    is_start(c, unquoted) || c.is_ascii_digit() || (unquoted && c == '.')
}

/// Whether the name of a label has to be quoted.
pub(crate) fn needs_quotes(name: &[u8], unquoted: bool) -> bool {
    if !unquoted {
        let is_plain = |byte: &u8| CONTINUES[usize::from(*byte)];
        return !(name.first().is_some_and(|byte| STARTS[usize::from(*byte)])
            && name.iter().all(is_plain));
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return true;
    };
    let mut chars = name.chars();
    !chars.next().is_some_and(|c| is_start(c, unquoted)) || !chars.all(|c| is_continue(c, unquoted))
}
