//! The parser: recursive descent over the tokens. It checks in the order of upstream's grammar, so
//! that it reports the same first error.

mod aggregate;
mod duration;
mod literal;
mod modifier;
mod operator;
mod selector;
mod series;

pub use series::parse_series;

use crate::ast::{Call, Expr, NodeId, NodeKind, Number};
use crate::check;
use crate::error::{ErrorKind, ParseError};
use crate::function::{Function, ValueType};
use crate::go::quoted;
use crate::lexer::{Lexer, unquote};
use crate::options::Options;
use crate::text::{Span, Text};
use crate::token::{Kind, Token};

/// A result with a boxed error, which keeps the stack frames of the recursion small.
type Parsed<T> = Result<T, Box<ParseError>>;

/// Parses and checks an expression.
///
/// # Errors
///
/// Returns the first error that Prometheus would find, or an exceeded bound of `options`.
pub fn parse(input: &str, options: &Options) -> Result<Expr, ParseError> {
    expression(input, options).map_err(|error| *error)
}

fn expression(input: &str, options: &Options) -> Parsed<Expr> {
    let mut parser = Parser::new(input, options, false)?;
    if parser.peek()?.kind == Kind::Eof {
        let message = "no expression found in input".to_owned();
        return Err(parser.syntax(Span::default(), message));
    }
    let root = parser.expression(0)?;
    parser.end()?;
    let mut expr = parser.expr;
    expr.root = root;
    check::check(&mut expr, input)?;
    Ok(expr)
}

/// Parses a single selector, as in `match[]` of the HTTP API.
///
/// It may select every series, as Prometheus' parser allows here: see
/// [`Selector::is_restricted`](crate::Selector::is_restricted).
///
/// # Errors
///
/// Returns the first error that Prometheus would find, or an exceeded bound of `options`.
pub fn parse_selector(input: &str, options: &Options) -> Result<Expr, ParseError> {
    selector(input, options).map_err(|error| *error)
}

fn selector(input: &str, options: &Options) -> Parsed<Expr> {
    let mut parser = Parser::new(input, options, false)?;
    let token = parser.peek()?;
    let (selector, span) = if token.kind == Kind::LeftBrace {
        parser.braces(None)?
    } else if token.kind.is_metric_name() {
        parser.bump();
        parser.named_selector(token)?
    } else {
        return Err(parser.unexpected(token));
    };
    let root = parser.add(span, ValueType::Vector, NodeKind::Selector(selector))?;
    parser.end()?;
    parser.expr.root = root;
    Ok(parser.expr)
}

/// State of the parser, and the expression so far.
struct Parser<'a> {
    input: &'a str,
    options: &'a Options,
    lexer: Lexer<'a>,
    peeked: Option<Token>,
    /// Suffix of messages that tells where an unexpected token is.
    context: &'static str,
    depth: u32,
    parts: u32,
    /// Arguments of unfinished calls and aggregations, outermost first.
    arguments: Vec<NodeId>,
    expr: Expr,
}

impl<'a> Parser<'a> {
    fn new(input: &'a str, options: &'a Options, series: bool) -> Parsed<Self> {
        let most = options.max_length.min(u32::MAX as usize);
        if input.len() > most {
            let message = format!("expression is longer than {most} bytes: make it shorter");
            let span = Span::default();
            return Err(Box::new(ParseError::new(
                ErrorKind::Limit,
                input,
                span,
                message,
            )));
        }
        Ok(Self {
            input,
            options,
            lexer: Lexer::new(input, options.unquoted_names, series),
            peeked: None,
            context: "",
            depth: 0,
            parts: 0,
            arguments: Vec::new(),
            expr: Expr {
                // Most inputs have about one node per ten bytes.
                nodes: Vec::with_capacity((input.len() / 12 + 2).min(64)),
                durations: Vec::new(),
                root: NodeId(0),
                unquoted_names: options.unquoted_names,
            },
        })
    }

    // Tokens.

    #[inline]
    fn peek(&mut self) -> Parsed<Token> {
        match self.peeked {
            Some(token) => Ok(token),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Parsed<Token> {
        match self.lexer.next() {
            Ok(token) => {
                self.peeked = Some(token);
                Ok(token)
            }
            Err(error) => Err(self.syntax(error.span, error.message)),
        }
    }

    /// Consumes the peeked token.
    #[inline]
    fn bump(&mut self) {
        self.peeked = None;
    }

    /// Consumes the next token if it is of this kind.
    fn accept(&mut self, kind: Kind) -> Parsed<bool> {
        let accepted = self.peek()?.kind == kind;
        if accepted {
            self.bump();
        }
        Ok(accepted)
    }

    /// Consumes the next token, which must be of this kind.
    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        let token = self.peek()?;
        if token.kind != kind {
            return Err(self.unexpected(token));
        }
        self.bump();
        Ok(token)
    }

    fn end(&mut self) -> Parsed<()> {
        self.expect(Kind::Eof).map(drop)
    }

    fn text(&self, token: Token) -> &'a str {
        &self.input[token.span.range()]
    }

    // Errors.

    fn syntax(&self, span: Span, message: String) -> Box<ParseError> {
        Box::new(ParseError::new(
            ErrorKind::Syntax,
            self.input,
            span,
            message,
        ))
    }

    /// An error about a token in the current context.
    fn unexpected(&self, token: Token) -> Box<ParseError> {
        self.unexpected_in(token, self.context)
    }

