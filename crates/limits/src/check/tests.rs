//! Which series of a batch are left out, for which reason, and what the sender is answered.

use std::time::Duration;

use metrifold_codec::testing::{Labels, arena_v1, labels};

use super::*;

struct Rig {
    limits: Arc<LimitKeys>,
    usage: Arc<Usage>,
    all: Arc<OverCounts>,
    start: Instant,
}

impl Rig {
    fn new(text: &str) -> Self {
        Self {
            limits: Arc::new(toml::from_str(text).unwrap()),
            usage: Arc::default(),
            all: Arc::default(),
            start: Instant::now(),
        }
    }

    /// Number of series kept, and the report of the others.
    fn send(&self, series: &[Labels], secs: u64) -> Result<(usize, Option<Excess>), Rejection> {
        let now = self.start + Duration::from_secs(secs);
        let check = Check::begin(&self.limits, &self.usage, &self.all, &"acme".into(), now)?;
        let Some(mut check) = check else {
            return Ok((series.len(), None));
        };
        let mut kept = 0;
        let mut arena = arena_v1(series);
        arena.retain(|series| {
            let keeps = check.series(series).is_ok();
            kept += usize::from(keeps);
            keeps
        });
        Ok((kept, check.finish()?))
    }

    fn over(&self) -> Vec<(Limit, u64)> {
        let all = self.all.read().filter(|(_, count)| *count > 0);
        all.collect()
    }
}

fn numbered(count: usize) -> Vec<Labels> {
    let one = |number: usize| labels(&[("__name__", "up"), ("n", &number.to_string())]);
    (0..count).map(one).collect()
}

#[test]
fn without_limits_nobody_looks_at_a_batch() {
    let rig = Rig::new("requests_per_second = 1");
    let check = Check::begin(&rig.limits, &rig.usage, &rig.all, &"a".into(), rig.start);
    assert!(check.unwrap().is_none());
}

#[test]
fn series_that_break_a_bound_are_left_out_and_counted_by_its_name() {
    let rig = Rig::new(
        "max_labels_per_series = 2\nmax_label_name_bytes = '8B'\nmax_label_value_bytes = '4B'",
    );
    let series = [
        labels(&[("__name__", "up"), ("a", "b")]),
        labels(&[("__name__", "many"), ("a", "b"), ("c", "d")]),
        labels(&[("__name__", "name"), ("a_long_name", "b")]),
        labels(&[("__name__", "value"), ("a", "long value")]),
        labels(&[("__name__", "up")]),
    ];
    let (kept, excess) = rig.send(&series, 0).unwrap();
    let excess = excess.unwrap();
    assert_eq!((kept, excess.lost.series, excess.lost.samples), (2, 3, 3));
    assert_eq!(
        excess.rejection.reason,
        "tenant \"acme\": 1 series have more than 2 labels; 1 series have a label name of more than 8 bytes; 1 series have a label value of more than 4 bytes (first: \"many\")"
    );
    assert!(!excess.rejection.may_retry());
    assert_eq!(
        rig.over(),
        [
            (Limit::LabelsPerSeries, 1),
            (Limit::LabelNameBytes, 1),
            (Limit::LabelValueBytes, 1)
        ]
    );
}

#[test]
fn known_series_go_on_when_no_further_one_may_be_active() {
    let rig = Rig::new("max_active_series = 10");
    let (kept, excess) = rig.send(&numbered(15), 0).unwrap();
    assert_eq!((kept, excess.unwrap().lost.series), (10, 5));
    let (kept, excess) = rig.send(&numbered(10), 60).unwrap();
    assert_eq!((kept, excess), (10, None));
    // All series but the first are idle after 21 minutes.
    for minute in 2..=21 {
        rig.send(&numbered(1), minute * 60).unwrap();
    }
    let (kept, excess) = rig.send(&numbered(12), 22 * 60).unwrap();
    assert_eq!((kept, excess.unwrap().lost.series), (10, 2));
    let shown = rig.usage.show(&rig.limits, rig.start);
    assert_eq!(shown["active_series"]["used"], 10);
    assert_eq!(shown["active_series"]["left"], 0);
}

#[test]
fn a_batch_over_the_rate_is_refused_whole_until_what_was_taken_has_come_back() {
    let rig = Rig::new("samples_per_second = 10\nstatus = '503'");
    assert_eq!(rig.send(&numbered(40), 0).unwrap(), (40, None));
    let refused = rig.send(&numbered(1), 1).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::Unavailable);
    assert!(refused.may_retry());
    assert!(rig.send(&numbered(1), 3).is_err());
    assert_eq!(rig.send(&numbered(1), 4).unwrap(), (1, None));
    assert_eq!(rig.over(), [(Limit::Samples, 2)]);
}

#[test]
fn what_is_left_out_costs_nothing_of_the_rate() {
    let rig = Rig::new("samples_per_second = 10\nmax_active_series = 4");
    assert_eq!(rig.send(&numbered(100), 0).unwrap().0, 4);
    let shown = rig.usage.show(&rig.limits, rig.start);
    assert_eq!(shown["samples"]["left"], 6);
}

#[test]
fn a_request_of_too_many_series_is_refused_and_costs_nothing() {
    let rig = Rig::new("max_series_per_request = 3\nsamples_per_second = 10");
    let refused = rig.send(&numbered(4), 0).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::TooLarge);
    let shown = rig.usage.show(&rig.limits, rig.start);
    assert_eq!(shown["samples"]["left"], 10);
    assert_eq!(rig.send(&numbered(3), 0).unwrap(), (3, None));
}

#[test]
fn a_request_that_is_refused_makes_no_more_series_active_than_one_that_is_not() {
    let rig = Rig::new("max_series_per_request = 3\nmax_active_series = 100");
    let refused = rig.send(&numbered(90), 0).unwrap_err();
    assert_eq!(refused.kind, RejectionKind::TooLarge);
    assert!(refused.reason.contains("90 series"), "{}", refused.reason);
    assert_eq!(rig.over(), [(Limit::SeriesPerRequest, 1)]);
    let shown = rig.usage.show(&rig.limits, rig.start);
    assert_eq!(shown["active_series"]["used"], 3);
}

#[test]
fn soft_limits_leave_nothing_out_and_refuse_nothing() {
    let rig = Rig::new(
        "soft = true\nsamples_per_second = 1\nmax_active_series = 2\nmax_series_per_request = 3\nmax_labels_per_series = 1",
    );
    for _ in 0..2 {
        assert_eq!(rig.send(&numbered(5), 0).unwrap(), (5, None));
    }
    let over: Vec<_> = rig.over().into_iter().map(|(limit, _)| limit).collect();
    assert_eq!(
        over,
        [
            Limit::Samples,
            Limit::SeriesPerRequest,
            Limit::LabelsPerSeries
        ]
    );
}
