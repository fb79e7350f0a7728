//! Where upstream's printing does not mean the same when it is read again, and what is printed
//! instead if that is wanted.

use super::Printer;
use crate::ast::{DurationId, DurationKind};
use crate::go;
use crate::text::Text;

impl Printer<'_> {
    /// A string; upstream's lexer refuses the replacement character that its printer writes.
    pub(super) fn string(&mut self, text: &Text) {
        let start = self.out.len();
        go::quote(text.as_bytes(), &mut self.out);
        if self.faithful && self.out[start..].contains(char::REPLACEMENT_CHARACTER) {
            let escaped = self.out[start..].replace(char::REPLACEMENT_CHARACTER, "\\ufffd");
            self.out.truncate(start);
            self.out.push_str(&escaped);
        }
    }

    /// A float; a sign that nobody wrote would bind to what follows.
    pub(super) fn float(&mut self, value: f64) {
        if self.faithful && value == f64::INFINITY {
            return self.out.push_str("Inf");
        }
        go::float(value, &mut self.out);
    }

    /// A duration; upstream cuts it to milliseconds, and may leave nothing.
    pub(super) fn nanoseconds(&mut self, nanoseconds: i64) {
        let whole = nanoseconds % 1_000_000 == 0 && nanoseconds != i64::MIN;
        if self.faithful && !whole {
            go::float(nanoseconds as f64 / 1e9, &mut self.out);
        } else {
            go::duration(nanoseconds, &mut self.out);
        }
    }

    /// A computed offset, in parentheses if it would end early without them.
    pub(super) fn computed_offset(&mut self, id: DurationId) {
        self.out.push_str(" offset ");
        let start = self.out.len();
        self.whole_duration(id);
        if self.faithful && self.ends_early(id, start) {
            self.out.insert(start, '(');
            self.out.push(')');
        }
    }

    /// Whether only the beginning of what was printed from `start` on would be read as an offset.
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
