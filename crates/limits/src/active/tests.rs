//! Counts, removals and refusals, compared with a set that removes nothing.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_secs(20 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// Well-mixed hashes of numbers, with a new seed in every test.
struct Hashes(RandomState);

impl Hashes {
    fn new() -> Self {
        Self(RandomState::default())
    }

    fn of(&self, number: u64) -> u64 {
        self.0.hash_one(number)
    }
}

#[test]
fn as_many_are_counted_as_there_are_in_bytes_that_the_documentation_promises() {
    let hashes = Hashes::new();
    for count in [1, 10, 1000, 30_000, 300_000] {
        let active = ActiveSeries::default();
        let mut view = active.view(Instant::now(), IDLE);
        for _ in 0..2 {
            for number in 0..count {
                assert!(active.admit_hash(&mut view, hashes.of(number), u64::MAX));
            }
        }
        assert_eq!(active.count(), count);
        let each = active.bytes() as u64 / count;
        assert!(each <= 23 || active.bytes() <= 16 * 8, "{count}: {each}");
    }
}

#[test]
fn those_over_the_limit_are_refused_and_those_that_are_known_never() {
    let hashes = Hashes::new();
    let active = ActiveSeries::default();
    let mut view = active.view(Instant::now(), IDLE);
    let admitted = |view: &mut View| {
        let numbers = (0..500).filter(|&number| active.admit_hash(view, hashes.of(number), 100));
        numbers.collect::<Vec<_>>()
    };
    let first = admitted(&mut view);
    assert_eq!(first, (0..100).collect::<Vec<_>>());
    assert_eq!(admitted(&mut view), first);
    assert_eq!(active.count(), 100);
}

#[test]
fn a_series_is_forgotten_once_it_is_idle_and_makes_room() {
    let (active, hashes) = (ActiveSeries::default(), Hashes::new());
    let start = Instant::now();
    let at = |minutes| start + MINUTE * minutes;
    let (kept, idle, new) = (hashes.of(1), hashes.of(2), hashes.of(3));
    let mut view = active.view(start, IDLE);
    assert!(active.admit_hash(&mut view, kept, 2));
    assert!(active.admit_hash(&mut view, idle, 2));
    for minutes in 1..=20 {
        let mut view = active.view(at(minutes), IDLE);
        assert!(active.admit_hash(&mut view, kept, 2));
        assert!(!active.admit_hash(&mut view, new, 2), "{minutes}");
    }
    let mut view = active.view(at(21), IDLE);
    assert_eq!(active.count(), 1);
    assert!(active.admit_hash(&mut view, new, 2));
    assert!(!active.admit_hash(&mut view, idle, 2));
}

#[test]
fn after_a_silence_of_any_length_nothing_is_active() {
    for minutes in [21, 100, 255, 256, 257, 512, 100_000] {
        let (active, hashes) = (ActiveSeries::default(), Hashes::new());
        let start = Instant::now();
        let mut view = active.view(start, IDLE);
        for number in 0..1000 {
            active.admit_hash(&mut view, hashes.of(number), u64::MAX);
        }
        active.view(start + MINUTE * minutes, IDLE);
        assert_eq!(active.count(), 0, "{minutes}");
        active.trim(start + MINUTE * minutes, IDLE);
        assert_eq!(active.bytes(), 0, "{minutes}");
    }
}

#[test]
fn another_timeout_keeps_what_is_active() {
    let (active, hashes) = (ActiveSeries::default(), Hashes::new());
    let start = Instant::now();
    let mut view = active.view(start, IDLE);
    for number in 0..1000 {
        active.admit_hash(&mut view, hashes.of(number), u64::MAX);
    }
    active.view(start + MINUTE, IDLE * 2);
    assert_eq!(active.count(), 1000);
    active.view(start + MINUTE * 40, IDLE * 2);
    assert_eq!(active.count(), 1000);
    active.view(start + MINUTE * 50, IDLE * 2);
    assert_eq!(active.count(), 0);
}

#[test]
fn memory_is_given_back_as_series_go() {
    let (active, hashes) = (ActiveSeries::default(), Hashes::new());
    let start = Instant::now();
    let mut view = active.view(start, IDLE);
    for number in 0..100_000 {
        active.admit_hash(&mut view, hashes.of(number), u64::MAX);
    }
    let before = active.bytes();
    for minutes in 1..=25 {
        let mut view = active.view(start + MINUTE * minutes, IDLE);
        for number in 0..100 {
            active.admit_hash(&mut view, hashes.of(number), u64::MAX);
        }
    }
    assert_eq!(active.count(), 100);
    assert!(active.bytes() < before / 100, "{}", active.bytes());
}

#[test]
fn threads_that_bring_the_same_series_at_once_count_them_once() {
    let hashes = Hashes::new();
    let active = ActiveSeries::default();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut view = active.view(start, IDLE);
                for number in 0..20_000 {
                    active.admit_hash(&mut view, hashes.of(number), u64::MAX);
                }
            });
        }
    });
    // Series that came while the table grew are counted again.
    let mut view = active.view(start + MINUTE, IDLE);
    for number in 0..20_000 {
        active.admit_hash(&mut view, hashes.of(number), u64::MAX);
    }
    let twice = active.count() - 20_000;
    assert!(twice <= 200, "{twice} of 20000 are counted twice");
    for minutes in 2..=30 {
        let mut view = active.view(start + MINUTE * minutes, IDLE);
        for number in 0..20_000 {
            active.admit_hash(&mut view, hashes.of(number), u64::MAX);
        }
    }
    assert_eq!(active.count(), 20_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_is_active_is_what_a_plain_model_says(
        steps in prop::collection::vec((0u32..8, prop::collection::vec(0u64..200, 0..30)), 1..60),
        most in 1u64..150,
    ) {
        let hashes = Hashes::new();
        let active = ActiveSeries::default();
        let start = Instant::now();
        let mut minute = 0;
        let mut model: HashMap<u64, u32> = HashMap::new();
        for (minutes, numbers) in steps {
            minute += minutes;
            // A silence longer than the timeout removes a series one part earlier: no batch came
            // that kept it.
            model.retain(|_, seen| minute - *seen <= PARTS);
            let mut view = active.view(start + MINUTE * minute, IDLE);
            prop_assert_eq!(active.count(), model.len() as u64);
            for number in numbers {
                let known = model.contains_key(&number);
                let admits = known || (model.len() as u64) < most;
                prop_assert_eq!(active.admit_hash(&mut view, hashes.of(number), most), admits);
                if admits {
                    model.insert(number, minute);
                }
            }
        }
    }
}
