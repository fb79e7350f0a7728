//! Converts the YAML tree to a rule file, and records every problem.

use std::collections::HashMap;
use std::sync::Arc;

use super::check::{METRIC_NAME, has_forbidden, is_forbidden, is_label, is_metric};
use super::fields::{Field, Reader};
use super::lint::{Lint, Warnings};
use super::problem::{Key, Problem, Problems};
use super::{Alerting, Checks, Expr, Group, Kind, Labels, Parsed, PartialResponse, Rule, RuleFile};
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
/// Maximum number of names of labels that labels share.
const MAX_SHARED: usize = 16;
/// Number of keys of the mapping with the most of them.
const MAX_KEYS: usize = 7;
/// Minimum similarity of an unknown key to a known one that is then suggested.
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
    if has_forbidden(text) {
        for (at, c) in text.char_indices().filter(|(_, c)| is_forbidden(*c)) {
            let message = format!(
                "character {c:?} is not allowed in YAML: write it escaped, in double quotes"
            );
            problems.push(place_after(&text.as_bytes()[..at]), &Key::File, message);
        }
        return Err(problems.into_list());
    }
    let read = Tree::parse(text, limits.nodes, |tree| read(tree, checks));
    read.unwrap_or_else(|list| {
        for (place, message) in list {
            problems.push(place, &Key::File, message);
        }
        Err(problems.into_list())
    })
}

