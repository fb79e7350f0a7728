//! Insertion of a matcher into the text of an expression, which leaves everything else as it was written.
//!
//! It takes a fraction of the time that enforcing a matcher on the tree and printing the tree take.
//! Since the text itself is kept, it must not be possible that another parser splits it into other
//! tokens: only texts of printable ASCII without comments, escapes and raw strings qualify.

use crate::ast::{Expr, NodeKind};

/// Number of bytes that are looked at together.
const BLOCK: usize = 64;

impl Expr {
    /// Offsets at which [`insert`] adds a matcher to each selector, ascending. `input` is the text
    /// that the expression was parsed from.
    ///
    /// `None` if the text does not qualify, or if the expression has implied selectors: then only
    /// [`enforce`](crate::enforce()) restricts it.
    pub fn places(&self, input: &str) -> Option<Vec<u32>> {
        let bytes = input.as_bytes();
        // Whole blocks are looked at, which the compiler makes fast.
        let are_plain = |block: &[u8]| block.iter().fold(true, |all, byte| all & is_plain(*byte));
        let is_plain = bytes.chunks(BLOCK).all(are_plain) && !has_dotted_word(bytes);
        if !is_plain || self.implicit_info().next().is_some() {
            return None;
        }
        let mut places = Vec::with_capacity(self.selectors().count());
        for node in &self.nodes {
            let NodeKind::Selector(selector) = &node.kind else {
                continue;
            };
            let name = selector.name.as_ref().map_or(&[][..], |it| it.as_bytes());
            let behind = bytes.get(node.span.start as usize..)?;
            let behind = behind.strip_prefix(name)?;
            let spaces = behind.iter().take_while(|byte| is_space(byte)).count();
            let length = match behind.get(spaces) {
                Some(b'{') => name.len() + spaces + 1,
                _ if name.is_empty() => return None,
                _ => name.len(),
            };
            places.push(node.span.start + u32::try_from(length).ok()?);
        }
        places.sort_unstable();
        Some(places)
    }
}

/// Inserts the text of a matcher at the offsets that [`Expr::places`] found in the text.
///
/// `None` if the offsets are not those of the text.
pub fn insert(input: &str, places: &[u32], matcher: &str) -> Option<String> {
    let added = places.len() * (matcher.len() + 2);
    let mut out = String::with_capacity(input.len() + added);
    let mut end = 0;
    for place in places {
        let place = *place as usize;
        out.push_str(input.get(end..place)?);
        end = place;
        if !out.ends_with('{') {
            out.push('{');
            out.push_str(matcher);
            out.push('}');
            continue;
        }
        out.push_str(matcher);
        let next = input.as_bytes()[place..].iter().find(|it| !is_space(it));
        if next != Some(&b'}') {
            out.push(',');
        }
    }
    out.push_str(input.get(end..)?);
    Some(out)
}

/// Whether every parser reads the byte the same: comments, escapes and raw strings begin with others.
fn is_plain(byte: u8) -> bool {
    let is_shown = matches!(byte, b' '..=b'~' | b'\t' | b'\n');
    is_shown & (byte != b'#') & (byte != b'\\') & (byte != b'`')
}

/// Whether a word goes on with a dot. Parsers that allow dots in names without quotes read `bool.5` as the
/// name of a metric, and others as a keyword and a number.
fn has_dotted_word(bytes: &[u8]) -> bool {
    if !bytes.contains(&b'.') {
        return false;
    }
    let begins = |byte: u8| byte.is_ascii_alphabetic() || b"_:".contains(&byte);
    // Most dots stand in numbers and regular expressions.
    let dots = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    let mut behind = dots.filter_map(|(at, _)| bytes.get(at.checked_sub(1)?));
    if !behind.any(|byte| begins(*byte)) {
        return false;
    }
    let (mut quote, mut before) = (None, b' ');
    for byte in bytes {
        match (quote, *byte) {
            (Some(end), byte) if byte == end => quote = None,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'.') if begins(before) => return true,
            _ => {}
        }
        before = *byte;
    }
    false
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, parse};

    fn inserted(input: &str) -> Option<String> {
        let expr = parse(input, &Options::default()).unwrap();
        insert(input, &expr.places(input)?, "t=\"a\"")
    }

    #[test]
    fn every_selector_gets_the_matcher_and_the_rest_stays_as_written() {
        for (input, expected) in [
            ("up", r#"up{t="a"}"#),
            ("up{}", r#"up{t="a"}"#),
            ("up { \n }", "up {t=\"a\" \n }"),
            ("up{job='b',}", r#"up{t="a",job='b',}"#),
            (r#"{"a.b", c="}"}"#, r#"{t="a","a.b", c="}"}"#),
            (
                "sum(rate(x [5m] offset 1h)) by(y)\n  / ON() sum{} + 1 or c",
                "sum(rate(x{t=\"a\"} [5m] offset 1h)) by(y)\n  / ON() sum{t=\"a\"} + 1 or c{t=\"a\"}",
            ),
            (
                "max(max_over_time(a:b[5m:1m] @ end())) > bool -c",
                r#"max(max_over_time(a:b{t="a"}[5m:1m] @ end())) > bool -c{t="a"}"#,
            ),
            ("info(x, {a=\"b\"})", r#"info(x{t="a"}, {t="a",a="b"})"#),
            ("vector(1)", "vector(1)"),
            (
                "up{a='b.c\"d.e'} > 0.5 + c",
                "up{t=\"a\",a='b.c\"d.e'} > 0.5 + c{t=\"a\"}",
            ),
        ] {
            assert_eq!(inserted(input).as_deref(), Some(expected), "{input}");
        }
    }

    #[test]
    fn texts_that_another_parser_could_read_otherwise_are_left_to_the_tree() {
        for input in [
            "up # {",
            r#"up{a="\""}"#,
            "up{a=`b`}",
            "up{a=\"ö\"}",
            "up\r",
            "info(up)",
            "up == bool.5",
            "up{a='b.c'} > BOOL.5",
        ] {
            assert_eq!(inserted(input), None, "{input}");
        }
    }

    #[test]
    fn offsets_of_another_text_are_refused() {
        for places in [&[9][..], &[2, 1]] {
            assert_eq!(insert("up", places, "a=\"b\""), None);
        }
    }
}
