//! `tenant`: determines the tenant of a batch, a query or a rule, and restricts it to that tenant.
//!
//! A batch gets the tenant's name written into a label; a query is narrowed to series with that
//! label (`queries`), and so are rules (`rules`). Batches and queries find the tenant in the same
//! ways; rules come with one.
//!
//! The entries of `from` are tried in order, and the first that yields a name wins. If a label
//! decides, a batch is split by tenant. The name is validated before it is used, and the label
//! overwrites one that the sender has set.
//!
//! Delivery: a batch with a series that has no tenant, or an invalid one, is refused as a whole
//! before any part of it is passed on. Metadata without a tenant is dropped with the reason
//! `metadata_without_tenant`, and counted by families.
//!
//! Limits: a batch is split into at most `max_tenants_per_batch` parts; the body of a query, and an
//! answer that must be filtered, are read whole, up to `max_body_bytes` and `max_answer_bytes`.

mod queries;
mod rules;
mod source;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;

use metrifold_base::keys::Keys;
use metrifold_base::{BuildError, Problems, Size, keys};
use metrifold_codec::{Arena, Batch, Label, Name, SeriesMut};
use metrifold_engine::component::{
    BuildContext, BuildTransform, ComponentInfo, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{Emitter, Metrics, Pass, Plan, Transform};
use metrifold_http::form::Form;
use metrifold_model::{
    Kind, Membership, Origin, Rejection, RejectionKind, Tenant, tenant_name as name,
};

use source::{FromConfig, Source};

const METRIC: &str = "__name__";

keys! {
    /// `[transforms.tenant] type = "tenant"`.
    #[derive(Debug)]
    pub struct TenantConfig {
        /// Sources of the tenant's name, in order: `caller` (the tenant that the caller has authenticated for), `path`, `header`, `parameter` (of a query's URL), `label` (with `remove = true` to remove it), `client_cert` (`common_name`, `organizational_unit` or `dns`) or `value`. The first one that yields a name is used. The default is `[{ caller = true }]`. A caller that has authenticated can only name a tenant that it has access to; any other is rejected with status 403.
        from: Vec<FromConfig> = suggested([{ path = "tenant" }, { header = "THANOS-TENANT" }, { label = "namespace" }]),
        /// Tenant to use if no entry of `from` yields one. Unset, batches without a tenant are rejected with status 400.
        default: Option<String> = unset("anonymous"),
        /// Label that the tenant's name is written to. It replaces the sender's value.
        label: Option<String> = suggested("tenant_id"),
        /// Maximum number of tenants in a batch, at least 1. A batch with more is rejected with status 413.
        max_tenants_per_batch: NonZeroUsize = default(1000),
        /// Maximum number of tenants that a query can name, separated by `|`, in a path, a header or a parameter. A query that names more is rejected with status 400.
        max_tenants_per_query: NonZeroUsize = default(1),
        /// Endpoints that are open to all tenants although their answers concern all tenants, such as `/api/v1/targets` and `/api/v1/status/tsdb`, and `ui` for the server's user interface.
        allow: Vec<String> = default([]),
        /// Query parameters that are accepted in addition to those of Prometheus' API, such as `trace`. Others are rejected with status 400.
        parameters: Vec<String> = default([]),
        /// Maximum size of a query's body. A larger one is answered 413.
        max_body_bytes: Size = default("16MiB"),
        /// Maximum size of an answer that must be read completely in order to filter rules, alerts or metadata. A larger one is answered 502.
        max_answer_bytes: Size = default("64MiB"),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "tenant",
        summary: "Determines the tenant of batches, queries and rules, and restricts them to it.",
        keys: TenantConfig::ENTRIES,
    }
}

impl TenantConfig {
    fn compile(&self, problems: &mut Problems) -> Option<TenantTransform> {
        let mut sound = true;
        let mut sources = Vec::new();
        if self.from.is_empty() {
            sources.push(Source::Caller);
        }
        for (index, entry) in self.from.iter().enumerate() {
            let source = entry.compile(&format!("from[{index}]"), problems);
            sound &= source.is_some();
            sources.extend(source);
        }
        let described: Vec<_> = sources.iter().map(Source::to_string).collect();
        if let Some(default) = &self.default {
            match name::check(default.as_bytes()) {
                Ok(tenant) => sources.push(Source::Value(tenant.into())),
                Err(reason) => {
                    problems.at("default", reason).help("choose another name");
                    sound = false;
                }
            }
        }
        if let Some(label) = &self.label
            && (label.is_empty() || label == METRIC)
        {
            let message = format!("{label:?} cannot hold the tenant");
            problems.at("label", message).help("name another label");
            sound = false;
        }
        sound &= queries::validate(self, problems);
        sound.then(|| TenantTransform {
            reads_labels: self.label.is_some()
                || sources
                    .iter()
                    .any(|source| matches!(source, Source::Label { .. })),
            sources,
            label: self.label.as_deref().map(Name::new),
            max_tenants: self.max_tenants_per_batch.get(),
            metric: Name::new(METRIC),
            described: described.join(", "),
        })
    }

    /// The label that restricts queries or rules.
    fn restricting(&self, what: &str) -> Result<&str, String> {
        let message =
            || format!("{what} are restricted by a label: name the one that holds the tenant");
        self.label.as_deref().ok_or_else(message)
    }

    fn require_label(&self, what: &str, problems: &mut Problems) {
        if let Err(message) = self.restricting(what) {
            problems
                .at("label", message)
                .help("add label = \"tenant_id\"");
        }
    }

    fn make(&self) -> Result<TenantTransform, BuildError> {
        let mut problems = Problems::new(true);
        self.compile(&mut problems).ok_or_else(|| {
            let first = problems.into_list().into_iter().next();
            let (path, message) = first.map_or_else(Default::default, |p| (p.path, p.message));
            BuildError::new(path, message)
        })
    }
}

#[typetag::deserialize(name = "tenant")]
impl TransformConfig for TenantConfig {
    fn confines(&self) -> bool {
        true
    }

    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            queries: Some(self),
            rules: Some(self),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        self.compile(problems);
    }
}

