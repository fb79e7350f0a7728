//! Finds the calls of `query` and their arguments.
//!
//! Functions are not values in Go's templates: where `query` is the first word of a command, it is
//! called with the following words and the result of the preceding command. Anywhere else its name is a
//! call without arguments, which fails. So checking every occurrence of the name finds every query.

use std::collections::HashMap;

use super::literal::quote;
use super::parser::{Command, Operand, Pipeline, Term};
use super::{Span, Template, TemplateError, VARIABLES};

const QUERY: &str = "query";

type Map<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

pub(super) fn map(template: &Template<'_>, map: Map<'_>) -> Result<String, TemplateError> {
    let mut finder = Finder {
        text: template.text,
        bound: HashMap::new(),
        found: Vec::new(),
    };
    for name in VARIABLES {
        finder.bound.insert(name, None);
    }
    for pipeline in &template.pipelines {
        finder.bind(pipeline);
    }
    for pipeline in &template.pipelines {
        finder.pipeline(pipeline)?;
    }
    let mut found = finder.found;
    found.sort_by_key(|(span, _)| span.start);
    let (mut out, mut end) = (String::with_capacity(template.text.len()), 0);
    for (span, query) in found {
        let mapped = map(&query);
        let mapped = mapped.map_err(|reason| {
            let message = format!("query {query:?} in it: {reason}");
            TemplateError::new(template.text, span.start, message)
        })?;
        out.push_str(&template.text[end..span.start]);
        out.push_str(&quote(&mapped));
        end = span.end;
    }
    out.push_str(&template.text[end..]);
    Ok(out)
}

struct Finder<'a> {
    text: &'a str,
    /// Variables with their constant texts; `None` if the text is not known, or if the name is bound
    /// more than once.
    bound: HashMap<&'a str, Option<&'a [u8]>>,
    /// Queries, each with the range of the text that holds its literal.
    found: Vec<(Span, String)>,
}

impl<'a> Finder<'a> {
    fn bind(&mut self, pipeline: &'a Pipeline<'_>) {
        let text = match &pipeline.commands[..] {
            [command] if pipeline.binds_value => match &command.operands[..] {
                [
                    Operand {
                        term: Term::Text(text),
                        ..
                    },
                ] => Some(&text[..]),
                _ => None,
            },
            _ => None,
        };
        for &name in &pipeline.binds {
            let known = self.bound.entry(name).or_insert(text);
            if known.is_some() && *known != text {
                *known = None;
            }
        }
        for operand in pipeline
            .commands
            .iter()
            .flat_map(|command| &command.operands)
        {
            if let Term::Nested(nested) = &operand.term {
                self.bind(nested);
            }
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline<'_>) -> Result<(), TemplateError> {
        for (stage, command) in pipeline.commands.iter().enumerate() {
            let before = stage.checked_sub(1).map(|at| &pipeline.commands[at]);
            for (place, operand) in command.operands.iter().enumerate() {
                match &operand.term {
                    Term::Function(QUERY) => {
                        let before = before.map(|command| (stage - 1, command));
                        let argument = (place == 0 && !operand.has_fields)
                            .then(|| argument(before, command))
                            .flatten();
                        let query = argument.and_then(|argument| self.resolve(argument));
                        let query = query.ok_or_else(|| self.unknown(operand))?;
                        self.found.push(query);
                    }
                    Term::Nested(nested) => self.pipeline(nested)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The query of an operand, with the range of its literal; `None` if it is not known.
    fn resolve(&self, operand: &Operand<'_>) -> Option<(Span, String)> {
        if operand.has_fields {
            return None;
        }
        let text = match &operand.term {
            Term::Text(text) => &text[..],
            Term::Variable(name) => (*self.bound.get(name)?)?,
            Term::Nested(nested) if nested.binds.is_empty() => match &nested.commands[..] {
                [command] => match &command.operands[..] {
                    [operand] => return self.resolve(operand),
                    _ => return None,
                },
                _ => return None,
            },
            _ => return None,
        };
        let text = std::str::from_utf8(text).ok()?;
        Some((operand.span.clone(), text.to_owned()))
    }

    fn unknown(&self, operand: &Operand<'_>) -> TemplateError {
        let message = "what `query` reads is not known before it is evaluated: write the expression as a string";
        TemplateError::new(self.text, operand.span.start, message)
    }
}

/// The only argument of a call: the word after it, or the single value that is piped into it.
fn argument<'a, 't>(
    before: Option<(usize, &'a Command<'t>)>,
    command: &'a Command<'t>,
) -> Option<&'a Operand<'t>> {
    match (before, &command.operands[1..]) {
        (None, [argument]) => Some(argument),
        (Some((0, before)), []) => match &before.operands[..] {
            [argument] => Some(argument),
            _ => None,
        },
        _ => None,
    }
}
