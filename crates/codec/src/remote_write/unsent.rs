//! What of a batch has no place in the version that it is sent in.

use metrifold_model::{Counts, Outcome, Rejection};

/// What of a batch is not sent, because the version that is sent has no place for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Native histograms with custom buckets, in 1.0.
    pub histograms: u64,
    /// Exemplars without a sample of their series, in 2.0.
    pub exemplars: u64,
}

impl Unsent {
    /// The reason under which such exemplars are counted.
    pub const WITHOUT_SAMPLE: &str = "without_sample";

    /// The outcome that the sender is told; none if all was sent.
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
