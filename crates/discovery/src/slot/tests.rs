use std::path::Path;

use super::*;
use crate::labels::Labels;

fn options(folder: Option<&Path>, question: &str) -> SlotOptions {
    SlotOptions {
        type_name: "test".into(),
        question: question.to_owned(),
        limits: Limits {
            targets: 20_000,
            ..Limits::default()
        },
        on_empty: OnEmpty::Keep,
        folder: folder.map(Path::to_path_buf),
    }
}

fn slot(folder: Option<&Path>, question: &str) -> (Arc<Slot>, Feed) {
    let options = options(folder, question);
    let slot = Slot::new("s".into(), options.clone(), &Telemetry::new());
    let feed = slot.take_over(options);
    (slot, feed)
}

fn found(addresses: &[&str]) -> Result<Vec<Labels>, Failure> {
    let label = |address: &&str| [("__address__", *address)].into_iter().collect();
    Ok(addresses.iter().map(label).collect())
}

fn failed() -> Result<Vec<Labels>, Failure> {
    Err(Failure::new(Reason::Unreachable, "nobody is there"))
}

fn addresses(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.targets().iter().map(|it| it.address()).collect()
}

fn names(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|it| it.address()).collect()
}

#[test]
fn a_source_that_fails_keeps_what_it_had_and_the_others_change() {
    let (slot, feed) = slot(None, "q");
    assert_eq!(slot.snapshot().standing(), Standing::Unknown);
    feed.all(vec![
        ("a".into(), found(&["1", "2"])),
        ("b".into(), found(&["3"])),
    ]);
    let first = slot.snapshot();
    assert_eq!(addresses(&first), ["1", "2", "3"]);
    assert!(!first.is_stale());
    feed.all(vec![("a".into(), failed()), ("b".into(), found(&["4"]))]);
    let second = slot.snapshot();
    assert_eq!(addresses(&second), ["1", "2", "4"]);
    assert!(second.is_stale());
    assert_eq!(slot.status().failing[0].reason, Reason::Unreachable);
    let changes = second.changes_since(&first);
    assert_eq!(names(&changes.added), ["4"]);
    assert_eq!(names(&changes.removed), ["3"]);
    feed.same();
    let third = slot.snapshot();
    assert!(!third.is_stale());
    assert!(third.changes_since(&second).is_empty());
    feed.all(vec![("b".into(), found(&["4"]))]);
    assert_eq!(addresses(&slot.snapshot()), ["4"]);
}

#[test]
fn a_target_of_two_sources_is_one_and_goes_with_the_last() {
    let (slot, feed) = slot(None, "q");
    feed.all(vec![
        ("a".into(), found(&["1", "1"])),
        ("b".into(), found(&["1"])),
    ]);
    let first = slot.snapshot();
    assert_eq!(addresses(&first), ["1"]);
    feed.some(vec![("a".into(), found(&["2"]))]);
    let second = slot.snapshot();
    assert_eq!(addresses(&second), ["1", "2"]);
    assert!(second.changes_since(&first).removed.is_empty());
    feed.all(vec![("a".into(), found(&["2"]))]);
    let third = slot.snapshot();
    assert_eq!(names(&third.changes_since(&second).removed), ["1"]);
    // Over several snapshots, too.
    let whole = third.changes_since(&first);
    assert_eq!(
        (names(&whole.added), names(&whole.removed)),
        (vec!["2"], vec!["1"])
    );
}

#[test]
fn an_empty_answer_after_a_full_one_is_a_fault_unless_it_is_to_be_taken() {
    let (slot, feed) = slot(None, "q");
    feed.all(vec![("a".into(), found(&[]))]);
    assert_eq!(slot.snapshot().standing(), Standing::Known);
    assert!(!slot.snapshot().is_stale());
    feed.all(vec![("a".into(), found(&["1"]))]);
    feed.all(vec![("a".into(), found(&[]))]);
    assert_eq!(addresses(&slot.snapshot()), ["1"]);
    assert_eq!(slot.status().failing[0].reason, Reason::Empty);
    let taking = SlotOptions {
        on_empty: OnEmpty::Take,
        ..options(None, "q")
    };
    let feed = slot.take_over(taking);
    feed.all(vec![("a".into(), found(&[]))]);
    assert!(slot.snapshot().targets().is_empty());
    assert!(!slot.snapshot().is_stale());
}

#[test]
fn limits_refuse_an_answer_whole() {
    let (slot, feed) = slot(None, "q");
    feed.all(vec![("a".into(), found(&["1"]))]);
    let many: Vec<String> = (0..20_001).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    feed.all(vec![("a".into(), found(&many))]);
    // The limit holds for the sum of all sources.
    feed.all(vec![
        ("a".into(), found(&many[1..])),
        ("b".into(), found(&["x"])),
    ]);
    let long = "x".repeat(Limits::default().label_bytes + 1);
    feed.all(vec![("a".into(), found(&["2", &long]))]);
    let labels = (0..300).map(|number| (number.to_string(), "x"));
    feed.all(vec![("a".into(), Ok(vec![labels.collect()]))]);
    assert_eq!(addresses(&slot.snapshot()), ["1"]);
    assert_eq!(slot.status().failing[0].reason, Reason::TooLarge);
    feed.all(vec![("a".into(), found(&many[1..]))]);
    assert_eq!(slot.snapshot().targets().len(), 20_000);
}

