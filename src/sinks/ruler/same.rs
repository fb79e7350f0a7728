//! Compares a delivered group with what a ruler says that it has under the group's name, which may be an
//! older version.
//!
//! Rulers print expressions in a form of their own, so those that differ as texts are compared as our
//! parser prints them. A group's `query_offset` is in no ruler's answer.

use std::collections::{BTreeMap, HashMap};

use metrifold_engine::planes::rules::RuleSet;
use metrifold_promql::{Options, parse};
use metrifold_rules::{Group, Labels, PromDuration, Rule};

use super::client::{LoadedGroup, LoadedRule};
use super::way::Said;
use crate::promql;

/// Labels that a Thanos Ruler adds to all of its rules.
type External = BTreeMap<String, String>;

/// A group that a ruler reports, with the tenant and the file that it belongs to.
pub(super) type Owned<'a> = (String, String, LoadedGroup<'a>);

/// The groups of a set that a ruler has loaded in the set's version, as it reports them, and the name of
/// one that it has not, among those that it shows.
pub(super) fn compare(
    set: &RuleSet,
    loaded: Vec<Owned<'_>>,
    is_shown: impl Fn(&str, &str) -> bool,
) -> Result<(Vec<Said>, Option<String>), String> {
    let external = external(&loaded)?;
    let named = loaded.into_iter().map(|(tenant, file, group)| {
        let key = (tenant, file, group.name.to_string());
        (key, group)
    });
    let mut loaded: HashMap<_, _> = named.collect();
    let (mut said, mut missing) = (Vec::new(), None);
    for (tenant, rules) in set.iter() {
        for (file, stored) in rules.files() {
            for group in &stored.file().groups {
                let key = (tenant.to_string(), file.to_string(), group.name.clone());
                let name = || format!("group {:?} of tenant {tenant:?}", group.name);
                let Some(found) = loaded.remove(&key) else {
                    if !group.rules.is_empty() && is_shown(tenant, file) {
                        missing.get_or_insert_with(name);
                    }
                    continue;
                };
                let rules = found.rules()?;
                if !is_loaded(group, &found, &rules, &external) {
                    missing.get_or_insert_with(|| format!("this version of {}", name()));
                    continue;
                }
                let mut rules = rules.into_iter();
                let error = rules.find_map(|rule| {
                    let error = rule.last_error.filter(|error| !error.is_empty())?;
                    Some(format!("{}: {error}", rule.name))
                });
                let (tenant, file, group) = key;
                said.push(Said {
                    tenant,
                    file,
                    group,
                    last_evaluation: found.last_evaluation.map(String::from),
                    error,
                });
            }
        }
    }
    Ok((said, missing))
}

