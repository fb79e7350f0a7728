//! Observatorium's `tenants.yaml` and `rbac.yaml`, in their original format.
//!
//! A tenant that cannot be used (its certificates cannot be read, or it needs a feature that Metrifold
//! does not have, such as Rego policies in files) does not keep the others from being served: it is set
//! aside when the file is first read. At a reload it is an error that names it.

mod entries;
mod flaw;
mod foreign;
mod tenant;

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use metrifold_base::read_text;
use metrifold_http::access::Permission;
use metrifold_model::Membership;

use crate::config::{
    BindingConfig, RoleConfig, Subject, SubjectKind, TenantConfig, TenantSettings,
};
use crate::roles::{Binding, Role};

use entries::{Before, Entries};
use flaw::yaml;
use tenant::{TenantEntry, tenant};

pub use foreign::{Content, Foreign};

/// Maximum size of a file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The tenants of a `tenants.yaml`.
#[derive(Debug, Default)]
pub struct ForeignTenants {
    entries: Entries<ForeignTenant>,
    aside: Vec<Aside>,
}

/// A tenant of a `tenants.yaml` that cannot be used.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    /// Why it cannot be used.
    pub(crate) reason: String,
}

/// A tenant of a `tenants.yaml`.
#[derive(Debug)]
struct ForeignTenant {
    membership: Membership,
    rest: Arc<Rest>,
    /// Hash of its text, unless it names files; see [`TenantSettings::print`].
    print: Option<u64>,
}

/// What an entry says beside the name and the id of its tenant. Mostly the same for many tenants, which
/// share it: there may be very many.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    /// Configuration without an id.
    config: TenantConfig,
    /// Notes on fields of the entry that have no effect, or another one than in Observatorium.
    notes: Box<[String]>,
}

/// The roles and bindings of an `rbac.yaml`.
#[derive(Debug, Default)]
pub struct Rbac(Entries<RbacEntry>);

/// A role, or a binding of roles to users and groups.
#[derive(Debug)]
enum RbacEntry {
    Role(Role),
    Binding(Binding),
}

/// The roles, by their names, and the bindings of an `rbac.yaml`, as `[roles.NAME]` and
/// `[role_bindings.NAME]` would have them.
pub type RbacTables = (Vec<(String, RoleConfig)>, Vec<BindingConfig>);

impl ForeignTenants {
    /// The tenants.
    pub fn tenants(&self) -> impl Iterator<Item = TenantSettings<'_>> {
        self.entries.all.iter().map(|tenant| TenantSettings {
            membership: tenant.membership.clone(),
            config: &tenant.rest.config,
            print: tenant.print,
        })
    }

    /// The names and ids of the tenants.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = &Membership> {
        self.entries.all.iter().map(|tenant| &tenant.membership)
    }

    /// Notes on fields of tenants that have no effect, or another one than in Observatorium, each with the
    /// name of its tenant.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.all.iter().flat_map(|tenant| {
            let notes = tenant.rest.notes.iter();
            notes.map(|note| (&*tenant.membership.name, note.as_str()))
        })
    }

    /// The tenants that cannot be used.
    pub(crate) fn aside(&self) -> &[Aside] {
        &self.aside
    }
}

