//! Selectors: the name and the braces.

use super::{Parsed, Parser};
use crate::ast::{MatchOp, Matcher, Selector};
use crate::regex;
use crate::text::{Span, Text};
use crate::token::{Kind, Token};

const MATCHER: &str = " in label matching, expected identifier or \"}\"";
const OPERATOR: &str = " in label matching, expected label matching operator";
const VALUE: &str = " in label matching, expected string";
const END: &str = " in label matching, expected \",\" or \"}\"";

impl Parser<'_> {
    /// Parses a selector whose name has been consumed.
    pub(super) fn named_selector(&mut self, name: Token) -> Parsed<(Selector, Span)> {
        let text = Text::from(self.text(name));
        if self.peek()?.kind == Kind::LeftBrace {
            let (selector, span) = self.braces(Some(text))?;
            return Ok((selector, name.span.to(span)));
        }
        let selector = Selector {
            name: Some(text),
            ..Selector::default()
        };
        Ok((selector, name.span))
    }

    /// Parses matchers in braces.
    pub(super) fn braces(&mut self, name: Option<Text>) -> Parsed<(Selector, Span)> {
        let open = self.expect(Kind::LeftBrace)?;
        let mut matchers = Vec::new();
        let close = loop {
            let token = self.peek()?;
            if token.kind == Kind::RightBrace {
                break token;
            }
            self.count(token.span)?;
            matchers.push(self.matcher(token)?);
            let token = self.peek()?;
            match token.kind {
                Kind::Comma => self.bump(),
                Kind::RightBrace => break token,
                _ => return Err(self.unexpected_in(token, END)),
            }
        };
        self.bump();
        let selector = Selector {
            name,
            matchers,
            ..Selector::default()
        };
        Ok((selector, open.span.to(close.span)))
    }

    fn matcher(&mut self, label: Token) -> Parsed<Matcher> {
        let quoted = match label.kind {
            Kind::Identifier => false,
            Kind::String => true,
            _ => return Err(self.unexpected_in(label, MATCHER)),
        };
        self.bump();
        let name = match quoted {
            true => self.string(label),
            false => self.text(label).into(),
        };
        let operator = self.peek()?;
        let op = match operator.kind {
            Kind::Eql => MatchOp::Equal,
            Kind::NotEqual => MatchOp::NotEqual,
            Kind::EqlRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            // A lone string is the metric's name.
            _ if quoted => {
                return Ok(Matcher {
                    name: crate::ast::METRIC_NAME.into(),
                    op: MatchOp::Equal,
                    value: name,
                });
            }
            _ => return Err(self.unexpected_in(operator, OPERATOR)),
        };
        self.bump();
        let token = self.peek()?;
        if token.kind != Kind::String {
            return Err(self.unexpected_in(token, VALUE));
        }
        self.bump();
        let value = self.string(token);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            let valid = match value.to_str() {
                Some(pattern) => (self.options.validate_regex)(pattern),
                None if is_literal(value.as_bytes()) => Ok(()),
                None => Err(format!("error parsing regexp: invalid UTF-8: `{value}`")),
            };
            if let Err(message) = valid {
                return Err(self.syntax(label.span.to(token.span), message));
            }
        }
        Ok(Matcher { name, op, value })
    }
}

/// Whether a regular expression consists only of literal alternatives, which upstream does not
/// examine any further.
fn is_literal(pattern: &[u8]) -> bool {
    let is_syntax = |byte: &u8| *byte != b'|' && regex::SYNTAX.as_bytes().contains(byte);
    !pattern.iter().any(is_syntax)
}
