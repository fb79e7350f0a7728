//! Tenants and roles as tables: `[access]`, `[tenants.NAME]`, `[roles.NAME]`, `[role_bindings.NAME]`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use metrifold_access::{
    AccessConfig, BindingConfig, RoleConfig, Settings, TenantConfig, TenantSettings,
};
use metrifold_base::Problems;

use super::Config;
use super::diagnostic::Diagnostic;
use super::globals::Read;
use super::suggest;
use super::tables::{TableConfig, TableInfo};

impl TableConfig for AccessConfig {
    const NAME: &'static str = "access";

    fn validate(&self, problems: &mut Problems) {
        self.validate(problems);
    }

    fn files(&self) -> Vec<&Path> {
        self.files()
    }

    fn further_files(&self) -> Vec<PathBuf> {
        self.further_files()
    }

    fn take_over(&self, before: &Self) {
        self.take_over(before);
    }
}

impl TableConfig for TenantConfig {
    const NAME: &'static str = "tenants";

    fn validate(&self, problems: &mut Problems) {
        self.validate(problems);
    }

    fn files(&self) -> Vec<&Path> {
        self.files()
    }
}

impl TableConfig for RoleConfig {
    const NAME: &'static str = "roles";
}

impl TableConfig for BindingConfig {
    const NAME: &'static str = "role_bindings";
}

inventory::submit! { TableInfo::one::<AccessConfig>("How requests name tenants, and files with tenants and roles.") }
inventory::submit! { TableInfo::many::<TenantConfig>("A tenant, and how a caller proves to be of it.") }
inventory::submit! { TableInfo::many::<RoleConfig>("What a role lets callers do.") }
inventory::submit! { TableInfo::many::<BindingConfig>("Who has which roles.") }

/// The most unknown names for which a similar one is searched among all.
const MOST_SUGGESTIONS: usize = 20;

/// Reports roles for tenants that there are not, bindings of roles that there are not, and what of
/// `tenants_file` is not served as it stands there.
pub(crate) fn check(tables: &[Read], environment: bool, found: &mut Vec<Diagnostic>) {
    for read in tables.iter().filter(|_| environment) {
        let access = read.table.config.any().downcast_ref::<AccessConfig>();
        let warnings = access.map(AccessConfig::warnings).unwrap_or_default();
        found.extend(warnings.into_iter().map(|warning| {
            let message = format!("{}: {warning}", read.name);
            Diagnostic::warning(message).at(read.place.clone())
        }));
    }
    let all = |name: &'static str| tables.iter().filter(move |read| is_named(read, name));
    if all(RoleConfig::NAME)
        .chain(all(BindingConfig::NAME))
        .next()
        .is_none()
    {
        return;
    }
    let mut any = tables.iter().map(|read| read.table.config.any());
    let access = any.find_map(|any| any.downcast_ref::<AccessConfig>());
    // What stands in files is not known without looking at them.
    let looked = match access {
        Some(access) if environment => access.names_in_files(),
        Some(access) if !access.files().is_empty() => return,
        _ => Default::default(),
    };
    let mut tenants: HashSet<&str> = looked.0.into_iter().collect();
    for read in all(TenantConfig::NAME) {
        tenants.extend(own_name(read));
        let config = read.table.config.any().downcast_ref::<TenantConfig>();
        tenants.extend(config.and_then(|config| config.id.as_deref()));
    }
    let mut roles: HashSet<&str> = looked.1.into_iter().collect();
    roles.extend(all(RoleConfig::NAME).filter_map(own_name));
    let mut suggestions = 0;
    for read in all(RoleConfig::NAME).chain(all(BindingConfig::NAME)) {
        let any = read.table.config.any();
        let (named, known, what): (&[String], _, _) = match (any.downcast_ref(), any.downcast_ref())
        {
            (Some(RoleConfig { tenants: named, .. }), _) => (named, &tenants, "tenant"),
            (_, Some(BindingConfig { roles: named, .. })) => (named, &roles, "role"),
            _ => continue,
        };
        let unknown = named
            .iter()
            .filter(|name| *name != "*" && !known.contains(&***name));
        for name in unknown {
            suggestions += 1;
            let near = (suggestions <= MOST_SUGGESTIONS)
                .then(|| suggest::nearest(name, known.iter().copied()));
            let help = match near.flatten() {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it under [{what}s.{name}]"),
            };
            let message = format!("{}: there is no {what} `{name}`", read.name);
            let diagnostic = Diagnostic::error(message).at(read.place.clone());
            found.push(diagnostic.with_help(help));
        }
    }
}

/// The name of a table behind that of its kind.
fn own_name(read: &Read) -> Option<&str> {
    Some(read.name.split_once('.')?.1)
}

fn is_named(read: &Read, kind: &str) -> bool {
    read.name.split_once('.').is_some_and(|(it, _)| it == kind)
}

impl Config {
    /// The configured tenants, roles and bindings.
    pub fn access(&self) -> Settings<'_> {
        Settings {
            access: self.tables.get().cloned().unwrap_or_default(),
            tenants: self
                .tables
                .printed()
                .map(|(name, config, print)| TenantSettings::of(name, config, Some(print)))
                .collect(),
            roles: self.tables.named().collect(),
            bindings: self.tables.named().collect(),
        }
    }
}
