//! Ranks replicas by their eligibility, best first.

use std::time::Duration;

use metrifold_base::words;

words! {
    /// Strategies for the choice of a replica.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Kind {
        /// The first available replica in the list.
        First = "first",
        /// A random available replica, by weight.
        Random = "random",
        /// A random replica whose data goes back far enough, by weight.
        MinimumHistory = "minimum_history",
        /// The replica with the most samples.
        MostData = "most_data",
        /// The replica with the fewest queries in flight, by weight.
        LeastLoaded = "least_loaded",
        /// For each query, the replica that covers most of the query's time range.
        Covering = "covering",
        /// The replicas that cover most of the query's time range, all at once; their answers are merged.
        Merge = "merge",
    }
}

words! {
    /// Behaviour when no replica is eligible.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenNone {
        /// Queries are refused, with the reason.
        Refuse = "refuse",
        /// Queries go to the replicas that were last selected.
        LastSelection = "last_selection",
    }
}

impl Kind {
    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Random => "random",
            Self::MinimumHistory => "minimum_history",
            Self::MostData => "most_data",
            Self::LeastLoaded => "least_loaded",
            Self::Covering => "covering",
            Self::Merge => "merge",
        }
    }

    /// Whether it needs the signals of replicas.
    pub(crate) fn needs_signals(self) -> bool {
        !matches!(self, Self::First)
    }
}

/// A strategy with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// Kind of the strategy.
    pub kind: Kind,
    /// How far back a replica's data must go, for `minimum_history`.
    pub minimum_history: Duration,
    /// How many more samples another replica must have to replace the selected one, in percent, for
    /// `most_data`.
    pub margin_percent: u32,
    /// How long a replica must have been available again before it regains its place, for `first`.
    pub failback_delay: Duration,
    /// How long a restarted replica ranks behind the others, for `first`.
    pub demote_restarted: Duration,
    /// How far a replica's newest sample may lag behind the newest of all. `None` for no limit.
    pub max_lag: Option<Duration>,
}

impl Strategy {
    /// A strategy without delays or limits.
    pub fn plain(kind: Kind) -> Self {
        Self {
            kind,
            minimum_history: Duration::ZERO,
            margin_percent: 0,
            failback_delay: Duration::ZERO,
            demote_restarted: Duration::ZERO,
            max_lag: None,
        }
    }
}

/// Properties of an available replica that strategies compare.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Index in the list of replicas.
    pub(crate) index: usize,
    /// Number of its samples.
    pub(crate) samples: f64,
    /// Time of its oldest sample, in milliseconds since the epoch.
    pub(crate) oldest: Option<i64>,
    /// Time of its newest sample.
    pub(crate) newest: Option<i64>,
    /// Whether a query found data from as far back as `minimum_history` asks for.
    pub(crate) answers_history: bool,
    /// Whether it belongs to the last selection.
    pub(crate) current: bool,
    /// Time since it became available.
    pub(crate) up_for: Duration,
    /// Whether it has been down since the router has known it.
    pub(crate) came_back: bool,
    /// Time since its process started.
    pub(crate) age: Option<Duration>,
    /// Part of the query's time range without data, in milliseconds.
    pub(crate) missing: i64,
}

/// Ranking of the eligible replicas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selected {
    /// Number of replicas at the front of `ranked` that are equally good.
    pub(crate) equal: usize,
    /// Indexes in the list of replicas. Those behind the first `equal` serve retries.
    pub(crate) ranked: Vec<usize>,
    /// Reason why the strategy had to settle for less.
    pub(crate) remark: Option<&'static str>,
}

/// Coverage is compared in whole minutes, in milliseconds: replicas do not scrape at the same time.
const COVERAGE_GRAIN: i64 = 60_000;

/// Ranks available replicas. `now` is in milliseconds since the epoch.
pub(crate) fn select(strategy: &Strategy, mut all: Vec<Candidate>, now: i64) -> Selected {
    let mut behind = Vec::new();
    if let Some(lag) = strategy.max_lag {
        let newest = all.iter().filter_map(|it| it.newest).max();
        let limit = newest.map(|newest| newest.saturating_sub(millis(lag)));
        // Replicas that do not report their newest sample are not demoted.
        let lags = |it: &Candidate| it.newest.is_some() && it.newest < limit;
        behind = all
            .iter()
            .filter(|it| lags(it))
            .map(|it| it.index)
            .collect();
        all.retain(|it| !lags(it));
    }
    let mut selected = rank(strategy, all, now);
    selected.ranked.extend(behind);
    selected
}

