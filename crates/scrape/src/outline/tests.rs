use proptest::prelude::*;

use metrifold_codec::remote_write::decode;
use metrifold_discovery::{Labels, Target};
use metrifold_model::Version;

use crate::keys::ScrapeKeys;
use crate::page::{Content, Taken, Times, limits, take};
use crate::particulars::Plain;
use crate::series::Known;
use crate::settings::Settings;
use crate::target;

use super::*;

/// A scraper's memory of a target.
struct Memory {
    settings: SharedSettings,
    target: Arc<ScrapeTarget>,
    known: Known,
    state: RandomState,
    at: i64,
}

/// Labels, value and time of a sample.
type Row = (Vec<(String, String)>, u64, i64);

impl Memory {
    fn new(keys: &str) -> Self {
        let keys: ScrapeKeys = toml::from_str(keys).unwrap();
        let settings = Arc::new(Settings::new(&keys, "source").unwrap());
        let found: Target = Arc::new([("__address__", "a:1")].into_iter().collect::<Labels>());
        let target = target::make(&settings, &Plain, &[found], 0)
            .pop()
            .unwrap()
            .1;
        Self {
            settings,
            target: target.unwrap(),
            known: Known::default(),
            state: RandomState::default(),
            at: 1_700_000_000_000,
        }
    }

    fn scrape(&mut self, format: Format, text: &[u8]) -> Result<Scraped, String> {
        self.at += 15_000;
        let page = Page {
            text: Bytes::copy_from_slice(text),
            format,
            content_type: None,
            turn: None,
            share: None,
        };
        let times = Times {
            timestamp: self.at,
            sampled_until: self.at - 1,
            exemplars_until: i64::MIN,
        };
        let taken = take(
            &self.settings,
            &self.target,
            &page,
            times,
            &self.known,
            &self.state,
        );
        let Taken {
            content,
            difference,
            counts,
            ..
        } = taken.map_err(|(error, counts)| format!("{error:?} {counts:?}"))?;
        self.known.update(difference);
        let (repeated, rows, metadata) = match content {
            Content::Read(arena, stale) => {
                let stale = stale.finish();
                let rows = rows(&arena).into_iter().chain(rows(&stale)).collect();
                (false, rows, arena.counts().metadata)
            }
            Content::Repeated(repeated) => {
                let own: Arc<str> = "source".into();
                let none = metrifold_codec::ArenaBuilder::new(limits(0)).finish();
                let piece = repeated.piece(true, none);
                let mut batch = piece.batch(&Arc::new(metrifold_model::Origin::internal(own)));
                let counts = batch.counts().unwrap();
                let body = batch.body(Version::V1).unwrap();
                let (arena, invalid) = decode(Version::V1, &body, &limits(0)).unwrap();
                assert_eq!((invalid.series(), arena.counts()), (0, counts));
                (true, rows(&arena), counts.metadata)
            }
        };
        Ok(Scraped {
            repeated,
            rows,
            counts: (counts.scraped, counts.kept, metadata),
        })
    }
}