impl Rbac {
    /// The roles.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Role(role) => Some(role),
            RbacEntry::Binding(_) => None,
        })
    }

    /// The bindings of roles to users and groups.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Binding(binding) => Some(binding),
            RbacEntry::Role(_) => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsFile {
    #[serde(default)]
    tenants: Vec<TenantEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RbacFile {
    #[serde(default)]
    roles: Vec<RoleEntry>,
    #[serde(default)]
    role_bindings: Vec<BindingEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    name: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    permissions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingEntry {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    subjects: Vec<SubjectEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectEntry {
    name: String,
    kind: String,
}

/// Reads the tenants of a `tenants.yaml`, without the files that they name.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read, or a tenant of it cannot be used.
pub fn read_tenants(file: &Path) -> Result<ForeignTenants, String> {
    let text = read(file)?;
    let read = parse_tenants(&text, None, false);
    read.map_err(|reason| format!("{}: {reason}", file.display()))
}

/// Reads the roles and bindings of an `rbac.yaml`.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read or understood.
pub fn read_rbac(file: &Path) -> Result<RbacTables, String> {
    let text = read(file)?;
    let read = rbac_tables(&text);
    read.map_err(|reason| format!("{}: {reason}", file.display()))
}

impl Content for ForeignTenants {
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String> {
        let text = read(file)?;
        let read = parse_tenants(&text, before, true);
        let read = read.or_else(|_| set_aside(file, &text, before));
        read.map_err(|reason| format!("{}: {reason}", file.display()))
    }
}

impl Content for Rbac {
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String> {
        let text = read(file)?;
        let read = parse_rbac(&text, before);
        read.map_err(|reason| format!("{}: {reason}", file.display()))
    }
}

fn read(file: &Path) -> Result<String, String> {
    let text = read_text(file, MAX_FILE);
    text.map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// Reads tenants entry by entry, unless the file has an unusual form or an error, which is reported with
/// its line in the file. With `files`, those that the tenants name must be usable as well.
fn parse_tenants(
    text: &str,
    before: Option<&ForeignTenants>,
    files: bool,
) -> Result<ForeignTenants, String> {
    let mut tenants = Entries::default();
    let mut shared = Shared::default();
    let divided = entries::divide(text, &[TENANTS]).unwrap_or_default();
    let mut known = Before::new(before.map(|before| &before.entries));
    let each: Result<_, String> = divided.iter().try_for_each(|part| {
        tenants.add(part.text, &mut known, |text| {
            let [entry]: [TenantEntry; 1] = yaml(text)?;
            let name = entry.name.clone();
            let tenant = foreign_tenant(&name, tenant(entry, files)?, shared.after(before));
            let print = tenant.rest.config.files().is_empty();
            let print = print.then(|| entries::hash(text));
            Ok(ForeignTenant { print, ..tenant })
        })
    });
    if divided.is_empty() || each.is_err() {
        let all = one_by_one(text, files)?.into_iter();
        let all = all.map(|(Named { name, .. }, read)| {
            let read = read.map_err(|reason| format!("tenant {name:?}: {reason}"))?;
            Ok(foreign_tenant(&name, read, &mut shared))
        });
        let all: Result<Vec<_>, String> = all.collect();
        tenants = Entries::of(all?);
    }
    Ok(ForeignTenants {
        entries: tenants,
        aside: Vec::new(),
    })
}

/// The key of the list of tenants.
const TENANTS: &str = "tenants";

/// A tenant, whatever else its entry holds.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default, deserialize_with = "text")]
    id: Option<String>,
}

/// A value if it is text, and nothing if it is anything else.
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(value)?;
    Ok(value.as_str().map(str::to_owned))
}

/// What the entry of a tenant says, or what is wrong with it, and in which line.
type Said = Result<(TenantConfig, Box<[String]>), String>;

/// Reads tenants one by one, however the others are.
fn one_by_one(text: &str, files: bool) -> Result<Vec<(Named, Said)>, String> {
    let parts = entries::divide(text, &[TENANTS]);
    let said = |entry, line: Option<usize>| {
        let said = tenant(entry, files);
        said.map_err(|reason| match line {
            Some(line) => format!("line {line}: {reason}"),
            None => reason,
        })
    };
    match (yaml::<TenantsFile>(text), parts) {
        (Ok(file), parts) => {
            let parts = parts.filter(|parts| parts.len() == file.tenants.len());
            let all = file.tenants.into_iter().enumerate();
            let all = all.map(|(at, entry)| {
                let (name, id) = (entry.name.clone(), Some(entry.id.clone()));
                let line = parts.as_ref().map(|parts| parts[at].line);
                (Named { name, id }, said(entry, line))
            });
            Ok(all.collect())
        }
        (Err(flaw), None) => Err(flaw.into()),
        (Err(flaw), Some(parts)) => {
            let read = |part: &entries::Part<'_>| {
                let [named]: [Named; 1] = yaml(part.text).map_err(|_| flaw.clone())?;
                let entry = yaml::<[TenantEntry; 1]>(part.text);
                Ok((
                    named,
                    match entry {
                        Ok([entry]) => said(entry, Some(part.line)),
                        Err(flaw) => Err(flaw.below(part.line).into()),
                    },
                ))
            };
            parts.iter().map(read).collect()
        }
    }
}

/// Reads tenants, and sets aside those that cannot be used. At a reload, these must have been set aside
/// before: a tenant that is in use does not lose its configuration by a mistake.
fn set_aside(
    file: &Path,
    text: &str,
    before: Option<&ForeignTenants>,
) -> Result<ForeignTenants, String> {
    let (mut tenants, mut aside) = (Vec::new(), Vec::new());
    let mut shared = Shared::default();
    for (Named { name, id }, read) in one_by_one(text, true)? {
        let was_aside = |before: &ForeignTenants| before.aside.iter().any(|it| it.name == name);
        match read {
            Ok(read) => tenants.push(foreign_tenant(&name, read, &mut shared)),
            Err(reason) if before.is_none_or(was_aside) => {
                let reason = format!("{}: {reason}", file.display());
                aside.push(Aside { name, id, reason });
            }
            Err(reason) => return Err(format!("tenant {name:?}: {reason}")),
        }
    }
    Ok(ForeignTenants {
        entries: Entries::of(tenants),
        aside,
    })
}

fn foreign_tenant(
    name: &str,
    (mut config, notes): (TenantConfig, Box<[String]>),
    shared: &mut Shared,
) -> ForeignTenant {
    let membership = TenantSettings::of(name, &config, None).membership;
    config.id = None;
    ForeignTenant {
        membership,
        rest: shared.one(Rest { config, notes }),
        print: None,
    }
}

/// The distinct parts of entries, by hashes of them.
#[derive(Default)]
struct Shared {
    by_hash: HashMap<u64, Vec<Arc<Rest>>>,
    /// Whether those of the previous entries are among them.
    complete: bool,
}

impl Shared {
    /// The same, with the parts of the previous entries.
    fn after(&mut self, before: Option<&ForeignTenants>) -> &mut Self {
        if !std::mem::replace(&mut self.complete, true) {
            let mut seen = HashSet::new();
            let all = before.into_iter().flat_map(|before| &before.entries.all);
            for rest in all.map(|tenant| &tenant.rest) {
                if seen.insert(Arc::as_ptr(rest)) {
                    let known = self.by_hash.entry(hash_of(rest)).or_default();
                    known.push(Arc::clone(rest));
                }
            }
        }
        self
    }

    /// The part that is equal to this one.
    fn one(&mut self, rest: Rest) -> Arc<Rest> {
        let known = self.by_hash.entry(hash_of(&rest)).or_default();
        if let Some(same) = known.iter().find(|known| ***known == rest) {
            return Arc::clone(same);
        }
        let rest = Arc::new(rest);
        known.push(Arc::clone(&rest));
        rest
    }
}

/// A hash of what is printed of a part, which has no secrets in it.
fn hash_of(rest: &Rest) -> u64 {
    struct Printed(DefaultHasher);
    impl fmt::Write for Printed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut printed = Printed(DefaultHasher::new());
    // Hashing cannot fail.
    let _ = write!(printed, "{rest:?}");
    printed.0.finish()
}

/// Reads roles and bindings as [`parse_tenants`] does tenants.
fn parse_rbac(text: &str, before: Option<&Rbac>) -> Result<Rbac, String> {
    let mut rbac = Entries::default();
    let mut names: HashSet<Arc<str>> = HashSet::new();
    let mut text_of = |name: &str| match names.get(name) {
        Some(known) => Arc::clone(known),
        None => {
            let name: Arc<str> = name.into();
            names.insert(Arc::clone(&name));
            name
        }
    };
    let divided = entries::divide(text, &["roles", "roleBindings"]).unwrap_or_default();
    let mut known = Before::new(before.map(|before| &before.0));
    let each: Result<_, String> = divided.iter().try_for_each(|part| {
        rbac.add(part.text, &mut known, |text| match part.key {
            0 => {
                let [entry]: [RoleEntry; 1] = yaml(text)?;
                let (name, role) = role(entry)?;
                Ok(RbacEntry::Role(Role::new(&name, &role, &mut text_of)))
            }
            _ => {
                let [entry]: [BindingEntry; 1] = yaml(text)?;
                let binding = binding(entry)?;
                Ok(RbacEntry::Binding(Binding::new(&binding, &mut text_of)))
            }
        })
    });
    if divided.is_empty() || each.is_err() {
        let (roles, bindings) = rbac_tables(text)?;
        let mut all = Vec::with_capacity(roles.len() + bindings.len());
        all.extend(
            roles
                .iter()
                .map(|(name, role)| RbacEntry::Role(Role::new(name, role, &mut text_of))),
        );
        all.extend(
            bindings
                .iter()
                .map(|binding| RbacEntry::Binding(Binding::new(binding, &mut text_of))),
        );
        rbac = Entries::of(all);
    }
    let rbac = Rbac(rbac);
    each_once(rbac.roles().map(Role::name))?;
    Ok(rbac)
}

fn rbac_tables(text: &str) -> Result<RbacTables, String> {
    let file: RbacFile = yaml(text)?;
    let roles: Result<Vec<_>, _> = file.roles.into_iter().map(role).collect();
    let roles = roles?;
    each_once(roles.iter().map(|(name, _)| name.as_str()))?;
    let bindings: Result<_, _> = file.role_bindings.into_iter().map(binding).collect();
    Ok((roles, bindings?))
}

/// Refuses roles of the same name.
fn each_once<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut known = HashSet::new();
    match names.find(|name| !known.insert(*name)) {
        Some(name) => Err(format!("role {name:?} is declared twice")),
        None => Ok(()),
    }
}

