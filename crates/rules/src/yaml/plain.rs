//! Reads the YAML that people and programs write in rule files, several times faster than the parser of
//! all of YAML does: block mappings and lists of them, whose values are scalars on one line or literal
//! blocks. Whatever else a file has, even if it is an error, is left to that parser.

use std::borrow::Cow;

use super::{Builder, Children, Content, Place, Tree};

/// Maximum nesting of collections; a rule file needs six levels.
const MAX_DEPTH: usize = 8;
/// Maximum length of a key, in bytes.
const MAX_KEY: usize = 200;
/// Number of bytes that are looked at together.
const BLOCK: usize = 16;

/// Parses a text; `None` if it has anything that is not read here.
pub(super) fn parse(text: &str, max_nodes: usize) -> Option<Tree<'_>> {
    let has = |byte| text.as_bytes().contains(&byte);
    if !text.ends_with('\n') || has(b'\t') || has(b'\r') {
        return None;
    }
    let mut reader = Reader {
        text,
        at: 0,
        end: line_end(text, 0),
        line: 1,
        builder: Builder::new(text, max_nodes),
    };
    if text.starts_with("---\n") {
        reader.advance();
    }
    match reader.next_line()? {
        (0, line) if !is_item(line) => reader.mapping(0, 0)?,
        _ => return None,
    }
    // Anything behind the mapping is no part of it.
    reader.next_line().is_none().then_some(reader.builder.tree)
}

struct Reader<'a> {
    text: &'a str,
    /// Offset of the current line, or of the part of it that is not read yet.
    at: usize,
    /// Offset of the end of the current line.
    end: usize,
    /// Number of the current line, from 1.
    line: u64,
    builder: Builder<'a>,
}

impl<'a> Reader<'a> {
    /// The rest of the current line, without its line break.
    fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    /// Goes to the next line.
    fn advance(&mut self) {
        self.at = (self.end + 1).min(self.text.len());
        self.end = line_end(self.text, self.at);
        self.line += 1;
    }

