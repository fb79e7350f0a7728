//! From the tree to the file: each key where it belongs, every problem noted.

use std::collections::{BTreeMap, HashMap};

use super::check::{METRIC_NAME, is_forbidden, is_label, is_metric};
use super::fields::{Field, Reader};
use super::lint::{Lint, Warnings};
use super::problem::{Key, Problem, Problems};
use super::{Alerting, Checks, Group, Kind, Parsed, PartialResponse, Rule, RuleFile};
use crate::yaml::{Id, Place, Tree};
use crate::{PromDuration, Template};

const FILE_KEYS: &[&str] = &["groups"];
const GROUP_KEYS: &[&str] = &[
    "name",
    "interval",
    "query_offset",
    "limit",
    "labels",
    "partial_response_strategy",
    "rules",
];
const RULE_KEYS: &[&str] = &[
    "record",
    "alert",
    "expr",
    "for",
    "keep_firing_for",
    "labels",
    "annotations",
];
/// How alike a misspelt key and a known one have to be for the known one to be suggested.
const ALIKE: f64 = 0.8;
const START: Place = Place { line: 1, column: 1 };

pub(super) fn parse(text: &[u8], checks: &Checks<'_>) -> Result<Parsed, Vec<Problem>> {
    let limits = &checks.limits;
    let mut problems = Problems::new(limits.problems);
    if text.len() > limits.bytes {
        let message = format!("file is larger than {} bytes: split it", limits.bytes);
        problems.push(START, &Key::File, message);
        return Err(problems.into_list());
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = &text[..error.valid_up_to()];
            let message = "file is not UTF-8: save it in that encoding";
            problems.push(place_after(before), &Key::File, message);
            return Err(problems.into_list());
        }
    };
    let mut forbidden = false;
    for (at, c) in text.char_indices().filter(|(_, c)| is_forbidden(*c)) {
        let message =
            format!("character {c:?} is not allowed in YAML: write it escaped, in double quotes");
        problems.push(place_after(&text.as_bytes()[..at]), &Key::File, message);
        forbidden = true;
    }
    if forbidden {
        return Err(problems.into_list());
    }
    let tree = Tree::parse(text, limits.nodes).map_err(|list| {
        for (place, message) in list {
            problems.push(place, &Key::File, message);
        }
        std::mem::replace(&mut problems, Problems::new(1)).into_list()
    })?;
    let mut file = FileReader {
        reader: Reader::new(&tree, limits),
        warnings: Warnings::new(limits.problems),
        checks,
        rules: 0,
        has_groups: false,
    };
    let parsed = file.file(tree.root());
    if let Some(place) = tree.second {
        let message =
            "only the first document of a file is read: move what follows into a file of its own";
        file.warnings
            .push(Lint::Ignored, place, &Key::File, message);
    }
    let problems = file.reader.problems.into_list();
    match problems.is_empty() {
        true => Ok(Parsed {
            file: parsed,
            has_groups: file.has_groups,
            warnings: file.warnings.into_list(),
        }),
        false => Err(problems),
    }
}

fn place_after(text: &[u8]) -> Place {
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    let line = text.rsplit(|byte| *byte == b'\n').next().unwrap_or(text);
    let column = String::from_utf8_lossy(line).chars().count();
    Place {
        line: lines as u64 + 1,
        column: column as u64 + 1,
    }
}

struct FileReader<'t, 'c> {
    reader: Reader<'t>,
    warnings: Warnings,
    checks: &'c Checks<'c>,
    /// The rules of all groups so far.
    rules: usize,
    has_groups: bool,
}

impl FileReader<'_, '_> {
    fn file(&mut self, root: Option<Id>) -> RuleFile {
        let mut file = RuleFile::default();
        let fields = root.and_then(|root| {
            let wanted = "the key `groups` with a list of groups";
            self.reader.fields(root, &Key::File, wanted)
        });
        for field in self.known(fields, &Key::File, FILE_KEYS) {
            self.has_groups = !self.reader.is_null(field.value);
            file.groups = self.groups(field.value, &Key::File.field("groups"));
        }
        file
    }

