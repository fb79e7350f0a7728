//! Vector selectors: `up{job="x"}`, `{__name__=~"node_.*", tenant!="x"}`, `{"a.b", "x.y"="z"}`.
//!
//! Selectors are read as Prometheus 3 reads them, with two exceptions: a selector may match everything
//! (`{}`), and comments are not supported. A label that a series lacks counts as empty.

use thiserror::Error;

use metrifold_codec::{Name, SeriesRef};

use metrifold_regex::Regex;

/// Longest selector, in bytes.
pub const MAX_LEN: usize = 64 << 10;
/// Most matchers of a selector.
const MAX_MATCHERS: usize = 256;
const NAME: &str = "__name__";

/// A selector: a conjunction of matchers.
#[derive(Clone, Debug)]
pub struct Matchers {
    list: Box<[Matcher]>,
}

/// One condition on a label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Name,
    op: Op,
    value: Box<str>,
    /// The compiled pattern, for `=~` and `!~` only.
    regex: Option<Regex>,
}

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// A syntax error in a selector, or an exceeded bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid selector at byte {offset}: {reason}")]
pub struct SelectorError {
    /// Position of the error, in bytes.
    pub offset: usize,
    /// Description of the error.
    pub reason: String,
}

impl Matchers {
    /// Reads a selector.
    ///
    /// # Errors
    ///
    /// Fails when the text is not a selector, or exceeds a bound.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, pos: 0 };
        if text.len() > MAX_LEN {
            return Err(parser.error(format!("selector is longer than {MAX_LEN} bytes")));
        }
        parser.selector()
    }

    /// Whether the selector matches a series.
    #[inline]
    pub fn matches(&self, series: SeriesRef<'_>) -> bool {
        self.list.iter().all(|matcher| {
            let value = series.get(&matcher.name).unwrap_or_default();
            matcher.matches(value)
        })
    }

    /// Matchers, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Matcher> {
        self.list.iter()
    }
}

impl Matcher {
    /// Name of the label.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Comparison operator.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The value or pattern to compare with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether the matcher accepts a value.
    #[inline]
    pub fn matches(&self, value: &[u8]) -> bool {
        let regex = || {
            self.regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(value))
        };
        match self.op {
            Op::Equal => value == self.value.as_bytes(),
            Op::NotEqual => value != self.value.as_bytes(),
            Op::Matches => regex(),
            Op::MatchesNot => !regex(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, reason: impl Into<String>) -> SelectorError {
        SelectorError {
            offset: self.pos,
            reason: reason.into(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.pos += rest.len() - trimmed.len();
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.pos += expected.len();
        }
        found
    }

    fn selector(&mut self) -> Result<Matchers, SelectorError> {
        let mut list = Vec::new();
        self.space();
        let start = self.pos;
        let mut named = false;
        if let Some(name) = self.identifier(true) {
            list.push(self.matcher(start, NAME, Op::Equal, name.into())?);
            named = true;
            self.space();
        }
        if self.eat("{") {
            self.braces(&mut list, named)?;
            self.space();
        } else if !named {
            return Err(self.error("expected a metric name or {"));
        }
        if !self.rest().is_empty() {
            return Err(self.error("selector ends here: remove what follows"));
        }
        Ok(Matchers { list: list.into() })
    }

    fn braces(&mut self, list: &mut Vec<Matcher>, mut named: bool) -> Result<(), SelectorError> {
        loop {
            self.space();
            if self.eat("}") {
                return Ok(());
            }
            if list.len() >= MAX_MATCHERS {
                return Err(self.error(format!("more than {MAX_MATCHERS} matchers")));
            }
            let start = self.pos;
            let (name, quoted) = match self.quoted()? {
                Some(name) => (name, true),
                None => match self.identifier(false) {
                    Some(name) => (name.to_owned(), false),
                    None => return Err(self.error("expected a label name or }")),
                },
            };
            self.space();
            let matcher = match self.operator() {
                Some(op) => {
                    self.space();
                    let at = self.pos;
                    let Some(value) = self.quoted()? else {
                        return Err(self.error("expected a value in quotes"));
                    };
                    if name.is_empty() {
                        self.pos = start;
                        return Err(self.error("label name is empty"));
                    }
                    self.matcher(at, &name, op, value)?
                }
                None if quoted => self.matcher(start, NAME, Op::Equal, name)?,
                None => return Err(self.error("expected =, !=, =~ or !~")),
            };
            if matcher.op == Op::Equal && matcher.name() == NAME {
                if named {
                    self.pos = start;
                    return Err(self.error("metric name is given twice: leave one"));
                }
                named = true;
            }
            list.push(matcher);
            self.space();
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(self.error("expected , or }"));
            }
        }
    }

    fn matcher(
        &self,
        at: usize,
        name: &str,
        op: Op,
        value: String,
    ) -> Result<Matcher, SelectorError> {
        let regex = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::MatchesNot => {
                let compiled = Regex::new(&value).map_err(|error| SelectorError {
                    offset: at,
                    reason: error.to_string(),
                })?;
                Some(compiled)
            }
        };
        Ok(Matcher {
            name: Name::new(name),
            op,
            value: value.into(),
            regex,
        })
    }

