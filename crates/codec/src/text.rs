//! The text exposition format, 0.0.4: writing it, and reading what this process renders itself.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use crate::remote_write::messages::v1;

/// Appends `name{label="value",…}` for sorted labels. Names beyond the classic character set get
/// underscores, since readers of this version know no quoting of names.
pub fn put_series<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) {
    let is_name = |label: &(&[u8], &[u8])| label.0 == b"__name__";
    if let Some((_, name)) = labels.clone().find(is_name) {
        put_name(out, name, true);
    }
    let mut first = true;
    for (name, value) in labels.filter(|label| !is_name(label)) {
        out.push(if first { b'{' } else { b',' });
        first = false;
        put_name(out, name, false);
        out.extend_from_slice(b"=\"");
        for &byte in value {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'"' => out.extend_from_slice(b"\\\""),
                b'\n' => out.extend_from_slice(b"\\n"),
                byte => out.push(byte),
            }
        }
        out.push(b'"');
    }
    if !first {
        out.push(b'}');
    }
}

fn put_name(out: &mut Vec<u8>, name: &[u8], colons: bool) {
    for (i, &byte) in name.iter().enumerate() {
        let good = byte.is_ascii_alphabetic()
            || byte == b'_'
            || (colons && byte == b':')
            || (i > 0 && byte.is_ascii_digit());
        out.push(if good { byte } else { b'_' });
    }
}

/// Appends a sample's value.
pub fn put_value(out: &mut Vec<u8>, value: f64) {
    let text = if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        }
    } else {
        format!("{value:?}")
    };
    let text: &str = &text;
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

/// Reads a page in this format, without timestamps, into a request with the time `now`. Lines
/// that are not in the format are left out.
pub fn read(page: &str, now: i64) -> v1::WriteRequest {
    let mut request = v1::WriteRequest::default();
    let mut help = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let text = rest.split_once(' ').map_or("", |(_, text)| text);
            help = unescape(text);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((family, kind)) = rest.split_once(' ') else {
                continue;
            };
            request.metadata.push(v1::MetricMetadata {
                r#type: match kind {
                    "counter" => 1,
                    "gauge" => 2,
                    "histogram" => 3,
                    "summary" => 5,
                    _ => 0,
                },
                metric_family_name: family.into(),
                help: std::mem::take(&mut help),
                unit: String::new(),
            });
        } else if let Some((labels, value)) = sample(line) {
            request.timeseries.push(v1::TimeSeries {
                labels,
                samples: vec![v1::Sample {
                    value,
                    timestamp: now,
                }],
                ..Default::default()
            });
        }
    }
    request
}

/// Reads `name{label="value"} value`.
fn sample(line: &str) -> Option<(Vec<v1::Label>, f64)> {
    let end = line.find(['{', ' '])?;
    let label = |name: &str, value: String| v1::Label {
        name: name.into(),
        value,
    };
    let mut labels = vec![label("__name__", line[..end].into())];
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, behind) = rest.split_once("=\"")?;
            let close = closing_quote(behind)?;
            labels.push(label(
                name.trim_start_matches(','),
                unescape(&behind[..close]),
            ));
            rest = &behind[close + 1..];
        }
        rest = &rest[1..];
    }
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    Some((labels, rest.trim().parse().ok()?))
}

/// Where a quoted text ends.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_prometheus_writes_them() {
        let f = |value: f64, expected: &str| {
            let mut out = Vec::new();
            put_value(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        f(0.0, "0");
        f(1.0, "1");
        f(0.1, "0.1");
        f(1e300, "1e300");
        f(f64::NAN, "NaN");
        f(f64::INFINITY, "+Inf");
        f(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn names_beyond_the_classic_set_get_underscores() {
        let labels: [(&[u8], &[u8]); 3] = [(b"__name__", b"a.b"), (b"1x", b"1"), (b"c:d", b"2")];
        let mut out = Vec::new();
        put_series(&mut out, labels.into_iter());
        assert_eq!(String::from_utf8(out).unwrap(), "a_b{_x=\"1\",c_d=\"2\"}");
    }

    #[test]
    fn a_page_becomes_series_and_metadata() {
        let page = "# HELP a_total Says \\\\ what.\n# TYPE a_total counter\n\
                    a_total{x=\"1\",b=\"q\\\"}\"} 3\n\nnonsense\nb +Inf\n";
        let request = read(page, 5);
        assert_eq!(request.metadata[0].help, "Says \\ what.");
        assert_eq!(request.metadata[0].r#type, 1);
        let names = |i: usize| -> Vec<_> {
            let labels = request.timeseries[i].labels.iter();
            labels
                .map(|l| (l.name.as_str(), l.value.as_str()))
                .collect()
        };
        assert_eq!(
            names(0),
            [("__name__", "a_total"), ("b", "q\"}"), ("x", "1")]
        );
        assert_eq!(names(1), [("__name__", "b")]);
        assert_eq!(request.timeseries[1].samples[0].value, f64::INFINITY);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(name in "[a-z_:]{1,9}", value: f64, label in "\\PC{0,20}") {
            let labels = [("__name__", name.as_str()), ("a", label.as_str())];
            let mut out = Vec::new();
            put_series(&mut out, labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
            out.push(b' ');
            put_value(&mut out, value);
            let request = read(std::str::from_utf8(&out).unwrap(), 1);
            let series = &request.timeseries[0];
            prop_assert_eq!(&series.labels[0].value, &name);
            prop_assert_eq!(&series.labels[1].value, &label);
            let read = series.samples[0].value;
            prop_assert!(read == value || (read.is_nan() && value.is_nan()));
        }

        #[test]
        fn foreign_pages_never_panic(page in "\\PC{0,80}|[a-z{}=\"\\\\,# \\n]{0,80}") {
            let _ = read(&page, 1);
        }
    }
}
