//! The kinds of limits.

/// A kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    /// Requests per second.
    Requests,
    /// Bytes of bodies per second.
    Bytes,
    /// Samples per second.
    Samples,
    /// Writes in flight.
    InFlightRequests,
    /// Queries in flight.
    ConcurrentQueries,
    /// Series per request.
    SeriesPerRequest,
    /// Series with a sample within the idle timeout.
    ActiveSeries,
    /// Labels per series.
    LabelsPerSeries,
    /// Bytes of a label name.
    LabelNameBytes,
    /// Bytes of a label value.
    LabelValueBytes,
}

impl Limit {
    /// All limits, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Bytes,
        Self::Samples,
        Self::InFlightRequests,
        Self::ConcurrentQueries,
        Self::SeriesPerRequest,
        Self::ActiveSeries,
        Self::LabelsPerSeries,
        Self::LabelNameBytes,
        Self::LabelValueBytes,
    ];

    /// Its name in metrics and in the usage of a tenant.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Samples => "samples",
            Self::InFlightRequests => "in_flight_requests",
            Self::ConcurrentQueries => "concurrent_queries",
            Self::SeriesPerRequest => "series_per_request",
            Self::ActiveSeries => "active_series",
            Self::LabelsPerSeries => "labels_per_series",
            Self::LabelNameBytes => "label_name_bytes",
            Self::LabelValueBytes => "label_value_bytes",
        }
    }

    /// The reason that counts samples dropped for this limit.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Requests => "limit_requests",
            Self::Bytes => "limit_bytes",
            Self::Samples => "limit_samples",
            Self::InFlightRequests => "limit_in_flight_requests",
            Self::ConcurrentQueries => "limit_concurrent_queries",
            Self::SeriesPerRequest => "limit_series_per_request",
            Self::ActiveSeries => "limit_active_series",
            Self::LabelsPerSeries => "limit_labels_per_series",
            Self::LabelNameBytes => "limit_label_name_bytes",
            Self::LabelValueBytes => "limit_label_value_bytes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stand_in_the_order_of_their_numbers_and_reasons_are_made_of_their_names() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
            assert_eq!(limit.reason(), format!("limit_{}", limit.as_str()));
        }
    }
}
