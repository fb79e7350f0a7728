//! A relabelling rule as configured, and its validation.
//!
//! The checks are those of Prometheus 3 (`model/relabel/relabel.go`), by action:
//!
//! | action | needs | may not have |
//! | --- | --- | --- |
//! | `replace` | `target_label`, a name or a template | |
//! | `keep`, `drop` | | |
//! | `keepequal`, `dropequal` | `target_label`, a name | anything but `source_labels` |
//! | `hashmod` | `target_label`, a name; `modulus` above 0 | |
//! | `lowercase`, `uppercase` | `target_label`, a name | `replacement` |
//! | `labelmap` | `replacement`, a name or a template | |
//! | `labeldrop`, `labelkeep` | | anything but `regex` |
//!
//! With [`Validation::Utf8`], every non-empty text is a name, with dollars or without. With
//! [`Validation::Legacy`], names are `[a-zA-Z_][a-zA-Z0-9_]*`, and templates consist of these
//! characters and references to groups. Like Prometheus, this refuses a key that the action does
//! not use unless it has its default; an empty string in the file counts as set.

use serde::Deserialize;

use metrifold_base::keys::{Shape, Shaped};
use metrifold_base::{Problems, keys, words};

use metrifold_regex::Regex;

keys! {
    /// A rule. Its keys are those of Prometheus.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RuleConfig {
        /// Labels whose values are joined and matched against `regex`. A label that is absent counts as empty.
        pub source_labels: Option<Vec<String>> = unset(["__name__"]),
        /// Separator between the joined values; `;` by default.
        pub separator: Option<String> = unset(";"),
        /// Regular expression that the joined values (for the `label…` actions, a label's name) must match as a whole; `(.*)` by default. An empty expression matches only the empty text.
        pub regex: Option<String> = unset("go_gc_.*"),
        /// Modulus of the hash of the joined values, for `hashmod`; above 0.
        pub modulus: Option<u64> = unset(4),
        /// Label to write, or to compare with.
        pub target_label: Option<String> = unset("shard"),
        /// Value to write, in which `$1` or `$name` refer to groups of `regex`; `$1` by default.
        pub replacement: Option<String> = unset("$1"),
        /// [Action](../components/relabel.md#actions) to perform.
        pub action: Action = default("replace"),
    }
}

/// Actions of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Action {
    /// Writes the expanded `replacement` to `target_label` if `regex` matches.
    #[default]
    Replace,
    /// Drops series that do not match.
    Keep,
    /// Drops series that match.
    Drop,
    /// Drops series whose `target_label` differs from the joined values.
    KeepEqual,
    /// Drops series whose `target_label` equals the joined values.
    DropEqual,
    /// Writes a hash of the joined values modulo `modulus`.
    HashMod,
    /// Copies labels whose names match to the names that `replacement` expands to.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Writes the joined values in lower case.
    Lowercase,
    /// Writes the joined values in upper case.
    Uppercase,
}

impl Action {
    pub(super) const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The action's name in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// Whether the action writes to a label whose name cannot depend on the match.
    fn has_plain_target(self) -> bool {
        use Action::{DropEqual, HashMod, KeepEqual, Lowercase, Uppercase};
        matches!(
            self,
            KeepEqual | DropEqual | HashMod | Lowercase | Uppercase
        )
    }
}

impl Shaped for Action {
    // Words in any case are accepted, but only lower case is suggested.
    const SHAPE: Shape = Shape::Word(&[
        "replace",
        "keep",
        "drop",
        "keepequal",
        "dropequal",
        "hashmod",
        "labelmap",
        "labeldrop",
        "labelkeep",
        "lowercase",
        "uppercase",
    ]);
}

impl TryFrom<String> for Action {
    type Error = String;

    /// Ignores case.
    fn try_from(text: String) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(&text));
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is not a relabel action: use one of {all}")
        })
    }
}

words! {
    /// Rules for valid label names.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Validation {
        /// Every non-empty text, as in Prometheus 3.
        #[default]
        Utf8 = "utf8",
        /// `[a-zA-Z_][a-zA-Z0-9_]*`, as in Prometheus 2.
        Legacy = "legacy",
    }
}

impl Validation {
    /// Whether the text is a valid label name. It must be UTF-8.
    pub fn is_name(self, name: &[u8]) -> bool {
        let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
        let other = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => name.first().is_some_and(first) && name.iter().all(other),
        }
    }

    /// Whether the text is a name, or a template that may expand to one.
    fn is_name_or_template(self, text: &str) -> bool {
        match self {
            Self::Utf8 => !text.is_empty(),
            Self::Legacy => is_legacy_template(text),
        }
    }
}

