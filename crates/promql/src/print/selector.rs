//! Printing of selectors.

use std::fmt;

use super::{Printer, faithful};
use crate::ast::{Extension, METRIC_NAME, MatchOp, Matcher, Offset, Selector};
use crate::go;
use crate::names;

impl fmt::Display for Matcher {
    /// Prints the matcher as in an expression without unquoted names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        match self.name.to_str() {
            Some(plain) if !names::needs_quotes(plain.as_bytes(), false) => out.push_str(plain),
            _ => faithful::string(&self.name, &mut out),
        }
        out.push_str(self.op.as_str());
        faithful::string(&self.value, &mut out);
        f.write_str(&out)
    }
}

impl Printer<'_> {
    /// Prints the name and the matchers of a selector.
    pub(super) fn series(&mut self, selector: &Selector) {
        if let Some(name) = selector.name.as_ref().and_then(|name| name.to_str()) {
            self.out.push_str(name);
        }
        let is_shown = |matcher: &&Matcher| !is_name(selector, matcher);
        let mut shown = selector.matchers.iter().filter(is_shown);
        let Some(first) = shown.next() else {
            // Only `info` accepts an empty selector, for which upstream prints nothing.
            if self.faithful && selector.name.is_none() {
                self.out.push_str("{}");
            }
            return;
        };
        self.out.push('{');
        match shown.next() {
            None => self.matcher(first),
            Some(second) => self.sorted([first, second].into_iter().chain(shown)),
        }
        self.out.push('}');
    }

    /// Prints matchers sorted by their texts.
    fn sorted<'m>(&mut self, matchers: impl Iterator<Item = &'m Matcher>) {
        let start = self.out.len();
        let mut spans = Vec::new();
        for matcher in matchers {
            let at = self.out.len();
            self.matcher(matcher);
            spans.push(at..self.out.len());
        }
        let texts = self.out.split_off(start);
        spans.sort_by_key(|span| &texts[span.start - start..span.end - start]);
        for (at, span) in spans.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.out
                .push_str(&texts[span.start - start..span.end - start]);
        }
    }

    fn matcher(&mut self, matcher: &Matcher) {
        self.label(&matcher.name);
        self.out.push_str(matcher.op.as_str());
        self.string(&matcher.value);
    }

    /// Prints the modifiers of a selector; those of a range have another order.
    pub(super) fn times(
        &mut self,
        selector: &Selector,
        extension: Option<Extension>,
        is_range: bool,
    ) {
        let late = self.faithful && matches!(selector.offset, Offset::Computed(_));
        if late {
            self.offset(selector.offset);
        }
        if !is_range {
            self.at(selector.at);
        }
        if let Some(extension) = extension {
            self.out.push(' ');
            self.out.push_str(extension.as_str());
        }
        if is_range {
            self.at(selector.at);
        }
        if !late {
            self.offset(selector.offset);
        }
    }

    pub(super) fn offset(&mut self, offset: Offset) {
        match offset {
            Offset::None => {}
            Offset::Computed(id) => self.computed_offset(id),
            Offset::Fixed(nanoseconds) => {
                self.out.push_str(" offset ");
                if self.faithful {
                    self.nanoseconds(nanoseconds);
                    return;
                }
                if nanoseconds < 0 {
                    self.out.push('-');
                }
                go::duration(nanoseconds.wrapping_abs(), &mut self.out);
            }
        }
    }
}

/// Whether a matcher only repeats the name before the braces.
fn is_name(selector: &Selector, matcher: &Matcher) -> bool {
    matcher.op == MatchOp::Equal
        && matcher.name == METRIC_NAME
        && !matcher.value.is_empty()
        && selector.name.as_ref() == Some(&matcher.value)
}
