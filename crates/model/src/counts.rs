//! Counts of the data in a batch, by kind.

/// Counts of the data in a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Float samples.
    pub samples: u32,
    /// Native histogram samples.
    pub histograms: u32,
    /// Exemplars.
    pub exemplars: u32,
}

/// Counts of the data in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of series.
    pub series: u64,
    /// Number of float samples.
    pub samples: u64,
    /// Number of native histogram samples.
    pub histograms: u64,
    /// Number of exemplars.
    pub exemplars: u64,
    /// Number of metadata entries of remote write 1.0.
    pub metadata: u64,
}

impl Counts {
    /// Samples of both kinds.
    pub fn all_samples(&self) -> u64 {
        self.samples + self.histograms
    }

    /// Whether all counts are zero.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Subtracts `other`; counts that would be negative become zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            series: self.series.saturating_sub(other.series),
            samples: self.samples.saturating_sub(other.samples),
            histograms: self.histograms.saturating_sub(other.histograms),
            exemplars: self.exemplars.saturating_sub(other.exemplars),
            metadata: self.metadata.saturating_sub(other.metadata),
        }
    }

    /// Adds a series.
    #[inline]
    pub fn add(&mut self, series: SeriesCounts) {
        self.series += 1;
        self.samples += u64::from(series.samples);
        self.histograms += u64::from(series.histograms);
        self.exemplars += u64::from(series.exemplars);
    }

    /// Subtracts a series that was added.
    #[inline]
    pub fn sub(&mut self, series: SeriesCounts) {
        self.series -= 1;
        self.samples -= u64::from(series.samples);
        self.histograms -= u64::from(series.histograms);
        self.exemplars -= u64::from(series.exemplars);
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            series: self.series + other.series,
            samples: self.samples + other.samples,
            histograms: self.histograms + other.histograms,
            exemplars: self.exemplars + other.exemplars,
            metadata: self.metadata + other.metadata,
        }
    }
}

impl std::ops::SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        self.series -= other.series;
        self.samples -= other.samples;
        self.histograms -= other.histograms;
        self.exemplars -= other.exemplars;
        self.metadata -= other.metadata;
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.series += other.series;
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
    }
}
