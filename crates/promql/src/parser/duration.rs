//! Durations in brackets and behind `offset`, with their arithmetic.

use super::{Parsed, Parser};
use crate::ast::{DurationId, DurationKind, DurationNode, DurationOp};
use crate::go;
use crate::text::Span;
use crate::token::{Kind, Token};

/// Seconds beyond which a duration overflows 64 bits of nanoseconds.
const MAX_SECONDS: f64 = 9_223_372_036.854_776;

/// Precedence of `^`, the only operator that binds tighter than a sign.
const POWER: u8 = 3;

/// A part of a duration: a plain number, which becomes a node only as an operand, or a node.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Number {
        value: f64,
        is_duration: bool,
        span: Span,
    },
    Node(DurationId),
}

impl Part {
    fn is_zero(self) -> bool {
        matches!(self, Self::Number { value, .. } if value == 0.0)
    }
}

/// Converts seconds to nanoseconds, rounded like upstream.
pub(super) fn nanoseconds(seconds: f64) -> i64 {
    go::integer((seconds * 1e9).round())
}

impl Parser<'_> {
    /// Parses a duration of operators with a precedence of at least `least`.
    pub(super) fn duration(&mut self, least: u8) -> Parsed<Part> {
        self.enter()?;
        let left = self.duration_primary()?;
        let whole = self.duration_operators(left, least);
        self.leave();
        whole
    }

    /// Parses the duration behind `offset`.
    ///
    /// A number ends it, and so does a function, with or without a sign: operators can follow only
    /// a parenthesis or two signs at the start.
    pub(super) fn offset_duration(&mut self) -> Parsed<Part> {
        let token = self.peek()?;
        let sign = match token.kind {
            Kind::LeftParen => return self.duration(0),
            Kind::Add | Kind::Sub => token,
            _ => return self.duration_primary(),
        };
        self.bump();
        let next = self.peek()?;
        match next.kind {
            Kind::Number | Kind::Duration => {
                self.bump();
                let value = self.number_or_duration(next)?;
                self.signed(sign, number(value, next))
            }
            Kind::Step | Kind::Range | Kind::MinOf | Kind::MaxOf => {
                let inner = self.duration_primary()?;
                let inner = self.node_of(inner)?;
                let kind = match sign.kind {
                    Kind::Sub => DurationKind::Minus(inner),
                    _ => DurationKind::Plus(inner),
                };
                self.add_duration(sign.span.to(self.expr[inner].span), kind)
            }
            Kind::LeftParen => {
                let inner = self.duration_primary()?;
                self.signed(sign, inner)
            }
            _ => {
                let inner = self.duration(POWER)?;
                let left = self.signed(sign, inner)?;
                self.duration_operators(left, 0)
            }
        }
    }

    fn duration_operators(&mut self, mut left: Part, least: u8) -> Parsed<Part> {
        loop {
            let token = self.peek()?;
            let (op, tightness) = match token.kind {
                Kind::Add => (DurationOp::Add, 1),
                Kind::Sub => (DurationOp::Sub, 1),
                Kind::Mul => (DurationOp::Mul, 2),
                Kind::Div => (DurationOp::Div, 2),
                Kind::Mod => (DurationOp::Mod, 2),
                Kind::Pow => (DurationOp::Pow, POWER),
                _ => return Ok(left),
            };
            if tightness < least {
                return Ok(left);
            }
            self.bump();
            let right = self.duration(tightness + u8::from(op != DurationOp::Pow))?;
            if right.is_zero() && matches!(op, DurationOp::Div | DurationOp::Mod) {
                let what = if op == DurationOp::Div {
                    "division"
                } else {
                    "modulo"
                };
                return Err(self.syntax(token.span, format!("{what} by zero")));
            }
            let (first, second) = (self.node_of(left)?, self.node_of(right)?);
            let span = self.expr[first].span.to(self.expr[second].span);
            left = self.add_duration(span, DurationKind::Binary(op, first, second))?;
        }
    }

    fn duration_primary(&mut self) -> Parsed<Part> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                self.bump();
                let value = self.number_or_duration(token)?;
                if value.abs() > MAX_SECONDS {
                    return Err(self.out_of_range(token));
                }
                Ok(number(value, token))
            }
            Kind::Step | Kind::Range => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let close = self.expect(Kind::RightParen)?;
                let kind = match token.kind {
                    Kind::Step => DurationKind::Step,
                    _ => DurationKind::Range,
                };
                self.add_duration(token.span.to(close.span), kind)
            }
            Kind::MinOf | Kind::MaxOf => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let first = self.duration(0)?;
                self.expect(Kind::Comma)?;
                let second = self.duration(0)?;
                let close = self.expect(Kind::RightParen)?;
                let (first, second) = (self.node_of(first)?, self.node_of(second)?);
                let kind = match token.kind {
                    Kind::MinOf => DurationKind::MinOf(first, second),
                    _ => DurationKind::MaxOf(first, second),
                };
                self.add_duration(token.span.to(close.span), kind)
            }
            Kind::LeftParen => {
                self.bump();
                let inner = self.duration(0)?;
                let close = self.expect(Kind::RightParen)?;
                self.wrapped(inner, token.span.to(close.span))
            }
            Kind::Add | Kind::Sub => {
                self.bump();
                let inner = self.duration(POWER)?;
                self.signed(token, inner)
            }
            _ => Err(self.unexpected(token)),
        }
    }

    /// Wraps a part in parentheses.
    fn wrapped(&mut self, inner: Part, span: Span) -> Parsed<Part> {
        let part = match inner {
            Part::Number { .. } => {
                let inner = self.node_of(inner)?;
                self.add_duration(span, DurationKind::Plus(inner))?
            }
            node => node,
        };
        let id = self.node_of(part)?;
        let node = self.expr.duration_mut(id);
        node.wrapped = true;
        node.span = span;
        Ok(part)
    }

    /// Applies a sign to a part; a number absorbs it.
    fn signed(&mut self, sign: Token, inner: Part) -> Parsed<Part> {
        let minus = sign.kind == Kind::Sub;
        match inner {
            Part::Number {
                value,
                is_duration,
                span,
            } => {
                if value.abs() > MAX_SECONDS {
                    return Err(self.out_of_range(sign));
                }
                Ok(Part::Number {
                    value: if minus { -value } else { value },
                    is_duration,
                    span: sign.span.to(span),
                })
            }
            Part::Node(id) if minus => {
                let span = sign.span.to(self.expr[id].span);
                self.add_duration(span, DurationKind::Minus(id))
            }
            node => Ok(node),
        }
    }

    fn out_of_range(&self, token: Token) -> Box<crate::ParseError> {
        self.syntax(token.span, "duration out of range".to_owned())
    }

    pub(super) fn node_of(&mut self, part: Part) -> Parsed<DurationId> {
        match part {
            Part::Node(id) => Ok(id),
            Part::Number {
                value,
                is_duration,
                span,
            } => {
                let kind = DurationKind::Number { value, is_duration };
                self.push_duration(span, kind)
            }
        }
    }

    fn add_duration(&mut self, span: Span, kind: DurationKind) -> Parsed<Part> {
        self.push_duration(span, kind).map(Part::Node)
    }

    fn push_duration(&mut self, span: Span, kind: DurationKind) -> Parsed<DurationId> {
        self.count(span)?;
        // The options bound the count to 32 bits.
        let id = DurationId(self.expr.durations.len() as u32);
        self.expr.durations.push(DurationNode {
            span,
            kind,
            wrapped: false,
        });
        Ok(id)
    }
}

fn number(value: f64, token: Token) -> Part {
    Part::Number {
        value,
        is_duration: token.kind == Kind::Duration,
        span: token.span,
    }
}