    fn groups(&mut self, id: Id, key: &Key<'_>) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut names: HashMap<String, u64> = HashMap::new();
        let items = self.reader.list(id, key);
        if !self.count(items.len(), self.checks.limits.groups, id, key, "groups") {
            return groups;
        }
        for (index, &item) in items.iter().enumerate() {
            let key = &key.item(index);
            if self.is_ignored(item, key, "group") {
                continue;
            }
            let (group, named) = self.group(item, key);
            let place = named.unwrap_or_else(|| self.reader.place(item));
            if let Some(line) = names.get(&group.name) {
                let message = format!(
                    "group {:?} already stands at line {line}: give it another name",
                    group.name
                );
                self.reader
                    .problems
                    .push(place, &key.field("name"), message);
            } else {
                names.insert(group.name.clone(), place.line);
            }
            groups.push(group);
        }
        groups
    }

    /// A group, and where its name stands.
    fn group(&mut self, id: Id, key: &Key<'_>) -> (Group, Option<Place>) {
        let mut group = Group::default();
        let mut named = None;
        let fields = self
            .reader
            .fields(id, key, "a group: write its name as `name: …`");
        let is_group = fields.is_some();
        let mut places = Vec::new();
        for field in self.known(fields, key, GROUP_KEYS) {
            let key = &key.field(&field.name);
            match field.name.as_str() {
                "name" => {
                    named = Some(field.place);
                    group.name = self.reader.text(field.value, key).unwrap_or_default();
                }
                "interval" => group.interval = self.set_duration(field.value, key),
                "query_offset" => group.query_offset = self.duration(field.value, key),
                "limit" => group.limit = self.reader.integer(field.value, key).unwrap_or_default(),
                "labels" => group.labels = self.labels(field.value, key, &Role::Label),
                "partial_response_strategy" => {
                    group.partial_response = self.partial_response(&field, key);
                }
                _ => (group.rules, places) = self.group_rules(field.value, key),
            }
        }
        if group.name.is_empty() && is_group {
            let place = named.unwrap_or_else(|| self.reader.place(id));
            let message = "group has no name: give it one that no other group of the file has";
            self.reader
                .problems
                .push(place, &key.field("name"), message);
        }
        self.warnings.group(&group, &places, key);
        (group, named)
    }

    fn partial_response(&mut self, field: &Field, key: &Key<'_>) -> Option<PartialResponse> {
        if !self.checks.thanos {
            let message = "only Thanos knows partial_response_strategy: remove it, or allow it where every ruler is a Thanos";
            self.reader.problems.push(field.place, key, message);
            return None;
        }
        let text = self.reader.text(field.value, key).unwrap_or_default();
        match &*text.to_ascii_lowercase() {
            "" => None,
            "warn" => Some(PartialResponse::Warn),
            "abort" => Some(PartialResponse::Abort),
            _ => {
                let place = self.reader.place(field.value);
                let message = format!("unknown strategy {text:?}: write warn or abort");
                self.reader.problems.push(place, key, message);
                None
            }
        }
    }

    /// The rules of a group, and where each stands.
    fn group_rules(&mut self, id: Id, key: &Key<'_>) -> (Vec<Rule>, Vec<Place>) {
        let items = self.reader.list(id, key);
        self.rules += items.len();
        if !self.count(self.rules, self.checks.limits.rules, id, key, "rules") {
            return (Vec::new(), Vec::new());
        }
        let mut rules = Vec::with_capacity(items.len());
        let mut places = Vec::with_capacity(items.len());
        for (index, &item) in items.iter().enumerate() {
            let key = &key.item(index);
            if !self.is_ignored(item, key, "rule") {
                let rule = self.rule(item, key);
                places.extend(rule.is_some().then(|| self.reader.place(item)));
                rules.extend(rule);
            }
        }
        (rules, places)
    }