    /// Goes to the next line that is neither blank nor a comment, or stays if the current one is none.
    /// Returns its indentation, and the text behind that.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        while self.at < self.text.len() {
            let line = self.rest();
            let body = line.trim_start_matches(' ');
            if !body.is_empty() && !body.starts_with('#') {
                return Some((line.len() - body.len(), body));
            }
            self.advance();
        }
        None
    }

    fn add(&mut self, column: usize, content: Content<'a>) -> Option<super::Id> {
        let place = Place {
            line: self.line,
            column: column as u64 + 1,
        };
        self.builder.add(place, content, None, 0).ok()
    }

    /// Reads a mapping whose keys begin at a column, of which the first is next.
    fn mapping(&mut self, column: usize, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let id = self.add(column, Content::Mapping(Children::default()))?;
        self.builder.open(id, true);
        // Of the first line, what precedes the key may be the mark of a list's item.
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
        loop {
            self.field(column, depth)?;
            match self.next_line() {
                Some((indent, line)) if indent == column && !is_item(line) => self.at += column,
                Some((indent, _)) if indent > column => return None,
                _ => break,
            }
        }
        self.builder.close();
        Some(())
    }

    /// Reads a key at the current position, and its value.
    fn field(&mut self, column: usize, depth: usize) -> Option<()> {
        let line = self.rest();
        let length = line.bytes().take_while(is_key).count();
        let (key, behind) = line.split_at(length);
        let behind = behind.strip_prefix(':')?;
        if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || length > MAX_KEY {
            return None;
        }
        self.add(column, plain(key))?;
        let value = behind.trim_start_matches(' ');
        if !value.is_empty() {
            if !behind.starts_with(' ') {
                return None;
            }
            self.at += line.len() - value.len();
            return self.scalar(value, column, column + line.len() - value.len());
        }
        self.advance();
        match self.next_line()? {
            (indent, line) if is_item(line) && indent >= column => {
                self.list(indent, indent == column, depth + 1)
            }
            (indent, line) if !is_item(line) && indent > column => self.mapping(indent, depth + 1),
            // The value is null.
            _ => None,
        }
    }

    /// Reads a list of mappings whose marks are at a column, of which the first is next. One whose marks
    /// stand below its key counts as beginning behind the first mark.
    fn list(&mut self, column: usize, is_below_key: bool, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let behind = self.rest().get(column + 1..)?;
        let blanks = behind.len() - behind.trim_start_matches(' ').len();
        let begin = column + usize::from(is_below_key) * (1 + blanks);
        let id = self.add(begin, Content::Sequence(Children::default()))?;
        self.builder.open(id, false);
        loop {
            self.at += column + 1;
            let rest = self.rest();
            let body = rest.trim_start_matches(' ');
            if body.is_empty() || is_item(body) {
                return None;
            }
            self.mapping(column + 1 + rest.len() - body.len(), depth + 1)?;
            match self.next_line() {
                Some((indent, line)) if indent == column && is_item(line) => {}
                Some((indent, _)) if indent > column => return None,
                _ => break,
            }
        }
        self.builder.close();
        Some(())
    }

    /// Reads a scalar at a column, the value of a key at another, up to the end of its last line.
    fn scalar(&mut self, value: &'a str, key: usize, column: usize) -> Option<()> {
        let value = value.trim_end_matches(' ');
        let content = match value.as_bytes().first()? {
            b'|' => return self.literal(value, key),
            b'\'' => Content::Scalar {
                text: single_quoted(value)?,
                plain: false,
            },
            b'"' => Content::Scalar {
                text: double_quoted(value)?,
                plain: false,
            },
            // A line that is indented more than the key would continue it: the caller refuses that.
            _ if is_plain(value) => plain(value),
            _ => return None,
        };
        self.add(column, content)?;
        self.advance();
        Some(())
    }

    /// Reads a literal block, whose header is next.
    fn literal(&mut self, header: &str, key: usize) -> Option<()> {
        let keeps_break = match header {
            "|" => true,
            "|-" => false,
            _ => return None,
        };
        self.advance();
        let start = self.at;
        let first = self.rest();
        let indent = first.len() - first.trim_start_matches(' ').len();
        // The first line tells the indentation, so it must not be blank.
        if indent <= key || indent == first.len() {
            return None;
        }
        // The block counts as beginning at its text.
        let place = Place {
            line: self.line,
            column: indent as u64 + 1,
        };
        // The end of the last line that is not blank, and the number of lines up to there.
        let (mut end, mut lines, mut count) = (start, 0, 0);
        let mut last = (self.at, self.end, self.line);
        while self.at < self.text.len() {
            let line = self.rest();
            if let Some(blanks) = line.get(..indent)
                && blanks.bytes().all(|byte| byte == b' ')
            {
                // Blanks beyond the indentation are a part of the text.
                if line.ends_with(' ') && line.trim_start_matches(' ').is_empty() {
                    return None;
                }
                end = self.at + line.len();
                count += 1;
                lines = count;
                self.advance();
                last = (self.at, self.end, self.line);
            } else if line.is_empty() {
                count += 1;
                self.advance();
            } else {
                let shallow = line.len() - line.trim_start_matches(' ').len();
                if shallow > key || shallow == line.len() {
                    return None;
                }
                break;
            }
        }
        // What follows the last line are blank lines, which a `|` drops.
        (self.at, self.end, self.line) = last;
        let source = &self.text[start..end];
        let text = match lines {
            // The text of one line is a part of the file, and its line break follows.
            1 => Cow::Borrowed(&self.text[start + indent..end + usize::from(keeps_break)]),
            _ => {
                let mut text = String::with_capacity(source.len());
                for line in source.split('\n') {
                    // An empty line need not be indented.
                    text.push_str(line.get(indent..).unwrap_or_default());
                    text.push('\n');
                }
                if !keeps_break {
                    text.pop();
                }
                Cow::Owned(text)
            }
        };
        let content = Content::Scalar { text, plain: false };
        self.builder.add(place, content, None, 0).ok()?;
        Some(())
    }
}

/// The end of the line that begins at an offset.
fn line_end(text: &str, at: usize) -> usize {
    let is_break = |byte: &u8| *byte == b'\n';
    let mut at = at;
    // Whole blocks are looked at, which the compiler makes fast.
    while let Some(block) = text.as_bytes().get(at..at + BLOCK) {
        if block.iter().fold(false, |any, byte| any | is_break(byte)) {
            break;
        }
        at += BLOCK;
    }
    let rest = text.as_bytes()[at..].iter();
    at + rest.take_while(|byte| !is_break(byte)).count()
}

fn plain(text: &str) -> Content<'_> {
    Content::Scalar {
        text: Cow::Borrowed(text),
        plain: true,
    }
}

/// Whether a line is an item of a list.
fn is_item(line: &str) -> bool {
    line == "-" || line.starts_with("- ")
}

/// Whether a byte is a part of a key.
fn is_key(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/')
}

/// Whether a text without blanks at its ends is a plain scalar.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let begins = bytes.first().is_some_and(|first| {
        first.is_ascii_alphanumeric() || matches!(first, b'_' | b'(' | b'.' | b'/' | b'+' | b'$')
    });
    let ends_key = |pair: &[u8]| matches!(pair, [b':', b' '] | [b' ', b'#']);
    begins && !bytes.ends_with(b":") && !bytes.windows(2).any(ends_key)
}

