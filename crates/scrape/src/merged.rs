//! Pages rewritten as text 0.0.4: with rules applied, and those of several targets merged into one.

use std::collections::BTreeMap;

use foldhash::fast::RandomState;

use metrifold_codec::text::{self, Escaping};
use metrifold_codec::{MetricType, Name, SeriesRef};
use metrifold_exposition::{Family, Options, Receiver, Sample};

use crate::error::{Cause, ScrapeError};
use crate::fetch::Page;
use crate::page::{Intake, Times, check, check_samples, relabel};
use crate::schedule;
use crate::settings::Settings;
use crate::target::ScrapeTarget;

/// Suffixes that the name of a sample may add to that of its family.
const SUFFIXES: [&str; 5] = ["_bucket", "_sum", "_count", "_total", "_created"];

/// A page merged from several: each family once, with the samples of all pages.
#[derive(Debug, Default)]
pub struct Merged {
    families: BTreeMap<String, Lines>,
    bytes: usize,
}

/// Description and sample lines of a family.
#[derive(Debug, Default)]
struct Lines {
    kind: Option<MetricType>,
    help: String,
    samples: Vec<u8>,
}

impl Merged {
    /// Bytes of the sample lines so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a gauge that is on no page, with the help text of its family.
    pub fn push(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let family = self.families.entry(name.to_owned()).or_default();
        family.kind = Some(MetricType::Gauge);
        help.clone_into(&mut family.help);
        let before = family.samples.len();
        let labels = labels
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let named = std::iter::once((&b"__name__"[..], name.as_bytes())).chain(labels);
        put(&mut family.samples, named, value, None);
        self.bytes += family.samples.len() - before;
    }

    /// Adds a page. Its series get these labels, sorted by name, like the labels of a target during
    /// a scrape; then rules and limits apply. Native histograms are left out, since the format
    /// cannot hold them.
    pub(crate) fn add(
        &mut self,
        settings: &Settings,
        target: &ScrapeTarget,
        labels: &[(&str, &str)],
        page: &Page,
    ) -> Result<(), ScrapeError> {
        let (now, state) = (schedule::now(), RandomState::default());
        let times = Times {
            timestamp: now,
            sampled_until: now,
            exemplars_until: i64::MIN,
        };
        // A program that pulls reads `_created` itself, and converts what it wants.
        let options = Options {
            custom_histograms: false,
            start_timestamps: false,
            ..settings.options
        };
        let mut reader = Reader {
            intake: Intake::new(settings, labels.to_vec(), page, times, &state),
            families: BTreeMap::new(),
        };
        page.read(&options, &mut reader)
            .map_err(|error| ScrapeError::new(Cause::Page, error))?;
        let Reader { intake, families } = reader;
        let mut arena = intake.batch.finish();
        relabel(settings, target, &mut arena);
        check(settings, target, &arena).map_err(|(error, _)| error)?;
        check_samples(settings, arena.iter().count())?;
        let metric = Name::new("__name__");
        for series in arena.iter() {
            let name = series.get(&metric).unwrap_or_default();
            let name = Escaping::Underscores.metric(name);
            let name = String::from_utf8_lossy(&name).into_owned();
            let known = family(&name, |name| families.contains_key(name));
            let lines = self
                .families
                .entry(known.unwrap_or(&name).to_owned())
                .or_default();
            if let Some((kind, help)) = known.and_then(|name| families.get(name)) {
                lines.kind.get_or_insert(*kind);
                if lines.help.is_empty() {
                    help.clone_into(&mut lines.help);
                }
            }
            let before = lines.samples.len();
            write(&mut lines.samples, &name, series, now);
            self.bytes += lines.samples.len() - before;
        }
        Ok(())
    }

    /// Writes the page.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes);
        for (name, lines) in self.families {
            if !lines.help.is_empty() {
                let help = lines.help.replace('\\', "\\\\").replace('\n', "\\n");
                out.extend_from_slice(format!("# HELP {name} {help}\n").as_bytes());
            }
            if let Some(kind) = lines.kind.and_then(word) {
                out.extend_from_slice(format!("# TYPE {name} {kind}\n").as_bytes());
            }
            out.extend_from_slice(&lines.samples);
        }
        out
    }
}

/// Receiver that also records descriptions of families.
struct Reader<'a> {
    intake: Intake<'a>,
    families: BTreeMap<String, (MetricType, String)>,
}

impl Receiver for Reader<'_> {
    fn family(&mut self, family: Family<'_>) {
        let name = Escaping::Underscores.metric(family.name.as_bytes());
        let name = String::from_utf8_lossy(&name).into_owned();
        let known = self.families.entry(name);
        known.or_insert((family.kind, family.help.to_owned()));
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        self.intake.sample(sample)
    }
}