    fn rule(&mut self, id: Id, key: &Key<'_>) -> Option<Rule> {
        let wanted = "a rule: write `record: …` or `alert: …`, and `expr: …`";
        let fields = self.reader.fields(id, key, wanted)?;
        let place = self.reader.place(id);
        let (mut record, mut alert) = (None, None);
        let (mut expr, mut at_expr) = (String::new(), place);
        let (mut labels, mut alerting) = (None, Alerting::default());
        let mut annotations = None;
        let mut of_alert = Vec::new();
        for field in self.known(Some(fields), key, RULE_KEYS) {
            let key = &key.field(&field.name);
            let (value, at) = (field.value, field.place);
            match field.name.as_str() {
                "record" => record = self.name(value, key, at),
                "alert" => alert = self.name(value, key, at),
                "expr" => {
                    at_expr = self.reader.place(value);
                    expr = self.reader.text(value, key).unwrap_or_default();
                }
                "for" => {
                    alerting.hold = self.set_duration(value, key);
                    of_alert.extend(alerting.hold.map(|_| ("for", at)));
                }
                "keep_firing_for" => {
                    alerting.keep_firing_for = self.set_duration(value, key);
                    of_alert.extend(alerting.keep_firing_for.map(|_| ("keep_firing_for", at)));
                }
                "labels" => labels = Some(value),
                _ => annotations = Some((value, at)),
            }
        }
        let of_rule = |annotations| match (&alert, annotations) {
            (Some((alert, _)), true) => Role::Annotation(alert),
            (Some((alert, _)), false) => Role::AlertLabel(alert),
            (None, true) => Role::Ignored,
            (None, false) => Role::Label,
        };
        let labels = labels.map(|id| self.labels(id, &key.field("labels"), &of_rule(false)));
        if let Some((id, at)) = annotations {
            let key = &key.field("annotations");
            alerting.annotations = self.labels(id, key, &of_rule(true));
            if !alerting.annotations.is_empty() {
                of_alert.push(("annotations", at));
            }
        }
        self.expr(&expr, at_expr, &key.field("expr"));
        let (name, is_alert) = match (record, alert) {
            (Some((name, _)), None) => (name, false),
            (None, Some((name, _))) => (name, true),
            (Some(_), Some((_, at))) => {
                let message = "rule has both `record` and `alert`: make two rules of it";
                self.reader.problems.push(at, &key.field("alert"), message);
                return None;
            }
            (None, None) => {
                let message =
                    "rule has neither `record` nor `alert`: name what it records or raises";
                self.reader.problems.push(place, key, message);
                return None;
            }
        };
        if !is_alert {
            for (field, at) in of_alert {
                let message = format!(
                    "`{field}` has no meaning in a recording rule: remove it, or write `alert` for `record`"
                );
                self.reader.problems.push(at, &key.field(field), message);
            }
        }
        Some(Rule {
            name,
            expr,
            labels: labels.unwrap_or_default(),
            kind: match is_alert {
                true => Kind::Alerting(Box::new(alerting)),
                false => Kind::Recording,
            },
        })
    }

    /// The value of `record` or `alert`, checked; none if it is empty.
    fn name(&mut self, id: Id, key: &Key<'_>, at: Place) -> Option<(String, Place)> {
        let name = self.reader.text(id, key).filter(|name| !name.is_empty())?;
        let Key::Field(_, "record") = key else {
            return Some((name, at));
        };
        let place = self.reader.place(id);
        if name.contains(['{', '}']) {
            let message =
                format!("metric name {name:?} holds braces: move them into `expr` or `labels`");
            self.reader.problems.push(place, key, message);
        } else if !is_metric(&name, self.checks.names) {
            let message = format!(
                "{name:?} is no metric name: use letters, digits, `_` and `:`, and begin with no digit"
            );
            self.reader.problems.push(place, key, message);
        }
        Some((name, at))
    }

    fn expr(&mut self, expr: &str, place: Place, key: &Key<'_>) {
        if expr.is_empty() {
            let message = "rule has no expression: write PromQL after `expr:`";
            self.reader.problems.push(place, key, message);
            return;
        }
        match (self.checks.expr)(expr) {
            Ok(odd) => {
                for (lint, message) in odd {
                    self.warnings.push(lint, place, key, message);
                }
            }
            Err(reason) => {
                let message = format!("expression does not parse: {reason}");
                self.reader.problems.push(place, key, message);
            }
        }
    }