fn rank(strategy: &Strategy, mut all: Vec<Candidate>, now: i64) -> Selected {
    let indexes = |all: &[Candidate]| all.iter().map(|it| it.index).collect::<Vec<_>>();
    match strategy.kind {
        Kind::First => first(strategy, all),
        Kind::Random | Kind::LeastLoaded => Selected {
            equal: all.len(),
            ranked: indexes(&all),
            remark: None,
        },
        Kind::MinimumHistory => {
            let limit = now.saturating_sub(millis(strategy.minimum_history));
            let qualifies = |it: &Candidate| {
                it.oldest.is_some_and(|oldest| oldest <= limit) || it.answers_history
            };
            // The sort is stable: among equals, the order is that of the list.
            all.sort_by_key(|it| (!qualifies(it), it.oldest.unwrap_or(i64::MAX)));
            let equal = all.iter().filter(|it| qualifies(it)).count();
            all[..equal].sort_by_key(|it| it.index);
            match equal {
                0 => Selected {
                    equal: all.len().min(1),
                    ranked: indexes(&all),
                    remark: (!all.is_empty())
                        .then_some("no replica has the minimum history: the one with the most history is queried"),
                },
                _ => Selected {
                    equal,
                    ranked: indexes(&all),
                    remark: None,
                },
            }
        }
        Kind::MostData => {
            let margin = 1.0 + f64::from(strategy.margin_percent) / 100.0;
            let most = all.iter().map(|it| it.samples).fold(0.0, f64::max);
            let current = all
                .iter()
                .position(|it| it.current && it.samples * margin >= most);
            all.sort_by(|a, b| {
                let deeper = a
                    .oldest
                    .unwrap_or(i64::MAX)
                    .cmp(&b.oldest.unwrap_or(i64::MAX));
                b.samples.total_cmp(&a.samples).then(match most {
                    // No replica reports its number of samples.
                    0.0 => deeper.then(a.index.cmp(&b.index)),
                    _ => a.index.cmp(&b.index),
                })
            });
            if current.is_some() {
                all.sort_by_key(|it| !it.current);
            }
            Selected {
                equal: all.len().min(1),
                ranked: indexes(&all),
                remark: None,
            }
        }
        Kind::Covering | Kind::Merge => {
            let grain = |it: &Candidate| it.missing / COVERAGE_GRAIN;
            all.sort_by_key(|it| (grain(it), it.index));
            let best = all.first().map(grain);
            Selected {
                equal: all.iter().filter(|it| Some(grain(it)) == best).count(),
                ranked: indexes(&all),
                remark: best
                    .is_some_and(|missing| missing > 0)
                    .then_some("no replica has data for all of the query's time"),
            }
        }
    }
}