#[derive(Debug)]
struct Scraped {
    repeated: bool,
    rows: Vec<Row>,
    /// Samples on the page, those that are left, and families.
    counts: (usize, usize, u64),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn rows(arena: &Arena) -> Vec<Row> {
    let rows = arena.iter().flat_map(|series| {
        let labels = series.labels();
        let labels: Vec<_> = labels
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        let samples = series.samples();
        samples.map(move |(value, at)| (labels.clone(), value.to_bits(), at))
    });
    rows.collect()
}

fn ended(known: &Known) -> Vec<Vec<(String, String)>> {
    let mut ended = Vec::new();
    known.end(|labels| {
        let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ended.push(owned.collect());
    });
    ended
}

const PAGE: &str = "# HELP a text\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2.5\n\nb 0\n";

#[test]
fn a_page_that_differs_in_values_alone_is_not_read_and_any_other_is() {
    let mut memory = Memory::new("");
    let mut scrape = |page: &str| memory.scrape(Format::Text, page.as_bytes()).unwrap();
    assert!(!scrape(PAGE).repeated);
    let next = scrape("# HELP a text\n# TYPE a counter\na{x=\"1\"} 7\na{x=\"2\"} NaN\n\nb -0\n");
    assert!(next.repeated);
    let values: Vec<_> = next.rows.iter().map(|(_, value, _)| *value).collect();
    assert_eq!(values[0], 7f64.to_bits());
    assert_eq!(values[2], (-0f64).to_bits());
    for other in [
        "# HELP a text!\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2.5\n\nb 0\n",
        "# HELP a text\n# TYPE a counter\na{x=\"3\"} 1\na{x=\"2\"} 2.5\n\nb 0\n",
        "# HELP a text\n# TYPE a counter\na{x=\"1\"} 1 5\na{x=\"2\"} 2.5\n\nb 0\n",
        "# HELP a text\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2.5\n\nb 0\n#\n",
        "# HELP a text\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2.5\n\n",
        "",
    ] {
        assert!(!scrape(other).repeated, "{other}");
        assert!(!scrape(PAGE).repeated, "{other}");
        assert!(scrape(PAGE).repeated);
    }
}

#[test]
fn what_else_decides_about_series_makes_a_page_be_read_again() {
    let mut memory = Memory::new("");
    let again = |memory: &mut Memory, format| {
        let scrape = |memory: &mut Memory| memory.scrape(format, PAGE.as_bytes()).unwrap();
        let first = scrape(memory).repeated;
        assert!(scrape(memory).repeated);
        first
    };
    assert!(!again(&mut memory, Format::Text));
    assert!(again(&mut memory, Format::Text));
    // Settings after a reload, and a target with other labels.
    memory.settings = Memory::new("honor_labels = true").settings;
    assert!(!again(&mut memory, Format::Text));
    let keys: ScrapeKeys = toml::from_str("job = 'other'").unwrap();
    let settings = Settings::new(&keys, "source").unwrap();
    let found: Target = Arc::new([("__address__", "a:1")].into_iter().collect::<Labels>());
    let target = target::make(&settings, &Plain, &[found], 0)
        .pop()
        .unwrap()
        .1;
    memory.target = target.unwrap();
    assert!(
        !memory
            .scrape(Format::Text, PAGE.as_bytes())
            .unwrap()
            .repeated
    );
}

#[test]
fn pages_with_more_than_values_are_always_read() {
    for (keys, format, page) in [
        ("", Format::Text, "a 1 1700000000000\n"),
        (
            "honor_timestamps = false",
            Format::Text,
            "a 1 1700000000000\nb 1\n",
        ),
        ("", Format::Text, "a 1\na 2\n"),
        ("", Format::Text, "a 1 \n"),
        ("", Format::Text, "# \u{fffd}\na 1\n"),
        ("", Format::OpenMetrics, "a_total 1 # {x=\"1\"} 1\n# EOF\n"),
        (
            "start_timestamps = 'send'",
            Format::OpenMetrics,
            "# TYPE a counter\na_total 1\na_created 1\n# EOF\n",
        ),
        (
            "convert_classic_histograms_to_nhcb = true",
            Format::Text,
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_count 1\na_sum 1\n",
        ),
    ] {
        let mut memory = Memory::new(keys);
        // The page with a replacement character is given as one that is not UTF-8.
        let page = page.replace('\u{fffd}', "?").into_bytes();
        let page: Vec<u8> = page
            .into_iter()
            .map(|byte| if byte == b'?' { 0xff } else { byte })
            .collect();
        for _ in 0..4 {
            assert!(
                !memory.scrape(format, &page).unwrap().repeated,
                "{keys} {page:?}"
            );
        }
    }
}

#[test]
fn series_that_disappear_after_repeated_pages_get_their_markers() {
    let mut memory = Memory::new("");
    for _ in 0..4 {
        memory.scrape(Format::Text, PAGE.as_bytes()).unwrap();
    }
    assert_eq!(ended(&memory.known).len(), 3);
    let left = "# HELP a text\n# TYPE a counter\na{x=\"1\"} 1\n\nb 0\n";
    let scraped = memory.scrape(Format::Text, left.as_bytes()).unwrap();
    assert_eq!(scraped.rows.len(), 3);
    let (labels, value, _) = &scraped.rows[2];
    assert_eq!(*value, metrifold_codec::remote_write::STALE);
    assert!(
        labels.contains(&("x".to_owned(), "2".to_owned())),
        "{labels:?}"
    );
}

/// A line of a page without its value, if it has one.
fn line() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        8 => ("[ab]{1,2}", "[xy]", "[a-c}\" #]{0,3}").prop_map(|(name, label, value)| {
            let value = value.replace('"', "\\\"");
            (format!("{name}{{{label}=\"{value}\"}} "), true)
        }),
        2 => "[ab]{1,2}".prop_map(|name| (format!("{name}\t "), true)),
        1 => "[ab]{1,2}".prop_map(|name| (format!("# HELP {name} help 1"), false)),
        1 => "[ab]{1,2}".prop_map(|name| (format!("# TYPE {name} histogram"), false)),
        1 => "[# ]{0,2}".prop_map(|text| (text, false)),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<u32>().prop_map(|number| number.to_string()),
        4 => any::<f64>().prop_map(|number| number.to_string()),
        1 => Just("+Inf".to_owned()),
        1 => Just("0".to_owned()),
        // Faults, timestamps, and a value as long as a line of text.
        1 => prop_oneof![
            Just("1x".to_owned()), Just(String::new()), Just("1 2".to_owned()),
            Just("1 1700000000000".to_owned()), Just("1\r".to_owned()), Just("0".repeat(70)),
        ],
    ]
}

