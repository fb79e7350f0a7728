//! The texts that a text may encode.
//!
//! Encoders differ in what they escape: decoding finds a secret whichever encoder was used.

/// Depth of nested encodings that are decoded, such as base64 in a JSON text in a log line.
const DEPTH: usize = 2;

/// Shortest run of letters that is decoded as base64: shorter ones hold no secret of the least
/// length.
const SHORTEST_RUN: usize = 6;

/// Decoded bytes with their places in the original text.
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// Start and end in the original text, for each byte.
    places: Vec<(usize, usize)>,
}

impl View {
    fn of(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            places: (0..text.len()).map(|at| (at, at + 1)).collect(),
        }
    }

    /// Range in the original text that a range of the bytes came from.
    pub(super) fn origin(&self, start: usize, end: usize) -> (usize, usize) {
        (self.places[start].0, self.places[end - 1].1)
    }

    fn empty() -> Self {
        Self {
            bytes: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Adds bytes that were decoded from a range of `from`.
    fn push(&mut self, bytes: &[u8], from: &Self, start: usize, end: usize) {
        let place = from.origin(start, end);
        for byte in bytes {
            self.bytes.push(*byte);
            self.places.push(place);
        }
    }
}

/// Calls `visit` with the text itself and with every decoded form.
pub(super) fn each(text: &str, visit: &mut dyn FnMut(&View)) {
    let mut views = vec![View::of(text)];
    for depth in 0..=DEPTH {
        let mut next = Vec::new();
        for view in &views {
            visit(view);
            base64(view, visit);
            if depth < DEPTH {
                next.extend(percent(view));
                next.extend(escapes(view));
                next.extend(entities(view));
            }
        }
        views = next;
    }
}

/// Decodes by `step`, which returns the character encoded at a place and the length of its
/// encoding. Returns `None` if nothing was encoded.
fn decode(view: &View, mark: u8, step: impl Fn(&[u8]) -> Option<(char, usize)>) -> Option<View> {
    if !view.bytes.contains(&mark) {
        return None;
    }
    let mut out = View::empty();
    let mut changed = false;
    let mut at = 0;
    while let Some(byte) = view.bytes.get(at) {
        let rest = &view.bytes[at..];
        let encoded = (*byte == mark).then(|| step(rest));
        match encoded.flatten() {
            Some((c, length)) => {
                let mut buffer = [0; 4];
                out.push(c.encode_utf8(&mut buffer).as_bytes(), view, at, at + length);
                at += length;
                changed = true;
            }
            None => {
                out.push(&[*byte], view, at, at + 1);
                at += 1;
            }
        }
    }
    changed.then_some(out)
}

/// Decodes `%41`, with `+` as itself and as a space.
fn percent(view: &View) -> Vec<View> {
    let mut views = Vec::new();
    if view.bytes.contains(&b'%') {
        let mut out = View::empty();
        let mut at = 0;
        while let Some(byte) = view.bytes.get(at) {
            let code = (*byte == b'%').then(|| hex(view.bytes.get(at + 1..at + 3)?));
            // A byte, not a character: one character may be several escapes.
            let (byte, length) = match code.flatten() {
                Some(code) => (code as u8, 3),
                None => (*byte, 1),
            };
            out.push(&[byte], view, at, at + length);
            at += length;
        }
        views.push(out);
    }
    views.extend(decode(view, b'+', |_| Some((' ', 1))));
    let both = views.first().filter(|_| views.len() > 1);
    let both = both.and_then(|percent| decode(percent, b'+', |_| Some((' ', 1))));
    views.extend(both);
    views
}

/// Decodes backslash escapes, as in JSON and Rust.
fn escapes(view: &View) -> Option<View> {
    decode(view, b'\\', |rest| {
        Some(match rest.get(1)? {
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'x' => (char::from(hex(rest.get(2..4)?)? as u8), 4),
            b'u' if rest.get(2) == Some(&b'{') => {
                let length = rest[3..].iter().take(7).position(|byte| *byte == b'}')?;
                (char::from_u32(hex(&rest[3..3 + length])?)?, length + 4)
            }
            b'u' => {
                let high = hex(rest.get(2..6)?)?;
                match rest.get(6..8) {
                    Some(b"\\u") if (0xd800..0xdc00).contains(&high) => {
                        let low = hex(rest.get(8..12)?)?.checked_sub(0xdc00)?;
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + low;
                        (char::from_u32(code)?, 12)
                    }
                    _ => (char::from_u32(high)?, 6),
                }
            }
            byte if byte.is_ascii_punctuation() => (char::from(*byte), 2),
            _ => return None,
        })
    })
}

/// Decodes entities of HTML and XML.
fn entities(view: &View) -> Option<View> {
    decode(view, b'&', |rest| {
        let length = rest.iter().take(12).position(|byte| *byte == b';')?;
        let c = match &rest[1..length] {
            b"amp" => '&',
            b"lt" => '<',
            b"gt" => '>',
            b"quot" => '"',
            b"apos" => '\'',
            [b'#', b'x' | b'X', digits @ ..] => char::from_u32(hex(digits)?)?,
            [b'#', digits @ ..] => {
                let digits = std::str::from_utf8(digits).ok()?;
                char::from_u32(digits.parse().ok()?)?
            }
            _ => return None,
        };
        Some((c, length + 1))
    })
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Decodes every run of base64 letters from each of the four offsets at which a group may begin.
fn base64(view: &View, visit: &mut dyn FnMut(&View)) {
    let mut at = 0;
    for run in view.bytes.split(|byte| letter(*byte).is_none()) {
        for skipped in 0..4 {
            if run.len() >= SHORTEST_RUN + skipped {
                visit(&groups(view, at + skipped, at + run.len()));
            }
        }
        at += run.len() + 1;
    }
}

fn groups(view: &View, start: usize, end: usize) -> View {
    let mut out = View::empty();
    let (mut bits, mut length) = (0u32, 0);
    for at in start..end {
        let Some(six) = letter(view.bytes[at]) else {
            break;
        };
        bits = (bits << 6 | six) & 0xffff;
        length += 6;
        if length >= 8 {
            length -= 8;
            // The byte has bits of two letters: this one and the one before.
            out.push(&[(bits >> length) as u8], view, at - 1, at + 1);
        }
    }
    out
}

/// The six bits of a base64 letter, in the alphabet of MIME or of URLs.
fn letter(byte: u8) -> Option<u32> {
    Some(
        match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        }
        .into(),
    )
}