impl BuildTransform<Metrics> for TenantConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(self.make()?))
    }
}

#[derive(Debug)]
struct TenantTransform {
    sources: Vec<Source>,
    label: Option<Name>,
    max_tenants: usize,
    reads_labels: bool,
    metric: Name,
    /// The configured sources in words, for refusals.
    described: String,
}

/// Writes one tenant's name into every series.
struct Stamp<'a> {
    name: &'a Name,
    tenant: Tenant,
    /// The label, added to the arena once for all series.
    label: Option<Label>,
    hint: usize,
}

impl Pass for Stamp<'_> {
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        let tenant = self.tenant.as_bytes();
        let label = *self
            .label
            .get_or_insert_with(|| series.push_label(self.name, tenant));
        let place = series.position(self.name, &mut self.hint);
        series.set_label_at(place, label);
        true
    }

    fn reason(&self) -> &'static str {
        "tenant"
    }
}

/// Restricts a name to the tenants of an authenticated caller: it must be one of them, or several
/// divided by `|`, by name or id. For a caller without tenants the name stays as it is.
fn held_to(caller: &[Membership], named: Tenant) -> Result<Tenant, Rejection> {
    if caller.is_empty() {
        return Ok(named);
    }
    let mut tenants: Vec<&str> = Vec::new();
    for name in named.split('|') {
        let own = caller
            .iter()
            .find(|own| *own.tenant == *name || *own.name == *name);
        let Some(own) = own else {
            let reason = format!("you have no access to tenant {name:?}");
            return Err(Rejection::new(RejectionKind::Forbidden, reason));
        };
        tenants.push(&own.tenant);
    }
    Ok(match tenants[..] {
        [only] if *only == *named => named,
        _ => tenants.join("|").into(),
    })
}

/// Parses a tenant from bytes of a request, or says what is wrong with them.
type Check<'a> = &'a dyn Fn(&[u8]) -> Result<Tenant, String>;

/// The series of one tenant.
#[derive(Debug)]
struct Part {
    tenant: Tenant,
    indexes: Vec<usize>,
}

/// Sources that decide about the tenant of one batch: labels in their order, then one fixed name.
struct Found<'a> {
    labels: Vec<(&'a Name, bool)>,
    fixed: Option<Tenant>,
}

