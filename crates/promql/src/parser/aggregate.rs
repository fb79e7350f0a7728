//! Aggregations, and the modifiers between a binary operator and its right operand.

use super::{Parsed, Parser};
use crate::ast::{Aggregate, AggregateOp, Cardinality, Grouping, Matching, NodeId, NodeKind};
use crate::function::ValueType;
use crate::names;
use crate::text::{Span, Text};
use crate::token::{Kind, Token};

const AGGREGATION: &str = " in aggregation";
const OPEN: &str = " in grouping opts, expected \"(\"";
const LABEL: &str = " in grouping opts, expected label";
const END: &str = " in grouping opts, expected \",\" or \")\"";

impl Parser<'_> {
    /// Parses an aggregation whose name has been consumed.
    pub(super) fn aggregate(&mut self, name: Token) -> Parsed<NodeId> {
        let outer = std::mem::replace(&mut self.context, AGGREGATION);
        let mut grouping = self.grouping()?.map(|(grouping, _)| grouping);
        let (first, mut close) = self.arguments()?;
        if grouping.is_none()
            && let Some((behind, end)) = self.grouping()?
        {
            grouping = Some(behind);
            close = end;
        }
        self.context = outer;
        let span = name.span.to(close);
        let op = aggregate_op(name.kind);
        let fail = |message: String| Err(self.syntax(span, message));
        let arguments = &self.arguments[first..];
        let (param, expr) = match *arguments {
            [] => return fail("no arguments for aggregate expression provided".to_owned()),
            _ if op.is_experimental() && !self.options.experimental_functions => {
                return fail(format!(
                    "{}() is experimental and must be enabled with \
                     --enable-feature=promql-experimental-functions",
                    op.as_str(),
                ));
            }
            [expr] if !op.has_param() => (None, expr),
            [param, expr] if op.has_param() => (Some(param), expr),
            _ => {
                return fail(format!(
                    "wrong number of arguments for aggregate expression provided, \
                     expected {}, got {}",
                    1 + usize::from(op.has_param()),
                    arguments.len(),
                ));
            }
        };
        self.arguments.truncate(first);
        let aggregate = Aggregate {
            op,
            // An empty `by ()` is the same as no grouping.
            grouping: grouping.filter(|it| it.without || !it.labels.is_empty()),
            param,
            expr,
        };
        self.add(span, ValueType::Vector, NodeKind::Aggregate(aggregate))
    }

    /// Parses `by` or `without` with labels, if present. Returns the span of the closing
    /// parenthesis, too.
    fn grouping(&mut self) -> Parsed<Option<(Grouping, Span)>> {
        let without = match self.peek()?.kind {
            Kind::By => false,
            Kind::Without => true,
            _ => return Ok(None),
        };
        self.bump();
        let (labels, close) = self.labels()?;
        Ok(Some((Grouping { without, labels }, close)))
    }

    /// Parses labels in parentheses. Returns the span of the closing one, too.
    fn labels(&mut self) -> Parsed<(Vec<Text>, Span)> {
        let open = self.peek()?;
        if open.kind != Kind::LeftParen {
            return Err(self.unexpected_in(open, OPEN));
        }
        self.bump();
        let mut labels = Vec::new();
        loop {
            let token = self.peek()?;
            if token.kind == Kind::RightParen {
                self.bump();
                return Ok((labels, token.span));
            }
            labels.push(self.grouping_label(token)?);
            let token = self.peek()?;
            match token.kind {
                Kind::Comma => self.bump(),
                Kind::RightParen => {}
                _ => return Err(self.unexpected_in(token, END)),
            }
        }
    }

    fn grouping_label(&mut self, token: Token) -> Parsed<Text> {
        self.count(token.span)?;
        let (label, valid) = if token.kind == Kind::String {
            self.bump();
            let label = self.string(token);
            let valid = !label.is_empty() && label.to_str().is_some();
            (label, valid)
        } else if token.kind.is_grouping_label() {
            self.bump();
            let word = self.text(token);
            // Without the feature, names with colons are accepted as before.
            let colons = !self.options.unquoted_names;
            let valid = colons || !names::needs_quotes(word.as_bytes(), true);
            (word.into(), valid)
        } else {
            return Err(self.unexpected_in(token, LABEL));
        };
        if !valid {
            let mut message = "invalid label name for grouping: ".to_owned();
            crate::go::quote(label.as_bytes(), &mut message);
            return Err(self.syntax(token.span, message));
        }
        Ok(label)
    }

    /// Parses `bool`, the matching and the filling behind a binary operator.
    pub(super) fn modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let return_bool = self.accept(Kind::Bool)?;
        let mut matching = Matching::default();
        let token = self.peek()?;
        if matches!(token.kind, Kind::On | Kind::Ignoring) {
            self.bump();
            matching.on = token.kind == Kind::On;
            (matching.labels, _) = self.labels()?;
            let token = self.peek()?;
            if matches!(token.kind, Kind::GroupLeft | Kind::GroupRight) {
                self.bump();
                matching.cardinality = match token.kind {
                    Kind::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                // Without labels, the right operand must follow directly.
                let next = self.peek()?.kind;
                if next == Kind::LeftParen || !next.starts_expression() {
                    (matching.include, _) = self.labels()?;
                }
            }
        }
        let fill = &mut matching.fill;
        match self.peek()?.kind {
            Kind::Fill => {
                self.bump();
                fill.left = Some(self.fill_value()?);
                fill.right = fill.left;
            }
            Kind::FillLeft => {
                self.bump();
                fill.left = Some(self.fill_value()?);
                if self.accept(Kind::FillRight)? {
                    fill.right = Some(self.fill_value()?);
                }
            }
            Kind::FillRight => {
                self.bump();
                fill.right = Some(self.fill_value()?);
                if self.accept(Kind::FillLeft)? {
                    fill.left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen)?;
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
        self.expect(Kind::RightParen)?;
        Ok(if minus { -value } else { value })
    }
}

fn aggregate_op(kind: Kind) -> AggregateOp {
    match kind {
        Kind::Avg => AggregateOp::Avg,
        Kind::Bottomk => AggregateOp::Bottomk,
        Kind::Count => AggregateOp::Count,
        Kind::CountValues => AggregateOp::CountValues,
        Kind::Group => AggregateOp::Group,
        Kind::LimitRatio => AggregateOp::LimitRatio,
        Kind::Limitk => AggregateOp::Limitk,
        Kind::Max => AggregateOp::Max,
        Kind::Min => AggregateOp::Min,
        Kind::Quantile => AggregateOp::Quantile,
        Kind::Stddev => AggregateOp::Stddev,
        Kind::Stdvar => AggregateOp::Stdvar,
        Kind::Topk => AggregateOp::Topk,
        _ => AggregateOp::Sum,
    }
}