#[test]
fn what_was_known_outlives_the_process_with_its_time_but_not_for_another_question() {
    let folder = tempfile::tempdir().unwrap();
    let (first, feed) = slot(Some(folder.path()), "q");
    assert_eq!(first.snapshot().standing(), Standing::Unknown);
    feed.all(vec![("a".into(), found(&["1", "2"]))]);
    first.flush();
    let answered = first.status().last_success.unwrap();

    let (second, feed) = slot(Some(folder.path()), "q");
    let status = second.status();
    assert_eq!(addresses(&second.snapshot()), ["1", "2"]);
    assert!(status.stale && status.inherited);
    assert_eq!(second.snapshot().standing(), Standing::Known);
    let kept = status.last_success.unwrap();
    let apart = answered.duration_since(kept).unwrap_or_default();
    assert!(apart.as_millis() < 2, "{apart:?}");
    feed.all(vec![("a".into(), failed())]);
    assert_eq!(addresses(&second.snapshot()), ["1", "2"]);
    feed.all(vec![("a".into(), found(&["1", "2"]))]);
    assert!(!second.status().stale);

    let (other, _feed) = slot(Some(folder.path()), "another");
    assert_eq!(other.snapshot().standing(), Standing::Unknown);
    std::fs::write(folder.path().join("s.json"), "{").unwrap();
    let (damaged, _feed) = slot(Some(folder.path()), "q");
    assert_eq!(damaged.snapshot().standing(), Standing::Unknown);
}

#[test]
fn without_memory_nobody_knows_what_a_source_had_that_has_not_answered() {
    let answers = || vec![("a".into(), failed()), ("b".into(), found(&["1"]))];
    let (forgetful, feed) = slot(None, "q");
    feed.all(answers());
    assert_eq!(forgetful.snapshot().standing(), Standing::Partial);
    feed.all(vec![
        ("a".into(), found(&["2"])),
        ("b".into(), found(&["1"])),
    ]);
    feed.all(answers());
    assert_eq!(forgetful.snapshot().standing(), Standing::Known);
    let folder = tempfile::tempdir().unwrap();
    let (remembering, feed) = slot(Some(folder.path()), "q");
    feed.all(answers());
    assert_eq!(remembering.snapshot().standing(), Standing::Known);
}

#[test]
fn a_new_question_keeps_the_old_answer_until_it_is_answered_and_the_old_feed_is_not_heard() {
    let (slot, old) = slot(None, "q");
    old.all(vec![("a".into(), found(&["1"]))]);
    let new = slot.take_over(options(None, "other"));
    assert!(slot.snapshot().is_stale());
    old.all(vec![("a".into(), found(&["lost"]))]);
    new.all(vec![("b".into(), failed())]);
    assert_eq!(addresses(&slot.snapshot()), ["1"]);
    new.all(vec![("b".into(), found(&["2"]))]);
    assert_eq!(addresses(&slot.snapshot()), ["2"]);
    assert!(!slot.snapshot().is_stale());
}

#[test]
fn of_ten_thousand_targets_those_that_stay_are_the_same_in_memory() {
    let (slot, feed) = slot(None, "q");
    let all: Vec<String> = (0..10_000).map(|number| format!("h{number}:1")).collect();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    feed.all(vec![("a".into(), found(&all))]);
    let first = slot.snapshot();
    all[5000] = "other:1";
    feed.all(vec![("a".into(), found(&all))]);
    let second = slot.snapshot();
    let changes = second.changes_since(&first);
    assert_eq!(names(&changes.added), ["other:1"]);
    assert_eq!(names(&changes.removed), ["h5000:1"]);
    let same = |target: &&Target| first.targets().iter().any(|it| Arc::ptr_eq(it, target));
    let kept = second.targets().iter().step_by(997);
    assert!(
        kept.filter(|it| it.address() != "other:1")
            .all(|it| same(&it))
    );
}

#[test]
fn facts_besides_the_targets_stay_until_the_next_provider_of_the_type_shares_its_own() {
    let (slot, old) = slot(None, "q");
    let facts = || slot.targets().beside::<u32>().map(|it| *it);
    old.share(Arc::new(1_u32));
    assert_eq!(facts(), Some(1));
    let new = slot.take_over(options(None, "other"));
    assert_eq!(facts(), Some(1));
    old.share(Arc::new(2_u32));
    assert_eq!(facts(), Some(1));
    new.share(Arc::new(3_u32));
    assert_eq!(facts(), Some(3));
    slot.take_over(SlotOptions {
        type_name: "another".into(),
        ..options(None, "other")
    });
    assert_eq!(facts(), None);
}
