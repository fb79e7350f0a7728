//! Checks of types, arguments and matchers, in upstream's order and without recursion.

use std::collections::HashSet;

use crate::ast::{
    Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, METRIC_NAME, NodeId, NodeKind,
    Selector,
};
use crate::error::{ErrorKind, ParseError};
use crate::function::{ValueType, Variadic};
use crate::go::{quote, quoted};
use crate::text::Span;

/// A pending step of the check.
#[derive(Clone, Copy)]
enum Task {
    /// Check a node and everything below it.
    Node(NodeId),
    /// Check a node whose children have been checked.
    Checked(NodeId),
    /// Check the type of the aggregated expression, before the parameter is checked.
    Aggregated(NodeId),
    /// Check the type of an argument.
    Argument(NodeId, usize),
}

/// Checks an expression. Drops the matching of operations that do not match series.
pub(crate) fn check(expr: &mut Expr, input: &str) -> Result<(), ParseError> {
    let checker = Checker { input };
    let mut tasks = Vec::with_capacity(16);
    tasks.push(Task::Node(expr.root));
    while let Some(task) = tasks.pop() {
        match task {
            Task::Node(id) => checker.enter(expr, id, &mut tasks)?,
            Task::Checked(id) => checker.leave(expr, id)?,
            Task::Aggregated(id) => checker.aggregated(expr, id)?,
            Task::Argument(id, at) => checker.argument(expr, id, at)?,
        }
    }
    Ok(())
}

struct Checker<'a> {
    input: &'a str,
}

type Checked = Result<(), ParseError>;

