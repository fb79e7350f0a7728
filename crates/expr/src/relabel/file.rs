//! Rule files in Prometheus' YAML: a list of rules, or a map with such a list under
//! `metric_relabel_configs`, `write_relabel_configs` or `relabel_configs`.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use metrifold_base::{Problems, read_text};

use super::{Program, RuleConfig, Validation};

/// Largest file, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;
/// Keys under which a file may have its rules.
const KEYS: &[&str] = &[
    "metric_relabel_configs",
    "write_relabel_configs",
    "relabel_configs",
];

/// Reads and compiles a file. Problems name the file and the line, and are reported at `key`.
pub fn load(
    path: &Path,
    validation: Validation,
    key: &str,
    problems: &mut Problems,
) -> Option<Program> {
    let text = match read_text(path, MAX_BYTES) {
        Ok(text) => text,
        Err(reason) => {
            let message = format!("cannot read {}: {reason}", path.display());
            problems
                .at(key, message)
                .help("name a readable file of rules");
            return None;
        }
    };
    match compile(&text, validation) {
        Ok(program) => Some(program),
        Err(found) => {
            for (line, message) in found {
                problems.at(key, format!("{}:{line}: {message}", path.display()));
            }
            None
        }
    }
}

/// Compiles the text of a file; on failure returns the errors with their lines.
pub fn compile(text: &str, validation: Validation) -> Result<Program, Vec<(u64, String)>> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location();
        let (line, column) = place.map_or((1, 1), |at| (at.line(), at.column()));
        let message = error.without_snippet().to_string();
        // The line is reported once, before the message.
        let place = format!(" at line {line}, column {column}");
        let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
        vec![(line, message)]
    })?;
    let (lines, rules): (Vec<_>, Vec<_>) = document
        .0
        .into_iter()
        .map(|rule| (rule.referenced.line(), rule.value))
        .unzip();
    let mut problems = Problems::new(true);
    let program = Program::compile(&rules, validation, "rules", &mut problems);
    program.ok_or_else(|| {
        let list = problems.into_list().into_iter();
        list.map(|problem| {
            let line = index(&problem.path).and_then(|index| lines.get(index));
            let message = format!("{}: {}", problem.path, problem.message);
            (line.copied().unwrap_or(1), message)
        })
        .collect()
    })
}

/// Index in a path `rules[INDEX]…`.
fn index(path: &str) -> Option<usize> {
    path.strip_prefix("rules[")?.split_once(']')?.0.parse().ok()
}

struct Document(Vec<Spanned<RuleConfig>>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a list of relabel rules, or a map with one of {}",
            KEYS.join(", ")
        )
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = seq.next_element()? {
            rules.push(rule);
        }
        Ok(Document(rules))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut rules = None;
        while let Some(key) = map.next_key::<String>()? {
            if !KEYS.contains(&key.as_str()) {
                return Err(A::Error::unknown_field(&key, KEYS));
            }
            if rules.is_some() {
                return Err(A::Error::custom(
                    "file holds several lists of rules: leave one",
                ));
            }
            rules = Some(map.next_value()?);
        }
        let rules = rules.ok_or_else(|| A::Error::custom("file holds no rules"))?;
        Ok(Document(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<(u64, String)> {
        compile(text, Validation::Utf8).unwrap_err()
    }

    #[test]
    fn a_list_and_the_keys_of_prometheus_are_read() {
        let list = "
# What Prometheus calls metric_relabel_configs.
- source_labels: [__name__]
  regex: 'go_gc_.*'
  action: drop
- {source_labels: [a, b], separator: '', target_label: c, replacement: 1}
- regex: tmp_.*
  action: LabelDrop
";
        assert!(
            compile(list, Validation::Utf8).is_ok(),
            "{:?}",
            errors(list)
        );
        for key in KEYS {
            let text = format!("{key}:\n- target_label: x\n  replacement: y\n");
            assert!(compile(&text, Validation::Utf8).is_ok(), "{key}");
        }
        assert!(compile("[]", Validation::Utf8).is_ok());
    }

    #[test]
    fn errors_name_the_line() {
        let found = errors(
            "- target_label: a\n\n- action: hashmod\n  target_label: b\n- target_label: a\n  regex: '('\n",
        );
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 5], "{found:?}");
        assert!(
            found[1]
                .1
                .starts_with("rules[2].regex: invalid regular expression")
        );
        for (text, line, part) in [
            ("- target_label: a\n- targetlabel: b\n", 2, "targetlabel"),
            ("- action: dorp\n", 1, "dorp"),
            (
                "metric_relabel_configs: []\nrelabel_configs: []\n",
                2,
                "several",
            ),
            ("scrape_configs: []\n", 1, "scrape_configs"),
            ("- target_label: [\n", 2, ""),
            ("a", 1, "list of relabel rules"),
            ("", 1, ""),
            ("{}", 1, "no rules"),
        ] {
            let found = errors(text);
            assert!(!found[0].1.contains(" line "), "{found:?}");
            assert!(
                found[0].0.abs_diff(line) <= 1 && found[0].1.contains(part),
                "{text:?} {found:?}"
            );
        }
    }
}
