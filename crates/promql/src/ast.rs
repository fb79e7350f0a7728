//! The tree of an expression: nodes in one list, children before their parents.
//!
//! Nodes name each other by number. So a tree is dropped and copied without recursion however
//! deep it is, and whoever looks for all selectors walks the list and cannot miss one.

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

/// An expression that has been parsed and checked.
#[derive(Clone, Debug)]
pub struct Expr {
    pub(crate) nodes: Vec<Node>,
    pub(crate) durations: Vec<DurationNode>,
    pub(crate) root: NodeId,
    /// Whether names with dots and letters beyond ASCII are printed without quotes.
    pub(crate) unquoted_names: bool,
}

/// The number of a node in its expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(crate) u32);

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands in the input.
    pub span: Span,
    /// What it evaluates to.
    pub value_type: ValueType,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
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
    /// How samples are aggregated.
    pub op: AggregateOp,
    /// Which series go together; without it, all.
    pub grouping: Option<Grouping>,
    /// The parameter of those aggregations that have one.
    pub param: Option<NodeId>,
    /// What is aggregated.
    pub expr: NodeId,
}

/// An operator between two expressions.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Whether a comparison answers 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Which series meet; only between two vectors.
    pub matching: Option<Box<Matching>>,
    /// What stands before the operator.
    pub left: NodeId,
    /// What stands behind it.
    pub right: NodeId,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments.
    pub arguments: Vec<NodeId>,
}

/// A selector of ranges of samples.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSelector {
    /// The selector, with the modifiers that stand behind the brackets.
    pub selector: NodeId,
    /// The length of a range.
    pub range: Duration,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// Its value; of a duration, in seconds.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
}

/// An expression that is evaluated at many times.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: NodeId,
    /// The length of the range.
    pub range: Duration,
    /// The time between evaluations; without it, the server's default.
    pub step: Option<Duration>,
    /// How far back it is evaluated.
    pub offset: Offset,
    /// The time that it is evaluated for, if that is fixed.
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
    /// The node that all others are below.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// What the expression evaluates to.
    pub fn value_type(&self) -> ValueType {
        self[self.root].value_type
    }

    /// All nodes, in no order that has a meaning.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    /// All selectors that are written in the expression.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Selector(selector) => Some(selector),
            _ => None,
        })
    }

    /// All selectors that are written in the expression, to change them.
    pub fn selectors_mut(&mut self) -> impl Iterator<Item = &mut Selector> {
        self.nodes
            .iter_mut()
            .filter_map(|node| match &mut node.kind {
                NodeKind::Selector(selector) => Some(selector),
                _ => None,
            })
    }

    /// The calls of `info` that name no series and therefore read `target_info`.
    pub fn implicit_info(&self) -> impl Iterator<Item = NodeId> {
        self.nodes().filter_map(|(id, node)| match &node.kind {
            NodeKind::Call(call) if call.reads_target_info() => Some(id),
            _ => None,
        })
    }

    /// The children of a node, in the order in which they are written.
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

    /// Adds a node; callers keep the number of nodes below that of ids.
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
    /// Whether the call reads `target_info` without saying so.
    pub(crate) fn reads_target_info(&self) -> bool {
        self.function.name == "info" && self.arguments.len() == 1
    }
}