impl Checker<'_> {
    fn fail(&self, span: Span, message: impl Into<String>) -> Checked {
        Err(ParseError::new(
            ErrorKind::Type,
            self.input,
            span,
            message.into(),
        ))
    }

    fn enter(&self, expr: &Expr, id: NodeId, tasks: &mut Vec<Task>) -> Checked {
        match &expr[id].kind {
            NodeKind::Number(_) | NodeKind::String(_) => {}
            NodeKind::Selector(selector) => self.selector(expr[id].span, selector)?,
            NodeKind::Paren(inner) => tasks.push(Task::Node(*inner)),
            NodeKind::Range(range) => tasks.push(Task::Node(range.selector)),
            NodeKind::Unary(_, inner) => tasks.extend([Task::Checked(id), Task::Node(*inner)]),
            NodeKind::Subquery(subquery) => {
                tasks.extend([Task::Checked(id), Task::Node(subquery.expr)]);
            }
            NodeKind::Binary(binary) => {
                let sides = [Task::Node(binary.right), Task::Node(binary.left)];
                tasks.push(Task::Checked(id));
                tasks.extend(sides);
            }
            NodeKind::Aggregate(aggregate) => {
                if let Some(param) = aggregate.param {
                    tasks.extend([Task::Checked(id), Task::Node(param)]);
                }
                tasks.extend([Task::Aggregated(id), Task::Node(aggregate.expr)]);
            }
            NodeKind::Call(call) => {
                self.call(expr, expr[id].span, call)?;
                for (at, argument) in call.arguments.iter().enumerate().rev() {
                    tasks.push(Task::Argument(id, at));
                    if !is_info_selector(expr, call, at) {
                        tasks.push(Task::Node(*argument));
                    }
                }
            }
        }
        Ok(())
    }

    fn leave(&self, expr: &mut Expr, id: NodeId) -> Checked {
        let span = expr[id].span;
        match &expr[id].kind {
            NodeKind::Unary(_, inner) => match expr[*inner].value_type {
                ValueType::Scalar | ValueType::Vector => Ok(()),
                other => {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant \
                         vector, got {}",
                        quoted(&other.to_string()),
                    );
                    self.fail(span, message)
                }
            },
            NodeKind::Subquery(subquery) => match expr[subquery.expr].value_type {
                ValueType::Vector => Ok(()),
                other => {
                    let other = other.as_str();
                    let message =
                        format!("subquery is only allowed on instant vector, got {other} instead",);
                    self.fail(span, message)
                }
            },
            NodeKind::Aggregate(aggregate) => self.parameter(expr, aggregate),
            NodeKind::Binary(binary) => {
                self.binary(expr, span, binary)?;
                let sides = [binary.left, binary.right].map(|side| expr[side].value_type);
                if let NodeKind::Binary(binary) = &mut expr.node_mut(id).kind {
                    settle(binary, sides == [ValueType::Vector; 2]);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn expect(
        &self,
        expr: &Expr,
        id: NodeId,
        wanted: ValueType,
        place: impl FnOnce() -> String,
    ) -> Checked {
        let found = expr[id].value_type;
        if found == wanted {
            return Ok(());
        }
        let place = place();
        self.fail(
            expr[id].span,
            format!("expected type {wanted} in {place}, got {found}"),
        )
    }

    fn aggregated(&self, expr: &Expr, id: NodeId) -> Checked {
        let NodeKind::Aggregate(aggregate) = &expr[id].kind else {
            return Ok(());
        };
        let place = || "aggregation expression".to_owned();
        self.expect(expr, aggregate.expr, ValueType::Vector, place)
    }

    fn parameter(&self, expr: &Expr, aggregate: &Aggregate) -> Checked {
        let Some(param) = aggregate.param else {
            return Ok(());
        };
        let wanted = match aggregate.op {
            AggregateOp::CountValues => ValueType::String,
            _ => ValueType::Scalar,
        };
        self.expect(expr, param, wanted, || "aggregation parameter".to_owned())
    }

    fn call(&self, expr: &Expr, span: Span, call: &Call) -> Checked {
        let function = call.function;
        let (count, types) = (call.arguments.len(), function.arguments.len());
        let (least, most) = match function.variadic {
            Variadic::No => (types, types),
            Variadic::UpTo(more) => (types - 1, types - 1 + usize::from(more)),
            Variadic::Any => (types - 1, usize::MAX),
        };
        if count < least || count > most {
            let wanted = match function.variadic {
                Variadic::No => format!("{types}"),
                _ if count < least => format!("at least {least}"),
                _ => format!("at most {most}"),
            };
            let name = quoted(function.name);
            let message = format!("expected {wanted} argument(s) in call to {name}, got {count}");
            return self.fail(span, message);
        }
        if function.name != "info" {
            return Ok(());
        }
        let Some(&selector) = call.arguments.get(1) else {
            return Ok(());
        };
        let node = &expr[selector];
        if node.value_type != ValueType::Vector {
            let (wanted, found) = (ValueType::Vector, node.value_type);
            let name = quoted(function.name);
            let message = format!("expected type {wanted} in call to function {name}, got {found}");
            return self.fail(span, message);
        }
        match &node.kind {
            NodeKind::Selector(selector) if selector.name.is_some() => {
                let message = "expected label selectors only, got vector selector instead";
                self.fail(node.span, message)
            }
            NodeKind::Selector(_) => Ok(()),
            _ => self.fail(node.span, "expected label selectors only"),
        }
    }

    fn argument(&self, expr: &Expr, id: NodeId, at: usize) -> Checked {
        let NodeKind::Call(call) = &expr[id].kind else {
            return Ok(());
        };
        // A repeated argument has the type of the last parameter.
        let types = call.function.arguments;
        let Some(&wanted) = types.get(at).or(types.last()) else {
            return Ok(());
        };
        let place = || format!("call to function {}", quoted(call.function.name));
        self.expect(expr, call.arguments[at], wanted, place)
    }

    fn selector(&self, span: Span, selector: &Selector) -> Checked {
        if let Some(name) = &selector.name {
            let mut names = selector.matchers.iter().filter(|m| m.name == METRIC_NAME);
            let Some(second) = names.next() else {
                return Ok(());
            };
            let mut message = "metric name must not be set twice: ".to_owned();
            quote(name.as_bytes(), &mut message);
            message.push_str(" or ");
            quote(second.value.as_bytes(), &mut message);
            return self.fail(span, message);
        }
        if selector.is_restricted() {
            return Ok(());
        }
        self.fail(
            span,
            "vector selector must contain at least one non-empty matcher",
        )
    }

    /// Bytes of a binary operator, which lie between its operands.
    fn operator(&self, expr: &Expr, binary: &Binary) -> Span {
        let bytes = self.input.as_bytes();
        let is_space = |at: u32| bytes.get(at as usize).is_some_and(u8::is_ascii_whitespace);
        let mut start = expr[binary.left].span.end;
        while is_space(start) {
            start += 1;
        }
        let mut end = expr[binary.right].span.start;
        while end > start && is_space(end - 1) {
            end -= 1;
        }
        Span::new(start, end)
    }

    fn binary(&self, expr: &Expr, span: Span, binary: &Binary) -> Checked {
        let op = binary.op;
        let operator = || self.operator(expr, binary);
        let [left, right] = [binary.left, binary.right].map(|side| expr[side].value_type);
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if binary.return_bool && !op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            return self.fail(operator(), message);
        }
        if op.is_comparison() && !binary.return_bool && scalars {
            let message = "comparisons between scalars must use BOOL modifier";
            return self.fail(operator(), message);
        }
        let matching = binary.matching.as_deref();
        if let Some(matching) = matching
            && matching.on
            && !matching.include.is_empty()
        {
            let included: HashSet<_> = matching.include.iter().collect();
            if let Some(label) = matching
                .labels
                .iter()
                .find(|label| included.contains(label))
            {
                let mut message = "label ".to_owned();
                quote(label.as_bytes(), &mut message);
                message.push_str(" must not occur in ON and GROUP clause at once");
                return self.fail(operator(), message);
            }
        }
        for (side, found) in [(binary.left, left), (binary.right, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.fail(expr[side].span, message);
            }
        }
        let vectors = left == ValueType::Vector && right == ValueType::Vector;
        if let Some(matching) = matching {
            let fills = matching.fill.left.is_some() || matching.fill.right.is_some();
            let groups = matching.cardinality != Cardinality::OneToOne;
            if !vectors && !matching.labels.is_empty() {
                let message = "vector matching only allowed between instant vectors";
                return self.fail(span, message);
            }
            if !vectors && fills {
                let message = "filling in missing series only allowed between instant vectors";
                return self.fail(span, message);
            }
            if vectors && op.is_set() && groups {
                let name = quoted(op.as_str());
                return self.fail(span, format!("no grouping allowed for {name} operation"));
            }
            if vectors && op.is_set() && fills {
                let message = "filling in missing series not allowed for set operators";
                return self.fail(span, message);
            }
        }
        if !vectors && op.is_set() {
            let name = quoted(op.as_str());
            let message = format!("set operator {name} not allowed in binary scalar expression");
            return self.fail(span, message);
        }
        Ok(())
    }
}

/// Whether an argument is the selector of an `info`, which may be empty.
fn is_info_selector(expr: &Expr, call: &Call, at: usize) -> bool {
    at == 1
        && call.function.name == "info"
        && matches!(expr[call.arguments[at]].kind, NodeKind::Selector(_))
}

/// Drops the matching of an operation that does not match series; set operators match many to many.
fn settle(binary: &mut Binary, vectors: bool) {
    if !vectors {
        binary.matching = None;
    } else if binary.op.is_set()
        && let Some(matching) = &mut binary.matching
    {
        matching.cardinality = Cardinality::ManyToMany;
    }
}
