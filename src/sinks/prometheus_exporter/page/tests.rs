use metrifold_codec::testing::{Labels, arena_v1, labels};

use super::*;

const EXPIRY: Duration = Duration::from_secs(60);

fn page(max_series: usize, series: &[Labels]) -> (Page, LeftOut) {
    let mut page = Page::new(EXPIRY, of_series(max_series), false);
    let left_out = page.write(&arena_v1(series), Instant::now());
    (page, left_out)
}

fn render(page: &Page, escaping: Escaping) -> (String, u64) {
    let (text, collisions) = page.render(escaping, Instant::now());
    (String::from_utf8(text).unwrap(), collisions)
}

#[test]
fn names_are_escaped_as_the_scraper_asks() {
    let series = [
        labels(&[("__name__", "http.req"), ("a.b", "1")]),
        labels(&[("__name__", "up"), ("a_b", "\"")]),
    ];
    let (page, _) = page(9, &series);
    let f = |escaping, text: &str| {
        assert_eq!(render(&page, escaping), (text.to_string(), 0));
    };
    f(
        Escaping::AllowUtf8,
        "{\"http.req\",\"a.b\"=\"1\"} 0\nup{a_b=\"\\\"\"} 1\n",
    );
    f(
        Escaping::Underscores,
        "http_req{a_b=\"1\"} 0\nup{a_b=\"\\\"\"} 1\n",
    );
    f(
        Escaping::Dots,
        "http_dot_req{a_dot_b=\"1\"} 0\nup{a__b=\"\\\"\"} 1\n",
    );
    f(
        Escaping::Values,
        "U__http_2e_req{U__a_2e_b=\"1\"} 0\nup{a_b=\"\\\"\"} 1\n",
    );
}

#[test]
fn what_becomes_one_line_by_escaping_is_shown_once() {
    let series = [
        labels(&[("__name__", "http.req")]),
        labels(&[("__name__", "http_req")]),
        labels(&[("__name__", "m"), ("a.b", "1"), ("a_b", "1")]),
        labels(&[("__name__", "n.x"), ("a-b", "1")]),
        labels(&[("__name__", "n.x"), ("a.b", "1")]),
    ];
    let (page, _) = page(9, &series);
    // The series that needs no escaping stays.
    assert_eq!(
        render(&page, Escaping::Underscores),
        ("http_req 1\nn_x{a_b=\"1\"} 3\n".to_string(), 3)
    );
    assert_eq!(render(&page, Escaping::AllowUtf8).1, 0);
    assert_eq!(render(&page, Escaping::Values).1, 0);
}

#[test]
fn what_cannot_be_shown_is_left_out_and_told() {
    let mut arena = arena_v1(&[
        labels(&[("__name__", "a"), ("x", "1")]),
        labels(&[("__name__", "b")]),
        labels(&[("__name__", "c")]),
    ]);
    let name = Name::new("__name__");
    arena.retain(|series| {
        if series.get(&name) == Some(b"a") {
            series.remove(&name);
        }
        true
    });
    let mut page = Page::new(EXPIRY, of_series(1), false);
    let left_out = page.write(&arena, Instant::now());
    let expected = LeftOut {
        too_many: 1,
        histograms: 0,
        nameless: 1,
    };
    assert_eq!(left_out, expected);
    assert_eq!(
        render(&page, Escaping::Underscores),
        ("b 1\n".to_string(), 0)
    );
}

#[test]
fn a_series_that_is_not_written_any_more_leaves_the_page() {
    let (mut page, _) = page(9, &[labels(&[("__name__", "up")])]);
    let later = Instant::now() + EXPIRY;
    assert_eq!(page.render(Escaping::Underscores, later), (Vec::new(), 0));
    page.sweep(later);
    assert!(page.series.is_empty());
}

fn of_series(series: usize) -> Bounds {
    Bounds {
        series,
        bytes: usize::MAX,
    }
}

#[test]
fn a_page_is_bounded_in_bytes_as_well_and_gone_series_make_room() {
    let bounds = Bounds {
        series: 100,
        bytes: 30,
    };
    let mut page = Page::new(EXPIRY, bounds, false);
    let now = Instant::now();
    // Each takes 11 bytes: its name, and a byte behind it.
    let write = |page: &mut Page, names: &[&str], now| {
        let series: Vec<Labels> = names
            .iter()
            .map(|name| labels(&[("__name__", name)]))
            .collect();
        page.write(&arena_v1(&series), now).too_many
    };
    assert_eq!(write(&mut page, &["aaaaaaaaaa", "bbbbbbbbbb"], now), 0);
    assert_eq!(
        write(&mut page, &["aaaaaaaaaa", "cccccccccc", "short"], now),
        1
    );
    page.sweep(now + EXPIRY);
    let names = ["cccccccccc", "dddddddddd", "eeeeeeeeee"];
    assert_eq!(write(&mut page, &names, now + EXPIRY), 1);
}
