//! The budget of retries and hedges: a share of the queries over all replicas, so that replicas in
//! trouble do not get a multiple of their usual requests.

/// Most retries that the budget can hold.
pub(crate) const MOST: f64 = 100.0;

/// Retries and hedges that are allowed at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: f64,
    /// Retries that each query adds.
    share: f64,
}

impl Budget {
    /// A budget to which each query adds `percent` hundredths of a retry; `at_first` may be used
    /// before any query has been seen.
    pub(crate) fn new(percent: u32, at_first: u32) -> Self {
        Self {
            left: f64::from(at_first),
            share: f64::from(percent) / 100.0,
        }
    }

    /// Adds the share of one query.
    pub(crate) fn query(&mut self) {
        self.left = (self.left + self.share).min(MOST);
    }

    /// Takes one retry. Returns whether the budget had one.
    pub(crate) fn take(&mut self) -> bool {
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }

    pub(crate) fn left(&self) -> f64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_queries() {
        let mut budget = Budget::new(20, 2);
        assert!(budget.take() && budget.take() && !budget.take());
        let mut taken = 0;
        for _ in 0..1000 {
            budget.query();
            taken += u32::from(budget.take());
        }
        assert!((199..=201).contains(&taken), "{taken}");
        for _ in 0..100_000 {
            budget.query();
        }
        let saved = std::iter::from_fn(|| budget.take().then_some(())).count();
        assert_eq!(saved, 100, "no more than that is saved");
        let mut none = Budget::new(0, 0);
        none.query();
        assert!(!none.take());
    }
}
