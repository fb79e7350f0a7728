//! The labels of a sample: ranges of the page, or of a buffer where a text differs from the page.

/// Bit in an offset that points into the buffer.
const OWN: usize = 1 << (usize::BITS - 1);

/// Labels in the order in which they were pushed.
#[derive(Debug, Default)]
pub(crate) struct LabelSet {
    labels: Vec<[Text; 2]>,
    own: String,
}

/// A range of the page or of the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Text {
    start: usize,
    end: usize,
}

impl Text {
    /// A range of the page.
    pub(crate) fn of_page(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    fn resolve<'a>(self, page: &'a str, own: &'a str) -> &'a str {
        let (text, start) = match self.start & OWN {
            0 => (page, self.start),
            _ => (own, self.start & !OWN),
        };
        text.get(start..self.end).unwrap_or_default() // ranges are those of texts
    }
}

impl LabelSet {
    pub(crate) fn clear(&mut self) {
        self.labels.clear();
        self.own.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, name: Text, value: Text) {
        self.labels.push([name, value]);
    }

    /// Replaces the metric's name, which is the value of the first label.
    pub(crate) fn set_first(&mut self, value: Text) {
        if let Some(first) = self.labels.first_mut() {
            first[1] = value;
        }
    }

    /// Appends a text to the buffer.
    pub(crate) fn own(&mut self, write: impl FnOnce(&mut String)) -> Text {
        let start = self.own.len();
        write(&mut self.own);
        Text {
            start: start | OWN,
            end: self.own.len(),
        }
    }

    /// A text of the page without its escapes.
    pub(crate) fn unescaped(&mut self, page: &str, start: usize, end: usize) -> Text {
        let text = page.get(start..end).unwrap_or_default();
        self.own(|own| unescape(text, true, own))
    }

    /// The text of a range.
    pub(crate) fn get<'a>(&'a self, page: &'a str, text: Text) -> &'a str {
        text.resolve(page, &self.own)
    }

    pub(crate) fn iter<'a>(
        &'a self,
        page: &'a str,
    ) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.part(page, (0, self.labels.len()))
    }

    pub(crate) fn part<'a>(
        &'a self,
        page: &'a str,
        (from, to): (usize, usize),
    ) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let labels = self.labels.get(from..to).unwrap_or_default();
        labels.iter().map(move |[name, value]| {
            (
                name.resolve(page, &self.own),
                value.resolve(page, &self.own),
            )
        })
    }
}

/// Appends a text, resolving escapes of a backslash, a line break and, unless `quotes` is false as
/// in the help of text 0.0.4, a quote. Other backslashes stay.
pub(crate) fn unescape(text: &str, quotes: bool, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let plain = match behind.as_bytes().first() {
            Some(b'\\') => Some('\\'),
            Some(b'n') => Some('\n'),
            Some(b'"') if quotes => Some('"'),
            _ => None,
        };
        match plain {
            Some(plain) => {
                out.push(plain);
                rest = &behind[1..];
            }
            None => {
                out.push('\\');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
}