    fn operator(&mut self) -> Option<Op> {
        let ops = [
            ("=~", Op::Matches),
            ("!~", Op::MatchesNot),
            ("!=", Op::NotEqual),
            ("=", Op::Equal),
        ];
        ops.into_iter()
            .find_map(|(text, op)| self.eat(text).then_some(op))
    }

    /// Reads an unquoted name; only names of metrics may contain colons.
    fn identifier(&mut self, metric: bool) -> Option<&'a str> {
        let rest = self.rest();
        let first = |c: char| c == '_' || c.is_ascii_alphabetic() || metric && c == ':';
        if !rest.starts_with(first) {
            return None;
        }
        let end = rest.find(|c: char| !first(c) && !c.is_ascii_digit());
        let name = &rest[..end.unwrap_or(rest.len())];
        self.pos += name.len();
        Some(name)
    }

    /// Reads a string in quotes of any kind; None if the next character is not a quote.
    fn quoted(&mut self) -> Result<Option<String>, SelectorError> {
        let Some(quote @ ('"' | '\'' | '`')) = self.rest().chars().next() else {
            return Ok(None);
        };
        let start = self.pos;
        self.pos += 1;
        if quote == '`' {
            let Some(end) = self.rest().find('`') else {
                self.pos = start;
                return Err(self.error("text is not closed: add `"));
            };
            let text = self.rest()[..end].to_owned();
            self.pos += end + 1;
            return Ok(Some(text));
        }
        let mut bytes = Vec::new();
        loop {
            let Some(c) = self.rest().chars().next().filter(|&c| c != '\n') else {
                self.pos = start;
                return Err(self.error(format!("text is not closed: add {quote}")));
            };
            if c == '\\' {
                self.escape(quote, &mut bytes)?;
                continue;
            }
            self.pos += c.len_utf8();
            if c == quote {
                break;
            }
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        let text = String::from_utf8(bytes).map_err(|_| SelectorError {
            offset: start,
            reason: "text is not UTF-8: write characters rather than bytes".into(),
        })?;
        Ok(Some(text))
    }

    /// Reads an escape sequence of a Go string literal.
    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), SelectorError> {
        let rest = &self.rest()[1..];
        let unknown = || self.error("unknown escape: write \\\\ for a backslash");
        let c = rest.chars().next().ok_or_else(unknown)?;
        let (digits, radix) = match c {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => {
                bytes.push(match c {
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'v' => 11,
                    '\\' => b'\\',
                    '"' | '\'' if c == quote => c as u8,
                    _ => return Err(unknown()),
                });
                self.pos += 2;
                return Ok(());
            }
        };
        let skipped = usize::from(radix == 16);
        let text = rest.get(skipped..skipped + digits).ok_or_else(unknown)?;
        if !text.chars().all(|c| c.is_digit(radix)) {
            return Err(unknown());
        }
        let number = u32::from_str_radix(text, radix).map_err(|_| unknown())?;
        if digits >= 4 {
            let c = char::from_u32(number).ok_or_else(unknown)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            bytes.push(u8::try_from(number).map_err(|_| unknown())?);
        }
        self.pos += 1 + skipped + digits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, Op, String)> {
        let matchers = Matchers::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let parts = |m: &Matcher| (m.name().to_owned(), m.op(), m.value().to_owned());
        matchers.iter().map(parts).collect()
    }

    fn one(name: &str, op: Op, value: &str) -> (String, Op, String) {
        (name.into(), op, value.into())
    }

    #[test]
    fn selectors_are_read_as_prometheus_reads_them() {
        let up = one(NAME, Op::Equal, "up");
        let job = one("job", Op::Equal, "x");
        assert_eq!(parsed("up"), [one(NAME, Op::Equal, "up")]);
        assert_eq!(parsed(" up { } "), [one(NAME, Op::Equal, "up")]);
        assert_eq!(parsed("a:b:c"), [one(NAME, Op::Equal, "a:b:c")]);
        assert_eq!(parsed("{}"), []);
        assert_eq!(parsed(r#"up{job="x"}"#), [up.clone(), job.clone()]);
        assert_eq!(parsed(r#"{"up", job='x',}"#), [up.clone(), job.clone()]);
        assert_eq!(parsed("{job=`x`,\n\t'up'}"), [job.clone(), up]);
        assert_eq!(
            parsed(r#"{__name__=~"node_.*", tenant != "x", a!~"b|c" , "x.y"="z"}"#),
            [
                one(NAME, Op::Matches, "node_.*"),
                one("tenant", Op::NotEqual, "x"),
                one("a", Op::MatchesNot, "b|c"),
                one("x.y", Op::Equal, "z"),
            ]
        );
        assert_eq!(
            parsed(r#"{a="\x41\101\u00e9\U0001F600\n\\\""}"#)[0].2,
            "AAé😀\n\\\""
        );
        assert_eq!(parsed(r#"{a='"\''}"#)[0].2, "\"'");
        assert_eq!(parsed(r"{a=`\d`}")[0].2, r"\d");
        assert_eq!(parsed(r#"{sum="x"}"#)[0].0, "sum");
        assert_eq!(parsed(r#"{a="\xc3\xa9"}"#)[0].2, "é");
    }

    #[test]
    fn what_is_no_selector_is_refused_at_its_place() {
        for (text, offset) in [
            ("", 0),
            ("1", 0),
            ("up{", 3),
            ("up}", 2),
            ("up{job}", 6),
            ("{,}", 1),
            (r#"{a="b",,}"#, 7),
            (r#"{a="b" c="d"}"#, 7),
            ("{a=b}", 3),
            (r#"{a="b}"#, 3),
            ("{a=\"b\nc\"}", 3),
            ("{a=`b}", 3),
            (r#"{a="\d"}"#, 4),
            (r#"{a="\'"}"#, 4),
            (r#"{a="\x4"}"#, 4),
            (r#"{a="\400"}"#, 4),
            (r#"{a="\ud800"}"#, 4),
            (r#"{a="\xff"}"#, 3),
            (r#"{a=~"("}"#, 4),
            (r#"up{__name__="x"}"#, 3),
            (r#"{"a","b"}"#, 5),
            (r#"{""="b"}"#, 1),
            ("{a:b=\"c\"}", 2),
            ("up[5m]", 2),
            ("日", 0),
            ("{a=\"\\", 4),
        ] {
            let error = Matchers::parse(text).unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
        assert!(Matchers::parse(&format!("{{a=\"{}\"}}", "b".repeat(MAX_LEN))).is_err());
        assert!(Matchers::parse(&format!("{{{}}}", "a=\"b\",".repeat(257))).is_err());
    }

    #[test]
    fn a_label_that_is_missing_is_empty() {
        for (selector, empty, value) in [
            (r#"{a=""}"#, true, false),
            (r#"{a!=""}"#, false, true),
            (r#"{a=~".*"}"#, true, true),
            (r#"{a=~".+"}"#, false, true),
            (r#"{a!~"x.*"}"#, true, false),
        ] {
            let matchers = Matchers::parse(selector).unwrap();
            let matcher = matchers.iter().next().unwrap();
            assert_eq!(
                (matcher.matches(b""), matcher.matches(b"xy")),
                (empty, value)
            );
        }
    }
}
