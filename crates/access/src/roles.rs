//! Permissions that roles grant to callers.

use std::collections::HashMap;
use std::sync::Arc;

use metrifold_http::access::Permission;

use crate::config::{BindingConfig, RoleConfig, SubjectKind};
use crate::indices::Indices;

/// The resource that Metrifold serves. Roles may list others, as in Observatorium.
pub(crate) const METRICS: &str = "metrics";

/// Stands for all tenants in a role.
const EVERY: &str = "*";

/// Permissions of users and groups, compiled from roles and bindings.
///
/// A decision looks only at the roles that concern the tenant, so that it costs as much with 100,000
/// tenants whose agents have the same name as with one.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    /// Permissions of each role. The other fields name roles by their indices here.
    permissions: Vec<Permissions>,
    /// Roles that concern a tenant, by its name.
    tenants: HashMap<Arc<str>, Indices>,
    /// Roles that concern all tenants.
    every: Vec<usize>,
    /// Roles of users and of groups, by their names, sorted.
    users: HashMap<Arc<str>, Indices>,
    groups: HashMap<Arc<str>, Indices>,
    /// No roles are configured: every authenticated caller of a tenant has all permissions but admin.
    open: bool,
}

/// A role, as compact as there may be one for each of very many tenants.
#[derive(Debug)]
pub(crate) struct Role {
    name: Arc<str>,
    tenants: Box<[Arc<str>]>,
    permissions: Permissions,
}

/// A binding of roles to users and groups.
#[derive(Debug)]
pub(crate) struct Binding {
    roles: Box<[Arc<str>]>,
    subjects: Box<[(SubjectKind, Arc<str>)]>,
}

