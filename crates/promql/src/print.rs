//! Printing: like upstream, or faithfully, so that the text parses to the same expression in every
//! case.

mod faithful;
mod selector;

use std::fmt;

use crate::ast::{
    Aggregate, At, Binary, Cardinality, Duration, DurationId, DurationKind, Expr, Grouping,
    Matching, NodeId, NodeKind, Number, Offset, RangeSelector, Subquery,
};
use crate::go;
use crate::names;
use crate::text::Text;

impl fmt::Display for Expr {
    /// Prints the expression on one line, as Prometheus does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Printer::new(self, false).print(self.root))
    }
}

impl Expr {
    /// Prints the expression on one line so that it parses to the same expression.
    ///
    /// The text is Prometheus' own but for a few rare expressions, which Prometheus itself would
    /// parse differently or refuse: offsets that begin with two signs, durations below a
    /// millisecond, strings with the replacement character, `info` with an empty selector.
    pub fn to_query(&self) -> String {
        Printer::new(self, true).print(self.root)
    }
}

/// A pending piece of output.
#[derive(Clone, Copy)]
enum Piece {
    Text(&'static str),
    Node(NodeId),
    Duration(DurationId),
    /// The brackets and modifiers of a subquery.
    SubqueryEnd(NodeId),
    /// The operator of a binary expression, with its modifiers.
    Operator(NodeId),
    /// The end of a node, to be recorded in `spans`.
    End(NodeId),
}

/// Prints without recursion.
pub(crate) struct Printer<'a> {
    expr: &'a Expr,
    faithful: bool,
    out: String,
    rest: Vec<Piece>,
    /// Ranges of the nodes' texts, if requested.
    spans: Option<Vec<(usize, usize)>>,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(expr: &'a Expr, faithful: bool) -> Self {
        Self {
            expr,
            faithful,
            out: String::with_capacity(64 + expr.nodes.len() * 16),
            rest: Vec::with_capacity(16),
            spans: None,
        }
    }

    fn print(mut self, root: NodeId) -> String {
        self.rest.push(Piece::Node(root));
        self.run();
        self.out
    }

    /// Prints the tree. Returns the range of each node's text, too.
    pub(crate) fn print_with_spans(mut self, root: NodeId) -> (String, Vec<(usize, usize)>) {
        self.spans = Some(vec![(0, 0); self.expr.nodes.len()]);
        self.rest.push(Piece::Node(root));
        self.run();
        (self.out, self.spans.unwrap_or_default())
    }

    fn run(&mut self) {
        while let Some(piece) = self.rest.pop() {
            match piece {
                Piece::Text(text) => self.out.push_str(text),
                Piece::Node(id) => self.node(id),
                Piece::Duration(id) => self.duration(id),
                Piece::SubqueryEnd(id) => {
                    if let NodeKind::Subquery(subquery) = &self.expr[id].kind {
                        self.subquery_end(subquery);
                    }
                }
                Piece::Operator(id) => {
                    if let NodeKind::Binary(binary) = &self.expr[id].kind {
                        self.out.push(' ');
                        self.operator(binary);
                        self.out.push(' ');
                    }
                }
                Piece::End(id) => {
                    if let Some(spans) = &mut self.spans {
                        spans[id.0 as usize].1 = self.out.len();
                    }
                }
            }
        }
    }

    /// Queues pieces to be printed next, in this order.
    fn next<const N: usize>(&mut self, pieces: [Piece; N]) {
        self.rest.extend(pieces.into_iter().rev());
    }

    fn node(&mut self, id: NodeId) {
        if let Some(spans) = &mut self.spans {
            spans[id.0 as usize].0 = self.out.len();
            self.rest.push(Piece::End(id));
        }
        let expr = self.expr;
        match &expr[id].kind {
            NodeKind::Aggregate(aggregate) => {
                self.aggregate_start(aggregate);
                self.out.push('(');
                self.next([Piece::Node(aggregate.expr), Piece::Text(")")]);
                if let Some(param) = aggregate.param {
                    self.next([Piece::Node(param), Piece::Text(", ")]);
                }
            }
            NodeKind::Binary(binary) => self.next([
                Piece::Node(binary.left),
                Piece::Operator(id),
                Piece::Node(binary.right),
            ]),
            NodeKind::Call(call) => {
                self.out.push_str(call.function.name);
                self.out.push('(');
                self.rest.push(Piece::Text(")"));
                for (at, argument) in call.arguments.iter().enumerate().rev() {
                    self.rest.push(Piece::Node(*argument));
                    if at > 0 {
                        self.rest.push(Piece::Text(", "));
                    }
                }
            }
            NodeKind::Number(number) => self.number(*number),
            NodeKind::Paren(inner) => {
                self.out.push('(');
                self.next([Piece::Node(*inner), Piece::Text(")")]);
            }
            NodeKind::Range(range) => self.range(range),
            NodeKind::Selector(selector) => {
                self.series(selector);
                self.times(selector, selector.extension, false);
            }
            NodeKind::String(text) => self.string(text),
            NodeKind::Subquery(subquery) => {
                self.next([Piece::Node(subquery.expr), Piece::SubqueryEnd(id)]);
            }
            NodeKind::Unary(sign, inner) => {
                self.out.push_str(sign.as_str());
                self.rest.push(Piece::Node(*inner));
            }
        }
    }

    /// Prints an aggregation up to its parenthesis.
    pub(crate) fn aggregate_start(&mut self, aggregate: &Aggregate) {
        self.out.push_str(aggregate.op.as_str());
        let Some(Grouping { without, labels }) = &aggregate.grouping else {
            return;
        };
        match (without, labels.is_empty()) {
            (true, _) => self.out.push_str(" without ("),
            (false, false) => self.out.push_str(" by ("),
            (false, true) => return,
        }
        self.labels(labels);
        self.out.push_str(") ");
    }

