//! Cases in which upstream's text would not parse to the same expression, with the faithful text
//! for them.

use super::Printer;
use crate::ast::{DurationId, DurationKind};
use crate::go;
use crate::text::Text;

impl Printer<'_> {
    /// Prints a string.
    pub(super) fn string(&mut self, text: &Text) {
        match self.faithful {
            true => string(text, &mut self.out),
            false => go::quote(text.as_bytes(), &mut self.out),
        }
    }

    /// Prints a float. An explicit plus sign, which nobody wrote, would bind to what follows.
    pub(super) fn float(&mut self, value: f64) {
        if self.faithful && value == f64::INFINITY {
            return self.out.push_str("Inf");
        }
        go::float(value, &mut self.out);
    }

    /// Prints a duration. Upstream truncates it to milliseconds, possibly to nothing.
    pub(super) fn nanoseconds(&mut self, nanoseconds: i64) {
        let whole = nanoseconds % 1_000_000 == 0 && nanoseconds != i64::MIN;
        if self.faithful && !whole {
            go::float(nanoseconds as f64 / 1e9, &mut self.out);
        } else {
            go::duration(nanoseconds, &mut self.out);
        }
    }

    /// Prints a computed offset, in parentheses if parsing would end early without them.
    pub(super) fn computed_offset(&mut self, id: DurationId) {
        self.out.push_str(" offset ");
        let start = self.out.len();
        self.whole_duration(id);
        if self.faithful && self.ends_early(id, start) {
            self.out.insert(start, '(');
            self.out.push(')');
        }
    }

    /// Whether only the beginning of the text from `start` on would be parsed as the offset.
    fn ends_early(&self, id: DurationId, start: usize) -> bool {
        let text = &self.out[start..];
        if text.starts_with('(') || text.starts_with("--") {
            return false;
        }
        let node = &self.expr[id];
        match node.kind {
            DurationKind::Binary(..) => !node.wrapped,
            DurationKind::Minus(inner) | DurationKind::Plus(inner) => {
                let inner = &self.expr[inner];
                !inner.wrapped && matches!(inner.kind, DurationKind::Binary(..))
            }
            _ => false,
        }
    }
}

/// Prints a string. Upstream's lexer refuses the replacement character that its printer writes.
pub(super) fn string(text: &Text, out: &mut String) {
    let start = out.len();
    go::quote(text.as_bytes(), out);
    if out[start..].contains(char::REPLACEMENT_CHARACTER) {
        let escaped = out[start..].replace(char::REPLACEMENT_CHARACTER, "\\ufffd");
        out.truncate(start);
        out.push_str(&escaped);
    }
}