impl Role {
    /// Makes a role. `text` makes the names, of which equal ones may share their text.
    pub(crate) fn new(
        name: &str,
        config: &RoleConfig,
        text: &mut impl FnMut(&str) -> Arc<str>,
    ) -> Self {
        let of_metrics = config.resources.iter().any(|resource| resource == METRICS);
        Self {
            name: text(name),
            tenants: config.tenants.iter().map(|it| text(it)).collect(),
            permissions: match of_metrics {
                true => Permissions::of(&config.permissions),
                false => Permissions::default(),
            },
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Binding {
    /// Makes a binding. `text` makes the names, as for [`Role::new`].
    pub(crate) fn new(config: &BindingConfig, text: &mut impl FnMut(&str) -> Arc<str>) -> Self {
        let roles = config.roles.iter().map(|it| text(it)).collect();
        let subjects = config.subjects.iter();
        let subjects = subjects.map(|it| (it.kind, text(&it.name))).collect();
        Self { roles, subjects }
    }
}

/// A set of permissions, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Permissions(u8);

impl Permissions {
    fn of(all: &[Permission]) -> Self {
        Self(all.iter().fold(0, |bits, one| bits | Self::bit(*one)))
    }

    fn holds(self, one: Permission) -> bool {
        self.0 & Self::bit(one) != 0
    }

    fn bit(one: Permission) -> u8 {
        1 << one as u8
    }
}

impl Roles {
    /// Compiles roles and bindings. Without either, every authenticated caller of a tenant may read and
    /// write there, but has no admin permission.
    pub(crate) fn new<'a>(
        roles: impl IntoIterator<Item = &'a Role>,
        bindings: impl IntoIterator<Item = &'a Binding>,
    ) -> Self {
        let mut compiled = Self::default();
        let mut by_name: HashMap<&str, Indices> = HashMap::new();
        for role in roles {
            let number = compiled.permissions.len();
            by_name.entry(&role.name).or_default().push(number);
            compiled.permissions.push(role.permissions);
            if role.tenants.iter().any(|tenant| **tenant == *EVERY) {
                compiled.every.push(number);
                continue;
            }
            for tenant in &role.tenants {
                let tenant = Arc::clone(tenant);
                compiled.tenants.entry(tenant).or_default().push(number);
            }
        }
        let mut bound = false;
        for binding in bindings {
            bound = true;
            let roles = binding.roles.iter();
            let roles = roles.filter_map(|role| by_name.get(&**role));
            let roles: Vec<usize> = roles.flat_map(Indices::as_slice).copied().collect();
            for (kind, name) in &binding.subjects {
                let subjects = match kind {
                    SubjectKind::User => &mut compiled.users,
                    SubjectKind::Group => &mut compiled.groups,
                };
                let of = subjects.entry(Arc::clone(name)).or_default();
                of.extend(roles.iter().copied());
            }
        }
        let (users, groups) = (&mut compiled.users, &mut compiled.groups);
        for roles in users.values_mut().chain(groups.values_mut()) {
            roles.sort();
        }
        compiled.open = compiled.permissions.is_empty() && !bound;
        compiled
    }

    /// These roles, without the permissions that callers have while there are no roles: a file of
    /// roles that was emptied grants nothing.
    pub(crate) fn restrictive(self) -> Self {
        Self {
            open: false,
            ..self
        }
    }

    /// Whether a caller has a permission for a tenant.
    pub(crate) fn allow(
        &self,
        subject: Option<&str>,
        groups: &[Arc<str>],
        tenant: &str,
        permission: Permission,
    ) -> bool {
        if self.open {
            return permission != Permission::Admin;
        }
        let of_tenant = self.tenants.get(tenant);
        let of_tenant = of_tenant.map_or(&[][..], Indices::as_slice);
        let granting = of_tenant.iter().chain(&self.every);
        let granting = granting.filter(|role| self.permissions[**role].holds(permission));
        let user = subject.and_then(|subject| self.users.get(subject));
        let groups = groups.iter().filter_map(|group| self.groups.get(group));
        let mut held = user.into_iter().chain(groups);
        held.any(|held| {
            let mut granting = granting.clone();
            granting.any(|role| held.as_slice().binary_search(role).is_ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Subject;

    fn role(resources: &[&str], tenants: &[&str], permissions: &[Permission]) -> RoleConfig {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        RoleConfig {
            resources: texts(resources),
            tenants: texts(tenants),
            permissions: permissions.to_vec(),
        }
    }

    fn binding(roles: &[&str], subjects: &[(SubjectKind, &str)]) -> BindingConfig {
        let subjects = subjects.iter().map(|&(kind, name)| Subject {
            name: name.to_owned(),
            kind,
        });
        BindingConfig {
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            subjects: subjects.collect(),
        }
    }

    /// Covers each part of a role-based decision (role, binding, subject, group, resource, tenant,
    /// permission), once matching and once not.
    #[test]
    fn a_caller_may_do_what_a_role_that_is_bound_to_it_says_and_nothing_else() {
        use Permission::{Admin, Read, Rules, Write};
        use SubjectKind::{Group, User};
        let reader = || ("reader", role(&["metrics"], &["a"], &[Read]));
        let writer = || ("writer", role(&["metrics"], &["a"], &[Write]));
        let both = || {
            (
                "both",
                role(&["metrics"], &["a", "b"], &[Read, Write, Rules]),
            )
        };
        let logs = || ("logs", role(&["logs"], &["a"], &[Read, Write]));
        let mixed = || ("mixed", role(&["logs", "metrics"], &["b"], &[Read]));
        let every = || ("every", role(&["metrics"], &["*"], &[Admin]));
        let user = |role| binding(&[role], &[(User, "u")]);
        let group = |role| binding(&[role], &[(Group, "g")]);
        type Case<'a> = (
            &'a str,
            Vec<(&'a str, RoleConfig)>,
            Vec<BindingConfig>,
            (&'a str, &'a [&'a str], &'a str, Permission),
            bool,
        );
        let cases: [Case<'_>; 20] = [
            (
                "no role",
                vec![],
                vec![user("x")],
                ("u", &[], "a", Read),
                false,
            ),
            (
                "no binding",
                vec![reader()],
                vec![],
                ("u", &[], "a", Read),
                false,
            ),
            (
                "user",
                vec![reader()],
                vec![user("reader")],
                ("u", &[], "a", Read),
                true,
            ),
            (
                "other user",
                vec![reader()],
                vec![user("reader")],
                ("v", &[], "a", Read),
                false,
            ),
            (
                "group",
                vec![reader()],
                vec![group("reader")],
                ("v", &["g"], "a", Read),
                true,
            ),
            (
                "other group",
                vec![reader()],
                vec![group("reader")],
                ("v", &["h"], "a", Read),
                false,
            ),
            (
                "a later group",
                vec![reader()],
                vec![group("reader")],
                ("v", &["h", "g"], "a", Read),
                true,
            ),
            (
                "a user is no group",
                vec![reader()],
                vec![user("reader")],
                ("v", &["u"], "a", Read),
                false,
            ),
            (
                "a group is no user",
                vec![reader()],
                vec![group("reader")],
                ("g", &[], "a", Read),
                false,
            ),
            (
                "other permission",
                vec![reader()],
                vec![user("reader")],
                ("u", &[], "a", Write),
                false,
            ),
            (
                "writer",
                vec![writer()],
                vec![user("writer")],
                ("u", &[], "a", Write),
                true,
            ),
            (
                "a writer does not read",
                vec![writer()],
                vec![user("writer")],
                ("u", &[], "a", Read),
                false,
            ),
            (
                "other tenant",
                vec![reader()],
                vec![user("reader")],
                ("u", &[], "b", Read),
                false,
            ),
            (
                "second tenant",
                vec![both()],
                vec![user("both")],
                ("u", &[], "b", Rules),
                true,
            ),
            (
                "other resource",
                vec![logs()],
                vec![user("logs")],
                ("u", &[], "a", Read),
                false,
            ),
            (
                "second resource",
                vec![mixed()],
                vec![user("mixed")],
                ("u", &[], "b", Read),
                true,
            ),
            (
                "unknown role",
                vec![reader()],
                vec![user("writer")],
                ("u", &[], "a", Read),
                false,
            ),
            (
                "two roles are not mixed",
                vec![reader(), ("b", role(&["metrics"], &["b"], &[Write]))],
                vec![binding(&["reader", "b"], &[(User, "u")])],
                ("u", &[], "a", Write),
                false,
            ),
            (
                "two bindings add up",
                vec![reader(), writer()],
                vec![user("reader"), group("writer")],
                ("u", &["g"], "a", Write),
                true,
            ),
            (
                "every tenant",
                vec![every()],
                vec![user("every")],
                ("u", &[], "z", Admin),
                true,
            ),
        ];
        for (what, roles, bindings, (subject, groups, tenant, permission), expected) in cases {
            let mut text = |name: &str| Arc::from(name);
            let roles = roles.iter();
            let roles: Vec<Role> = roles
                .map(|(name, it)| Role::new(name, it, &mut text))
                .collect();
            let bindings = bindings.iter().map(|it| Binding::new(it, &mut text));
            let bindings: Vec<Binding> = bindings.collect();
            let roles = Roles::new(&roles, &bindings);
            let groups: Vec<Arc<str>> = groups.iter().map(|&group| group.into()).collect();
            let allowed = roles.allow(Some(subject), &groups, tenant, permission);
            assert_eq!(allowed, expected, "{what}");
        }
    }

    #[test]
    fn without_roles_a_tenant_is_its_callers_and_nobody_administers() {
        let roles = Roles::new([], []);
        for permission in [Permission::Read, Permission::Write, Permission::Rules] {
            assert!(roles.allow(None, &[], "a", permission));
        }
        assert!(!roles.allow(None, &[], "a", Permission::Admin));
    }
}
