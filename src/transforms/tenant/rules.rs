//! Rules of a tenant: what they produce bears its label, and what they read has it.
//!
//! The label is set on every rule, whatever stood there, and its matcher is added to every selector
//! of the expression. Labels and annotations of an alert are templates that can query; so what is
//! queried there is narrowed as well, and a query that is not known before the template is evaluated
//! is refused. A ruler evaluates the labels of a group as templates of each of its alerts, though it
//! does not parse them when it loads the file: they are held to the same.
//!
//! Rules come with their tenant: from the path of a request or from their place in a store. Of rules
//! that have none, an entry `value` or the key `default` says whose they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_base::BuildError;
use metrifold_engine::component::{BuildContext, BuildTransform};
use metrifold_engine::planes::rules::{Rules, Transform};
use metrifold_model::{Rejection, RejectionKind, Tenant};
use metrifold_promql::{ImplicitInfo, Matcher, Options, enforce, parse};
use metrifold_rules::{Group, Kind, Rule, RuleFile, StoredFile, Template, TenantRules};

use super::source::Source;
use super::{TenantConfig, name};

/// The most refusals of a tenant's rules that are told at once.
const MAX_TOLD: usize = 20;

impl BuildTransform<Rules> for TenantConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        let Some(label) = self.label.clone() else {
            let reason = "rules are narrowed by a label: name the one that holds the tenant";
            return Err(BuildError::new("label", reason));
        };
        let nobodys = self
            .make()?
            .sources
            .into_iter()
            .find_map(|source| match source {
                Source::Value(tenant) => Some(tenant),
                _ => None,
            });
        Ok(Arc::new(TenantRulesOnly {
            label,
            nobodys,
            promql: crate::promql::options(),
        }))
    }
}

/// Holds each tenant's rules to its own series.
#[derive(Debug)]
struct TenantRulesOnly {
    label: String,
    /// Whose rules are that come without a tenant.
    nobodys: Option<Tenant>,
    promql: Options,
}

impl Transform for TenantRulesOnly {
    fn apply(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Arc<TenantRules>, Rejection> {
        let owner = match (&**tenant, &self.nobodys) {
            ("", Some(owner)) => owner,
            ("", None) => {
                let reason = "rules have no tenant: add default, or an entry value to from";
                return Err(Rejection::invalid(reason));
            }
            _ => {
                name::check(tenant.as_bytes()).map_err(Rejection::invalid)?;
                tenant
            }
        };
        let narrowing = Narrowing {
            label: &self.label,
            owner,
            matcher: Matcher::one_of(&self.label, &[owner]),
            promql: &self.promql,
        };
        let mut refused = Vec::new();
        let files = rules.files().map(|(name, stored)| {
            let file = narrowing.file(name, stored.file(), &mut refused);
            (name.clone(), Arc::new(StoredFile::new(file)))
        });
        let narrowed = TenantRules::new(files.collect::<Vec<_>>());
        match refused.is_empty() {
            true => Ok(Arc::new(narrowed)),
            false => {
                let more = refused.len().saturating_sub(MAX_TOLD);
                refused.truncate(MAX_TOLD);
                if more > 0 {
                    refused.push(format!("and {more} more"));
                }
                Err(Rejection::new(RejectionKind::Invalid, refused.join("; ")))
            }
        }
    }
}

/// One tenant's matcher, and where it goes.
struct Narrowing<'a> {
    label: &'a str,
    owner: &'a Tenant,
    matcher: Matcher,
    promql: &'a Options,
}