const KEYS: [&str; 4] = [
    "",
    "metric_relabel = [{ source_labels = ['__name__', 'x'], regex = 'a.*', action = 'drop' }]",
    "metric_relabel = [{ target_label = 'new', replacement = 'text' }, { action = 'labeldrop', regex = 'y' }]",
    "honor_labels = true",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A target that is remembered gives the same as one that is seen for the first time, but for the
    /// number of new series and staleness markers.
    #[test]
    fn pages_give_the_same_series_whether_they_are_repeated_or_read(
        lines in prop::collection::vec(line(), 0..12),
        pages in prop::collection::vec(prop::collection::vec(value(), 12), 1..8),
        change in (0usize..8, 0usize..12, line()),
        keys in prop::sample::select(&KEYS[..]),
        open in any::<bool>(),
    ) {
        let mut memory = Memory::new(keys);
        let mut lines = lines;
        for (number, values) in pages.iter().enumerate() {
            if number == change.0 && change.1 < lines.len() {
                lines[change.1] = change.2.clone();
            }
            let mut page = String::new();
            for ((line, valued), value) in lines.iter().zip(values) {
                page.push_str(line);
                page.push_str(if *valued { value } else { "" });
                page.push('\n');
            }
            let format = match open {
                true => { page.push_str("# EOF\n"); Format::OpenMetrics }
                false => Format::Text,
            };
            let mut fresh = Memory::new(keys);
            fresh.at = memory.at;
            let expected = fresh.scrape(format, page.as_bytes());
            let stale = |row: &Row| row.1 == metrifold_codec::remote_write::STALE;
            match (memory.scrape(format, page.as_bytes()), expected) {
                (Ok(mut found), Ok(expected)) => {
                    found.rows.retain(|row| !stale(row));
                    prop_assert_eq!(found.rows, expected.rows);
                    prop_assert_eq!(found.counts, expected.counts);
                    prop_assert_eq!(ended(&memory.known), ended(&fresh.known));
                }
                (Err(found), Err(expected)) => prop_assert_eq!(found, expected),
                (found, expected) => prop_assert!(false, "{:?} {:?}", found, expected),
            }
        }
    }
}
