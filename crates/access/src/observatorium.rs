//! Observatorium's `tenants.yaml` and `rbac.yaml`, in their original format.
//!
//! A tenant that cannot be used (its certificates cannot be read, or it needs a feature that Metrifold
//! does not have, such as Rego policies in files) does not keep the others from being served: it is set
//! aside when the file is first read. At a reload it is an error that names it.

mod entries;
mod foreign;
mod tenant;

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use metrifold_base::read_text;
use metrifold_http::access::Permission;

use crate::config::{
    BindingConfig, RoleConfig, Subject, SubjectKind, TenantConfig, TenantSettings,
};

use entries::Entries;
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
    name: String,
    config: TenantConfig,
    /// Hash of its text, unless it names files; see [`TenantSettings::print`].
    print: Option<u64>,
    /// Notes on fields of its entry that have no effect, or another one than in Observatorium.
    notes: Box<[String]>,
}

/// The roles and bindings of an `rbac.yaml`.
#[derive(Debug, Default)]
pub struct Rbac(Entries<RbacEntry>);

/// A role, with its name, or a binding of roles to users and groups.
#[derive(Debug)]
enum RbacEntry {
    Role(String, RoleConfig),
    Binding(BindingConfig),
}

impl ForeignTenants {
    /// The tenants.
    pub fn tenants(&self) -> impl Iterator<Item = TenantSettings<'_>> {
        self.entries.all.iter().map(|tenant| TenantSettings {
            name: &tenant.name,
            config: &tenant.config,
            print: tenant.print,
        })
    }

    /// Notes on fields of tenants that have no effect, or another one than in Observatorium, each with the
    /// name of its tenant.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.all.iter().flat_map(|tenant| {
            let notes = tenant.notes.iter();
            notes.map(|note| (tenant.name.as_str(), note.as_str()))
        })
    }

    /// The tenants that cannot be used.
    pub(crate) fn aside(&self) -> &[Aside] {
        &self.aside
    }
}

impl Rbac {
    /// The roles by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &RoleConfig)> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Role(name, role) => Some((name.as_str(), role)),
            RbacEntry::Binding(_) => None,
        })
    }

    /// The bindings of roles to users and groups.
    pub fn bindings(&self) -> impl Iterator<Item = &BindingConfig> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Binding(binding) => Some(binding),
            RbacEntry::Role(..) => None,
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
pub fn read_rbac(file: &Path) -> Result<Rbac, String> {
    Rbac::read(file, None)
}

impl Content for ForeignTenants {
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String> {
        let text = read(file)?;
        let read = parse_tenants(&text, before, true);
        let read = read.or_else(|_| set_aside(&text, before));
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

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The size of the file is the bound; the parser's own ones are for fewer tenants.
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_nodes, budget.max_events) = (text.len() + 16, 2 * text.len() + 32);
    let options = serde_saphyr::options! { budget: Some(budget) };
    // The parser's message would quote the file, secrets included.
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
        Some(at) => format!("line {} does not have the expected form", at.line()),
        None => "does not have the expected form".to_owned(),
    })
}