/// The text of a scalar in single quotes that ends with its line.
fn single_quoted(source: &str) -> Option<Cow<'_, str>> {
    let inner = source.strip_prefix('\'')?.strip_suffix('\'')?;
    if !inner.contains('\'') {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, behind)) = rest.split_once('\'') {
        text.push_str(before);
        text.push('\'');
        // A quote that is not written twice would end the scalar.
        rest = behind.strip_prefix('\'')?;
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// The text of a scalar in double quotes that ends with its line.
fn double_quoted(source: &str) -> Option<Cow<'_, str>> {
    let inner = source.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '"' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => c,
                'n' => '\n',
                't' => '\t',
                _ => return None,
            },
            c => c,
        });
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that the parser of all of YAML reads the same, and returns whether the text was read here.
    fn check(text: &str) -> bool {
        let Some(tree) = parse(text, 100_000) else {
            return false;
        };
        let whole = Tree::parse_once(text, 100_000);
        let whole = whole.unwrap_or_else(|_| panic!("{text}\nis invalid"));
        assert_eq!(format!("{tree:#?}"), format!("{whole:#?}"), "{text}");
        true
    }

    #[test]
    fn what_people_write_is_read_here() {
        for text in [
            "groups:\n- name: g\n  rules:\n  - record: a:b\n    expr: sum(up{a=\"b\"}) / 2\n",
            "---\n# Rules\ngroups:\n  - name: 'it''s'\n    interval: 1m\n\n    rules:\n      # One\n      - alert: A\n        expr: |\n          up\n            == 0\n\n          # twice\n\n        labels:\n          severity: \"page\"\n        annotations:\n          summary: \"{{ $labels.a }} is \\\"down\\\"\\n\"\n          text: |-\n            one line\n",
            "a: |\n  x\nb: |-\n  y\n\n\n# end\n",
            "a:   b  \nc:\n   d: xé\n",
            "a: |\n  x\n\n  y\n\n",
        ] {
            assert!(check(text), "{text}");
        }
    }

    #[test]
    fn anything_else_is_left_to_the_parser_of_all_of_yaml() {
        for text in [
            "",
            "a: b",
            "a: b\n  c\n",
            "a: b # c\n",
            "a: [b]\n",
            "a: {}\n",
            "a: &x b\n",
            "a: *x\n",
            "a: !!str b\n",
            "a: b: c\n",
            "a:\n",
            "a:\nb: c\n",
            "a: >\n  b\n",
            "a: |+\n  b\n",
            "a: |2\n  b\n",
            "a: |\n\n  b\n",
            "a: |\n  b\n c\n",
            "a: |\n  b\n   \n",
            "a: 'b\n  c'\n",
            "a: \"\\x41\"\n",
            "'a': b\n",
            "a:\n- b\n",
            "a:\n-\n  b: c\n",
            "a: b\n---\nc: d\n",
            "a: b\n...\n",
            "a: b\n c: d\n",
            "a:\tb\n",
            "- a: b\n",
            "<<: b\n",
        ] {
            assert!(!check(text), "{text}");
        }
    }

    #[test]
    fn the_corpus_is_read_the_same() {
        let golden = include_str!("../../tests/oracle/rulefmt/golden.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        let texts = cases.iter().map(|case| case["text"].as_str().unwrap());
        let here = texts.filter(|text| check(text)).count();
        assert!(here * 10 > cases.len(), "{here} of {}", cases.len());
    }

    /// Lines of a file, some of them wrong.
    fn lines() -> impl Strategy<Value = String> {
        let line = (
            0..6_usize,
            "(- |- - |)",
            "([a-c]|é|<<)?",
            "(:|: |:  |)",
            value(),
        );
        let line = line.prop_map(|(indent, mark, key, colon, value)| {
            format!("{}{mark}{key}{colon}{value}\n", " ".repeat(indent))
        });
        prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[a-c'\"\\\\#:|>{}\\[\\] &*!?%@`,-]{0,6}",
            2 => prop::sample::select(vec![
                "", "a b", "'a'", "\"b\"", "|", "|-", "'a''b'", "\"\\n\"", "a #b", "a: b", "~", "5",
                "a:b", "# c", "---", "...", "- a",
            ]).prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_read_here_is_read_the_same_by_all_of_yaml(text in lines()) {
            check(&text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(file in crate::write::tests::file()) {
            check(&file.to_yaml());
        }
    }
}
