//! Rules of a tenant: their results have its label, and they read only series with it.
//!
//! The label is set on every rule, overwriting any other value, and its matcher is added to every
//! selector of the expression. Labels and annotations of an alert are templates that can query:
//! those queries are narrowed as well, and one whose expression is only known on evaluation is
//! refused. A ruler evaluates the labels of a group as templates of each of its alerts, though it
//! does not parse them when it loads the file, so that they are treated the same.
//!
//! Rules come with a tenant: from the path of a request, or from their place in a store. For rules
//! without one, an entry `value` or the key `default` names it.

use std::sync::Arc;

use metrifold_base::{BuildError, Problems};
use metrifold_engine::component::{BuildContext, BuildTransform};
use metrifold_engine::planes::rules::{Rules, Transform};
use metrifold_model::{Rejection, RejectionKind, Tenant};
use metrifold_promql::{ImplicitInfo, Matcher, Options, enforce, insert, parse};
use metrifold_rules::{
    Alerting, Expr, Group, Kind, Labels, Rule, RuleFile, StoredFile, Template, TenantRules,
};

use super::source::Source;
use super::{TenantConfig, name};

/// Most refusals that an error lists per tenant.
const MAX_TOLD: usize = 20;

impl BuildTransform<Rules> for TenantConfig {
    fn validate_for_plane(&self, problems: &mut Problems) {
        self.require_label("rules", problems);
    }

    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        let label = self.restricting("rules");
        let label = label.map_err(|reason| BuildError::new("label", reason))?;
        let nobodys = self
            .make()?
            .sources
            .into_iter()
            .find_map(|source| match source {
                Source::Value(tenant) => Some(tenant),
                _ => None,
            });
        Ok(Arc::new(TenantRulesOnly {
            label: label.into(),
            nobodys,
            promql: crate::promql::options(),
        }))
    }
}

/// Restricts each tenant's rules to its own series.
#[derive(Debug)]
struct TenantRulesOnly {
    label: Arc<str>,
    /// Tenant of rules that come without one; `None` refuses them.
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
        let narrowing = Narrowing::new(&self.label, owner, &self.promql);
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

/// The matcher of one tenant, with the settings to apply it.
struct Narrowing<'a> {
    /// Name of the label, and its value, as texts that all rules share.
    label: Arc<str>,
    owner: Arc<str>,
    matcher: Matcher,
    /// The matcher as it is written in an expression.
    written: String,
    promql: &'a Options,
}

