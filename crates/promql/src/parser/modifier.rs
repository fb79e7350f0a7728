//! Modifiers behind an expression: brackets, `offset`, `@`, `anchored`, `smoothed`.

use super::duration::{Part, nanoseconds};
use super::{Parsed, Parser};
use crate::ast::{
    At, Duration, Extension, NodeId, NodeKind, Offset, RangeSelector, Selector, Subquery,
};
use crate::error::ParseError;
use crate::function::ValueType;
use crate::go;
use crate::text::Span;
use crate::token::{Kind, Token};

const RANGE: &str = " in subquery or range selector, expected number, duration, step(), or range()";
const RANGE_END: &str = " in subquery or range, expected \":\" or \"]\"";
const STEP: &str = " in subquery selector, expected number, duration, step(), range(), or \"]\"";
const STEP_END: &str = " in subquery selector, expected \"]\"";
const OFFSET: &str = " in offset, expected number, duration, step(), or range()";
const AT: &str = " in @, expected timestamp";

/// Smallest number of seconds that overflows a 64-bit timestamp.
const MAX_TIMESTAMP: f64 = 9_223_372_036_854_775_808.0;

impl Parser<'_> {
    /// Parses a range or a subquery at its bracket.
    pub(super) fn brackets(&mut self, left: NodeId, open: Token) -> Parsed<NodeId> {
        self.bump();
        let outer = std::mem::replace(&mut self.context, RANGE);
        let range = self.positive_duration()?;
        let token = self.peek()?;
        let node = match token.kind {
            Kind::RightBracket => {
                self.bump();
                self.range(left, range, open.span.to(token.span))
            }
            Kind::Colon => {
                self.bump();
                self.context = STEP;
                let mut step = None;
                if self.peek()?.kind != Kind::RightBracket {
                    step = Some(self.positive_duration()?);
                }
                let close = self.peek()?;
                if close.kind != Kind::RightBracket {
                    return Err(self.unexpected_in(close, STEP_END));
                }
                self.bump();
                let subquery = Subquery {
                    expr: left,
                    range,
                    step,
                    offset: Offset::None,
                    at: None,
                };
                let span = self.span(left).to(close.span);
                self.add(span, ValueType::Matrix, NodeKind::Subquery(subquery))
            }
            _ => Err(self.unexpected_in(token, RANGE_END)),
        };
        self.context = outer;
        node
    }

    fn positive_duration(&mut self) -> Parsed<Duration> {
        match self.duration(0)? {
            Part::Node(id) => Ok(Duration::Computed(id)),
            Part::Number { value, span, .. } if value <= 0.0 => {
                Err(self.syntax(span, "duration must be greater than 0".to_owned()))
            }
            Part::Number { value, .. } => Ok(Duration::Fixed(nanoseconds(value))),
        }
    }

    fn range(&mut self, left: NodeId, range: Duration, brackets: Span) -> Parsed<NodeId> {
        let message = match &self.expr[left].kind {
            NodeKind::Selector(selector) if selector.offset != Offset::None => {
                "no offset modifiers allowed before range"
            }
            NodeKind::Selector(selector) if selector.at.is_some() => {
                "no @ modifiers allowed before range"
            }
            NodeKind::Selector(_) => {
                let span = self.span(left).to(brackets);
                let kind = NodeKind::Range(RangeSelector {
                    selector: left,
                    range,
                });
                return self.add(span, ValueType::Matrix, kind);
            }
            _ => "ranges only allowed for vector selectors",
        };
        Err(self.syntax(brackets, message.to_owned()))
    }

    /// The selector in a node: the node itself, or the operand of a range.
    fn selector_of(&mut self, id: NodeId) -> Option<&mut Selector> {
        let id = match &self.expr[id].kind {
            NodeKind::Range(range) => range.selector,
            _ => id,
        };
        match &mut self.expr.node_mut(id).kind {
            NodeKind::Selector(selector) => Some(selector),
            _ => None,
        }
    }

    /// The `offset` and `@` of a node that can have them.
    fn times_of(&mut self, id: NodeId) -> Option<(&mut Offset, &mut Option<At>)> {
        if let NodeKind::Subquery(_) = self.expr[id].kind {
            return match &mut self.expr.node_mut(id).kind {
                NodeKind::Subquery(subquery) => Some((&mut subquery.offset, &mut subquery.at)),
                _ => None,
            };
        }
        let selector = self.selector_of(id)?;
        Some((&mut selector.offset, &mut selector.at))
    }

    fn misplaced(&self, id: NodeId, what: &str) -> Box<ParseError> {
        let message = format!(
            "{what} modifier must be preceded by an instant vector selector or range vector \
             selector or a subquery",
        );
        self.syntax(self.span(id), message)
    }

    /// Parses `offset` and its duration.
    pub(super) fn offset(&mut self, id: NodeId) -> Parsed<()> {
        self.bump();
        let outer = std::mem::replace(&mut self.context, OFFSET);
        let part = self.offset_duration()?;
        self.context = outer;
        let (offset, end) = match part {
            Part::Node(node) => (Offset::Computed(node), self.expr[node].span),
            Part::Number { value, span, .. } => match nanoseconds(value) {
                0 => (Offset::None, span),
                nanoseconds => (Offset::Fixed(nanoseconds), span),
            },
        };
        match self.times_of(id) {
            None => return Err(self.misplaced(id, "offset")),
            Some((current @ Offset::None, _)) => *current = offset,
            Some(_) => {
                let message = "offset may not be set multiple times";
                return Err(self.syntax(self.span(id), message.to_owned()));
            }
        }
        let node = self.expr.node_mut(id);
        node.span = node.span.to(end);
        Ok(())
    }

    /// Parses `@` and its time.
    pub(super) fn at(&mut self, id: NodeId) -> Parsed<()> {
        self.bump();
        let outer = std::mem::replace(&mut self.context, AT);
        let token = self.peek()?;
        let (at, end) = match token.kind {
            Kind::Start | Kind::End => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let close = self.expect(Kind::RightParen)?;
                let at = match token.kind {
                    Kind::Start => At::Start,
                    _ => At::End,
                };
                (at, close.span)
            }
            _ => {
                let minus = self.accept(Kind::Sub)?;
                if !minus {
                    self.accept(Kind::Add)?;
                }
                let token = self.peek()?;
                if !matches!(token.kind, Kind::Number | Kind::Duration) {
                    return Err(self.unexpected(token));
                }
                self.bump();
                let value = self.number_or_duration(token)?;
                let seconds = if minus { -value } else { value };
                if seconds.is_nan() || seconds.abs() >= MAX_TIMESTAMP {
                    let mut message = "timestamp out of bounds for @ modifier: ".to_owned();
                    go::float_fixed(seconds, 6, &mut message);
                    return Err(self.syntax(self.span(id), message));
                }
                (
                    At::Timestamp(go::integer((seconds * 1000.0).round())),
                    token.span,
                )
            }
        };
        self.context = outer;
        match self.times_of(id) {
            None => return Err(self.misplaced(id, "@")),
            Some((_, current @ None)) => *current = Some(at),
            Some(_) => {
                let message = "@ <timestamp> may not be set multiple times";
                return Err(self.syntax(self.span(id), message.to_owned()));
            }
        }
        let node = self.expr.node_mut(id);
        node.span = node.span.to(end);
        Ok(())
    }

    /// Parses `anchored` or `smoothed`.
    pub(super) fn extension(&mut self, id: NodeId, word: Token) -> Parsed<()> {
        self.bump();
        let extension = match word.kind {
            Kind::Anchored => Extension::Anchored,
            _ => Extension::Smoothed,
        };
        let what = extension.as_str();
        let is_subquery = matches!(self.expr[id].kind, NodeKind::Subquery(_));
        let message = match self.selector_of(id) {
            Some(selector)
                if selector
                    .extension
                    .is_none_or(|current| current == extension) =>
            {
                selector.extension = Some(extension);
                let node = self.expr.node_mut(id);
                node.span = node.span.to(word.span);
                return Ok(());
            }
            Some(_) => "anchored and smoothed modifiers cannot be used together".to_owned(),
            None if is_subquery => format!("{what} modifier is not supported for subqueries"),
            None => format!("{what} modifier not implemented"),
        };
        Err(self.syntax(self.span(id), message))
    }
}
