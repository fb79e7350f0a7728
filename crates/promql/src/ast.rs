//! The tree of an expression: nodes in one list, children before their parents.
//!
//! Nodes refer to each other by index. A tree of any depth is dropped and copied without recursion,
//! and a search for all selectors walks the list and cannot miss one.

mod duration;
mod operator;
mod selector;

use std::ops::Index;

pub use duration::{Duration, DurationId, DurationKind, DurationNode, DurationOp, Offset};
pub use operator::{AggregateOp, BinaryOp, Cardinality, Fill, Grouping, Matching, Sign};
pub(crate) use selector::METRIC_NAME;
pub use selector::{At, Extension, MatchOp, Matcher, Selector};

use crate::function::{Function, ValueType};
use crate::text::{Span, Text};

/// A parsed and checked expression.
#[derive(Clone, Debug)]
pub struct Expr {
    pub(crate) nodes: Vec<Node>,
    pub(crate) durations: Vec<DurationNode>,
    pub(crate) root: NodeId,
    /// Whether names with dots and letters beyond ASCII are printed without quotes.
    pub(crate) unquoted_names: bool,
}

/// Index of a node in its expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(crate) u32);

/// A node of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Bytes of the input that the node was parsed from.
    pub span: Span,
    /// Type of the node's value.
    pub value_type: ValueType,
    /// Kind of the node, with its operands.
    pub kind: NodeKind,
}

/// Kinds of nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// `sum by (job) (up)`
    Aggregate(Aggregate),
    /// `a + on (job) b`
    Binary(Binary),
    /// `rate(x[5m])`
    Call(Call),
    /// `x[5m]`
    Range(RangeSelector),
    /// `1`, `5m`, `Inf`, with its sign
    Number(Number),
    /// `(up)`
    Paren(NodeId),
    /// `x`, `{job="a"}`
    Selector(Selector),
    /// `"text"`
    String(Text),
    /// `x[1h:5m]`
    Subquery(Subquery),
    /// `-up`
    Unary(Sign, NodeId),
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Aggregation operator.
    pub op: AggregateOp,
    /// Labels that group series; `None` aggregates all series into one.
    pub grouping: Option<Grouping>,
    /// The parameter, for aggregations that take one.
    pub param: Option<NodeId>,
    /// The aggregated expression.
    pub expr: NodeId,
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Whether a comparison yields 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Matching of series; only between two vectors.
    pub matching: Option<Box<Matching>>,
    /// Left operand.
    pub left: NodeId,
    /// Right operand.
    pub right: NodeId,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The called function.
    pub function: &'static Function,
    /// The arguments in their order.
    pub arguments: Vec<NodeId>,
}

/// A selector of a range of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSelector {
    /// The selector, with the modifiers behind the brackets.
    pub selector: NodeId,
    /// Length of the range.
    pub range: Duration,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// The value; for a duration, in seconds.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
}

/// A subquery: an expression that is evaluated at many times.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// The evaluated expression.
    pub expr: NodeId,
    /// Length of the range.
    pub range: Duration,
    /// Time between evaluations; `None` for the server's default.
    pub step: Option<Duration>,
    /// Offset of the evaluation into the past.
    pub offset: Offset,
    /// Fixed time of the evaluation, if one is given.
    pub at: Option<At>,
}

impl Index<NodeId> for Expr {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

impl Index<DurationId> for Expr {
    type Output = DurationNode;

    fn index(&self, id: DurationId) -> &DurationNode {
        &self.durations[id.0 as usize]
    }
}

impl Expr {
    /// The root of the tree.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// Type of the expression's value.
    pub fn value_type(&self) -> ValueType {
        self[self.root].value_type
    }

    /// All nodes, in an unspecified order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    /// All selectors written in the expression.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Selector(selector) => Some(selector),
            _ => None,
        })
    }

    /// All selectors written in the expression, for modification.
    pub fn selectors_mut(&mut self) -> impl Iterator<Item = &mut Selector> {
        self.nodes
            .iter_mut()
            .filter_map(|node| match &mut node.kind {
                NodeKind::Selector(selector) => Some(selector),
                _ => None,
            })
    }

    /// Calls of `info` without a selector, which read `target_info`.
    pub fn implicit_info(&self) -> impl Iterator<Item = NodeId> {
        self.nodes().filter_map(|(id, node)| match &node.kind {
            NodeKind::Call(call) if call.reads_target_info() => Some(id),
            _ => None,
        })
    }

    /// The children of a node in the order of the source text.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let (first, second, list): (_, _, &[NodeId]) = match &self[id].kind {
            NodeKind::Aggregate(aggregate) => (aggregate.param, Some(aggregate.expr), &[]),
            NodeKind::Binary(binary) => (Some(binary.left), Some(binary.right), &[]),
            NodeKind::Call(call) => (None, None, &call.arguments),
            NodeKind::Range(range) => (Some(range.selector), None, &[]),
            NodeKind::Paren(inner) | NodeKind::Unary(_, inner) => (Some(*inner), None, &[]),
            NodeKind::Subquery(subquery) => (Some(subquery.expr), None, &[]),
            NodeKind::Number(_) | NodeKind::Selector(_) | NodeKind::String(_) => (None, None, &[]),
        };
        first.into_iter().chain(second).chain(list.iter().copied())
    }

    /// Adds a node. Callers keep the number of nodes within the range of ids.
    pub(crate) fn push(&mut self, span: Span, value_type: ValueType, kind: NodeKind) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node {
            span,
            value_type,
            kind,
        });
        id
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(crate) fn duration_mut(&mut self, id: DurationId) -> &mut DurationNode {
        &mut self.durations[id.0 as usize]
    }
}

impl Call {
    /// Whether the call reads `target_info` implicitly.
    pub(crate) fn reads_target_info(&self) -> bool {
        self.function.name == "info" && self.arguments.len() == 1
    }
}
