//! Tenants and roles as tables: `[access]`, `[tenants.NAME]`, `[roles.NAME]`, `[role_bindings.NAME]`.

use std::path::Path;

use metrifold_access::{AccessConfig, BindingConfig, RoleConfig, Settings, TenantConfig};
use metrifold_base::Problems;

use super::Config;
use super::tables::{TableConfig, TableInfo};

impl TableConfig for AccessConfig {
    const NAME: &'static str = "access";

    fn validate(&self, problems: &mut Problems) {
        self.validate(problems);
    }

    fn files(&self) -> Vec<&Path> {
        self.files()
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
inventory::submit! { TableInfo::named::<TenantConfig>("A tenant, and how a caller proves to be of it.") }
inventory::submit! { TableInfo::named::<RoleConfig>("What a role lets callers do.") }
inventory::submit! { TableInfo::named::<BindingConfig>("Who has which roles.") }

impl Config {
    /// What is configured of tenants and roles.
    pub fn access(&self) -> Settings<'_> {
        Settings {
            access: self.tables.get().cloned().unwrap_or_default(),
            tenants: self.tables.named().collect(),
            roles: self.tables.named().collect(),
            bindings: self.tables.named().collect(),
        }
    }
}