/// Reads tenants entry by entry, unless the file has an unusual form or an error, which is reported with
/// its line in the file. With `files`, those that the tenants name must be usable as well.
fn parse_tenants(
    text: &str,
    before: Option<&ForeignTenants>,
    files: bool,
) -> Result<ForeignTenants, String> {
    let mut tenants = Entries::default();
    let divided = entries::divide(text, &[TENANTS]).unwrap_or_default();
    let each: Result<_, String> = divided.iter().try_for_each(|(_, text)| {
        tenants.add(text, before.map(|before| &before.entries), |text| {
            let [entry]: [TenantEntry; 1] = yaml(text)?;
            let tenant = named_tenant(entry, files)?;
            let print = tenant.config.files().is_empty();
            let print = print.then(|| entries::hash(text));
            Ok(ForeignTenant { print, ..tenant })
        })
    });
    if divided.is_empty() || each.is_err() {
        let file: TenantsFile = yaml(text)?;
        let all = file.tenants.into_iter();
        let all: Result<Vec<_>, _> = all.map(|entry| named_tenant(entry, files)).collect();
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
    id: Option<String>,
}

/// Reads tenants, and sets aside those that cannot be used. At a reload, these must have been set aside
/// before: a tenant that is in use does not lose its configuration by a mistake.
fn set_aside(text: &str, before: Option<&ForeignTenants>) -> Result<ForeignTenants, String> {
    let mut read = Vec::new();
    match yaml::<TenantsFile>(text) {
        Ok(file) => read.extend(file.tenants.into_iter().map(|entry| {
            let (name, id) = (entry.name.clone(), Some(entry.id.clone()));
            (Named { name, id }, tenant(entry, true))
        })),
        Err(reason) => {
            for (_, text) in entries::divide(text, &[TENANTS]).ok_or_else(|| reason.clone())? {
                let [named]: [Named; 1] = yaml(text).map_err(|_| reason.clone())?;
                let entry = yaml(text).map_err(|_| "its entry does not have the expected form");
                let entry = entry.map_err(str::to_owned);
                let config = entry.and_then(|[entry]: [TenantEntry; 1]| tenant(entry, true));
                read.push((named, config));
            }
        }
    }
    let (mut tenants, mut aside) = (Vec::new(), Vec::new());
    for (Named { name, id }, read) in read {
        let was_aside = |before: &ForeignTenants| before.aside.iter().any(|it| it.name == name);
        match read {
            Ok((config, notes)) => tenants.push(ForeignTenant {
                name,
                config,
                print: None,
                notes,
            }),
            Err(reason) if before.is_none_or(was_aside) => aside.push(Aside { name, id, reason }),
            Err(reason) => return Err(format!("tenant {name:?}: {reason}")),
        }
    }
    Ok(ForeignTenants {
        entries: Entries::of(tenants),
        aside,
    })
}

fn named_tenant(entry: TenantEntry, files: bool) -> Result<ForeignTenant, String> {
    let name = entry.name.clone();
    let read = tenant(entry, files).map_err(|reason| format!("tenant {name:?}: {reason}"));
    let (config, notes) = read?;
    Ok(ForeignTenant {
        name,
        config,
        print: None,
        notes,
    })
}

/// Reads roles and bindings as [`parse_tenants`] does tenants.
fn parse_rbac(text: &str, before: Option<&Rbac>) -> Result<Rbac, String> {
    let mut rbac = Entries::default();
    let divided = entries::divide(text, &["roles", "roleBindings"]).unwrap_or_default();
    let each: Result<_, String> = divided.iter().try_for_each(|(key, text)| {
        rbac.add(text, before.map(|before| &before.0), |text| match key {
            0 => yaml(text).and_then(|[entry]: [RoleEntry; 1]| role(entry)),
            _ => yaml(text).and_then(|[entry]: [BindingEntry; 1]| binding(entry)),
        })
    });
    if divided.is_empty() || each.is_err() {
        let file: RbacFile = yaml(text)?;
        let roles = file.roles.into_iter().map(role);
        let bindings = file.role_bindings.into_iter().map(binding);
        let all: Result<Vec<_>, _> = roles.chain(bindings).collect();
        rbac = Entries::of(all?);
    }
    let rbac = Rbac(rbac);
    let mut names = HashSet::new();
    let twice = rbac.roles().find(|(name, _)| !names.insert(*name));
    if let Some((name, _)) = twice {
        return Err(format!("role {name:?} is declared twice"));
    }
    Ok(rbac)
}

fn role(entry: RoleEntry) -> Result<RbacEntry, String> {
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
        resources: trimmed(entry.resources),
        // In Observatorium, `*` is an ordinary name here: it must not grant access to all tenants.
        tenants: trimmed(tenants.filter(|name| name != "*").collect()),
        permissions,
    };
    Ok(RbacEntry::Role(entry.name, config))
}

fn binding(entry: BindingEntry) -> Result<RbacEntry, String> {
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
    Ok(RbacEntry::Binding(BindingConfig {
        roles: trimmed(entry.roles),
        subjects: trimmed(subjects?),
    }))
}

/// A list without the room that the parser left for more: there may be very many lists of one entry.
fn trimmed<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

#[cfg(test)]
mod tests;