    fn labels(&mut self, labels: &[Text]) {
        for (at, label) in labels.iter().enumerate() {
            if at > 0 {
                self.out.push_str(", ");
            }
            self.label(label);
        }
    }

    fn label(&mut self, label: &Text) {
        match label.to_str() {
            Some(plain) if !names::needs_quotes(plain.as_bytes(), self.expr.unquoted_names) => {
                self.out.push_str(plain);
            }
            _ => self.string(label),
        }
    }

    /// Prints a binary operator with its modifiers.
    pub(crate) fn operator(&mut self, binary: &Binary) {
        self.out.push_str(binary.op.as_str());
        if binary.return_bool {
            self.out.push_str(" bool");
        }
        if let Some(matching) = &binary.matching {
            self.matching(matching);
        }
    }

    fn matching(&mut self, matching: &Matching) {
        let group = match matching.cardinality {
            Cardinality::ManyToOne => Some(" group_left ("),
            Cardinality::OneToMany => Some(" group_right ("),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !matching.labels.is_empty() || matching.on || group.is_some() {
            self.out
                .push_str(if matching.on { " on (" } else { " ignoring (" });
            self.labels(&matching.labels);
            self.out.push(')');
        }
        if let Some(group) = group {
            self.out.push_str(group);
            self.labels(&matching.include);
            self.out.push(')');
        }
        let (left, right) = (matching.fill.left, matching.fill.right);
        match (left, right) {
            (Some(left), Some(right)) if left == right => self.fill(" fill (", left),
            _ => {
                if let Some(left) = left {
                    self.fill(" fill_left (", left);
                }
                if let Some(right) = right {
                    self.fill(" fill_right (", right);
                }
            }
        }
    }

    fn fill(&mut self, start: &str, value: f64) {
        self.out.push_str(start);
        go::float_short(value, &mut self.out);
        self.out.push(')');
    }

    fn number(&mut self, number: Number) {
        if number.is_duration {
            self.seconds(number.value);
        } else {
            self.float(number.value);
        }
    }

    /// Prints a duration that was given in seconds.
    fn seconds(&mut self, value: f64) {
        if value < 0.0 {
            self.out.push('-');
        }
        go::duration(go::integer(value.abs() * 1e9), &mut self.out);
    }

    fn range(&mut self, range: &RangeSelector) {
        let NodeKind::Selector(selector) = &self.expr[range.selector].kind else {
            return;
        };
        let start = self.out.len();
        self.series(selector);
        if let Some(spans) = &mut self.spans {
            spans[range.selector.0 as usize] = (start, self.out.len());
        }
        self.out.push('[');
        self.length(range.range);
        self.out.push(']');
        self.times(selector, selector.extension, true);
    }

    /// Prints the brackets and modifiers of a subquery.
    pub(crate) fn subquery_end(&mut self, subquery: &Subquery) {
        self.out.push('[');
        self.length(subquery.range);
        self.out.push(':');
        if let Some(step) = subquery.step {
            self.length(step);
        }
        self.out.push(']');
        let late = self.faithful && matches!(subquery.offset, Offset::Computed(_));
        if late {
            self.offset(subquery.offset);
        }
        self.at(subquery.at);
        if !late {
            self.offset(subquery.offset);
        }
    }

    fn at(&mut self, at: Option<At>) {
        match at {
            None => {}
            Some(At::Start) => self.out.push_str(" @ start()"),
            Some(At::End) => self.out.push_str(" @ end()"),
            Some(At::Timestamp(milliseconds)) => {
                self.out.push_str(" @ ");
                go::float_fixed(milliseconds as f64 / 1000.0, 3, &mut self.out);
            }
        }
    }

    /// Prints the length of a range or step.
    fn length(&mut self, duration: Duration) {
        match duration {
            Duration::Fixed(nanoseconds) => self.nanoseconds(nanoseconds),
            Duration::Computed(id) => self.whole_duration(id),
        }
    }

    /// Prints a computed duration immediately.
    ///
    /// Pending pieces are set aside meanwhile.
    fn whole_duration(&mut self, id: DurationId) {
        let rest = std::mem::take(&mut self.rest);
        self.rest.push(Piece::Duration(id));
        self.run();
        self.rest = rest;
    }

    fn duration(&mut self, id: DurationId) {
        let node = &self.expr[id];
        if node.wrapped {
            self.out.push('(');
            self.rest.push(Piece::Text(")"));
        }
        match node.kind {
            DurationKind::Number { value, is_duration } => {
                self.number(Number { value, is_duration })
            }
            DurationKind::Step => self.out.push_str("step()"),
            DurationKind::Range => self.out.push_str("range()"),
            DurationKind::MinOf(first, second) => self.function("min_of(", first, second),
            DurationKind::MaxOf(first, second) => self.function("max_of(", first, second),
            DurationKind::Plus(inner) => self.rest.push(Piece::Duration(inner)),
            DurationKind::Minus(inner) => {
                self.out.push('-');
                self.rest.push(Piece::Duration(inner));
            }
            DurationKind::Binary(op, left, right) => self.next([
                Piece::Duration(left),
                Piece::Text(" "),
                Piece::Text(op.as_str()),
                Piece::Text(" "),
                Piece::Duration(right),
            ]),
        }
    }

    fn function(&mut self, start: &str, first: DurationId, second: DurationId) {
        self.out.push_str(start);
        self.next([
            Piece::Duration(first),
            Piece::Text(", "),
            Piece::Duration(second),
            Piece::Text(")"),
        ]);
    }
}
