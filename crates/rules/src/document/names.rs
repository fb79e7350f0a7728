//! Names of groups in one file. Prometheus refuses a file with two groups of one name.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::RuleSet;
use crate::file::Group;

/// A group of a set, with its name in a file that holds all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedGroup<'a> {
    /// The group's tenant.
    pub tenant: &'a str,
    /// The group's file.
    pub file: &'a str,
    /// The group.
    pub group: &'a Group,
    /// Its name in the file, which no other group has.
    pub name: Cow<'a, str>,
}

impl NamedGroup<'_> {
    /// The name with its tenant and file in front. No two groups have the same one, since neither a
    /// tenant nor a file contains a slash any more.
    fn full_name(&self) -> String {
        let escape = |text: &str| text.replace('%', "%25").replace('/', "%2f");
        let (tenant, file) = (escape(self.tenant), escape(self.file));
        format!("{tenant}/{file}/{}", self.group.name)
    }
}

/// The groups of a set in the order of tenants and files, each with its name in a file that holds all of
/// them.
///
/// A group keeps its name if no other group of the set has it. All groups that share a name are called
/// `TENANT/FILE/GROUP`, where `%` and `/` within the tenant and the file are written as `%25` and `%2f`;
/// so is a group whose own name is the one that another one got that way.
pub fn named_groups(set: &RuleSet) -> Vec<NamedGroup<'_>> {
    let mut tenants: Vec<_> = set.iter().collect();
    tenants.sort_unstable_by_key(|(tenant, _)| *tenant);
    let files = tenants.into_iter().flat_map(|(tenant, rules)| {
        let files = rules.files();
        files.map(move |(file, stored)| (&**tenant, &**file, stored.file()))
    });
    let groups = files.flat_map(|(tenant, file, stored)| {
        stored.groups.iter().map(move |group| NamedGroup {
            tenant,
            file,
            group,
            name: Cow::Borrowed(&*group.name),
        })
    });
    let mut groups: Vec<_> = groups.collect();
    let mut with_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, named) in groups.iter().enumerate() {
        with_name.entry(&named.group.name).or_default().push(at);
    }
    // Groups that still get another name; all others stand in `with_name`.
    let mut renamed: Vec<usize> = with_name
        .extract_if(|_, places| places.len() > 1)
        .flat_map(|(_, places)| places)
        .collect();
    while let Some(at) = renamed.pop() {
        let name = groups[at].full_name();
        renamed.extend(with_name.remove(&*name).into_iter().flatten());
        groups[at].name = Cow::Owned(name);
    }
    groups
}
