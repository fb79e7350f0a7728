//! Distribution of the tenants among several rulers.

use std::sync::Arc;

use metrifold_engine::planes::rules::{Joined, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::Version;

/// The tenants of one ruler, by rendezvous hashing: each tenant goes to the ruler for which the hash of
/// both names is highest.
#[derive(Debug)]
pub(super) struct Shard {
    names: Arc<[Arc<str>]>,
    at: usize,
    /// The last set of all tenants, and this ruler's share of it.
    all: RuleSet,
    mine: Joined,
    /// Tenants of the last set that belong to other rulers, though their sources contradict each other.
    others_aside: Vec<Tenant>,
}

impl Shard {
    pub(super) fn new(names: Arc<[Arc<str>]>, at: usize) -> Self {
        Self {
            names,
            at,
            all: RuleSet::default(),
            mine: Joined::default(),
            others_aside: Vec::new(),
        }
    }

    /// Computes the ruler's share of a set, in time proportional to the number of changed tenants.
    pub(super) fn of(&mut self, all: &Joined) -> Joined {
        for change in self.all.diff(&all.set) {
            if self.owner(&change.tenant) != self.at {
                continue;
            }
            let mine = &self.mine.set;
            self.mine.set = match change.new {
                Some(rules) => mine.with(change.tenant, rules),
                None => mine.without(&change.tenant),
            };
        }
        self.all = all.set.clone();
        let aside = all.conflicts.iter();
        let (mine, others): (Vec<_>, Vec<_>) =
            aside.partition(|(tenant, _)| self.owner(tenant) == self.at);
        self.mine.conflicts = mine
            .into_iter()
            .map(|(tenant, conflict)| (tenant.clone(), conflict.clone()))
            .collect();
        self.others_aside = others
            .into_iter()
            .map(|(tenant, _)| tenant.clone())
            .collect();
        self.mine.clone()
    }

    /// The tenants of the last set that belong to other rulers.
    pub(super) fn others(&self) -> Vec<Tenant> {
        let tenants = self.all.iter().map(|(tenant, _)| tenant);
        let others = tenants.filter(|tenant| self.owner(tenant) != self.at);
        others.chain(&self.others_aside).cloned().collect()
    }

    /// The ruler's share of the last set.
    pub(super) fn mine(&self) -> &Joined {
        &self.mine
    }

    fn owner(&self, tenant: &str) -> usize {
        if self.names.len() == 1 {
            return 0;
        }
        let weight = |name: &str| Version::of_parts([name.as_bytes(), tenant.as_bytes()]);
        let weights = self.names.iter().map(|name| weight(name)).enumerate();
        weights
            .max_by_key(|(_, weight)| *weight)
            .map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use metrifold_rules::TenantRules;

    fn share(names: &[&str], at: usize, tenants: usize) -> BTreeSet<String> {
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        let rules = Arc::new(TenantRules::new([]));
        let all = (0..tenants).map(|at| (Arc::from(format!("t{at}")), rules.clone()));
        let all = Joined {
            set: all.collect(),
            ..Joined::default()
        };
        let mine = Shard::new(names, at).of(&all).set;
        mine.iter().map(|(tenant, _)| tenant.to_string()).collect()
    }

    #[test]
    fn every_tenant_has_one_ruler_and_moves_only_with_one_that_comes_or_goes() {
        let three = [0, 1, 2].map(|at| share(&["a", "b", "c"], at, 300));
        assert_eq!(three.iter().map(BTreeSet::len).sum::<usize>(), 300);
        assert!(
            three.iter().all(|share| (60..140).contains(&share.len())),
            "{three:?}"
        );
        let two = [share(&["a", "c"], 0, 300), share(&["a", "c"], 1, 300)];
        assert!(two[0].is_superset(&three[0]) && two[1].is_superset(&three[2]));
        assert_eq!(share(&["a"], 0, 300).len(), 300);
    }
}