/// The family of a sample: its name, without a suffix if there is no family of the full name.
fn family(name: &str, known: impl Fn(&str) -> bool) -> Option<&str> {
    let stems = SUFFIXES
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix));
    std::iter::once(name).chain(stems).find(|name| known(name))
}

fn write(out: &mut Vec<u8>, name: &str, series: SeriesRef<'_>, now: i64) {
    let mut labels: Vec<_> = series
        .labels()
        .filter(|(label, _)| *label != b"__name__")
        .map(|(label, value)| (Escaping::Underscores.label(label), value))
        .collect();
    // If escaping makes two names equal, the first label stays.
    labels.sort_by(|(a, _), (b, _)| a.cmp(b));
    labels.dedup_by(|(a, _), (b, _)| a == b);
    let others = labels.iter().map(|(label, value)| (&**label, *value));
    let labels = std::iter::once((&b"__name__"[..], name.as_bytes())).chain(others);
    for (value, timestamp) in series.samples() {
        // Samples without a timestamp on the page carry the time of the merge: it is left out.
        let timestamp = (timestamp != now).then_some(timestamp);
        put(out, labels.clone(), value, timestamp);
    }
}

fn put<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    value: f64,
    timestamp: Option<i64>,
) {
    text::put_series(out, labels);
    out.push(b' ');
    text::put_value(out, value);
    if let Some(timestamp) = timestamp {
        out.extend_from_slice(format!(" {timestamp}").as_bytes());
    }
    out.push(b'\n');
}

/// Name of a type in this format. `None` for types without one.
fn word(kind: MetricType) -> Option<&'static str> {
    match kind {
        MetricType::Counter => Some("counter"),
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => Some("gauge"),
        MetricType::Histogram => Some("histogram"),
        MetricType::Summary => Some("summary"),
        MetricType::Unknown | MetricType::GaugeHistogram => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use metrifold_discovery::{Labels, Target};
    use metrifold_exposition::Format;

    use crate::keys::ScrapeKeys;
    use crate::particulars::Plain;
    use crate::target;

    use super::*;

    fn added(merged: &mut Merged, keys: &str, labels: &[(&str, &str)], text: &'static str) {
        let keys: ScrapeKeys = toml::from_str(keys).unwrap();
        let settings = Settings::new(&keys, "source").unwrap();
        let found: Target = Arc::new([("__address__", "a:1")].into_iter().collect::<Labels>());
        let made = target::make(&settings, &Plain, &[found], 0).pop().unwrap();
        let page = Page {
            text: Bytes::from_static(text.as_bytes()),
            format: Format::Text,
            content_type: None,
            turn: None,
            share: None,
        };
        let target = made.1.unwrap();
        merged.add(&settings, &target, labels, &page).unwrap();
    }

    #[test]
    fn pages_become_one_with_the_labels_of_their_targets() {
        let mut merged = Merged::default();
        let first = "# HELP a Some\\nmore.\n# TYPE a counter\na_total{x=\"}\\\"{,\"} 1\n\
                     a_total 2 1700000000000\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_sum 2\nplain{} 4\n";
        let second = "# TYPE a counter\na_total{app=\"mine\",y=\"app=\"} 5\n";
        added(&mut merged, "", &[("app", "one")], first);
        added(&mut merged, "", &[("app", "two")], second);
        merged.push("b", "B.", &[("app", "one")], 1.0);
        assert_eq!(
            String::from_utf8(merged.finish()).unwrap(),
            "# HELP a Some\\nmore.\n# TYPE a counter\n\
             a_total{app=\"one\",x=\"}\\\"{,\"} 1\n\
             a_total{app=\"one\"} 2 1700000000000\n\
             a_total{app=\"two\",exported_app=\"mine\",y=\"app=\"} 5\n\
             # HELP b B.\n# TYPE b gauge\nb{app=\"one\"} 1\n\
             # TYPE h histogram\nh_bucket{app=\"one\",le=\"1.0\"} 3\nh_sum{app=\"one\"} 2\n\
             plain{app=\"one\"} 4\n"
        );
    }

    #[test]
    fn rules_and_honor_labels_hold_as_in_a_scrape() {
        let mut merged = Merged::default();
        let keys = "honor_labels = true\n\
                    metric_relabel = [{ source_labels = ['__name__'], regex = 'b', action = 'drop' }]";
        added(
            &mut merged,
            keys,
            &[("app", "one")],
            "a{app=\"mine\"} 1\nb 2\nc 3\n",
        );
        let page = String::from_utf8(merged.finish()).unwrap();
        assert_eq!(page, "a{app=\"mine\"} 1\nc{app=\"one\"} 3\n");
    }
}
