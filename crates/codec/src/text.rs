//! The text exposition format 0.0.4: writing it, and reading the pages that this process renders.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

mod escaping;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::{ArenaBuilder, MetricType};

use escaping::is_classic;

pub use escaping::Escaping;

/// Appends `name{label="value",…}` for sorted labels. Names beyond the classic character set are
/// quoted, which readers of version 0.0.4 do not know: [`Escaping`] avoids such names.
pub fn put_series<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) {
    let is_name = |label: &(&[u8], &[u8])| label.0 == b"__name__";
    let mut opened = false;
    let mut open = |out: &mut Vec<u8>| {
        out.push(if opened { b',' } else { b'{' });
        opened = true;
    };
    if let Some((_, name)) = labels.clone().find(is_name) {
        if is_classic(name, true) {
            out.extend_from_slice(name);
        } else {
            open(out);
            put_quoted(out, name);
        }
    }
    for (name, value) in labels.filter(|label| !is_name(label)) {
        open(out);
        if is_classic(name, false) {
            out.extend_from_slice(name);
        } else {
            put_quoted(out, name);
        }
        out.push(b'=');
        put_quoted(out, value);
    }
    if opened {
        out.push(b'}');
    }
}

fn put_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
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

/// Reads a page without timestamps into a batch: samples get the time `now`, and the labels `more`
/// where the series has none of that name. Malformed lines, and series that are invalid or do not
/// fit, are left out.
pub fn read(page: &str, now: i64, more: &BTreeMap<String, String>, batch: &mut ArenaBuilder) {
    let mut help = Cow::Borrowed("");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let text = rest.split_once(' ').map_or("", |(_, text)| text);
            help = unescape(text);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((family, kind)) = rest.split_once(' ') else {
                continue;
            };
            let kind = match kind {
                "counter" => MetricType::Counter,
                "gauge" => MetricType::Gauge,
                "histogram" => MetricType::Histogram,
                "summary" => MetricType::Summary,
                _ => MetricType::Unknown,
            };
            batch.push_metadata(family, kind, &std::mem::take(&mut help), "");
        } else if let Some(value) = labels(line, batch) {
            for (name, value) in more {
                if !batch.has_label(name) {
                    batch.push_label(name, value);
                }
            }
            batch.push_sample(value, now);
            let _ = batch.finish_series(); // an invalid series is left out
        }
    }
}

/// Reads `name{label="value"} value`: starts a series with these labels, and returns the value.
fn labels(line: &str, batch: &mut ArenaBuilder) -> Option<f64> {
    let end = line.find(['{', ' '])?;
    batch.start_series();
    batch.push_label("__name__", &line[..end]);
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, behind) = rest.split_once("=\"")?;
            let close = closing_quote(behind)?;
            batch.push_label(name.trim_start_matches(','), &unescape(&behind[..close]));
            rest = &behind[close + 1..];
        }
        rest = &rest[1..];
    }
    rest.trim().parse().ok()
}

/// Position of the closing quote.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
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
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::remote_write::messages::v1;
    use crate::remote_write::tests::unsnappy;
    use crate::remote_write::{Limits, encode_v1};

    fn read(page: &str, now: i64) -> v1::WriteRequest {
        let mut batch = ArenaBuilder::new(Limits::default());
        super::read(page, now, &BTreeMap::new(), &mut batch);
        let body = encode_v1(&batch.finish(), None);
        v1::WriteRequest::decode(&*unsnappy(&body)).unwrap()
    }

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
    fn names_beyond_the_classic_set_are_quoted() {
        let f = |labels: &[(&str, &str)], expected: &str| {
            let labels = labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            let mut out = Vec::new();
            put_series(&mut out, labels);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        f(&[("__name__", "a"), ("b", "1")], "a{b=\"1\"}");
        f(&[("__name__", "a.b")], "{\"a.b\"}");
        f(
            &[("1\"x", "1"), ("__name__", "a.b"), ("c:d", "2\n")],
            "{\"a.b\",\"1\\\"x\"=\"1\",\"c:d\"=\"2\\n\"}",
        );
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

    #[test]
    fn a_series_gets_the_labels_that_it_has_not() {
        let more = ["a", "b"].map(|name| (name.to_string(), "more".to_string()));
        let mut batch = ArenaBuilder::new(Limits::default());
        super::read("x{a=\"own\"} 1\n", 5, &more.into(), &mut batch);
        let arena = batch.finish();
        let series = arena.iter().next().unwrap();
        let labels: [(&[u8], &[u8]); 3] = [(b"__name__", b"x"), (b"a", b"own"), (b"b", b"more")];
        assert_eq!(series.labels().collect::<Vec<_>>(), labels);
        assert_eq!(series.samples().collect::<Vec<_>>(), [(1.0, 5)]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(name in "[a-z_:]{1,9}", value: f64, label in "\\PC{1,20}") {
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
