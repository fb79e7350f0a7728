//! The kinds of components, and the signals between them.

/// Kind of data that an edge of the graph carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Batches of series.
    Metrics,
    /// An HTTP read request that awaits one response.
    Queries,
    /// The complete set of rule groups of all tenants.
    Rules,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Queries, Self::Rules];

    /// Name of the signal in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Queries => "queries",
            Self::Rules => "rules",
        }
    }
}

/// The three kinds of components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Has no inputs.
    Source,
    /// Has inputs and outputs.
    Transform,
    /// Has no outputs.
    Sink,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Source, Self::Transform, Self::Sink];

    /// Name of the kind in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }

    /// Name of the configuration's table that holds components of this kind.
    pub fn table(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Transform => "transforms",
            Self::Sink => "sinks",
        }
    }
}
