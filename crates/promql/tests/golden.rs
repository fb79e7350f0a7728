//! Everything that Prometheus' parser says about the corpus, this one says too: see `oracle`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use metrifold_promql::{Options, parse};
use serde_json::Value;

/// Differences that are shown before a test gives up.
const SHOWN: usize = 40;

fn lines(name: &str) -> Vec<Vec<Value>> {
    let folder = std::env::var_os("PROMQL_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(name)).expect("a golden file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
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
        lines("patterns.jsonl").into_iter().filter_map(invalid).collect()
    })
}

fn validate(pattern: &str) -> Result<(), String> {
    invalid_patterns().get(pattern).map_or(Ok(()), |message| Err(message.clone()))
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

#[test]
fn verdicts_messages_and_printing_are_those_of_prometheus() {
    let mut differences = Vec::new();
    let lines = lines("expressions.jsonl");
    for line in &lines {
        let options = options(line[0].as_u64().expect("a mode"));
        let input = text(line, 1).expect("an input");
        let (wanted, found) = match parse(input, &options) {
            Err(error) => (text(line, 3).filter(|_| text(line, 2).is_none()), error.to_string()),
            Ok(expr) => {
                let accepted = !line.get(2).is_some_and(Value::is_null);
                let printed = text(line, 2).unwrap_or(input);
                let pretty = text(line, 3).unwrap_or(printed);
                if accepted && expr.to_string() == printed {
                    (Some(pretty), expr.format())
                } else {
                    (Some(text(line, 3).filter(|_| !accepted).unwrap_or(printed)), expr.to_string())
                }
            }
        };
        if wanted != Some(&found) {
            differences.push(format!("{line:?}\n    wanted {wanted:?}\n     found {found:?}"));
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
