use std::time::SystemTime;

use metrifold_model::ledger::Reason;

use super::*;

fn tally(batches: u64, samples: u64) -> Tally {
    Tally {
        batches,
        samples,
        ..Tally::default()
    }
}

fn account(received: u64, delivered: u64, dropped: u64) -> Account {
    let mut account = Account {
        received: tally(received, 10 * received),
        delivered: tally(delivered, 10 * delivered),
        ..Account::default()
    };
    if dropped > 0 {
        let dropped = tally(dropped, 10 * dropped);
        account.dropped.insert(Reason::QueueFull, dropped);
    }
    account
}

/// A line with everything that was not delivered or dropped still queued.
fn line(received: u64, delivered: u64, dropped: u64) -> Line {
    let account = account(received, delivered, dropped);
    Line {
        queued: account.queued(),
        account,
        ..Line::default()
    }
}

fn ledger(lines: &[(&str, Line)], rest: Line) -> Ledger {
    let lines = lines.iter().cloned();
    let tenants = lines.map(|(tenant, line)| (Arc::from(tenant), line));
    Ledger::new(tenants.collect(), rest, SystemTime::UNIX_EPOCH)
}

/// Received, delivered, dropped and queued batches of each line.
fn rows(shown: &mut Shown, ledger: &Ledger, max: usize) -> Vec<(String, [u64; 4])> {
    let rows = shown.rows(ledger, max).into_iter().map(|row| {
        let dropped = row.account.dropped.values().map(|it| it.batches).sum();
        let (received, delivered) = (row.account.received, row.account.delivered);
        let queued = row.queued.batches;
        let figures = [received.batches, delivered.batches, dropped, queued];
        (row.tenant.to_owned(), figures)
    });
    rows.collect()
}

fn named(rows: &[(&str, [u64; 4])]) -> Vec<(String, [u64; 4])> {
    rows.iter()
        .map(|(name, row)| ((*name).to_owned(), *row))
        .collect()
}

#[test]
fn the_largest_tenants_that_come_first_keep_their_lines_and_the_others_never_get_one() {
    let mut shown = Shown::default();
    let first = ledger(
        &[
            ("", line(1, 0, 0)),
            ("a", line(5, 1, 1)),
            ("b", line(9, 9, 0)),
            ("c", line(7, 0, 0)),
        ],
        line(2, 1, 0),
    );
    let expected = named(&[
        ("<none>", [1, 0, 0, 1]),
        ("b", [9, 9, 0, 0]),
        ("c", [7, 0, 0, 7]),
        ("<other>", [7, 2, 1, 4]),
    ]);
    assert_eq!(rows(&mut shown, &first, 2), expected);
    // Another tenant is larger now and more lines are allowed; tenants keep their lines all the
    // same.
    let second = ledger(
        &[
            ("", line(1, 1, 0)),
            ("a", line(99, 1, 1)),
            ("b", line(9, 9, 0)),
            ("c", line(7, 7, 0)),
            ("d", line(1, 0, 0)),
        ],
        line(2, 2, 0),
    );
    let expected = named(&[
        ("<none>", [1, 1, 0, 0]),
        ("b", [9, 9, 0, 0]),
        ("c", [7, 7, 0, 0]),
        ("d", [1, 0, 0, 1]),
        ("<other>", [101, 3, 1, 97]),
    ]);
    assert_eq!(rows(&mut shown, &second, 3), expected);
    assert_eq!(
        rows(&mut shown, &second, 0),
        expected,
        "fewer lines take none away"
    );
}

/// The same line, read from a queue on disk.
fn on_disk(number: u64, line: Line) -> Line {
    Line {
        on_disk: number,
        ..line
    }
}

#[test]
fn a_line_that_the_disk_has_merged_stays_and_no_counter_goes_back() {
    let mut shown = Shown::default();
    let (a, b) = (on_disk(1, line(5, 5, 0)), on_disk(2, line(3, 0, 0)));
    let first = ledger(&[("a", a), ("b", b)], Line::default());
    rows(&mut shown, &first, 1);
    let merged = ledger(&[("b", on_disk(2, line(4, 0, 0)))], line(5, 5, 0));
    let expected = named(&[("a", [5, 5, 0, 0]), ("<other>", [4, 0, 0, 4])]);
    assert_eq!(rows(&mut shown, &merged, 1), expected);
    let (a, b) = (on_disk(3, line(2, 1, 0)), on_disk(2, line(4, 0, 0)));
    let back = ledger(&[("a", a), ("b", b)], line(5, 5, 0));
    let expected = named(&[("a", [7, 6, 0, 1]), ("<other>", [4, 0, 0, 4])]);
    assert_eq!(rows(&mut shown, &back, 1), expected);
}

#[test]
fn what_was_taken_back_is_not_counted_again() {
    let mut shown = Shown::default();
    let one = |received| ledger(&[("a", line(received, 0, 0))], Line::default());
    // A batch was counted as received and taken back, since the queue had no room.
    for (received, expected) in [(5, 5), (4, 5), (5, 5), (6, 6)] {
        let rows = rows(&mut shown, &one(received), 1);
        assert_eq!(rows[0].1[0], expected, "{received}");
        assert_eq!(rows[1].1[0], 0, "{received}");
    }
}

#[test]
fn a_sink_that_is_there_again_goes_on_counting() {
    let mut shown = Shown::default();
    let mut found = ledger(
        &[("a", line(5, 5, 0)), ("b", line(3, 3, 0))],
        Line::default(),
    );
    rows(&mut shown, &found, 1);
    found = ledger(
        &[("a", line(1, 0, 0)), ("b", line(2, 2, 0))],
        Line::default(),
    );
    found.since += std::time::Duration::from_secs(1);
    let expected = named(&[("a", [6, 5, 0, 1]), ("<other>", [5, 5, 0, 0])]);
    assert_eq!(rows(&mut shown, &found, 1), expected);
}

#[test]
fn what_was_over_before_the_process_began_is_not_counted_and_what_was_queued_is_received() {
    let mut shown = Shown::default();
    let mut found = line(10, 6, 2);
    found.before = found.account.clone();
    found.before.received -= found.queued;
    let found = ledger(&[("a", found)], Line::default());
    let expected = named(&[("a", [2, 0, 0, 2]), ("<other>", [0; 4])]);
    assert_eq!(rows(&mut shown, &found, 5), expected);
}
