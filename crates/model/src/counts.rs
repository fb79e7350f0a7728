//! How much a batch carries, by kind.

/// What a series carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeriesCounts {
    /// Float samples.
    pub samples: u32,
    /// Native histogram samples.
    pub histograms: u32,
    /// Exemplars.
    pub exemplars: u32,
}

/// What a batch carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Series.
    pub series: u64,
    /// Float samples.
    pub samples: u64,
    /// Native histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Metadata entries of remote write 1.0.
    pub metadata: u64,
}

impl Counts {
    /// Samples of both kinds.
    pub fn all_samples(&self) -> u64 {
        self.samples + self.histograms
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is left without these; nothing where there are more of them.
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
    pub fn add(&mut self, series: SeriesCounts) {
        self.series += 1;
        self.samples += u64::from(series.samples);
        self.histograms += u64::from(series.histograms);
        self.exemplars += u64::from(series.exemplars);
    }

    /// Takes a series away that was added.
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