/// Caddy's `first`, with `failback_delay` and `demote_restarted`.
fn first(strategy: &Strategy, mut all: Vec<Candidate>) -> Selected {
    let restarted = |it: &Candidate| it.age.is_some_and(|age| age < strategy.demote_restarted);
    let young = |it: &Candidate| it.came_back && it.up_for < strategy.failback_delay;
    let current = all.iter().find(|it| it.current).map(|it| it.index);
    all.sort_by_key(|it| {
        // Only a replica that has been back long enough moves in front of the current one.
        let waits = current.is_some_and(|current| it.index < current) && young(it);
        (restarted(it), waits, it.index)
    });
    Selected {
        equal: all.len().min(1),
        ranked: all.iter().map(|it| it.index).collect(),
        remark: None,
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize) -> Candidate {
        Candidate {
            index,
            samples: 0.0,
            oldest: None,
            newest: None,
            answers_history: false,
            current: false,
            up_for: Duration::from_secs(1000),
            came_back: false,
            age: None,
            missing: 0,
        }
    }

    fn ranked(strategy: &Strategy, all: &[Candidate]) -> (usize, Vec<usize>) {
        let selected = select(strategy, all.to_vec(), 1_000_000);
        (selected.equal, selected.ranked)
    }

    #[test]
    fn most_data_is_strictly_more_and_a_tie_is_the_first_listed() {
        let strategy = Strategy::plain(Kind::MostData);
        let with = |samples: [f64; 3]| -> Vec<Candidate> {
            let of = |(index, samples)| Candidate {
                samples,
                ..candidate(index)
            };
            samples.into_iter().enumerate().map(of).collect()
        };
        assert_eq!(
            ranked(&strategy, &with([1.0, 3.0, 2.0])),
            (1, vec![1, 2, 0])
        );
        assert_eq!(
            ranked(&strategy, &with([2.0, 2.0, 2.0])),
            (1, vec![0, 1, 2])
        );
        // No replica reports its number of samples: the one whose data goes back furthest is
        // chosen.
        let mut all = with([0.0, 0.0, 0.0]);
        assert_eq!(ranked(&strategy, &all), (1, vec![0, 1, 2]));
        all[2].oldest = Some(5);
        assert_eq!(ranked(&strategy, &all), (1, vec![2, 0, 1]));
        assert_eq!(ranked(&strategy, &[]), (0, vec![]));
    }

    #[test]
    fn two_replicas_with_nearly_as_much_do_not_take_turns() {
        let strategy = Strategy {
            margin_percent: 1,
            ..Strategy::plain(Kind::MostData)
        };
        let mut all = vec![candidate(0), candidate(1)];
        all[0].samples = 1005.0;
        all[1].samples = 1000.0;
        all[1].current = true;
        assert_eq!(ranked(&strategy, &all).1, [1, 0]);
        all[0].samples = 1020.0;
        assert_eq!(ranked(&strategy, &all).1, [0, 1]);
    }

    #[test]
    fn minimum_history_is_any_that_goes_back_far_enough_or_else_the_deepest() {
        let strategy = Strategy {
            minimum_history: Duration::from_secs(100),
            ..Strategy::plain(Kind::MinimumHistory)
        };
        let mut all = vec![candidate(0), candidate(1), candidate(2), candidate(3)];
        all[1].oldest = Some(900_000);
        all[2].oldest = Some(900_001);
        all[3].answers_history = true;
        assert_eq!(ranked(&strategy, &all), (2, vec![1, 3, 2, 0]));
        all.remove(3);
        all.remove(1);
        let selected = select(&strategy, all, 1_000_000);
        assert_eq!((selected.equal, selected.ranked), (1, vec![2, 0]));
        assert!(selected.remark.unwrap().contains("most history"));
    }

    #[test]
    fn covering_is_the_one_with_the_fewest_gaps() {
        let strategy = Strategy::plain(Kind::Covering);
        let mut all = vec![candidate(0), candidate(1), candidate(2)];
        all[0].missing = 3 * COVERAGE_GRAIN;
        all[1].missing = COVERAGE_GRAIN;
        all[2].missing = COVERAGE_GRAIN + 10;
        assert_eq!(ranked(&strategy, &all), (2, vec![1, 2, 0]));
    }

    #[test]
    fn the_first_takes_its_place_back_after_the_delay() {
        let strategy = Strategy {
            failback_delay: Duration::from_secs(60),
            demote_restarted: Duration::from_secs(600),
            ..Strategy::plain(Kind::First)
        };
        let mut all = vec![candidate(0), candidate(1)];
        assert_eq!(ranked(&strategy, &all), (1, vec![0, 1]));
        all[1].current = true;
        all[0].came_back = true;
        all[0].up_for = Duration::from_secs(59);
        assert_eq!(ranked(&strategy, &all).1, [1, 0]);
        all[0].up_for = Duration::from_secs(60);
        assert_eq!(ranked(&strategy, &all).1, [0, 1]);
        all[0].age = Some(Duration::from_secs(599));
        assert_eq!(ranked(&strategy, &all).1, [1, 0]);
        // Like Caddy, without delays.
        assert_eq!(ranked(&Strategy::plain(Kind::First), &all).1, [0, 1]);
    }

    #[test]
    fn those_that_lag_behind_come_last() {
        let strategy = Strategy {
            max_lag: Some(Duration::from_secs(60)),
            ..Strategy::plain(Kind::Random)
        };
        let mut all = vec![candidate(0), candidate(1), candidate(2)];
        all[0].newest = Some(1_000_000 - 60_001);
        all[1].newest = Some(1_000_000);
        assert_eq!(ranked(&strategy, &all), (2, vec![1, 2, 0]));
        all.truncate(1);
        assert_eq!(
            ranked(&strategy, &all),
            (1, vec![0]),
            "alone, it is the newest"
        );
    }
}