/// Converts the tree of a file.
fn read(tree: &Tree<'_>, checks: &Checks<'_>) -> Result<Parsed, Vec<Problem>> {
    let mut file = FileReader {
        reader: Reader::new(tree, &checks.limits),
        warnings: Warnings::new(checks.limits.problems),
        checks,
        rules: 0,
        has_groups: false,
        names_groups: false,
        names: Vec::new(),
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
            names_groups: file.names_groups,
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
    /// Number of rules so far, over all groups.
    rules: usize,
    has_groups: bool,
    names_groups: bool,
    /// The first names of labels in the file.
    names: Vec<Arc<str>>,
}

impl<'t> FileReader<'t, '_> {
    fn file(&mut self, root: Option<Id>) -> RuleFile {
        let mut file = RuleFile::default();
        let fields = root.and_then(|root| {
            let wanted = "the key `groups` with a list of groups";
            self.reader.fields(root, &Key::File, wanted)
        });
        for field in self.known(fields, &Key::File, FILE_KEYS) {
            self.names_groups = true;
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

    /// Parses a group; returns it with the position of its name.
    fn group(&mut self, id: Id, key: &Key<'_>) -> (Group, Option<Place>) {
        let mut group = Group::default();
        let mut named = None;
        let fields = self
            .reader
            .fields(id, key, "a group: write its name as `name: …`");
        let is_group = fields.is_some();
        let mut places = Vec::new();
        for field in self.known(fields, key, GROUP_KEYS) {
            let key = &key.field(field.name);
            match field.name {
                "name" => {
                    named = Some(field.place);
                    let name = self.reader.text(field.value, key).unwrap_or_default();
                    group.name = name.to_owned();
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

    fn partial_response(&mut self, field: &Field<'_>, key: &Key<'_>) -> Option<PartialResponse> {
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

    /// Parses the rules of a group; returns them with their positions.
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
        let (mut expr, mut at_expr) = ("", place);
        let (mut labels, mut alerting) = (None, Alerting::default());
        let mut annotations = None;
        // The fields that only an alert may have, with their positions.
        let (mut hold_at, mut keep_at, mut annotations_at) = (None, None, None);
        for field in self.known(Some(fields), key, RULE_KEYS) {
            let key = &key.field(field.name);
            let (value, at) = (field.value, field.place);
            match field.name {
                "record" => record = self.name(value, key, at),
                "alert" => alert = self.name(value, key, at),
                "expr" => {
                    at_expr = self.reader.place(value);
                    expr = self.reader.text(value, key).unwrap_or_default();
                }
                "for" => {
                    alerting.hold = self.set_duration(value, key);
                    hold_at = alerting.hold.map(|_| ("for", at));
                }
                "keep_firing_for" => {
                    alerting.keep_firing_for = self.set_duration(value, key);
                    keep_at = alerting.keep_firing_for.map(|_| ("keep_firing_for", at));
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
                annotations_at = Some(("annotations", at));
            }
        }
        let expr = self.expr(expr, at_expr, &key.field("expr"));
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
            let of_alert = [hold_at, keep_at, annotations_at];
            for (field, at) in of_alert.into_iter().flatten() {
                let message = format!(
                    "`{field}` has no meaning in a recording rule: remove it, or write `alert` for `record`"
                );
                self.reader.problems.push(at, &key.field(field), message);
            }
        }
        Some(Rule {
            name: name.into(),
            expr,
            labels: labels.unwrap_or_default(),
            kind: match is_alert {
                true => Kind::Alerting(Arc::new(alerting)),
                false => Kind::Recording,
            },
        })
    }

    /// Parses the value of `record` or `alert`; `None` if it is empty.
    fn name(&mut self, id: Id, key: &Key<'_>, at: Place) -> Option<(&'t str, Place)> {
        let name = self.reader.text(id, key).filter(|name| !name.is_empty())?;
        let Key::Field(_, "record") = key else {
            return Some((name, at));
        };
        let place = self.reader.place(id);
        if name.contains(['{', '}']) {
            let message =
                format!("metric name {name:?} holds braces: move them into `expr` or `labels`");
            self.reader.problems.push(place, key, message);
        } else if !is_metric(name, self.checks.names) {
            let message = format!(
                "{name:?} is no metric name: use letters, digits, `_` and `:`, and begin with no digit"
            );
            self.reader.problems.push(place, key, message);
        }
        Some((name, at))
    }

    /// Checks an expression.
    fn expr(&mut self, expr: &str, place: Place, key: &Key<'_>) -> Expr {
        if expr.is_empty() {
            let message = "rule has no expression: write PromQL after `expr:`";
            self.reader.problems.push(place, key, message);
            return Expr::new(expr, None);
        }
        match (self.checks.expr)(expr) {
            Ok(checked) => {
                for (lint, message) in checked.lints {
                    self.warnings.push(lint, place, key, message);
                }
                Expr::new(expr, checked.places)
            }
            Err(reason) => {
                let message = format!("expression does not parse: {reason}");
                self.reader.problems.push(place, key, message);
                Expr::new(expr, None)
            }
        }
    }

    fn labels(&mut self, id: Id, key: &Key<'_>, role: &Role<'_>) -> Labels {
        let wanted = "a mapping of names to text: write `name: value`";
        let fields = self.reader.fields(id, key, wanted).unwrap_or_default();
        let mut labels = Vec::with_capacity(fields.len());
        for field in fields {
            let key = &key.field(field.name);
            let value = self.reader.text(field.value, key).unwrap_or_default();
            self.label_name(&field, key, role);
            if let Some(alert) = role.alert()
                && let Err(reason) = Template::check(value, alert)
            {
                let message = format!("template does not parse: {reason}");
                let place = self.reader.place(field.value);
                self.reader.problems.push(place, key, message);
            }
            labels.push((self.shared(field.name), value.into()));
        }
        labels.into()
    }

    /// A label's name, which labels of the same name share.
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        if self.names.len() < MAX_SHARED {
            self.names.push(new.clone());
        }
        new
    }

    fn label_name(&mut self, field: &Field<'_>, key: &Key<'_>, role: &Role<'_>) {
        let name = field.name;
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

    /// Parses a duration for which zero means unset.
    fn set_duration(&mut self, id: Id, key: &Key<'_>) -> Option<PromDuration> {
        self.duration(id, key)
            .filter(|duration| !duration.is_zero())
    }

    /// The fields with a known key. Records a problem for every other field.
    fn known(
        &mut self,
        fields: Option<Vec<Field<'t>>>,
        key: &Key<'_>,
        keys: &[&str],
    ) -> Vec<Field<'t>> {
        let mut fields = fields.unwrap_or_default();
        // For each key, whether a field has it.
        let mut seen = [false; MAX_KEYS];
        fields.retain(|field| {
            let name = field.name;
            let message = match keys.iter().position(|key| *key == name) {
                Some(at) if !std::mem::replace(&mut seen[at], true) => return true,
                Some(_) => format!("key `{name}` stands twice: leave one of them"),
                None if self.checks.ignore_unknown => {
                    let message = format!("unknown key {name:?} is ignored: Prometheus refuses it");
                    self.warnings.push(Lint::Ignored, field.place, key, message);
                    return false;
                }
                None => unknown(name, keys),
            };
            self.reader.problems.push(field.place, key, message);
            false
        });
        fields
    }

    /// Whether an item of a list is null, which Prometheus skips.
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

/// Meaning of the names and values of a mapping.
enum Role<'a> {
    /// Labels of a group or a recording rule.
    Label,
    /// Labels of the named alert, which are templates.
    AlertLabel(&'a str),
    Annotation(&'a str),
    /// Annotations of a recording rule, which have no effect.
    Ignored,
}

impl Role<'_> {
    fn is_label(&self) -> bool {
        matches!(self, Self::Label | Self::AlertLabel(_))
    }

    /// Name of the alert, if the values are its templates.
    fn alert(&self) -> Option<&str> {
        match self {
            Self::AlertLabel(alert) | Self::Annotation(alert) => Some(alert),
            Self::Label | Self::Ignored => None,
        }
    }
}
