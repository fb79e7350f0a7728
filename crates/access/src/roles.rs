//! What roles let callers do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use metrifold_http::access::Permission;

use crate::config::{BindingConfig, RoleConfig, SubjectKind};

/// The resource that Metrifold serves; roles may be of others, which Observatorium has too.
pub(crate) const METRICS: &str = "metrics";

/// Stands for every tenant.
const EVERY: &str = "*";

/// What callers may do.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    roles: Vec<Role>,
    /// The roles of users and of groups, by name.
    users: HashMap<Arc<str>, Vec<usize>>,
    groups: HashMap<Arc<str>, Vec<usize>>,
    /// There are none: whoever proves to be of a tenant may do anything but administer.
    open: bool,
}

#[derive(Debug)]
struct Role {
    permissions: Vec<Permission>,
    /// None for every tenant.
    tenants: Option<HashSet<Arc<str>>>,
}

impl Roles {
    /// Compiles roles and bindings. With neither, every caller that proves to be of a tenant may read
    /// and write there, and administer nothing.
    pub(crate) fn new<'a>(
        roles: impl IntoIterator<Item = (&'a str, &'a RoleConfig)>,
        bindings: impl IntoIterator<Item = &'a BindingConfig>,
    ) -> Self {
        let mut compiled = Self::default();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (name, role) in roles {
            by_name.entry(name).or_default().push(compiled.roles.len());
            let of_metrics = role.resources.iter().any(|resource| resource == METRICS);
            let every = role.tenants.iter().any(|tenant| tenant == EVERY);
            compiled.roles.push(Role {
                permissions: match of_metrics {
                    true => role.permissions.clone(),
                    false => Vec::new(),
                },
                tenants: (!every).then(|| role.tenants.iter().map(|it| Arc::from(&**it)).collect()),
            });
        }
        let mut bound = false;
        for binding in bindings {
            bound = true;
            let roles = binding.roles.iter();
            let roles = roles.filter_map(|role| by_name.get(&**role)).flatten();
            let roles: Vec<usize> = roles.copied().collect();
            for subject in &binding.subjects {
                let subjects = match subject.kind {
                    SubjectKind::User => &mut compiled.users,
                    SubjectKind::Group => &mut compiled.groups,
                };
                let of = subjects.entry(subject.name.as_str().into()).or_default();
                of.extend(&roles);
            }
        }
        compiled.open = compiled.roles.is_empty() && !bound;
        compiled
    }

    /// Whether a caller may do something at a tenant.
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
        let user = subject.and_then(|subject| self.users.get(subject));
        let groups = groups.iter().filter_map(|group| self.groups.get(group));
        let mut roles = user.into_iter().chain(groups).flatten();
        roles.any(|role| self.roles[*role].allows(tenant, permission))
    }
}

impl Role {
    fn allows(&self, tenant: &str, permission: Permission) -> bool {
        let tenants = self.tenants.as_ref();
        self.permissions.contains(&permission)
            && tenants.is_none_or(|tenants| tenants.contains(tenant))
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

    /// The kinds of cases that there are for a role-based decision: role, binding, subject, group,
    /// resource, tenant and permission, each right and each wrong.
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
            let roles = Roles::new(roles.iter().map(|(name, role)| (*name, role)), &bindings);
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