    fn unexpected_in(&self, token: Token, context: &str) -> Box<ParseError> {
        let described = token.describe(self.text(token));
        self.syntax(token.span, format!("unexpected {described}{context}"))
    }

    fn limit(&self, span: Span, message: String) -> Box<ParseError> {
        Box::new(ParseError::new(ErrorKind::Limit, self.input, span, message))
    }

    // Bounds.

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth <= self.options.max_depth {
            return Ok(());
        }
        let span = self.peek()?.span;
        let most = self.options.max_depth;
        let message = format!("expression is nested deeper than {most} levels: record parts of it");
        Err(self.limit(span, message))
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Counts a part: a node, a matcher, a label, a value.
    fn count(&mut self, span: Span) -> Parsed<()> {
        self.parts += 1;
        if self.parts <= self.options.max_parts {
            return Ok(());
        }
        let most = self.options.max_parts;
        let message = format!("expression has more than {most} parts: record some of them");
        Err(self.limit(span, message))
    }

    fn add(&mut self, span: Span, value_type: ValueType, kind: NodeKind) -> Parsed<NodeId> {
        self.count(span)?;
        Ok(self.expr.push(span, value_type, kind))
    }

    fn span(&self, id: NodeId) -> Span {
        self.expr[id].span
    }

    // Expressions.

    /// Parses an expression of operators with a precedence of at least `least`.
    fn expression(&mut self, least: u8) -> Parsed<NodeId> {
        self.enter()?;
        let mut left = self.primary()?;
        loop {
            let token = self.peek()?;
            match token.kind {
                Kind::Offset => self.offset(left)?,
                Kind::At => self.at(left)?,
                Kind::Anchored | Kind::Smoothed => self.extension(left, token)?,
                Kind::LeftBracket => left = self.brackets(left, token)?,
                kind => match operator::binary(kind) {
                    Some(op) if op.precedence() >= least => left = self.binary(left, op)?,
                    _ => break,
                },
            }
        }
        self.leave();
        Ok(left)
    }

    fn primary(&mut self) -> Parsed<NodeId> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                self.bump();
                let value = self.number_or_duration(token)?;
                let number = Number {
                    value,
                    is_duration: token.kind == Kind::Duration,
                };
                self.add(token.span, ValueType::Scalar, NodeKind::Number(number))
            }
            Kind::String => {
                self.bump();
                let text = self.string(token);
                self.add(token.span, ValueType::String, NodeKind::String(text))
            }
            Kind::Add | Kind::Sub => self.unary(token),
            Kind::LeftParen => {
                self.bump();
                let inner = self.expression(0)?;
                let close = self.expect(Kind::RightParen)?;
                let value_type = self.expr[inner].value_type;
                self.add(
                    token.span.to(close.span),
                    value_type,
                    NodeKind::Paren(inner),
                )
            }
            Kind::LeftBrace => {
                let (selector, span) = self.braces(None)?;
                self.add(span, ValueType::Vector, NodeKind::Selector(selector))
            }
            kind if kind.is_metric_name() => {
                self.bump();
                self.named(token)
            }
            _ => Err(self.unexpected(token)),
        }
    }

    /// Parses a call, an aggregation or a selector, whose name has been consumed.
    fn named(&mut self, name: Token) -> Parsed<NodeId> {
        let next = self.peek()?.kind;
        if name.kind.is_aggregation() && matches!(next, Kind::By | Kind::Without | Kind::LeftParen)
        {
            return self.aggregate(name);
        }
        let callable = name.kind == Kind::Identifier || name.kind.is_preprocessor();
        if callable && next == Kind::LeftParen {
            return self.call(name);
        }
        let (selector, span) = self.named_selector(name)?;
        self.add(span, ValueType::Vector, NodeKind::Selector(selector))
    }

    fn call(&mut self, name: Token) -> Parsed<NodeId> {
        let (first, close) = self.arguments()?;
        let word = self.text(name);
        let Some(function) = Function::find(word, self.options.functions) else {
            let message = format!("unknown function with name {}", quoted(word));
            return Err(self.syntax(name.span, message));
        };
        if function.experimental && !self.options.experimental_functions {
            let message = format!("function {} is not enabled", quoted(word));
            return Err(self.syntax(name.span, message));
        }
        let call = Call {
            function,
            arguments: self.arguments[first..].to_vec(),
        };
        self.arguments.truncate(first);
        let span = name.span.to(close);
        self.add(span, function.result, NodeKind::Call(call))
    }

    /// Parses expressions in parentheses, and appends them to `arguments`. Returns the index of the
    /// first, and the span of the closing parenthesis. The caller removes them.
    fn arguments(&mut self) -> Parsed<(usize, Span)> {
        self.expect(Kind::LeftParen)?;
        let first = self.arguments.len();
        let mut token = self.peek()?;
        if token.kind != Kind::RightParen {
            loop {
                let argument = self.expression(0)?;
                self.arguments.push(argument);
                token = self.peek()?;
                if token.kind != Kind::Comma {
                    break;
                }
                self.bump();
                if !self.peek()?.kind.starts_expression() {
                    let message = "trailing commas not allowed in function call args";
                    return Err(self.syntax(token.span, message.to_owned()));
                }
            }
        }
        let close = self.expect(Kind::RightParen)?;
        Ok((first, close.span))
    }

    fn string(&self, token: Token) -> Text {
        unquote(self.text(token))
    }
}