impl Narrowing<'_> {
    fn file(&self, name: &str, file: &RuleFile, refused: &mut Vec<String>) -> RuleFile {
        let groups = file.groups.iter().map(|group| {
            let mut tell = |what: &str, reason: String| {
                let group = &group.name;
                refused.push(format!("file {name:?}, group {group:?}, {what}: {reason}"));
            };
            self.group(group, &mut tell)
        });
        RuleFile {
            groups: groups.collect(),
        }
    }

    fn group(&self, group: &Group, tell: &mut dyn FnMut(&str, String)) -> Group {
        let alerts = |rule: &Rule| matches!(rule.kind, Kind::Alerting(_));
        let mut labels = group.labels.clone();
        // The rules' own takes its place.
        labels.remove(self.label);
        if group.rules.iter().any(alerts) {
            self.templates(&mut labels, "", "label", tell);
        }
        let rules = group.rules.iter().map(|rule| self.rule(rule, tell));
        Group {
            rules: rules.collect(),
            labels,
            ..group.clone_without_rules()
        }
    }

    fn rule(&self, rule: &Rule, tell: &mut dyn FnMut(&str, String)) -> Rule {
        let mut rule = rule.clone();
        match self.narrow(&rule.expr) {
            Ok(expr) => rule.expr = expr,
            Err(reason) => tell(&format!("rule {:?}", rule.name), reason),
        }
        if let Kind::Alerting(alerting) = &mut rule.kind {
            let annotations = &mut alerting.annotations;
            self.templates(annotations, &rule.name, "annotation", tell);
            self.templates(&mut rule.labels, &rule.name, "label", tell);
        }
        let owner = self.owner.to_string();
        rule.labels.insert(self.label.to_owned(), owner);
        rule
    }

    /// Narrows what templates query.
    fn templates(
        &self,
        texts: &mut BTreeMap<String, String>,
        alert: &str,
        what: &str,
        tell: &mut dyn FnMut(&str, String),
    ) {
        for (name, text) in texts {
            // Only what stands in braces is evaluated.
            if !text.contains("{{") {
                continue;
            }
            let mut narrow = |query: &str| self.narrow(query);
            let narrowed =
                Template::parse(text, alert).and_then(|template| template.map_queries(&mut narrow));
            match narrowed {
                Ok(narrowed) => *text = narrowed,
                Err(error) => {
                    let of = match alert {
                        "" => String::new(),
                        alert => format!("rule {alert:?}, "),
                    };
                    tell(&format!("{of}{what} {name:?}"), error.to_string());
                }
            }
        }
    }

    fn narrow(&self, expr: &str) -> Result<String, String> {
        let mut expr = parse(expr, self.promql).map_err(|error| error.to_string())?;
        let matchers = std::slice::from_ref(&self.matcher);
        enforce(&mut expr, matchers, ImplicitInfo::Narrow).map_err(|error| error.to_string())?;
        Ok(expr.to_query())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrifold_rules::Checks;

    fn transform(nobodys: Option<&str>) -> TenantRulesOnly {
        TenantRulesOnly {
            label: "tenant_id".into(),
            nobodys: nobodys.map(Tenant::from),
            promql: crate::promql::options(),
        }
    }

    fn rules(yaml: &str) -> Arc<TenantRules> {
        let parsed = RuleFile::parse(yaml.as_bytes(), &Checks::new(&crate::rules::check_expr));
        let file = parsed
            .unwrap_or_else(|problems| panic!("{problems:?}"))
            .file;
        Arc::new(TenantRules::new([(
            "f".into(),
            Arc::new(StoredFile::new(file)),
        )]))
    }

    fn narrowed(yaml: &str) -> Result<String, String> {
        let made = transform(None).apply(&Tenant::from("a"), &rules(yaml));
        let made = made.map_err(|rejection| rejection.reason.to_string())?;
        Ok(made.file("f").unwrap().file().to_yaml())
    }

    #[test]
    fn labels_expressions_and_templates_are_the_tenants() {
        let made = narrowed(
            r#"
groups:
- name: g
  labels: {tenant_id: b, team: '{{ query "x" | first | value }}'}
  rules:
  - {record: r, expr: 'sum(rate(x{tenant_id="b"}[5m])) / on() y', labels: {tenant_id: b, l: '{{ query "not a template" }}'}}
  - alert: s
    expr: absent(z) or vector(1)
    labels: {tenant_id: '{{ query "up" }}', l: '{{ query "up" | len }}'}
    annotations: {t: '{{ range query `a or b` }}{{ .Value }}{{ end }} {{ $labels.x }}', u: 'query "up"'}
"#,
        );
        let made = made.unwrap();
        for expected in [
            r#"sum(rate(x{tenant_id="a",tenant_id="b"}[5m])) / on () y{tenant_id="a"}"#,
            r#"absent(z{tenant_id="a"}) or vector(1)"#,
            r#"{{ query "x{tenant_id=\"a\"}" | first | value }}"#,
            r#"{{ query "up{tenant_id=\"a\"}" | len }}"#,
            r#"{{ range query "a{tenant_id=\"a\"} or b{tenant_id=\"a\"}" }}{{ .Value }}{{ end }} {{ $labels.x }}"#,
            r#"{{ query "not a template" }}"#,
            r#"query "up"'"#,
        ] {
            assert!(made.contains(expected), "{expected}\n{made}");
        }
        assert_eq!(made.matches("tenant_id: ").count(), 2, "{made}");
        assert!(!made.contains("tenant_id: b"), "{made}");
    }

    #[test]
    fn what_cannot_be_narrowed_is_refused_with_its_place() {
        let refused = narrowed(
            r#"
groups:
- name: g
  rules:
  - alert: s
    expr: up
    annotations: {t: '{{ $value | query }}', u: '{{ printf "up" | query }}'}
- name: h
  labels: {l: '{{ query .Labels.x }}'}
  rules:
  - {alert: s, expr: up, labels: {l: '{{ define "x" }}{{ query . }}{{ end }}{{ template "x" "up" }}'}}
- name: i
  labels: {l: '{{ broken'}
  rules:
  - {record: s, expr: up}
"#,
        );
        let refused = refused.unwrap_err();
        let told: Vec<_> = refused.split("; ").collect();
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(
            told[0].starts_with(
                r#"file "f", group "g", rule "s", annotation "t": what `query` reads"#
            )
        );
        assert!(
            told[2].starts_with(r#"file "f", group "h", label "l": "#),
            "{}",
            told[2]
        );
    }

    #[test]
    fn rules_of_nobody_are_refused_or_somebodys() {
        let some = rules("groups: [{name: g, rules: [{record: r, expr: up}]}]");
        let nobody = Tenant::from("");
        assert!(transform(None).apply(&nobody, &some).is_err());
        let made = transform(Some("all")).apply(&nobody, &some).unwrap();
        let text = made.file("f").unwrap().file().to_yaml();
        assert!(text.contains(r#"up{tenant_id="all"}"#), "{text}");
        let error = transform(Some("all")).apply(&Tenant::from("{{ a }}"), &some);
        assert!(error.unwrap_err().reason.contains("is not a tenant name"));
    }
}
