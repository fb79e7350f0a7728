//! Which characters names consist of, and which names need quotes.

mod letters;

/// Whether a name can begin with a character.
pub(crate) fn is_start(c: char, unquoted: bool) -> bool {
    c == '_' || c.is_ascii_alphabetic() || (unquoted && !c.is_ascii() && letters::is_letter(c))
}

/// Whether a character can stand in a name behind the first.
pub(crate) fn is_continue(c: char, unquoted: bool) -> bool {
    is_start(c, unquoted) || c.is_ascii_digit() || (unquoted && c == '.')
}

/// Whether a label's name has to be quoted.
pub(crate) fn needs_quotes(name: &[u8], unquoted: bool) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return true;
    };
    let mut chars = name.chars();
    !chars.next().is_some_and(|c| is_start(c, unquoted)) || !chars.all(|c| is_continue(c, unquoted))
}
