//! Which of the replicas are worth asking, best first.

use std::time::Duration;

use metrifold_base::words;

words! {
    /// How a replica is chosen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Kind {
        /// The first one that is available, in their order.
        First = "first",
        /// Any one that is available, by weight.
        Random = "random",
        /// Any one whose data goes back far enough.
        MinimumHistory = "minimum_history",
        /// The one that has most samples.
        MostData = "most_data",
        /// The one with the fewest queries under way, by weight.
        LeastLoaded = "least_loaded",
        /// For each query, the one that has data for most of the query's time.
        Covering = "covering",
        /// Several at once, the ones that cover most, whose answers are merged.
        Merge = "merge",
    }
}

words! {
    /// What happens when no replica is worth asking.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenNone {
        /// Queries are refused, with the reason.
        Refuse = "refuse",
        /// Those that were last worth asking are asked, though they are not now.
        LastSelection = "last_selection",
    }
}

impl Kind {
    /// Its word in the configuration.
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

    /// Whether it needs to know what data a replica has.
    pub(crate) fn needs_signals(self) -> bool {
        !matches!(self, Self::First)
    }
}

/// A strategy with what it needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// How a replica is chosen.
    pub kind: Kind,
    /// How far back its data must go, for `minimum_history`.
    pub minimum_history: Duration,
    /// How much more data another must have to take the place of the one with most, in percent.
    pub margin_percent: u32,
    /// How long a replica must have been available again before it takes its place back, for
    /// `first`.
    pub failback_delay: Duration,
    /// For how long a replica that was restarted stands behind the others, for `first`.
    pub demote_restarted: Duration,
    /// How much older than the newest sample of all a replica's may be; none for any.
    pub max_lag: Option<Duration>,
}

impl Strategy {
    /// A strategy without delays.
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

/// A replica as a strategy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Its place in the list.
    pub(crate) index: usize,
    /// How many samples it has.
    pub(crate) samples: f64,
    /// The time of its oldest sample.
    pub(crate) oldest: Option<i64>,
    /// Its newest.
    pub(crate) newest: Option<i64>,
    /// Whether a query showed that it has data from as far back as is asked for.
    pub(crate) answers_history: bool,
    /// Whether it was chosen the last time.
    pub(crate) current: bool,
    /// How long it has been available.
    pub(crate) up_for: Duration,
    /// Whether it was away since the router knows it.
    pub(crate) came_back: bool,
    /// How long its process has been running.
    pub(crate) age: Option<Duration>,
    /// How much of the query's time it has no data for, in milliseconds.
    pub(crate) missing: i64,
}

/// Those worth asking, best first, and what there is to say of the choice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selected {
    /// The first of these are as good as each other.
    pub(crate) equal: usize,
    /// Places in the list; behind the equal ones, those that a retry may fall back to.
    pub(crate) ranked: Vec<usize>,
    /// Why it is not what was asked for.
    pub(crate) remark: Option<&'static str>,
}

/// Differences in coverage below this say nothing: scrapes of two replicas are not at one time.
const COVERAGE_GRAIN: i64 = 60_000;

/// Ranks replicas that are available. `now` is in milliseconds since the epoch.
pub(crate) fn select(strategy: &Strategy, mut all: Vec<Candidate>, now: i64) -> Selected {
    let mut behind = Vec::new();
    if let Some(lag) = strategy.max_lag {
        let newest = all.iter().filter_map(|it| it.newest).max();
        let limit = newest.map(|newest| newest.saturating_sub(millis(lag)));
        // Those that say nothing of it are not blamed.
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
            // Stable: among equals, the order is that of the list.
            all.sort_by_key(|it| (!qualifies(it), it.oldest.unwrap_or(i64::MAX)));
            let equal = all.iter().filter(|it| qualifies(it)).count();
            all[..equal].sort_by_key(|it| it.index);
            match equal {
                0 => Selected {
                    equal: all.len().min(1),
                    ranked: indexes(&all),
                    remark: (!all.is_empty())
                        .then_some("none has the minimum of history: the deepest is asked"),
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
                    // Nobody says how much there is.
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

/// Caddy's `first`, with its two additions.
fn first(strategy: &Strategy, mut all: Vec<Candidate>) -> Selected {
    let restarted = |it: &Candidate| it.age.is_some_and(|age| age < strategy.demote_restarted);
    let young = |it: &Candidate| it.came_back && it.up_for < strategy.failback_delay;
    let current = all.iter().find(|it| it.current).map(|it| it.index);
    all.sort_by_key(|it| {
        // In front of the one that is asked now, only those that have been back for long enough.
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
        // None says how much it has: one is chosen all the same, the one that goes back furthest.
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
        assert!(selected.remark.unwrap().contains("deepest"));
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
        // As Caddy does, without delays.
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
