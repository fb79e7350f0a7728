//! The series that are left out of a batch, and why.

use std::fmt;

use metrifold_model::SeriesCounts;

/// How many invalid series an answer describes.
const EXAMPLES: usize = 3;

/// Why a series is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// No label `__name__`.
    MissingName,
    /// A label without a name.
    EmptyLabelName,
    /// Two labels of one name.
    DuplicateLabel,
    /// More labels than allowed.
    TooManyLabels,
    /// A longer label name than allowed.
    LabelNameTooLong,
    /// A longer label value than allowed.
    LabelValueTooLong,
    /// A name or a value is not UTF-8.
    InvalidUtf8,
    /// A reference points outside of the symbol table, or a label's value has none.
    BadSymbolRef,
    /// Neither samples nor histograms nor exemplars.
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

    /// In metrics and answers.
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
    /// How many series were left out.
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
