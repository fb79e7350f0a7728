//! Splits a text into tokens, with the boundaries of Go's lexer.

use super::{Span, TemplateError};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text outside `{{` and `}}`.
    Text,
    Left,
    Right,
    Space,
    Assign,
    Declare,
    Pipe,
    /// A character without a token of its own.
    Char,
    LeftParen,
    RightParen,
    Bool,
    CharConstant,
    Complex,
    Number,
    Field,
    Variable,
    Identifier,
    String,
    RawString,
    Dot,
    Nil,
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
    Eof,
}

/// A token and its position.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// The tokens of a text, and the error that ended them, if there was one.
pub(super) struct Tokens {
    pub(super) list: Vec<Token>,
    pub(super) error: Option<TemplateError>,
}

pub(super) fn lex(text: &str) -> Tokens {
    let mut lexer = Lexer {
        text,
        at: 0,
        parens: 0,
        list: Vec::new(),
    };
    let error = lexer.run().err();
    Tokens {
        list: lexer.list,
        error,
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    parens: usize,
    list: Vec<Token>,
}

type Done = Result<(), TemplateError>;

impl<'t> Lexer<'t> {
    fn run(&mut self) -> Done {
        while let Some(length) = self.rest().find("{{") {
            if length > 0 {
                self.emit(Kind::Text, self.at + length);
            }
            self.action()?;
        }
        if !self.rest().is_empty() {
            self.emit(Kind::Text, self.text.len());
        }
        self.emit(Kind::Eof, self.text.len());
        Ok(())
    }

    /// Reads a comment, or an action with its delimiters.
    fn action(&mut self) -> Done {
        let start = self.at;
        let marker = match &self.text.as_bytes()[start + 2..] {
            [b'-', blank, ..] if is_space(char::from(*blank)) => 2,
            _ => 0,
        };
        let inside = start + 2 + marker;
        if self.text[inside..].starts_with("/*") {
            return self.comment(inside);
        }
        self.emit(Kind::Left, inside);
        self.parens = 0;
        loop {
            if let Some(length) = self.right_delimiter() {
                if self.parens > 0 {
                    return Err(self.error("unclosed left paren: write `)` before `}}`"));
                }
                self.emit(Kind::Right, self.at + length);
                return Ok(());
            }
            self.token()?;
        }
    }

    fn comment(&mut self, start: usize) -> Done {
        let Some(length) = self.text[start + 2..].find("*/") else {
            return Err(self.error("unclosed comment: write `*/}}` behind it"));
        };
        self.at = start + 2 + length + 2;
        let Some(length) = self.right_delimiter() else {
            return Err(self.error("comment ends before `}}`: nothing may stand between"));
        };
        self.at += length;
        Ok(())
    }

    /// Length of `}}` including a trim marker, if the rest begins with it.
    fn right_delimiter(&self) -> Option<usize> {
        let rest = self.rest();
        match rest.as_bytes() {
            [b'}', b'}', ..] => Some(2),
            [blank, b'-', b'}', b'}', ..] if is_space(char::from(*blank)) => Some(4),
            _ => None,
        }
    }

    fn token(&mut self) -> Done {
        let start = self.at;
        let Some(c) = self.next() else {
            return Err(self.error_at(start, "unclosed action: write `}}` behind it"));
        };
        match c {
            c if is_space(c) => {
                while self.peek().is_some_and(is_space) {
                    // The last blank may belong to the trim marker of the delimiter.
                    if self.right_delimiter().is_some() {
                        break;
                    }
                    self.next();
                }
                self.emit_from(start, Kind::Space);
            }
            '=' => self.emit_from(start, Kind::Assign),
            ':' => {
                if self.next() != Some('=') {
                    return Err(self.error_at(start, "expected `:=`"));
                }
                self.emit_from(start, Kind::Declare);
            }
            '|' => self.emit_from(start, Kind::Pipe),
            '"' => self.quoted(start, '"', Kind::String, "quoted string")?,
            '\'' => self.quoted(start, '\'', Kind::CharConstant, "character constant")?,
            '`' => {
                let Some(length) = self.rest().find('`') else {
                    return Err(self.error_at(start, "unterminated raw quoted string"));
                };
                self.at += length + 1;
                self.emit_from(start, Kind::RawString);
            }
            '$' => self.name(start, Kind::Variable, Kind::Variable)?,
            '.' if !self.rest().starts_with(|c: char| c.is_ascii_digit())
                && !self.rest().is_empty() =>
            {
                self.name(start, Kind::Field, Kind::Dot)?;
            }
            '.' | '+' | '-' | '0'..='9' => {
                self.at = start;
                self.number(start)?;
            }
            c if is_alphanumeric(c) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.next();
                }
                self.expect_terminator()?;
                let kind = keyword(&self.text[start..self.at]);
                self.emit_from(start, kind);
            }
            '(' => {
                self.parens += 1;
                self.emit_from(start, Kind::LeftParen);
            }
            ')' => {
                if self.parens == 0 {
                    return Err(self.error_at(start, "unexpected right paren"));
                }
                self.parens -= 1;
                self.emit_from(start, Kind::RightParen);
            }
            ' '..='~' => self.emit_from(start, Kind::Char),
            c => {
                let message = format!("unrecognized character in action: {c:?}");
                return Err(self.error_at(start, message));
            }
        }
        Ok(())
    }

    /// Reads the rest of a variable or field after its first character; the token's kind is `bare` if
    /// nothing follows.
    fn name(&mut self, start: usize, kind: Kind, bare: Kind) -> Done {
        if self.at_terminator() {
            self.emit_from(start, bare);
            return Ok(());
        }
        while self.peek().is_some_and(is_alphanumeric) {
            self.next();
        }
        self.expect_terminator()?;
        self.emit_from(start, kind);
        Ok(())
    }

    fn quoted(&mut self, start: usize, quote: char, kind: Kind, what: &str) -> Done {
        loop {
            let read = match self.next() {
                Some('\\') => self.next().filter(|c| *c != '\n'),
                Some('\n') => None,
                Some(c) if c == quote => {
                    self.emit_from(start, kind);
                    return Ok(());
                }
                read => read,
            };
            if read.is_none() {
                return Err(self.error_at(start, format!("unterminated {what}")));
            }
        }
    }

    fn number(&mut self, start: usize) -> Done {
        let bad = |lexer: &Self| {
            let text = &lexer.text[start..lexer.at];
            lexer.error_at(start, format!("bad number syntax: {text:?}"))
        };
        if !self.scan_number() {
            return Err(bad(self));
        }
        if !matches!(self.peek(), Some('+' | '-')) {
            self.emit_from(start, Kind::Number);
            return Ok(());
        }
        if !self.scan_number() || !self.text[..self.at].ends_with('i') {
            return Err(bad(self));
        }
        self.emit_from(start, Kind::Complex);
        Ok(())
    }

    /// Reads the characters of a number, whose validity is checked later.
    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_all(digits);
        if self.accept(".") {
            self.accept_all(digits);
        }
        let exponent = match digits.len() {
            11 => "eE",
            23 => "pP",
            _ => "",
        };
        if self.accept(exponent) {
            self.accept("+-");
            self.accept_all("0123456789_");
        }
        self.accept("i");
        match self.peek() {
            Some(c) if is_alphanumeric(c) => {
                self.next();
                false
            }
            _ => true,
        }
    }

    fn accept(&mut self, valid: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| valid.contains(c));
        if accepted {
            self.next();
        }
        accepted
    }

    fn accept_all(&mut self, valid: &str) {
        while self.accept(valid) {}
    }

    /// Whether the next character may follow a name.
    fn at_terminator(&self) -> bool {
        let next = self.peek();
        next.is_none_or(|c| is_space(c) || ".,|:()".contains(c)) || self.rest().starts_with("}}")
    }

    fn expect_terminator(&self) -> Done {
        match self.peek() {
            Some(c) if !self.at_terminator() => Err(self.error(format!("bad character {c:?}"))),
            _ => Ok(()),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Emits the text up to `end` as a token, and advances there.
    fn emit(&mut self, kind: Kind, end: usize) {
        let span = self.at..end;
        self.at = end;
        self.list.push(Token { kind, span });
    }

    fn emit_from(&mut self, start: usize, kind: Kind) {
        let span = start..self.at;
        self.list.push(Token { kind, span });
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, offset: usize, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.text, offset, message)
    }
}

fn keyword(word: &str) -> Kind {
    match word {
        "block" => Kind::Block,
        "break" => Kind::Break,
        "continue" => Kind::Continue,
        "define" => Kind::Define,
        "else" => Kind::Else,
        "end" => Kind::End,
        "false" | "true" => Kind::Bool,
        "if" => Kind::If,
        "nil" => Kind::Nil,
        "range" => Kind::Range,
        "template" => Kind::Template,
        "with" => Kind::With,
        _ => Kind::Identifier,
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether a character can be part of a name. Beyond ASCII, Go allows letters and decimal digits.
fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
