//! Series that are left out of a batch, and the reasons.

use std::fmt;

use metrifold_model::SeriesCounts;

/// Invalid series that an answer describes.
const EXAMPLES: usize = 3;

/// Why a series is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The label `__name__` is missing.
    MissingName,
    /// A label has an empty name.
    EmptyLabelName,
    /// Two labels share one name.
    DuplicateLabel,
    /// More labels than the limit.
    TooManyLabels,
    /// A label name is longer than the limit.
    LabelNameTooLong,
    /// A label value is longer than the limit.
    LabelValueTooLong,
    /// A name or a value is not UTF-8.
    InvalidUtf8,
    /// A reference points outside the symbol table, or a label's value has no reference.
    BadSymbolRef,
    /// The series has neither samples nor histograms nor exemplars.
    NoSamples,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::MissingName,
        Self::EmptyLabelName,
        Self::DuplicateLabel,
        Self::TooManyLabels,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::InvalidUtf8,
        Self::BadSymbolRef,
        Self::NoSamples,
    ];

    /// The reason as written in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingName => "missing_metric_name",
            Self::EmptyLabelName => "empty_label_name",
            Self::DuplicateLabel => "duplicate_label",
            Self::TooManyLabels => "too_many_labels",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::BadSymbolRef => "bad_symbol_ref",
            Self::NoSamples => "no_samples",
        }
    }
}

/// The series that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid {
    series: [u64; Reason::ALL.len()],
    samples: [u64; Reason::ALL.len()],
    examples: Vec<String>,
}

impl Invalid {
    /// Number of series left out.
    pub fn series(&self) -> u64 {
        self.series.iter().sum()
    }

    /// Samples and histograms that were left out, by reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .filter(|&reason| self.series[reason as usize] > 0)
            .map(|reason| (reason, self.samples[reason as usize]))
    }

    #[cold]
    pub(super) fn add(
        &mut self,
        reason: Reason,
        counts: SeriesCounts,
        describe: impl FnOnce() -> String,
    ) {
        self.series[reason as usize] += 1;
        self.samples[reason as usize] += u64::from(counts.samples + counts.histograms);
        if self.examples.len() < EXAMPLES {
            self.examples
                .push(format!("{}: {}", reason.as_str(), describe()));
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} invalid series left out", self.series())?;
        for example in &self.examples {
            write!(f, "; {example}")?;
        }
        Ok(())
    }
}