    fn labels(&mut self, id: Id, key: &Key<'_>, role: &Role<'_>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let wanted = "a mapping of names to text: write `name: value`";
        for field in self.reader.fields(id, key, wanted).unwrap_or_default() {
            let key = &key.field(&field.name);
            let value = self.reader.text(field.value, key).unwrap_or_default();
            self.label_name(&field, key, role);
            if let Some(alert) = role.alert()
                && let Err(reason) = Template::parse(&value, alert)
            {
                let message = format!("template does not parse: {reason}");
                let place = self.reader.place(field.value);
                self.reader.problems.push(place, key, message);
            }
            labels.insert(field.name, value);
        }
        labels
    }

    fn label_name(&mut self, field: &Field, key: &Key<'_>, role: &Role<'_>) {
        let name = &field.name;
        let message = if name == METRIC_NAME && role.is_label() {
            "a rule must not set __name__: the metric's name is the value of `record`".to_owned()
        } else if is_label(name, self.checks.names) {
            return;
        } else if name.is_empty() {
            "name is empty: write one before the colon".to_owned()
        } else {
            format!(
                "{name:?} is no label name: use letters, digits and `_`, and begin with no digit"
            )
        };
        self.reader.problems.push(field.place, key, message);
    }

    fn duration(&mut self, id: Id, key: &Key<'_>) -> Option<PromDuration> {
        let text = self.reader.text(id, key)?;
        match text.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                let place = self.reader.place(id);
                self.reader.problems.push(place, key, format!("{error}"));
                None
            }
        }
    }

    /// A duration for which zero means that it is not set.
    fn set_duration(&mut self, id: Id, key: &Key<'_>) -> Option<PromDuration> {
        self.duration(id, key)
            .filter(|duration| !duration.is_zero())
    }

    /// The fields with a known key; others are problems.
    fn known(&mut self, fields: Option<Vec<Field>>, key: &Key<'_>, keys: &[&str]) -> Vec<Field> {
        let mut known: Vec<Field> = Vec::new();
        for field in fields.unwrap_or_default() {
            let name = field.name.as_str();
            let message = if !keys.contains(&name) && self.checks.ignore_unknown {
                let message = format!("unknown key {name:?} is ignored: Prometheus refuses it");
                self.warnings.push(Lint::Ignored, field.place, key, message);
                continue;
            } else if !keys.contains(&name) {
                unknown(name, keys)
            } else if known.iter().any(|other| other.name == name) {
                format!("key `{name}` stands twice: leave one of them")
            } else {
                known.push(field);
                continue;
            };
            self.reader.problems.push(field.place, key, message);
        }
        known
    }

    /// Whether an item of a list is nothing, which Prometheus passes over.
    fn is_ignored(&mut self, id: Id, key: &Key<'_>, what: &str) -> bool {
        let is_null = self.reader.is_null(id);
        if is_null {
            let message = format!("empty {what} is ignored: remove its `-`");
            let place = self.reader.place(id);
            self.warnings.push(Lint::Ignored, place, key, message);
        }
        is_null
    }

    fn count(&mut self, count: usize, max: usize, id: Id, key: &Key<'_>, what: &str) -> bool {
        if count > max {
            let place = self.reader.place(id);
            let message = format!("file holds more than {max} {what}: split it");
            self.reader.problems.push(place, key, message);
        }
        count <= max
    }
}

fn unknown(name: &str, keys: &[&str]) -> String {
    let score = |key: &str| strsim::jaro_winkler(name, key);
    let best = keys.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    match best.filter(|key| score(key) >= ALIKE) {
        Some(key) => format!("unknown key {name:?}: did you mean `{key}`?"),
        None => format!(
            "unknown key {name:?}: remove it, or use one of {}",
            keys.join(", ")
        ),
    }
}

/// What the names and values of a mapping are.
enum Role<'a> {
    /// Labels of a group or a recording rule.
    Label,
    /// Labels of the alert of that name, which are templates.
    AlertLabel(&'a str),
    Annotation(&'a str),
    /// Annotations of a recording rule, which has none.
    Ignored,
}

impl Role<'_> {
    fn is_label(&self) -> bool {
        matches!(self, Self::Label | Self::AlertLabel(_))
    }

    /// The alert whose templates these are.
    fn alert(&self) -> Option<&str> {
        match self {
            Self::AlertLabel(alert) | Self::Annotation(alert) => Some(alert),
            Self::Label | Self::Ignored => None,
        }
    }
}
