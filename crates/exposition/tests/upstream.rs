//! Prometheus v0.316's own parsers are the oracle: the verdicts of `oracle/golden.json` are theirs,
//! and what they read. To write them again, run `go run . > golden.json` in that folder.

use std::fmt::Write as _;

use prost::Message;
use serde::Deserialize;

use metrifold_codec::MetricType;
use metrifold_codec::remote_write::messages::{BucketSpan, Count, Histogram, ZeroCount};
use metrifold_exposition::{Family, Format, Options, Point, Receiver, Sample, read};

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    page: String,
    #[serde(default)]
    base64: String,
    #[serde(default)]
    file: String,
    format: String,
    #[serde(default)]
    native: bool,
    #[serde(default)]
    classic: bool,
    #[serde(default)]
    custom: bool,
    #[serde(default)]
    starts: bool,
    ok: bool,
    lines: usize,
    digest: String,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        if !self.file.is_empty() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/pages/");
            return std::fs::read(format!("{folder}{}", self.file)).unwrap();
        }
        match self.base64.as_str() {
            "" => self.page.clone().into_bytes(),
            text => decode_base64(text),
        }
    }

    fn format(&self) -> Format {
        match self.format.as_str() {
            "text" => Format::Text,
            "openmetrics" => Format::OpenMetrics,
            _ => Format::Protobuf,
        }
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// What is understood differently here, each with the reason.
const DIFFERENT: &[(&str, &str)] = &[(
    " a:b:c 1\n:a 1\n_ 1\n",
    "there, blanks in front of a name become part of it",
)];

/// Writes what is read as the oracle does.
#[derive(Default)]
struct Written {
    lines: Vec<String>,
    format: Option<Format>,
}

fn bits(value: f64, any_nan: bool) -> String {
    let bits = match value.is_nan() && any_nan {
        true => 0x7ff8_0000_0000_0001,
        false => value.to_bits(),
    };
    format!("{bits:016x}")
}

impl Receiver for Written {
    fn family(&mut self, family: Family<'_>) {
        let kind = match family.kind {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        };
        let Family {
            name, help, unit, ..
        } = family;
        self.lines
            .push(format!("family {name} {kind} {help} {unit}"));
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        let mut labels: Vec<_> = sample
            .labels()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        labels.sort();
        if labels.iter().any(|(name, _)| name.is_empty()) {
            return Err("no name".into());
        }
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("label twice".into());
        }
        if !labels.iter().any(|(name, _)| *name == "__name__") {
            return Err("no metric name".into());
        }
        let mut line = String::new();
        for (name, value) in labels {
            write!(line, "{name}\x1f{value}\x1f").unwrap();
        }
        let any_nan = self.format == Some(Format::Protobuf);
        match sample.point {
            Point::Value(value) => write!(line, "value {}", bits(value, any_nan)).unwrap(),
            Point::Histogram(message) => line.push_str(&shown(message)),
        }
        if let Some(at) = sample.timestamp {
            write!(line, " at {at}").unwrap();
        }
        if let Some(start) = sample.start {
            write!(line, " since {start}").unwrap();
        }
        for exemplar in sample.exemplars() {
            line.push_str(" exemplar ");
            let mut labels: Vec<_> = exemplar.labels().collect();
            labels.sort_by_key(|(name, _)| *name);
            for (name, value) in labels {
                write!(line, "{name}\x1f{value}\x1f").unwrap();
            }
            line.push_str(&bits(exemplar.value, false));
            if let Some(at) = exemplar.timestamp {
                write!(line, " at {at}").unwrap();
            }
        }
        self.lines.push(line);
        Ok(())
    }
}

/// A native histogram with its buckets one by one.
fn shown(message: &[u8]) -> String {
    let histogram = Histogram::decode(message).unwrap();
    let (float, count) = match histogram.count.unwrap() {
        Count::Int(count) => (false, count as f64),
        Count::Float(count) => (true, count),
    };
    let zero = match histogram.zero_count.unwrap() {
        ZeroCount::Int(count) => count as f64,
        ZeroCount::Float(count) => count,
    };
    let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
        let mut text = String::new();
        let mut index = 0;
        let mut place = 0;
        let mut count = 0;
        for span in spans {
            index += span.offset;
            for _ in 0..span.length {
                let value = match float {
                    true => counts[place],
                    false => {
                        count += deltas[place];
                        count as f64
                    }
                };
                if value != 0.0 {
                    write!(text, " {index}:{}", bits(value, false)).unwrap();
                }
                index += 1;
                place += 1;
            }
        }
        text
    };
    let bounds = histogram.custom_values.iter();
    let bounds: String = bounds
        .map(|bound| format!(" {}", bits(*bound, false)))
        .collect();
    format!(
        "histogram {float} {} {} {} {} {} gauge={} -{} +{}{bounds}",
        histogram.schema,
        bits(count, false),
        bits(histogram.sum, true),
        bits(histogram.zero_threshold, false),
        bits(zero, false),
        histogram.reset_hint == 3,
        side(
            &histogram.negative_spans,
            &histogram.negative_deltas,
            &histogram.negative_counts
        ),
        side(
            &histogram.positive_spans,
            &histogram.positive_deltas,
            &histogram.positive_counts
        ),
    )
}

fn digest(lines: &[String]) -> String {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = lines.join("\n").bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    format!("{hash:016x}")
}

#[test]
fn a_page_is_accepted_and_understood_as_by_prometheus() {
    let golden = include_str!("oracle/golden.json");
    let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
    assert!(cases.len() > 5000, "{}", cases.len());
    let (mut good, mut different) = (0, Vec::new());
    for case in &cases {
        let page = case.bytes();
        let options = Options {
            native_histograms: case.native,
            classic_histograms: case.classic,
            custom_histograms: case.custom,
            start_timestamps: case.starts,
            ..Options::default()
        };
        let mut written = Written {
            format: Some(case.format()),
            ..Written::default()
        };
        let outcome = read(&page, case.format(), &options, &mut written);
        let same = match &outcome {
            Ok(()) => {
                case.ok
                    && case.lines == written.lines.len()
                    && case.digest == digest(&written.lines)
            }
            Err(_) => !case.ok,
        };
        let known = DIFFERENT.iter().any(|(text, _)| *text == case.page);
        let same = same != known;
        good += usize::from(case.ok && same);
        if !same {
            let page = String::from_utf8_lossy(&page);
            let shown: String = page.chars().take(300).collect();
            different.push(format!(
                "{} {shown:?} {outcome:?}: {:?}, there {} with {} lines",
                case.format,
                written.lines.iter().take(8).collect::<Vec<_>>(),
                case.ok,
                case.lines
            ));
        }
    }
    let count = different.len();
    different.truncate(12);
    assert!(count == 0, "{count} differ:\n{}", different.join("\n"));
    assert!(good > 900, "{good}");
}
