//! Go's literals: strings, characters and numbers.

/// Decodes a string in double quotes or backquotes; `None` if it is malformed.
pub(super) fn unquote(text: &str) -> Option<Vec<u8>> {
    if let Some(raw) = text.strip_prefix('`') {
        let raw = raw.strip_suffix('`')?;
        return Some(raw.bytes().filter(|byte| *byte != b'\r').collect());
    }
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        rest = unquote_char(rest, '"', &mut out)?;
    }
    Some(out)
}

/// Whether a quoted character constant holds exactly one character.
pub(super) fn is_char(text: &str) -> bool {
    let inner = text.strip_prefix('\'');
    inner.and_then(|inner| unquote_char(inner, '\'', &mut Vec::new())) == Some("'")
}

/// Decodes one character or escape, and returns the rest of the text.
fn unquote_char<'t>(text: &'t str, quote: char, out: &mut Vec<u8>) -> Option<&'t str> {
    let mut chars = text.chars();
    let c = chars.next()?;
    if c == quote || c == '\n' {
        return None;
    }
    let push = |out: &mut Vec<u8>, c: char| {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    if c != '\\' {
        push(out, c);
        return Some(chars.as_str());
    }
    let escape = chars.next()?;
    let rest = chars.as_str();
    let simple = match escape {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '\'' | '"' if escape == quote => escape as u8,
        'x' => {
            out.push(u8::try_from(digits(rest, 2, 16)?).ok()?);
            return rest.get(2..);
        }
        'u' | 'U' => {
            let length = if escape == 'u' { 4 } else { 8 };
            push(out, char::from_u32(digits(rest, length, 16)?)?);
            return rest.get(length..);
        }
        '0'..='7' => {
            let rest = &text[1..];
            out.push(u8::try_from(digits(rest, 3, 8)?).ok()?);
            return rest.get(3..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

fn digits(text: &str, length: usize, base: u32) -> Option<u32> {
    let digits = text.get(..length)?;
    let all = digits.chars().all(|c| c.is_digit(base));
    all.then(|| u32::from_str_radix(digits, base).ok())?
}

/// Quotes a string with double quotes.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Checks the text of a number token.
pub(super) fn check_number(text: &str) -> Result<(), String> {
    if text.strip_suffix('i').is_some_and(is_float) || is_integer(text) {
        return Ok(());
    }
    match is_float(text) {
        true if text.contains(['.', 'e', 'E', 'p', 'P']) => Ok(()),
        true => Err(format!("integer overflow: {text:?}")),
        false => Err(format!("illegal number syntax: {text:?}")),
    }
}

/// Whether a text is a complex constant: the sum of a real and an imaginary number.
pub(super) fn is_complex(text: &str) -> bool {
    let Some(text) = text.strip_suffix('i') else {
        return false;
    };
    // The last sign that does not belong to an exponent.
    let signs = text
        .char_indices()
        .skip(1)
        .filter(|(at, c)| matches!(c, '+' | '-') && !text[..*at].ends_with(['e', 'E', 'p', 'P']));
    signs
        .last()
        .is_some_and(|(at, _)| is_float(&text[..at]) && is_float(&text[at..]))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// Whether a text is an integer that fits 64 bits, signed or unsigned.
fn is_integer(text: &str) -> bool {
    let number = unsigned(text);
    let (base, digits) = match number.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &number[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &number[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &number[2..]),
        [b'0'] => return true,
        [b'0', ..] => (8, &number[1..]),
        _ => (10, number),
    };
    if !underscores_fit(number) {
        return false;
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(base)) {
        return false;
    }
    let Ok(value) = u64::from_str_radix(&digits, base) else {
        return false;
    };
    const MOST: u64 = i64::MAX as u64;
    match text.as_bytes().first() {
        Some(b'-') => value <= MOST + 1,
        Some(b'+') => value <= MOST,
        _ => true,
    }
}

/// Whether a text is a number in the range of a 64-bit float.
fn is_float(text: &str) -> bool {
    let number = unsigned(text);
    if !underscores_fit(number) {
        return false;
    }
    let number = number.replace('_', "").to_ascii_lowercase();
    match number.strip_prefix("0x") {
        Some(hex) => is_hex_float(hex),
        None => {
            number.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && number.parse::<f64>().is_ok_and(f64::is_finite)
        }
    }
}

/// Whether a text is a hexadecimal float, which requires a binary exponent.
fn is_hex_float(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once('p') else {
        return false;
    };
    let digits = mantissa.replacen('.', "", 1);
    let sound = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
    let power = unsigned(exponent);
    if !sound || power.is_empty() || !power.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let places = mantissa.split_once('.').map_or(0, |(_, after)| after.len());
    let significant = digits.trim_start_matches('0');
    // An exponent beyond 64 bits is out of range, except for a zero mantissa.
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let top = (significant.len() as i64 - places as i64).saturating_mul(4);
    significant.is_empty() || top.saturating_add(exponent) <= 1024
}

/// Whether every underscore is between digits, or follows the prefix of a base.
fn underscores_fit(number: &str) -> bool {
    if !number.contains('_') {
        return true;
    }
    let bytes = number.as_bytes();
    let prefixed = matches!(bytes, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let start = if prefixed { 2 } else { 0 };
    let is_digit = |byte: u8| byte.is_ascii_digit() || (hex && byte.is_ascii_hexdigit());
    bytes.iter().enumerate().skip(start).all(|(at, byte)| {
        *byte != b'_'
            || ((at == start && prefixed || at > start && is_digit(bytes[at - 1]))
                && bytes.get(at + 1).is_some_and(|next| is_digit(*next)))
    })
}
