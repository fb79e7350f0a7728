//! What is told of letters, by the admin address and to those who ask it.

use serde::{Deserialize, Serialize};

use metrifold_codec::SeriesRef;
use metrifold_codec::remote_write::{Limits, decode};

use super::letter::Letter;

/// Which letters to tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this sink alone.
    pub sink: Option<String>,
    /// Those of this tenant alone.
    pub tenant: Option<String>,
    /// At most so many, the newest ones.
    pub limit: usize,
}

/// Letters, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Those that are told of.
    pub letters: Vec<Entry>,
    /// Whether there are more.
    pub more: bool,
}

/// A letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The letter's name: that of its sink and a number.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// When it was kept, in milliseconds since the epoch.
    pub time: u64,
    /// Why it cannot be read; all that follows is missing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The status that the endpoint answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the endpoint said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The version of remote write.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Samples and histograms in it.
    #[serde(default)]
    pub samples: u64,
    /// The first of its series.
    #[serde(default)]
    pub series: Vec<Series>,
    /// How many series are not told of.
    #[serde(default)]
    pub more_series: u64,
}

/// A series of a letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Name and labels as in PromQL; names that need it are quoted.
    pub labels: String,
    /// Samples and histograms in it.
    pub samples: u64,
    /// The timestamp of the first of them, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_timestamp: Option<i64>,
}

/// The most series of a letter that are told of.
const SERIES_MAX: usize = 10;

impl Entry {
    /// A letter of which no more is known yet.
    pub(super) fn new(sink: &str, number: u64) -> Self {
        Self {
            id: format!("{sink}/{number}"),
            sink: sink.to_owned(),
            time: number,
            ..Self::default()
        }
    }

    /// Tells what is in a letter.
    pub(super) fn fill(&mut self, letter: Letter) {
        self.tenant = letter.tenant;
        self.status = letter.status;
        self.reason = letter.reason;
        self.version = letter.version.to_string();
        // A body that cannot be read is a reason to be refused.
        let Ok((arena, _)) = decode(letter.version, &letter.body, &Limits::default()) else {
            return;
        };
        let counts = arena.counts();
        self.samples = counts.all_samples();
        for series in arena.iter().take(SERIES_MAX) {
            let floats = series.samples().map(|(_, timestamp)| timestamp);
            let histograms = series.histograms().map(|histogram| histogram.timestamp);
            let mut timestamps = floats.chain(histograms);
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

/// `up{job="a"}`, or `{"a.b", "c.d"="e"}`. What cannot be a name may be why it was refused, so it
/// is told as it is.
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