impl TenantTransform {
    /// Collects the sources for a batch or a query. A source that yields a name for the whole batch
    /// ends the search. `url` has the parameters of a query's URL.
    fn look(&self, origin: &Origin, url: &Form, check: Check<'_>) -> Result<Found<'_>, Rejection> {
        let mut found = Found {
            labels: Vec::new(),
            fixed: None,
        };
        for source in &self.sources {
            if let Source::Label { name, remove } = source {
                found.labels.push((name, *remove));
                continue;
            }
            let name = source.read(origin, url, check);
            let name = name.map_err(|reason| Rejection::invalid(format!("{source}: {reason}")))?;
            if let Some(tenant) = name {
                found.fixed = Some(held_to(origin.caller.tenants(), tenant)?);
                break;
            }
        }
        Ok(found)
    }

    fn none(&self, what: &str) -> Rejection {
        Rejection::invalid(format!(
            "{what} has no tenant: it is looked for in {}",
            self.described
        ))
    }

    /// Groups the series by tenant, in order of appearance.
    fn group(
        &self,
        found: &Found<'_>,
        arena: &Arena,
        caller: &[Membership],
    ) -> Result<Vec<Part>, Rejection> {
        let mut parts: Vec<Part> = Vec::new();
        let mut known: HashMap<&[u8], usize, RandomState> = HashMap::default();
        let mut last: Option<(&[u8], usize)> = None;
        for series in arena.iter() {
            let labels = found.labels.iter();
            let named = labels
                .filter_map(|(label, _)| series.get(label))
                .find(|value| !value.is_empty());
            let fixed = found.fixed.as_ref().map(|tenant| tenant.as_bytes());
            let metric = || {
                let metric = series.get(&self.metric).unwrap_or_default();
                format!("series {:?}", String::from_utf8_lossy(metric))
            };
            let Some(name) = named.or(fixed) else {
                return Err(self.none(&metric()));
            };
            let part = match last {
                Some((last, part)) if last == name => part,
                _ => match known.get(name) {
                    Some(&part) => part,
                    None => {
                        let tenant = name::check(name).map_err(|reason| {
                            Rejection::invalid(format!("{}: {reason}", metric()))
                        })?;
                        if parts.len() >= self.max_tenants {
                            return Err(Rejection::new(
                                RejectionKind::TooLarge,
                                format!(
                                    "batch holds more than {} tenants: send fewer at a time or raise max_tenants_per_batch",
                                    self.max_tenants
                                ),
                            ));
                        }
                        parts.push(Part {
                            tenant: held_to(caller, tenant.into())?,
                            indexes: Vec::new(),
                        });
                        known.insert(name, parts.len() - 1);
                        parts.len() - 1
                    }
                },
            };
            last = Some((name, part));
            parts[part].indexes.push(series.index());
        }
        Ok(parts)
    }

    /// Sets the tenant and the labels of a batch that belongs to one tenant.
    fn finish(
        &self,
        found: &Found<'_>,
        batch: &mut Batch,
        tenant: Tenant,
    ) -> Result<(), Rejection> {
        let removes = found.labels.iter().any(|(_, remove)| *remove);
        if removes || self.label.is_some() {
            let edited = batch.edit(|arena| {
                // Added to the arena once, for all series.
                let label = self.label.as_ref().filter(|_| arena.counts().series > 0);
                let label = label.map(|name| {
                    let label = arena.push_label(name.as_bytes(), tenant.as_bytes());
                    (name, label)
                });
                arena.retain(|series| {
                    let mut labels = found.labels.iter();
                    let origin = labels.find(|(name, _)| series.get(name).is_some());
                    if let Some((name, true)) = origin {
                        series.remove(name);
                    }
                    if let Some((name, label)) = label {
                        series.set_label(name, label);
                    }
                    true
                });
            });
            edited?;
        }
        batch.set_tenant(tenant);
        Ok(())
    }
}

impl Transform for TenantTransform {
    fn reads_labels(&self) -> bool {
        self.reads_labels
    }

    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        let check = |name: &[u8]| name::check(name).map(Tenant::from);
        let found = self.look(batch.origin(), &Form::default(), &check)?;
        if !found.labels.is_empty() {
            return Ok(Plan::Split(Box::new(move |batch, out| {
                self.split(&found, batch, out)
            })));
        }
        let tenant = found.fixed.ok_or_else(|| self.none("batch"))?;
        batch.set_tenant(tenant.clone());
        Ok(match &self.label {
            None => Plan::Keep,
            Some(name) => Plan::Pass(Box::new(Stamp {
                name,
                tenant,
                label: None,
                hint: 0,
            })),
        })
    }
}

impl TenantTransform {
    /// Emits a batch of its own for each tenant.
    fn split(
        &self,
        found: &Found<'_>,
        mut batch: Batch,
        out: &mut Emitter<'_>,
    ) -> Result<(), Rejection> {
        let arena = batch.arena()?.clone();
        let mut parts = self.group(found, &arena, batch.origin().caller.tenants())?;
        let metadata = arena.counts().metadata > 0;
        if let Some(fixed) = &found.fixed
            && (metadata || parts.is_empty())
            && !parts.iter().any(|part| part.tenant == *fixed)
        {
            // The metadata belongs to this tenant, even if no series does.
            parts.push(Part {
                tenant: fixed.clone(),
                indexes: Vec::new(),
            });
        }
        if parts.is_empty() {
            if metadata {
                out.dropped("metadata_without_tenant", arena.counts());
            }
            return Ok(());
        }
        // All parts are built before the first is emitted: nothing of a refused batch is delivered.
        let mut batches = Vec::with_capacity(parts.len());
        if let [part] = &mut parts[..] {
            drop(arena); // edits need no copy without this handle
            let tenant = part.tenant.clone();
            self.finish(found, &mut batch, tenant)?;
            batches.push(batch);
        } else {
            for part in parts {
                let own = found
                    .fixed
                    .as_ref()
                    .is_none_or(|fixed| *fixed == part.tenant);
                let mut batch = batch.with_arena(arena.extract(own, &part.indexes));
                self.finish(found, &mut batch, part.tenant)?;
                batches.push(batch);
            }
        }
        for batch in batches {
            out.emit(batch);
        }
        Ok(())
    }
}
