//! The set against a plain map as its model, and the cost of a diff.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::file::Group;

fn file(name: &str) -> Arc<StoredFile> {
    let group = Group {
        name: name.to_owned(),
        ..Group::default()
    };
    Arc::new(StoredFile::new(RuleFile {
        groups: vec![group],
    }))
}

fn rules(content: &str) -> Arc<TenantRules> {
    Arc::new(TenantRules::new([("rules.yaml".into(), file(content))]))
}

fn tenants(count: usize) -> RuleSet {
    let one = |i| {
        (
            Tenant::from(format!("tenant-{i}")),
            rules(&format!("group {i}")),
        )
    };
    (0..count).map(one).collect()
}

#[test]
fn one_change_among_ten_thousand_tenants_costs_one_tenants_work() {
    let old = tenants(10_000);
    let new = old.with("tenant-77".into(), rules("other"));
    let mut visits = 0;
    let changes = old.diff_counting(&new, &mut visits);
    assert_eq!(changes.len(), 1);
    assert_eq!(&*changes[0].tenant, "tenant-77");
    // The nodes on the path to the tenant, and its rules.
    assert!(visits <= 10, "{visits}");

    let new = new.with("new".into(), rules("x")).without("tenant-5");
    let mut visits = 0;
    assert_eq!(old.diff_counting(&new, &mut visits).len(), 3);
    assert!(visits <= 30, "{visits}");
    let mut visits = 0;
    assert!(old.diff_counting(&old.clone(), &mut visits).is_empty());
    assert_eq!(visits, 0);
}

#[test]
fn equal_rules_are_no_change_and_stay_shared() {
    let old = tenants(100);
    let new = old.with("tenant-7".into(), rules("group 7"));
    let mut visits = 0;
    assert!(old.diff_counting(&new, &mut visits).is_empty());
    assert_eq!(visits, 0);
    // Sets of different origins are compared in full.
    assert_eq!(old, tenants(100));
    assert_ne!(old, tenants(101));
}

#[test]
fn versions_are_of_names_and_content() {
    let one = rules("a");
    assert_eq!(one.version(), rules("a").version());
    assert_ne!(one.version(), rules("b").version());
    let two = one.with_file("more.yaml".into(), file("b"));
    assert_ne!(one.version(), two.version());
    assert_eq!(two.files().len(), 2);
    let renamed = TenantRules::new([("other.yaml".into(), file("a"))]);
    assert_ne!(renamed.version(), one.version());
    assert!(TenantRules::new([]).is_empty());
}

#[test]
fn rules_of_nobody_are_under_the_empty_name() {
    let set = RuleSet::of_none(rules("a"));
    assert_eq!(set.len(), 1);
    assert_eq!(set.get(""), Some(&rules("a")));
}

fn edits() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    prop::collection::vec((0u8..60, prop::option::weighted(0.7, 0u8..3)), 0..120)
}

fn apply(
    mut set: RuleSet,
    mut map: BTreeMap<String, u8>,
    edits: &[(u8, Option<u8>)],
) -> (RuleSet, BTreeMap<String, u8>) {
    for (tenant, content) in edits {
        let tenant = tenant.to_string();
        match content {
            Some(content) => {
                set = set.with(tenant.as_str().into(), rules(&content.to_string()));
                map.insert(tenant, *content);
            }
            None => {
                set = set.without(&tenant);
                map.remove(&tenant);
            }
        }
    }
    (set, map)
}

proptest! {
    #[test]
    fn a_set_is_a_map_and_its_difference_is_the_maps((first, second) in (edits(), edits())) {
        let (old, old_map) = apply(RuleSet::default(), BTreeMap::new(), &first);
        let (new, new_map) = apply(old.clone(), old_map.clone(), &second);
        prop_assert_eq!(new.len(), new_map.len());
        let listed: BTreeMap<_, _> = new.iter().map(|(tenant, rules)| (tenant.to_string(), rules.clone())).collect();
        let expected: BTreeMap<_, _> = new_map.iter().map(|(tenant, content)| (tenant.clone(), rules(&content.to_string()))).collect();
        prop_assert_eq!(&listed, &expected);
        for tenant in new_map.keys() {
            prop_assert_eq!(new.get(tenant), expected.get(tenant));
        }
        let of = |map: &BTreeMap<String, u8>, tenant: &str| map.get(tenant).map(|content| rules(&content.to_string()));
        let mut changes = old.diff(&new);
        changes.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let names: std::collections::BTreeSet<_> = old_map.keys().chain(new_map.keys()).cloned().collect();
        let expected: Vec<_> = names
            .into_iter()
            .filter(|name| old_map.get(name) != new_map.get(name))
            .map(|name| Change { old: of(&old_map, &name), new: of(&new_map, &name), tenant: name.into() })
            .collect();
        prop_assert_eq!(changes, expected);
        // A set built from scratch is equal, and has the same shape.
        let again: RuleSet = new.iter().map(|(tenant, rules)| (tenant.clone(), rules.clone())).collect();
        prop_assert!(again == new);
        let order = |set: &RuleSet| set.iter().map(|(tenant, _)| tenant.clone()).collect::<Vec<_>>();
        prop_assert_eq!(order(&again), order(&new));
    }
}