/// Labels that all rules of a Thanos Ruler have with one value, its own among them.
fn external(loaded: &[Owned<'_>]) -> Result<External, String> {
    let mut common: Option<External> = None;
    let of_thanos = loaded.iter().filter(|(.., group)| group.is_of_thanos());
    for (.., group) in of_thanos {
        if common.as_ref().is_some_and(External::is_empty) {
            break;
        }
        for rule in group.rules()? {
            match &mut common {
                None => common = Some(rule.labels),
                Some(common) => common.retain(|name, value| rule.labels.get(name) == Some(value)),
            }
        }
    }
    Ok(common.unwrap_or_default())
}

fn is_loaded(
    own: &Group,
    loaded: &LoadedGroup<'_>,
    rules: &[LoadedRule],
    external: &External,
) -> bool {
    let interval = own.interval.filter(|interval| !interval.is_zero());
    let is_interval = |own: PromDuration| loaded.interval.is_none_or(|it| is_seconds(it, own));
    let strategy = own.partial_response.map(|own| own.as_str());
    let is_strategy = |own: &str| {
        let loaded = loaded.strategy.as_deref();
        loaded.is_none_or(|loaded| loaded.eq_ignore_ascii_case(own))
    };
    interval.is_none_or(is_interval)
        && loaded.limit.is_none_or(|limit| limit == own.limit)
        && strategy.is_none_or(is_strategy)
        && has_loaded_rules(own, loaded, rules, external)
}

/// Whether the rules of a group are loaded: in its order, or in that of a Thanos Ruler, which lists alerts
/// before other rules, each by name, and equal rules once.
fn has_loaded_rules(
    own: &Group,
    loaded: &LoadedGroup<'_>,
    rules: &[LoadedRule],
    external: &External,
) -> bool {
    let is_loaded = |own_rule: &Rule, rule: &LoadedRule| {
        is_loaded_rule(own_rule, rule) && has_labels(own, own_rule, &rule.labels, external)
    };
    let mut pairs = own.rules.iter().zip(rules);
    if own.rules.len() == rules.len() && pairs.all(|(own, rule)| is_loaded(own, rule)) {
        return true;
    }
    if !loaded.is_of_thanos() {
        return false;
    }
    let expr = |text: &str| printed(text, &promql::options()).unwrap_or_else(|| text.to_owned());
    let labels = |labels: BTreeMap<&str, &str>| -> Vec<(String, String)> {
        let own = labels.into_iter();
        let own = own.filter(|(name, value)| !value.is_empty() && !external.contains_key(*name));
        own.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let ours = own.rules.iter().map(|rule| {
        let all = own.labels.iter().chain(rule.labels.iter());
        let all = labels(all.map(text).collect());
        let is_alerting = rule.alerting().is_some();
        (
            (!is_alerting, rule.name.to_string(), all, expr(&rule.expr)),
            rule,
        )
    });
    let theirs = rules.iter().map(|rule| {
        let all = rule.labels.iter();
        let all = labels(all.map(text).collect());
        (
            (
                !rule.is_alerting(),
                rule.name.clone(),
                all,
                expr(&rule.query),
            ),
            rule,
        )
    });
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    ours.len() == theirs.len()
        && ours
            .into_iter()
            .zip(theirs)
            .all(|((_, own), (_, rule))| is_loaded(own, rule))
}

/// Rules sorted by their keys, one for each.
fn sorted<K: Ord, R>(rules: impl Iterator<Item = (K, R)>) -> Vec<(K, R)> {
    let mut rules: Vec<_> = rules.collect();
    rules.sort_by(|(one, _), (other, _)| one.cmp(other));
    rules.dedup_by(|(later, _), (earlier, _)| later == earlier);
    rules
}

fn is_loaded_rule(own: &Rule, loaded: &LoadedRule) -> bool {
    let is_kind = loaded.kind.is_empty() || loaded.is_alerting() == own.alerting().is_some();
    let is_alert = own.alerting().is_none_or(|own| {
        is_seconds(loaded.duration, own.hold.unwrap_or_default())
            && loaded
                .keep_firing_for
                .is_none_or(|it| is_seconds(it, own.keep_firing_for.unwrap_or_default()))
            && own
                .annotations
                .iter()
                .map(text)
                .eq(loaded.annotations.iter().map(text))
    });
    // What this parser does not know cannot be compared.
    *own.name == loaded.name
        && is_kind
        && is_alert
        && is_same_expr(&own.expr, &loaded.query).unwrap_or(true)
}

/// Whether a rule has its own labels and those of its group, and otherwise only external ones.
fn has_labels(group: &Group, rule: &Rule, loaded: &External, external: &External) -> bool {
    let own = |name: &str| rule.labels.get(name).or_else(|| group.labels.get(name));
    let is_own = |labels: &Labels| {
        labels.iter().all(|(name, _)| {
            let value = own(name).map_or("", |value| &**value);
            let loaded = loaded.get(&**name);
            loaded.map_or("", |it| it.as_str()) == value
                || loaded.is_some_and(|loaded| external.get(&**name) == Some(loaded))
        })
    };
    let is_known = |(name, value): (&String, &String)| {
        value.is_empty() || own(name).is_some() || external.get(name) == Some(value)
    };
    is_own(&group.labels) && is_own(&rule.labels) && loaded.iter().all(is_known)
}

/// Whether a stored group is a delivered one in all that rule files say.
pub(super) fn is_same(own: &Group, stored: &Group) -> bool {
    let without_exprs = |group: &Group| {
        let mut group = group.clone();
        for rule in &mut group.rules {
            rule.expr = String::new().into();
        }
        group
    };
    has_rules(own, stored) && without_exprs(own) == without_exprs(stored)
}

/// Whether a stored group has the rules of a delivered one by their names and expressions, which every
/// store keeps.
pub(super) fn has_rules(own: &Group, stored: &Group) -> bool {
    own.rules.len() == stored.rules.len()
        && own.rules.iter().zip(&stored.rules).all(|(own, stored)| {
            own.name == stored.name
                && own.alerting().is_some() == stored.alerting().is_some()
                && is_same_expr(&own.expr, &stored.expr).unwrap_or(false)
        })
}

/// Whether two expressions are the same but for their notation; `None` if one cannot be parsed.
fn is_same_expr(own: &str, other: &str) -> Option<bool> {
    if own == other {
        return Some(true);
    }
    let options = promql::options();
    Some(printed(own, &options)? == printed(other, &options)?)
}

/// An expression in the notation of our parser; `None` if it cannot be parsed.
fn printed(text: &str, options: &Options) -> Option<String> {
    Some(parse(text, options).ok()?.to_string())
}

fn is_seconds(seconds: f64, own: PromDuration) -> bool {
    (seconds * 1000.0 - own.as_millis() as f64).abs() < 1.0
}

fn text<'t, T: AsRef<str>>((name, value): (&'t T, &'t T)) -> (&'t str, &'t str) {
    (name.as_ref(), value.as_ref())
}

#[cfg(test)]
mod tests;
