//! Data of a batch that the sent version cannot represent.

use metrifold_model::{Counts, Outcome, Rejection};

/// Data of a batch that is not sent because the sent version cannot represent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Native histograms with custom buckets, when 1.0 is sent.
    pub histograms: u64,
    /// Exemplars without a sample of their series, when 2.0 is sent.
    pub exemplars: u64,
}

impl Unsent {
    /// Reason under which exemplars without a sample are counted.
    pub const WITHOUT_SAMPLE: &str = "without_sample";

    /// Outcome for the sender; None if everything was sent.
    pub fn outcome(&self) -> Option<Outcome> {
        let mut reasons = Vec::new();
        if self.histograms > 0 {
            reasons.push(format!(
                "remote write 1.0 has no place for histograms with custom buckets, of which {} came",
                self.histograms
            ));
        }
        if self.exemplars > 0 {
            reasons.push(format!(
                "remote write 2.0 has no place for exemplars without a sample of their series, of which {} came",
                self.exemplars
            ));
        }
        let lost = Counts {
            histograms: self.histograms,
            exemplars: self.exemplars,
            ..Counts::default()
        };
        (!reasons.is_empty()).then(|| Outcome::Rejected {
            rejection: Rejection::invalid(reasons.join("; ")),
            lost: Some(lost),
        })
    }
}