impl<'a> Narrowing<'a> {
    fn new(label: &Arc<str>, owner: &Tenant, promql: &'a Options) -> Self {
        let matcher = Matcher::one_of(label, &[owner]);
        Self {
            label: label.clone(),
            owner: owner.clone(),
            written: matcher.to_string(),
            matcher,
            promql,
        }
    }

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
        // Each rule sets this label itself.
        let mut labels = group.labels.without(&self.label);
        // Reading a file does not parse these templates, and neither does a ruler that loads it.
        let are_templates = labels.iter().any(|(_, text)| text.contains("{{"));
        if are_templates && group.rules.iter().any(alerts) {
            labels = self.templates(&labels, "", "label", tell);
        }
        let rules = group.rules.iter().map(|rule| self.rule(rule, tell));
        Group {
            rules: rules.collect(),
            labels,
            ..group.clone_without_rules()
        }
    }

    fn rule(&self, rule: &Rule, tell: &mut dyn FnMut(&str, String)) -> Rule {
        let expr = self.expr(&rule.expr).unwrap_or_else(|reason| {
            tell(&format!("rule {:?}", rule.name), reason);
            String::new()
        });
        let (mut kind, mut labels) = (rule.kind.clone(), None);
        if let Kind::Alerting(alerting) = &mut kind {
            if may_query(&alerting.annotations) {
                let annotations = &alerting.annotations;
                *alerting = Arc::new(Alerting {
                    annotations: self.templates(annotations, &rule.name, "annotation", tell),
                    ..**alerting
                });
            }
            if may_query(&rule.labels) {
                labels = Some(self.templates(&rule.labels, &rule.name, "label", tell));
            }
        }
        let labels = labels.as_ref().unwrap_or(&rule.labels);
        Rule {
            name: rule.name.clone(),
            expr: expr.into(),
            labels: labels.with(&self.label, &self.owner),
            kind,
        }
    }

    /// Narrows the queries in templates.
    fn templates(
        &self,
        texts: &Labels,
        alert: &str,
        what: &str,
        tell: &mut dyn FnMut(&str, String),
    ) -> Labels {
        let narrowed = texts.iter().map(|(name, text)| {
            // Text without braces is not evaluated.
            if !text.contains("{{") {
                return (name.clone(), text.clone());
            }
            let mut narrow = |query: &str| self.narrow(query);
            let narrowed =
                Template::parse(text, alert).and_then(|template| template.map_queries(&mut narrow));
            let narrowed = narrowed.unwrap_or_else(|error| {
                let of = match alert {
                    "" => String::new(),
                    alert => format!("rule {alert:?}, "),
                };
                tell(&format!("{of}{what} {name:?}"), error.to_string());
                String::new()
            });
            (name.clone(), Arc::from(narrowed))
        });
        narrowed.collect()
    }

    /// Narrows the expression of a rule. Its text stays as it was written if the matcher can be inserted
    /// into it.
    fn expr(&self, expr: &Expr) -> Result<String, String> {
        // The tree tells whether a selector has the matcher already.
        let places = expr.places().filter(|_| !expr.contains(&*self.label));
        let inserted = places.and_then(|places| insert(expr, places, &self.written));
        inserted.map_or_else(|| self.narrow(expr), Ok)
    }

    fn narrow(&self, expr: &str) -> Result<String, String> {
        // Names without quotes are in the expression only if the source lets them pass.
        let unquoted = Options {
            unquoted_names: true,
            ..*self.promql
        };
        let parsed = parse(expr, self.promql);
        let parsed = parsed.or_else(|error| parse(expr, &unquoted).map_err(|_| error));
        let mut expr = parsed.map_err(|error| error.to_string())?;
        let matchers = std::slice::from_ref(&self.matcher);
        enforce(&mut expr, matchers, ImplicitInfo::Narrow).map_err(|error| error.to_string())?;
        Ok(expr.to_query())
    }
}

fn may_query(texts: &Labels) -> bool {
    texts.iter().any(|(_, text)| Template::may_query(text))
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;
    use metrifold_rules::Checks;

    pub(super) fn transform(nobodys: Option<&str>) -> TenantRulesOnly {
        TenantRulesOnly {
            label: "tenant_id".into(),
            nobodys: nobodys.map(Tenant::from),
            promql: crate::promql::options(),
        }
    }

    fn rules(yaml: &str) -> Arc<TenantRules> {
        let parsed = RuleFile::parse(yaml.as_bytes(), &Checks::new(&*crate::rules::checker(&[])));
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
            // The tree is printed only if the text names the label.
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
    fn an_expression_keeps_its_text_unless_the_tree_is_needed() {
        let made = narrowed(
            r#"
groups:
- name: g
  rules:
  - record: r
    expr: |
      sum(rate(x{code=~"5.."}[5m])) by (job)
        / on(job) group_left() y
  - {record: s, expr: 'sum(x) by(job) # and {no} more'}
  - {record: t, expr: 'sum(x) by(tenant_id)'}
"#,
        );
        let made = made.unwrap();
        for expected in [
            "          sum(rate(x{tenant_id=\"a\",code=~\"5..\"}[5m])) by (job)\n            / on(job) group_left() y{tenant_id=\"a\"}\n",
            r#"'sum by (job) (x{tenant_id="a"})'"#,
            r#"'sum by (tenant_id) (x{tenant_id="a"})'"#,
        ] {
            assert!(made.contains(expected), "{expected}\n{made}");
        }
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
