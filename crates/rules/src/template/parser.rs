//! Parses tokens to pipelines, with Go's grammar and errors.

use std::collections::HashMap;

use super::lexer::{Kind, Token, Tokens, lex};
use super::literal::{check_number, is_char, is_complex, unquote};
use super::{MAX_DEPTH, Span, TemplateError, VARIABLES, is_function, nearest_function};

/// A chain of commands, each of which gets the result of the one before as its last argument.
#[derive(Clone, Debug)]
pub(super) struct Pipeline<'t> {
    /// Variables that the pipeline declares or assigns.
    pub(super) binds: Vec<&'t str>,
    /// Whether the variables hold the pipeline's value for good: they are declared, and not by a loop.
    pub(super) binds_value: bool,
    pub(super) commands: Vec<Command<'t>>,
}

/// Operands; the first can be a function, with the others as its arguments.
#[derive(Clone, Debug, Default)]
pub(super) struct Command<'t> {
    pub(super) operands: Vec<Operand<'t>>,
}

/// An operand of a command.
#[derive(Clone, Debug)]
pub(super) struct Operand<'t> {
    pub(super) span: Span,
    pub(super) term: Term<'t>,
    /// Whether fields of the operand are selected.
    pub(super) has_fields: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Term<'t> {
    Function(&'t str),
    Variable(&'t str),
    Field,
    /// A string, which need not be UTF-8.
    Text(Vec<u8>),
    /// A number, `true`, `false`, `nil` or the dot.
    Constant,
    Nested(Pipeline<'t>),
}

pub(super) fn parse<'t>(text: &'t str, name: &str) -> Result<Vec<Pipeline<'t>>> {
    let mut parser = Parser {
        text,
        tokens: lex(text),
        at: 0,
        scope: Scope::new(VARIABLES.to_vec()),
        depth: 0,
        defined: HashMap::new(),
        pipelines: Vec::new(),
    };
    parser.document()?;
    // The template itself counts as non-empty, because of the variables that Prometheus declares in it.
    parser.define(name.as_bytes().to_vec(), true, text.len())?;
    Ok(parser.pipelines)
}

/// Visible variables, and the depth of enclosing loops.
struct Scope<'t> {
    variables: Vec<&'t str>,
    loops: usize,
}

impl<'t> Scope<'t> {
    fn new(variables: Vec<&'t str>) -> Self {
        Self {
            variables,
            loops: 0,
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Tokens,
    at: usize,
    scope: Scope<'t>,
    depth: usize,
    /// Defined templates by name, and whether each has content.
    defined: HashMap<Vec<u8>, bool>,
    pipelines: Vec<Pipeline<'t>>,
}

/// Terminator of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    End,
    /// `else`. A following `if` or `with` begins the alternative.
    Else,
}

/// An item of a list.
enum Item {
    /// Text of only blanks.
    Blank,
    Something,
    Ends(End),
}

type Result<T> = std::result::Result<T, TemplateError>;

impl<'t> Parser<'t> {
    fn document(&mut self) -> Result<()> {
        while self.peek()?.kind != Kind::Eof {
            if self.peek()?.kind == Kind::Left {
                let before = self.at;
                self.next()?;
                if self.next_word()?.kind == Kind::Define {
                    self.definition()?;
                    continue;
                }
                self.at = before;
            }
            let at = self.peek()?.span.start;
            match self.item()? {
                Item::Ends(End::End) => return Err(self.error(at, "unexpected {{end}}")),
                Item::Ends(End::Else) => return Err(self.error(at, "unexpected {{else}}")),
                Item::Blank | Item::Something => {}
            }
        }
        Ok(())
    }

    fn definition(&mut self) -> Result<()> {
        let at = self.peek()?.span.start;
        let name = self.template_name("define clause")?;
        self.expect(Kind::Right, "define clause")?;
        let is_something = self.own_scope("define clause")?;
        self.define(name, is_something, at)
    }