fn role(entry: RoleEntry) -> Result<(String, RoleConfig), String> {
    let mut permissions = Vec::new();
    for permission in &entry.permissions {
        match permission.as_str() {
            "read" => permissions.push(Permission::Read),
            "write" => permissions.extend([Permission::Write, Permission::Rules]),
            other => {
                return Err(format!(
                    "role {:?} has an unknown permission {other:?}: use read or write",
                    entry.name
                ));
            }
        }
    }
    let tenants = entry.tenants.into_iter();
    let config = RoleConfig {
        resources: entry.resources,
        // In Observatorium, `*` is an ordinary name here: it must not grant access to all tenants.
        tenants: tenants.filter(|name| name != "*").collect(),
        permissions,
    };
    Ok((entry.name, config))
}

fn binding(entry: BindingEntry) -> Result<BindingConfig, String> {
    let subject = |subject: SubjectEntry| {
        let kind = match subject.kind.as_str() {
            "user" => SubjectKind::User,
            "group" => SubjectKind::Group,
            other => {
                return Err(format!(
                    "unknown kind of subject {other:?}: use user or group"
                ));
            }
        };
        Ok(Subject {
            name: subject.name,
            kind,
        })
    };
    let subjects: Result<_, String> = entry.subjects.into_iter().map(subject).collect();
    Ok(BindingConfig {
        roles: entry.roles,
        subjects: subjects?,
    })
}

#[cfg(test)]
mod tests;
