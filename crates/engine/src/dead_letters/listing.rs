//! Listings of dead letters, as the admin API returns them and the command line reads them.

use serde::{Deserialize, Serialize};

use metrifold_codec::SeriesRef;
use metrifold_codec::remote_write::{Limits, decode};

use super::letter::Letter;

/// Selects the letters of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only letters of this sink.
    pub sink: Option<String>,
    /// Only letters of this tenant.
    pub tenant: Option<String>,
    /// The most letters to list; the newest ones are chosen.
    pub limit: usize,
}

/// A list of letters, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Letters that the listing shows.
    pub letters: Vec<Entry>,
    /// Whether more letters match the filter.
    pub more: bool,
}

/// A letter of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Identifier of the letter: its sink's name and its number, `sink/number`.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// Time at which the letter was kept, in milliseconds since the epoch.
    pub time: u64,
    /// Reason why the letter's file cannot be read; all fields below are empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Tenant of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The status that the endpoint answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Reason that the endpoint gave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Version of remote write of the body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Number of samples and histograms in the letter.
    #[serde(default)]
    pub samples: u64,
    /// The first series of the letter, at most `SERIES_MAX`.
    #[serde(default)]
    pub series: Vec<Series>,
    /// Number of series beyond those in `series`.
    #[serde(default)]
    pub more_series: u64,
}

/// A series of a letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Name and labels in PromQL's syntax; names that need quotes are quoted.
    pub labels: String,
    /// Number of samples and histograms of the series.
    pub samples: u64,
    /// Timestamp of the first of them, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_timestamp: Option<i64>,
}

/// The most series of a letter that a listing shows.
const SERIES_MAX: usize = 10;

impl Entry {
    /// An entry with the letter's identifier alone.
    pub(super) fn new(sink: &str, number: u64) -> Self {
        Self {
            id: format!("{sink}/{number}"),
            sink: sink.to_owned(),
            time: number,
            ..Self::default()
        }
    }

    /// Adds the content of the letter.
    pub(super) fn fill(&mut self, letter: Letter) {
        self.tenant = letter.tenant;
        self.status = letter.status;
        self.reason = letter.reason;
        self.version = letter.version.to_string();
        // A body that does not decode may be the reason of the refusal: the entry then shows no
        // series.
        let Ok((arena, _)) = decode(letter.version, &letter.body, &Limits::ACCEPTED) else {
            return;
        };
        let counts = arena.counts();
        self.samples = counts.all_samples();
        for series in arena.iter().take(SERIES_MAX) {
            let floats = series.samples().map(|(_, timestamp)| timestamp);
            let mut timestamps = floats.chain(series.histogram_timestamps());
            let first_timestamp = timestamps.next();
            self.series.push(Series {
                labels: labels(series),
                samples: u64::from(first_timestamp.is_some()) + timestamps.count() as u64,
                first_timestamp,
            });
        }
        self.more_series = counts.series.saturating_sub(SERIES_MAX as u64);
    }
}

/// Formats labels as `up{job="a"}`, or `{"a.b", "c.d"="e"}`. Invalid names may be the reason of the
/// refusal, so they are shown unchanged.
fn labels(series: SeriesRef<'_>) -> String {
    let quoted = |text: &[u8]| format!("{:?}", String::from_utf8_lossy(text));
    let name = |text: &[u8]| match is_plain(text) {
        true => String::from_utf8_lossy(text).into_owned(),
        false => quoted(text),
    };
    let mut front = String::new();
    let mut inside = Vec::new();
    for (key, value) in series.labels() {
        if key != b"__name__" {
            inside.push(format!("{}={}", name(key), quoted(value)));
        } else if is_plain(value) {
            front = name(value);
        } else {
            inside.insert(0, quoted(value));
        }
    }
    match inside.is_empty() && !front.is_empty() {
        true => front,
        false => format!("{front}{{{}}}", inside.join(", ")),
    }
}

fn is_plain(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:".contains(byte);
    name.iter().all(good) && name.first().is_some_and(|first| !first.is_ascii_digit())
}
