//! The table `[access]`: how requests name tenants, files with tenants and roles, and default limits.

use std::path::{Path, PathBuf};

use http::HeaderName;

use metrifold_base::keys;

use crate::limits::LimitsConfig;
use crate::observatorium::{Aside, Foreign, ForeignTenants, Rbac};
use crate::roles::Role;

keys! {
    /// `[access]`: how requests name tenants, files with tenants and roles, and default limits.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessConfig {
        /// Parameter of a source's path that names the tenant, by its name or its id.
        pub path_parameter: String = default("tenant"),
        /// Headers that name the tenant, by its name or its id; several tenants are separated by `|`. Neither they nor the default ones are ever forwarded.
        pub headers: Vec<String> = unset(["X-Scope-OrgID", "THANOS-TENANT"]),
        /// File with tenants in Observatorium's format (`tenants.yaml`), in addition to those under `[tenants.NAME]`.
        pub tenants_file: Option<Foreign<ForeignTenants>> = unset("/etc/metrifold/tenants.yaml"),
        /// File with roles and bindings in Observatorium's format (`rbac.yaml`), in addition to those under `[roles.NAME]` and `[role_bindings.NAME]`. As in Observatorium, `write` in this file also grants writing rules.
        pub rbac_file: Option<Foreign<Rbac>> = unset("/etc/metrifold/rbac.yaml"),
        /// Default limits of each tenant, for the keys that its own limits do not set.
        pub limits: LimitsConfig = table,
    }
}

/// Default headers that name the tenant: those of Mimir and Loki, and of Thanos. They select the
/// tenant at stores, so that they are not forwarded even where others are configured.
pub(crate) const CUSTOMARY: [HeaderName; 2] = [
    HeaderName::from_static("x-scope-orgid"),
    HeaderName::from_static("thanos-tenant"),
];

impl Default for AccessConfig {
    fn default() -> Self {
        metrifold_base::keys::defaults()
    }
}

impl AccessConfig {
    /// The headers that name the tenant.
    pub(crate) fn header_names(&self) -> Vec<HeaderName> {
        if self.headers.is_empty() {
            return CUSTOMARY.to_vec();
        }
        let names = self.headers.iter();
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// The files that the table refers to.
    pub fn files(&self) -> Vec<&Path> {
        let tenants = self.tenants_file.iter().map(Foreign::path);
        tenants
            .chain(self.rbac_file.iter().map(Foreign::path))
            .collect()
    }
}

impl AccessConfig {
    /// The files that the tenants in `tenants_file` refer to.
    pub fn further_files(&self) -> Vec<PathBuf> {
        // Errors are reported when the configuration is checked.
        let tenants = self.tenants_file.iter().flat_map(Foreign::get);
        let tenants = tenants.flat_map(ForeignTenants::tenants);
        let files = tenants.flat_map(|tenant| tenant.config.files());
        files.map(Path::to_path_buf).collect()
    }

    /// The names and ids of the tenants, and the names of the roles, in `tenants_file` and `rbac_file`.
    pub fn names_in_files(&self) -> (Vec<&str>, Vec<&str>) {
        let tenants = self.tenants_file.iter().flat_map(Foreign::get);
        let tenants = tenants.flat_map(ForeignTenants::memberships);
        let names = tenants
            .flat_map(|it| [&it.name, &it.tenant])
            .map(|it| Some(&**it));
        let aside = self.tenants_file.iter().flat_map(Foreign::get);
        let aside = aside.flat_map(ForeignTenants::aside);
        let names = names.chain(aside.flat_map(|it| [Some(&*it.name), it.id.as_deref()]));
        let roles = self.rbac_file.iter().flat_map(Foreign::get);
        let roles = roles.flat_map(Rbac::roles).map(Role::name);
        (names.flatten().collect(), roles.collect())
    }

    /// Warnings about tenants in `tenants_file` that cannot be used, and about their fields that have another
    /// effect than in Observatorium.
    pub fn warnings(&self) -> Vec<String> {
        let Some(Ok(file)) = self.tenants_file.as_ref().map(Foreign::get) else {
            return Vec::new();
        };
        let aside = file.aside().iter();
        let aside = aside.map(|Aside { name, reason, .. }| {
            format!("tenant {name:?} of tenants_file cannot be used: {reason}")
        });
        let notes = file.notes();
        let notes = notes.map(|(name, note)| format!("tenant {name:?} of tenants_file: {note}"));
        aside.chain(notes).collect()
    }

    /// Lets what is unchanged in `tenants_file` and `rbac_file` be taken from the configuration before.
    pub fn take_over(&self, before: &Self) {
        if let (Some(file), Some(before)) = (&self.tenants_file, &before.tenants_file) {
            file.take_over(before);
        }
        if let (Some(file), Some(before)) = (&self.rbac_file, &before.rbac_file) {
            file.take_over(before);
        }
    }
}