    /// Parses the body of a nested template, up to its end. Returns whether it has content.
    fn own_scope(&mut self, context: &str) -> Result<bool> {
        let outer = std::mem::replace(&mut self.scope, Scope::new(vec!["$"]));
        let (is_something, end) = self.list()?;
        self.scope = outer;
        if end == End::Else {
            return Err(self.error(
                self.offset(),
                format!("unexpected {{{{else}}}} in {context}"),
            ));
        }
        Ok(is_something)
    }

    fn define(&mut self, name: Vec<u8>, is_something: bool, at: usize) -> Result<()> {
        let known = self.defined.get(&name).copied().unwrap_or(false);
        if known && is_something {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(self.error(at, format!("multiple definition of template {name:?}")));
        }
        if !known {
            self.defined.insert(name, is_something);
        }
        Ok(())
    }

    /// Parses text and actions up to `end` or `else`. Returns whether there is content, and the
    /// terminator.
    fn list(&mut self) -> Result<(bool, End)> {
        self.deeper()?;
        let mut is_something = false;
        while self.peek_word()?.kind != Kind::Eof {
            match self.item()? {
                Item::Blank => {}
                Item::Something => is_something = true,
                Item::Ends(end) => {
                    self.depth -= 1;
                    return Ok((is_something, end));
                }
            }
        }
        let message = "unexpected end of the template: write {{end}} for each if, with, range, define and block";
        Err(self.error(self.text.len(), message))
    }

    fn item(&mut self) -> Result<Item> {
        let token = self.next_word()?;
        match token.kind {
            Kind::Text => Ok(match self.text[token.span].trim().is_empty() {
                true => Item::Blank,
                false => Item::Something,
            }),
            Kind::Left => self.action(),
            _ => Err(self.unexpected(&token, "input")),
        }
    }

    fn action(&mut self) -> Result<Item> {
        let before = self.at;
        let token = self.next_word()?;
        match token.kind {
            Kind::Block => self.block()?,
            Kind::Break | Kind::Continue => {
                let what = self.source(&token);
                let end = self.next_word()?;
                if end.kind != Kind::Right {
                    return Err(self.unexpected(&end, &format!("{{{{{what}}}}}")));
                }
                if self.scope.loops == 0 {
                    let message = format!("{{{{{what}}}}} outside {{{{range}}}}");
                    return Err(self.error(token.span.start, message));
                }
            }
            Kind::Else => {
                let next = self.peek_word()?.kind;
                if !matches!(next, Kind::If | Kind::With) {
                    self.expect(Kind::Right, "else")?;
                }
                return Ok(Item::Ends(End::Else));
            }
            Kind::End => {
                self.expect(Kind::Right, "end")?;
                return Ok(Item::Ends(End::End));
            }
            Kind::If | Kind::Range | Kind::With => self.control(token.kind)?,
            Kind::Template => {
                self.template_name("template clause")?;
                if self.peek_word()?.kind == Kind::Right {
                    self.next_word()?;
                } else {
                    self.top_pipeline("template clause")?;
                }
            }
            _ => {
                self.at = before;
                self.top_pipeline("command")?;
            }
        }
        Ok(Item::Something)
    }

    fn block(&mut self) -> Result<()> {
        let at = self.offset();
        let name = self.template_name("block clause")?;
        self.top_pipeline("block clause")?;
        let is_something = self.own_scope("block clause")?;
        self.define(name, is_something, at)
    }

    /// Parses the rest of `if`, `range` or `with`, after the keyword.
    fn control(&mut self, kind: Kind) -> Result<()> {
        self.deeper()?;
        let variables = self.scope.variables.len();
        let context = match kind {
            Kind::If => "if",
            Kind::Range => "range",
            _ => "with",
        };
        self.top_pipeline(context)?;
        let loops = usize::from(kind == Kind::Range);
        self.scope.loops += loops;
        let (_, end) = self.list()?;
        self.scope.loops -= loops;
        if end == End::Else {
            let next = self.peek()?.kind;
            if next == kind && kind != Kind::Range {
                self.next()?;
                self.control(kind)?;
            } else {
                let (_, end) = self.list()?;
                if end == End::Else {
                    let message = "expected {{end}}, found a second {{else}}";
                    return Err(self.error(self.offset(), message));
                }
            }
        }
        self.scope.variables.truncate(variables);
        self.depth -= 1;
        Ok(())
    }

