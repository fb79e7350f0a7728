//! Pages of metrics: nothing panics, and what is accepted is texts without surprises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metrifold_codec::ArenaBuilder;
use metrifold_codec::remote_write::Limits;
use metrifold_exposition::{Family, Format, Options, Point, Receiver, Sample, read};

struct Build(ArenaBuilder);

impl Receiver for Build {
    fn family(&mut self, family: Family<'_>) {
        assert!(!family.name.is_empty());
        let _ = self.0.push_metadata(family.name, family.kind, family.help, family.unit);
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String> {
        assert_eq!(sample.labels().next().map(|(name, _)| name), Some("__name__"));
        self.0.start_series();
        for (name, value) in sample.labels() {
            self.0.push_label(name, value);
        }
        let at = sample.timestamp.unwrap_or(1);
        match (sample.point, sample.start) {
            (Point::Value(value), None) => self.0.push_sample(value, at),
            (Point::Value(value), Some(start)) => self.0.push_sample_since(value, at, start),
            (Point::Histogram(message), None) => self.0.push_histogram(message),
            (Point::Histogram(message), Some(start)) => {
                self.0.push_histogram_since(message, start);
            }
        }
        for exemplar in sample.exemplars() {
            let at = exemplar.timestamp.unwrap_or(1);
            self.0.push_exemplar(exemplar.labels(), exemplar.value, at);
        }
        self.0.finish_series().map_err(|error| error.to_string())
    }
}

fuzz_target!(|page: &[u8]| {
    for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
        for native in [false, true] {
            let options = Options {
                native_histograms: native,
                classic_histograms: true,
                start_timestamps: native,
                ..Options::default()
            };
            let mut build = Build(ArenaBuilder::new(Limits::default()));
            let _ = read(page, format, &options, &mut build);
            let _ = build.0.finish().counts();
        }
    }
});
