//! Everything that Prometheus' parser says about the corpus, this one says too: see `oracle`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use metrifold_promql::{
    Histogram, Options, ResetHint, Series, SeriesValue, parse, parse_selector, parse_series,
};
use serde_json::Value;

/// Differences that are shown before a test gives up.
const SHOWN: usize = 40;

fn lines(name: &str) -> Vec<Vec<Value>> {
    let folder = std::env::var_os("PROMQL_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(name)).expect("a golden file");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// What is wrong with each regular expression of the corpus that is not valid.
fn invalid_patterns() -> &'static HashMap<String, String> {
    static INVALID: OnceLock<HashMap<String, String>> = OnceLock::new();
    INVALID.get_or_init(|| {
        let invalid = |line: Vec<Value>| match (&line[0], &line[1]) {
            (Value::String(pattern), Value::String(message)) => {
                Some((pattern.clone(), message.clone()))
            }
            _ => None,
        };
        lines("patterns.jsonl")
            .into_iter()
            .filter_map(invalid)
            .collect()
    })
}

fn validate(pattern: &str) -> Result<(), String> {
    invalid_patterns()
        .get(pattern)
        .map_or(Ok(()), |message| Err(message.clone()))
}

fn options(mode: u64) -> Options {
    Options {
        experimental_functions: mode != 1,
        fill_modifiers: mode != 1,
        unquoted_names: mode == 2,
        validate_regex: validate,
        ..Options::default()
    }
}

fn text(line: &[Value], at: usize) -> Option<&str> {
    line.get(at).and_then(Value::as_str)
}

/// The one difference of expressions: Prometheus leaves `anchored` and `smoothed` out of a
/// selector's place, hence takes them for the operator that an error is about.
fn is_known(input: &str, wanted: &str, found: &str) -> bool {
    let parts = |message: &str| {
        message
            .split_once(": ")
            .map(|(_, reason)| reason.to_owned())
    };
    let about_operator = [
        "bool modifier can only",
        "comparisons between scalars",
        "must not occur",
    ];
    let extended = ["anchored", "smoothed"]
        .iter()
        .any(|word| input.contains(word));
    extended && parts(wanted) == parts(found) && about_operator.iter().any(|it| wanted.contains(it))
}

#[test]
fn verdicts_messages_and_printing_are_those_of_prometheus() {
    let mut differences = Vec::new();
    let lines = lines("expressions.jsonl");
    for line in &lines {
        let options = options(line[0].as_u64().expect("a mode"));
        let input = text(line, 1).expect("an input");
        let (wanted, found) = match parse(input, &options) {
            Err(error) => (
                text(line, 3).filter(|_| text(line, 2).is_none()),
                error.to_string(),
            ),
            Ok(expr) => {
                let accepted = !line.get(2).is_some_and(Value::is_null);
                let printed = text(line, 2).unwrap_or(input);
                let pretty = text(line, 3).unwrap_or(printed);
                if accepted && expr.to_string() == printed {
                    (Some(pretty), expr.format())
                } else {
                    (
                        Some(text(line, 3).filter(|_| !accepted).unwrap_or(printed)),
                        expr.to_string(),
                    )
                }
            }
        };
        if wanted != Some(&found) && !wanted.is_some_and(|wanted| is_known(input, wanted, &found)) {
            differences.push(format!(
                "{line:?}\n    wanted {wanted:?}\n     found {found:?}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        lines.len(),
        differences[..differences.len().min(SHOWN)].join("\n"),
    );
}

#[test]
fn regular_expressions_that_match_nothing_restrict_nothing() {
    for line in lines("patterns.jsonl") {
        let Some(matches_empty) = line[1].as_bool() else {
            continue;
        };
        let mut selector = parse_selector("{x=~''}", &Options::default()).expect("a selector");
        let pattern = text(&line, 0).expect("a pattern");
        for selector in selector.selectors_mut() {
            selector.matchers[0].value = pattern.into();
            assert_eq!(selector.is_restricted(), !matches_empty, "{pattern}");
        }
    }
}

#[test]
fn selectors_are_those_of_prometheus() {
    for line in lines("selectors.jsonl") {
        let input = text(&line, 0).expect("an input");
        let expr = match parse_selector(input, &options(0)) {
            Err(error) => {
                assert_eq!(text(&line, 2), Some(&*error.to_string()), "{input}");
                continue;
            }
            Ok(expr) => expr,
        };
        let selector = expr.selectors().next().expect("a selector");
        let name = selector
            .name
            .iter()
            .map(|name| triple("__name__", "=", &name.to_string()));
        let matchers = selector.matchers.iter().map(|matcher| {
            triple(
                &matcher.name.to_string(),
                matcher.op.as_str(),
                &matcher.value.to_string(),
            )
        });
        let mut found: Vec<_> = name.chain(matchers).collect();
        let mut wanted = line[1]
            .as_array()
            .unwrap_or_else(|| panic!("accepted: {input}"))
            .clone();
        found.sort_by_key(Value::to_string);
        wanted.sort_by_key(Value::to_string);
        assert_eq!(found, wanted, "{input}");
    }
}

fn triple(name: &str, op: &str, value: &str) -> Value {
    Value::from(vec![name, op, value])
}

#[test]
fn series_descriptions_are_those_of_prometheus() {
    let mut differences = Vec::new();
    for line in lines("series.jsonl") {
        let input = text(&line, 0).expect("an input");
        let (wanted, found) = match parse_series(input, &options(0)) {
            Err(error) => (
                line.get(2).cloned().filter(|_| line[1].is_null()),
                error.to_string().into(),
            ),
            Ok(series) => {
                let labels = series
                    .labels
                    .iter()
                    .map(|(a, b)| vec![a.to_string(), b.to_string()]);
                let found = vec![labels.collect(), expanded(&series).into()];
                (Some(Value::from(line[1..].to_vec())), Value::Array(found))
            }
        };
        // Prometheus calls a token by a number of its own here.
        let is_known = wanted
            .as_ref()
            .is_some_and(|it| it.to_string().contains("<Item "));
        if wanted.as_ref() != Some(&found) && !(is_known && found.is_string()) {
            differences.push(format!(
                "{input}\n    wanted {wanted:?}\n     found {found:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// All values, as the oracle writes them.
fn expanded(series: &Series) -> Vec<String> {
    let mut values = Vec::new();
    for item in &series.items {
        let mut value = item.value.clone();
        for _ in 0..item.count {
            values.push(describe(&value));
            value = match (&value, &item.step) {
                (SeriesValue::Number(value), Some(SeriesValue::Number(step))) => {
                    SeriesValue::Number(value + step)
                }
                _ => value,
            };
        }
    }
    values
}

fn describe(value: &SeriesValue) -> String {
    match value {
        SeriesValue::Omitted => "_".to_owned(),
        SeriesValue::Stale => "stale".to_owned(),
        SeriesValue::Number(value) if value.is_nan() => "stale".to_owned(),
        SeriesValue::Number(value) if value.is_infinite() => {
            if *value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
        }
        SeriesValue::Number(value) => format!("{value:.6}"),
        SeriesValue::Histogram(histogram) => describe_histogram(histogram),
    }
}

fn describe_histogram(histogram: &Histogram) -> String {
    let float = |value: f64| match value {
        value if value.is_infinite() => "+Inf".to_owned(),
        value => value.to_string(),
    };
    let list = |values: &[f64]| {
        let texts: Vec<_> = values.iter().map(|value| float(*value)).collect();
        format!("[{}]", texts.join(" "))
    };
    let hint = match histogram.reset_hint {
        None | Some(ResetHint::Unknown) => 0,
        Some(ResetHint::Reset) => 1,
        Some(ResetHint::NotReset) => 2,
        Some(ResetHint::Gauge) => 3,
    };
    format!(
        "schema:{} sum:{} count:{} z:{} zw:{} custom:{} pos:{}{} neg:{}{} hint:{hint},{}",
        histogram.schema,
        float(histogram.sum),
        float(histogram.count),
        float(histogram.zero_count),
        float(histogram.zero_threshold),
        list(&histogram.custom_values),
        histogram.offset,
        list(&histogram.buckets),
        histogram.negative_offset,
        list(&histogram.negative_buckets),
        histogram.reset_hint.is_some(),
    )
}