    fn template_name(&mut self, context: &str) -> Result<Vec<u8>> {
        let token = self.next_word()?;
        match token.kind {
            Kind::String | Kind::RawString => self.string(&token),
            _ => Err(self.unexpected(&token, context)),
        }
    }

    /// Parses the pipeline of an action, up to the action's end.
    fn top_pipeline(&mut self, context: &str) -> Result<()> {
        let pipeline = self.pipeline(context, Kind::Right)?;
        self.pipelines.push(pipeline);
        Ok(())
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipeline<'t>> {
        let start = self.peek_word()?.span.start;
        let (binds, declares) = self.bindings(context)?;
        let mut commands: Vec<Command<'t>> = Vec::new();
        loop {
            let before = self.at;
            let token = self.next_word()?;
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.at = before;
                    commands.push(self.command()?);
                }
                _ => return Err(self.unexpected(&token, context)),
            }
        }
        if commands.is_empty() {
            return Err(self.error(start, format!("missing value for {context}")));
        }
        for (stage, command) in commands.iter().enumerate().skip(1) {
            let first = command.operands.first();
            let is_constant = |operand: &&Operand<'_>| {
                matches!(operand.term, Term::Constant | Term::Text(_)) && !operand.has_fields
            };
            if let Some(operand) = first.filter(is_constant) {
                let message = format!("non executable command in pipeline stage {}", stage + 1);
                return Err(self.error(operand.span.start, message));
            }
        }
        Ok(Pipeline {
            binds_value: declares && context != "range",
            binds,
            commands,
        })
    }

    /// Parses the variables in front of `:=` or `=`; returns them, and whether the operator was `:=`.
    fn bindings(&mut self, context: &str) -> Result<(Vec<&'t str>, bool)> {
        let mut binds = Vec::new();
        loop {
            if self.peek_word()?.kind != Kind::Variable {
                return Ok((binds, false));
            }
            let before = self.at;
            let token = self.next_word()?;
            let name = self.source(&token);
            let next = self.next_word()?;
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    binds.push(name);
                    self.scope.variables.push(name);
                    return Ok((binds, next.kind == Kind::Declare));
                }
                Kind::Char if self.source(&next) == "," => {
                    binds.push(name);
                    self.scope.variables.push(name);
                    if context != "range" || binds.len() >= 2 {
                        let message = format!("too many declarations in {context}");
                        return Err(self.error(next.span.start, message));
                    }
                    let follows = self.peek_word()?.clone();
                    if !matches!(
                        follows.kind,
                        Kind::Variable | Kind::Right | Kind::RightParen
                    ) {
                        let message = "range can only initialize variables";
                        return Err(self.error(follows.span.start, message));
                    }
                }
                _ => {
                    self.at = before;
                    return Ok((binds, false));
                }
            }
        }
    }

    fn command(&mut self) -> Result<Command<'t>> {
        let mut command = Command::default();
        let start = self.peek_word()?.span.start;
        loop {
            self.skip_space()?;
            command.operands.extend(self.operand()?);
            let before = self.at;
            let token = self.next()?;
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::RightParen => self.at = before,
                Kind::Pipe => {}
                _ => return Err(self.unexpected(&token, "operand")),
            }
            break;
        }
        match command.operands.is_empty() {
            true => Err(self.error(start, "empty command")),
            false => Ok(command),
        }
    }

    fn operand(&mut self) -> Result<Option<Operand<'t>>> {
        let Some((span, term)) = self.term()? else {
            return Ok(None);
        };
        let mut has_fields = false;
        while self.peek()?.kind == Kind::Field {
            let field = self.next()?;
            if matches!(term, Term::Constant | Term::Text(_)) {
                let message = "unexpected . behind a constant";
                return Err(self.error(field.span.start, message));
            }
            has_fields = true;
        }
        Ok(Some(Operand {
            span,
            term,
            has_fields,
        }))
    }

    fn term(&mut self) -> Result<Option<(Span, Term<'t>)>> {
        let before = self.at;
        let token = self.next_word()?;
        let source = self.source(&token);
        let term = match token.kind {
            Kind::Identifier if is_function(source) => Term::Function(source),
            Kind::Identifier => {
                let help = match nearest_function(source) {
                    Some(name) => format!(": did you mean `{name}`?"),
                    None => String::new(),
                };
                let message = format!("function {source:?} not defined{help}");
                return Err(self.error(token.span.start, message));
            }
            Kind::Variable if self.scope.variables.contains(&source) => Term::Variable(source),
            Kind::Variable => {
                let message = format!("undefined variable {source:?}");
                return Err(self.error(token.span.start, message));
            }
            Kind::Field => Term::Field,
            Kind::Dot | Kind::Nil | Kind::Bool => Term::Constant,
            Kind::CharConstant | Kind::Complex | Kind::Number => {
                let sound = match token.kind {
                    Kind::CharConstant if is_char(source) => Ok(()),
                    Kind::CharConstant => Err(format!("malformed character constant: {source}")),
                    Kind::Complex if is_complex(source) => Ok(()),
                    Kind::Complex => Err(format!("illegal number syntax: {source:?}")),
                    _ => check_number(source),
                };
                sound.map_err(|message| self.error(token.span.start, message))?;
                Term::Constant
            }
            Kind::LeftParen => {
                self.deeper()?;
                let nested = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                Term::Nested(nested)
            }
            Kind::String | Kind::RawString => Term::Text(self.string(&token)?),
            _ => {
                self.at = before;
                return Ok(None);
            }
        };
        Ok(Some((token.span, term)))
    }

    fn string(&self, token: &Token) -> Result<Vec<u8>> {
        let source = self.source(token);
        unquote(source).ok_or_else(|| {
            let message = format!("invalid escape in the string {source}");
            self.error(token.span.start, message)
        })
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH}");
            return Err(self.error(self.offset(), message));
        }
        Ok(())
    }

    fn peek(&self) -> Result<&Token> {
        match (self.tokens.list.get(self.at), &self.tokens.error) {
            (Some(token), _) => Ok(token),
            (None, Some(error)) => Err(error.clone()),
            // The tokens ended without an error, in the middle of a construct.
            (None, None) => Err(self.error(self.text.len(), "unexpected end of the template")),
        }
    }

    fn next(&mut self) -> Result<Token> {
        let token = self.peek()?.clone();
        self.at += 1;
        Ok(token)
    }

    fn skip_space(&mut self) -> Result<()> {
        while self.peek()?.kind == Kind::Space {
            self.at += 1;
        }
        Ok(())
    }

    fn next_word(&mut self) -> Result<Token> {
        self.skip_space()?;
        self.next()
    }

    fn peek_word(&mut self) -> Result<&Token> {
        self.skip_space()?;
        self.peek()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<()> {
        let token = self.next_word()?;
        match token.kind == kind {
            true => Ok(()),
            false => Err(self.unexpected(&token, context)),
        }
    }

    fn source(&self, token: &Token) -> &'t str {
        &self.text[token.span.clone()]
    }

    /// Offset of the next token.
    fn offset(&self) -> usize {
        let next = self.tokens.list.get(self.at);
        next.map_or(self.text.len(), |token| token.span.start)
    }

    fn unexpected(&self, token: &Token, context: &str) -> TemplateError {
        let what = match token.kind {
            Kind::Eof => "end of the template".to_owned(),
            Kind::Right => "}}".to_owned(),
            _ => format!("{:?}", self.source(token)),
        };
        self.error(token.span.start, format!("unexpected {what} in {context}"))
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.text, offset, message)
    }
}