/// Letters, digits and underscores, and `$name` or `${name}`; a digit must not come first.
fn is_legacy_template(text: &str) -> bool {
    let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        if !before.chars().all(word) {
            return false;
        }
        let name = match after[1..].strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((name, behind)) => {
                    rest = behind;
                    name
                }
                None => return false,
            },
            None => {
                let end = after[1..].find(|c| !word(c)).unwrap_or(after.len() - 1);
                rest = &after[1 + end..];
                &after[1..1 + end]
            }
        };
        if name.is_empty() || !name.chars().all(word) {
            return false;
        }
    }
    let starts_well = !text.starts_with(|c: char| c.is_ascii_digit());
    !text.is_empty() && starts_well && rest.chars().all(word)
}

/// The defaults of Prometheus.
pub(super) const SEPARATOR: &str = ";";
pub(super) const REGEX: &str = "(.*)";
pub(super) const REPLACEMENT: &str = "$1";

impl RuleConfig {
    pub(super) fn replacement(&self) -> &str {
        self.replacement.as_deref().unwrap_or(REPLACEMENT)
    }

    pub(super) fn target(&self) -> &str {
        self.target_label.as_deref().unwrap_or_default()
    }

    /// Reports problems at `path` and below; returns the compiled pattern if there are none.
    pub(super) fn check(
        &self,
        path: &str,
        validation: Validation,
        problems: &mut Problems,
    ) -> Option<Regex> {
        let mut sound = true;
        let mut wrong = |key: &str, message: String, help: &str| {
            sound = false;
            let at = if key.is_empty() {
                path.to_owned()
            } else {
                format!("{path}.{key}")
            };
            problems.at(at, message).help(help);
        };
        let action = self.action.as_str();
        for (index, label) in self.source_labels.iter().flatten().enumerate() {
            if !validation.is_name(label.as_bytes()) {
                let key = format!("source_labels[{index}]");
                wrong(
                    &key,
                    format!("{label:?} is not a label name"),
                    "name a label",
                );
            }
        }
        let plain = self.action.has_plain_target();
        let target = self.target();
        if plain || self.action == Action::Replace {
            let valid = if plain || !target.contains('$') {
                validation.is_name(target.as_bytes())
            } else {
                validation.is_name_or_template(target)
            };
            if target.is_empty() {
                let message = format!("action {action} needs target_label");
                let key = if self.target_label.is_some() {
                    "target_label"
                } else {
                    ""
                };
                wrong(key, message, "add target_label with the name of a label");
            } else if !valid {
                let message = format!("{target:?} is not a label name for action {action}");
                wrong(
                    "target_label",
                    message,
                    "use letters, digits and underscores",
                );
            }
        }
        if self.action == Action::HashMod && self.modulus.unwrap_or_default() == 0 {
            let key = if self.modulus.is_some() {
                "modulus"
            } else {
                ""
            };
            let message = "action hashmod needs a modulus above 0".to_owned();
            wrong(key, message, "add modulus with the number of buckets");
        }
        if self.action == Action::LabelMap && !validation.is_name_or_template(self.replacement()) {
            let message = format!("{:?} makes no label names for labelmap", self.replacement());
            wrong(
                "replacement",
                message,
                "write a name or a template such as \"$1\"",
            );
        }
        for key in self.superfluous() {
            let message = format!("action {action} takes no {key}");
            wrong(key, message, "remove the key");
        }
        match Regex::new(self.regex.as_deref().unwrap_or(REGEX)) {
            Ok(regex) => sound.then_some(regex),
            Err(error) => {
                wrong("regex", error.to_string(), "write it in Go's syntax (RE2)");
                None
            }
        }
    }

    /// Keys that are set and that the action does not use.
    fn superfluous(&self) -> impl Iterator<Item = &'static str> {
        use Action::{DropEqual, KeepEqual, LabelDrop, LabelKeep, Lowercase, Uppercase};
        let equal = matches!(self.action, KeepEqual | DropEqual);
        let label = matches!(self.action, LabelDrop | LabelKeep);
        let case = matches!(self.action, Lowercase | Uppercase);
        let differs = |value: &Option<String>, default: &str| {
            value.as_deref().is_some_and(|value| value != default)
        };
        [
            (label && self.source_labels.is_some(), "source_labels"),
            (
                (equal || label) && differs(&self.separator, SEPARATOR),
                "separator",
            ),
            (equal && self.regex.is_some(), "regex"),
            (
                (equal || label) && self.modulus.is_some_and(|m| m != 0),
                "modulus",
            ),
            (label && differs(&self.target_label, ""), "target_label"),
            (
                (equal || label || case) && differs(&self.replacement, REPLACEMENT),
                "replacement",
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, key)| wrong.then_some(key))
    }
}
