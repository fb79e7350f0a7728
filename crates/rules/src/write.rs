//! The canonical text of a rule file. It parses to the same file, and is the same for equal files,
//! whatever their original texts. Keys have a fixed order, labels are sorted, and comments are dropped.

use std::fmt::Write as _;

use crate::file::{Group, Labels, Rule, RuleFile};

/// Maximum length of a simple key, in bytes as written; longer keys are written as explicit ones (`?`).
/// YAML allows 1024 characters.
const MAX_SIMPLE_KEY: usize = 500;
/// Estimated length of a rule, in bytes.
const TYPICAL_RULE: usize = 320;

impl RuleFile {
    /// The canonical text.
    pub fn to_yaml(&self) -> String {
        if self.groups.is_empty() {
            return "groups: []\n".to_owned();
        }
        let mut out = String::with_capacity(TYPICAL_RULE * (self.rules() + 1));
        out.push_str("groups:\n");
        for group in &self.groups {
            write_group(&mut out, &group.name, group);
        }
        out
    }
}

impl Group {
    /// The canonical text of the group alone.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        write_group(&mut text, &self.name, self);
        // Within a file, each line has `  - ` or four blanks in front, which are cut off.
        let lines = text.lines();
        lines
            .map(|line| format!("{}\n", line.get(4..).unwrap_or_default()))
            .collect()
    }
}

/// Writes a group, under this name, as an item of a file's list.
pub(crate) fn write_group(out: &mut String, name: &str, group: &Group) {
    out.push_str("  - ");
    field(out, "name", name, 4);
    if let Some(interval) = group.interval {
        line(out, 4, "interval", interval);
    }
    if let Some(offset) = group.query_offset {
        line(out, 4, "query_offset", offset);
    }
    if group.limit != 0 {
        line(out, 4, "limit", group.limit);
    }
    if let Some(strategy) = group.partial_response {
        line(out, 4, "partial_response_strategy", strategy.as_str());
    }
    map(out, "labels", &group.labels, 4);
    if group.rules.is_empty() {
        return line(out, 4, "rules", "[]");
    }
    out.push_str("    rules:\n");
    for rule in &group.rules {
        write_rule(out, rule);
    }
}

fn write_rule(out: &mut String, rule: &Rule) {
    out.push_str("      - ");
    let alerting = rule.alerting();
    let key = if alerting.is_some() {
        "alert"
    } else {
        "record"
    };
    field(out, key, &rule.name, 8);
    indent(out, 8);
    field(out, "expr", &rule.expr, 8);
    if let Some(hold) = alerting.and_then(|alerting| alerting.hold) {
        line(out, 8, "for", hold);
    }
    if let Some(keep) = alerting.and_then(|alerting| alerting.keep_firing_for) {
        line(out, 8, "keep_firing_for", keep);
    }
    map(out, "labels", &rule.labels, 8);
    if let Some(alerting) = alerting {
        map(out, "annotations", &alerting.annotations, 8);
    }
}

fn indent(out: &mut String, depth: usize) {
    /// The deepest indentation of a rule file.
    const BLANKS: &str = "            ";
    match BLANKS.get(..depth) {
        Some(blanks) => out.push_str(blanks),
        None => out.extend(std::iter::repeat_n(' ', depth)),
    }
}

/// Writes a key with a value that needs no quotes.
fn line(out: &mut String, depth: usize, key: &str, value: impl std::fmt::Display) {
    indent(out, depth);
    // Writing to a string does not fail.
    let _ = writeln!(out, "{key}: {value}");
}

/// Writes a known key with a text; `depth` is the key's indentation.
fn field(out: &mut String, key: &str, value: &str, depth: usize) {
    out.push_str(key);
    out.push_str(": ");
    text(out, value, depth + 2);
    out.push('\n');
}

fn map(out: &mut String, key: &str, map: &Labels, depth: usize) {
    if map.is_empty() {
        return;
    }
    indent(out, depth);
    out.push_str(key);
    out.push_str(":\n");
    for (name, value) in map.iter() {
        indent(out, depth + 2);
        let start = out.len();
        inline(out, name);
        if out.len() - start > MAX_SIMPLE_KEY {
            out.insert_str(start, "? ");
            out.push('\n');
            indent(out, depth + 2);
        }
        out.push_str(": ");
        text(out, value, depth + 4);
        out.push('\n');
    }
}

/// Writes a text as a value: as a literal block if it has several lines and a block can represent it,
/// else inline.
fn text(out: &mut String, value: &str, depth: usize) {
    if !fits_block(value) {
        return inline(out, value);
    }
    let (body, chomp) = match value.strip_suffix('\n') {
        Some(body) => (body, "|"),
        None => (value, "|-"),
    };
    out.push_str(chomp);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}

/// Whether a literal block can represent a text: several lines, the first neither empty nor indented,
/// none with tabs or only blanks, and at most one line break at the end.
fn fits_block(value: &str) -> bool {
    let body = value.strip_suffix('\n').unwrap_or(value);
    value.contains('\n')
        && !body.is_empty()
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && value.chars().all(|c| c == '\n' || is_printable(c))
        && body
            .split('\n')
            .all(|line| line.is_empty() || !line.trim().is_empty())
}

/// Writes a text on one line: plain if it is unambiguous, else quoted.
fn inline(out: &mut String, value: &str) {
    if is_plain(value) {
        out.push_str(value);
    } else if value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        || value.chars().all(is_printable)
    {
        out.push('\'');
        for (index, part) in value.split('\'').enumerate() {
            if index > 0 {
                out.push_str("''");
            }
            out.push_str(part);
        }
        out.push('\'');
    } else {
        out.push('"');
        value.chars().for_each(|c| escape(out, c));
        out.push('"');
    }
}

fn escape(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c if is_printable(c) => out.push(c),
        c if u32::from(c) <= 0xff => {
            let _ = write!(out, "\\x{:02x}", u32::from(c)); // does not fail
        }
        c if u32::from(c) <= 0xffff => {
            let _ = write!(out, "\\u{:04x}", u32::from(c)); // does not fail
        }
        c => {
            let _ = write!(out, "\\U{:08x}", u32::from(c)); // does not fail
        }
    }
}

/// Whether every YAML parser reads the character unescaped, and not as a line break.
pub(crate) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        c => c >= '\u{a0}',
    }
}

/// Whether a text needs no quotes. Words that some version of YAML reads as another type need them, as
/// do words of one letter.
fn is_plain(value: &str) -> bool {
    const WORDS: [&str; 6] = ["true", "false", "null", "yes", "no", "off"];
    value.len() > 2
        && value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'))
        && !WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
pub(crate) mod tests;
