//! Formatting over several lines, like upstream's `Prettify`: an expression that fits into a line
//! stays on one.

use crate::ast::{Expr, NodeId, NodeKind};
use crate::print::Printer;

/// Most bytes of a line, without its indentation.
const MAX_LINE: usize = 100;

/// Indentation of one level.
const INDENT: &str = "  ";

/// Level at which the indentation stops growing.
///
/// Upstream indents the first terms of a chain of operators most, so that the output grows with the
/// square of the input; this bounds it, far beyond what people can read.
const MAX_LEVEL: usize = 100;

impl Expr {
    /// Formats the expression like Prometheus' `promtool promql format`.
    pub fn format(&self) -> String {
        self.format_with(Printer::new(self, false))
    }

    /// Formats the expression so that it parses to the same expression, as [`Expr::to_query`]
    /// prints it.
    pub fn format_query(&self) -> String {
        self.format_with(Printer::new(self, true))
    }

    fn format_with(&self, printer: Printer<'_>) -> String {
        let (text, spans) = printer.print_with_spans(self.root);
        let mut formatter = Formatter {
            expr: self,
            text: &text,
            spans,
            out: String::with_capacity(text.len() * 2),
            rest: vec![Piece::Node(self.root, 0)],
            sign: false,
        };
        while let Some(piece) = formatter.rest.pop() {
            formatter.piece(piece);
        }
        formatter.out
    }
}

/// A pending piece of output.
#[derive(Clone, Copy)]
enum Piece {
    Node(NodeId, usize),
    Text(&'static str),
    Indent(usize),
    /// A range of bytes in the one-line text.
    Slice(usize, usize),
}

struct Formatter<'a> {
    expr: &'a Expr,
    /// The expression on one line.
    text: &'a str,
    /// Range of each node in `text`.
    spans: Vec<(usize, usize)>,
    out: String,
    rest: Vec<Piece>,
    /// Whether a sign was just written, after which nothing is indented.
    sign: bool,
}

impl Formatter<'_> {
    fn span(&self, id: NodeId) -> (usize, usize) {
        self.spans[id.0 as usize]
    }

    fn write(&mut self, text: &str) {
        self.out.push_str(text);
        self.sign = false;
    }

    fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Node(id, level) => self.node(id, level),
            Piece::Text(text) => self.write(text),
            Piece::Slice(start, end) => {
                let text = self.text;
                self.write(&text[start..end]);
            }
            Piece::Indent(_) if self.sign => {}
            Piece::Indent(level) => {
                for _ in 0..level.min(MAX_LEVEL) {
                    self.out.push_str(INDENT);
                }
            }
        }
    }

    /// Queues pieces to be written next, in this order.
    fn next<const N: usize>(&mut self, pieces: [Piece; N]) {
        self.rest.extend(pieces.into_iter().rev());
    }

    fn node(&mut self, id: NodeId, level: usize) {
        let (start, end) = self.span(id);
        let whole = Piece::Slice(start, end);
        let fits = end - start <= MAX_LINE;
        let indent = Piece::Indent(level);
        let close = [Piece::Text("\n"), indent, Piece::Text(")")];
        match &self.expr[id].kind {
            NodeKind::Unary(sign, inner) => {
                self.piece(indent);
                self.write(sign.as_str());
                self.sign = true;
                self.rest.push(Piece::Node(*inner, level));
            }
            NodeKind::Subquery(_) if fits => self.rest.push(whole),
            NodeKind::Subquery(subquery) => {
                let inner = subquery.expr;
                let (_, inner_end) = self.span(inner);
                self.next([Piece::Node(inner, level), Piece::Slice(inner_end, end)]);
            }
            NodeKind::Aggregate(aggregate) if !fits => {
                let first = aggregate.param.unwrap_or(aggregate.expr);
                let (first_start, _) = self.span(first);
                self.next(close);
                self.rest.push(Piece::Node(aggregate.expr, level + 1));
                if let Some(param) = aggregate.param {
                    self.next([Piece::Node(param, level + 1), Piece::Text(",\n")]);
                }
                self.next([indent, Piece::Slice(start, first_start), Piece::Text("\n")]);
            }
            NodeKind::Call(call) if !fits && !call.arguments.is_empty() => {
                let (first_start, _) = self.span(call.arguments[0]);
                self.next(close);
                for (at, argument) in call.arguments.iter().enumerate().rev() {
                    self.rest.push(Piece::Node(*argument, level + 1));
                    if at > 0 {
                        self.rest.push(Piece::Text(",\n"));
                    }
                }
                self.next([indent, Piece::Slice(start, first_start), Piece::Text("\n")]);
            }
            NodeKind::Paren(inner) if !fits => {
                self.next(close);
                self.next([indent, Piece::Text("(\n"), Piece::Node(*inner, level + 1)]);
            }
            NodeKind::Binary(binary) if !fits => {
                let (_, left_end) = self.span(binary.left);
                let (right_start, _) = self.span(binary.right);
                self.next([
                    Piece::Node(binary.left, level + 1),
                    Piece::Text("\n"),
                    indent,
                    // Between the spaces around the operator.
                    Piece::Slice(left_end + 1, right_start - 1),
                    Piece::Text("\n"),
                    Piece::Node(binary.right, level + 1),
                ]);
            }
            _ => self.next([indent, whole]),
        }
    }
}
