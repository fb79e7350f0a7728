//! The configuration of limits.

use metrifold_base::{Period, Problems, Size, keys, words};

use crate::rate::Rate;

keys! {
    /// Limits that both a tenant and a transform can have.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct LimitKeys {
        /// Maximum average number of requests per second.
        pub requests_per_second: Option<u64> = unset(100),
        /// Burst size of `requests_per_second`: number of requests that can arrive at once after a pause. By default, `requests_per_second`.
        pub requests_burst: Option<u64> = unset(500),
        /// Maximum average size of request bodies per second, compressed. In the limits under `[tenants.NAME]` and `[access]`, a body that is sent without its length (chunked) is counted while it arrives, and rejected if other requests use up the rate meanwhile.
        pub bytes_per_second: Option<Size> = unset("10MiB"),
        /// Burst size of `bytes_per_second`: bytes that can arrive at once after a pause. By default, `bytes_per_second`. A larger body is accepted, but further requests are rejected until the rate has made up for it.
        pub bytes_burst: Option<Size> = unset("50MiB"),
        /// Maximum average number of samples per second, floats and histograms. A request is accepted or rejected as a whole.
        pub samples_per_second: Option<u64> = unset(50_000),
        /// Burst size of `samples_per_second`: samples that can arrive at once after a pause. By default, `samples_per_second`. A larger request is accepted, but further requests are rejected until the rate has made up for it.
        pub samples_burst: Option<u64> = unset(500_000),
        /// Maximum number of active series: those with a sample within `active_series_idle_timeout`. Further series are dropped from their requests.
        pub max_active_series: Option<u64> = unset(1_000_000),
        /// Time after its last sample for which a series counts as active, from `1m` to `24h`; `20m` by default.
        pub active_series_idle_timeout: Option<Period> = unset("20m"),
        /// Maximum number of series per request. A request with more is rejected with status 413.
        pub max_series_per_request: Option<u64> = unset(10_000),
        /// Maximum number of labels per series, including the metric name. A series with more is dropped from its request.
        pub max_labels_per_series: Option<u64> = unset(30),
        /// Maximum length of a label name. A series with a longer one is dropped from its request.
        pub max_label_name_bytes: Option<Size> = unset("1KiB"),
        /// Maximum length of a label value. A series with a longer one is dropped from its request.
        pub max_label_value_bytes: Option<Size> = unset("2KiB"),
        /// HTTP status for requests over a rate limit: `429`, or `503` for senders that drop samples on 429, as Prometheus does unless `retry_on_http_429` is set.
        pub status: Option<OverLimit> = unset("503"),
        /// Whether limits are soft: what exceeds them is counted, shown and logged as a warning, but accepted.
        pub soft: Option<bool> = unset(true),
    }
}

words! {
    /// Status of the answer to a request over a rate.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum OverLimit {
        /// Too many requests.
        TooMany = "429",
        /// Service unavailable, with a `Retry-After` header.
        Unavailable = "503",
    }
}

/// Default time that a series stays active after its last sample.
const IDLE: Period = Period::secs(20 * 60);

/// Largest limit on active series.
const MOST_SERIES: u64 = 100_000_000;

impl LimitKeys {
    /// Reports every problem that deserialization cannot see, at keys below `path`, which is empty
    /// or ends with a dot.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        for (key, value) in [
            ("requests_per_second", self.requests_per_second),
            ("requests_burst", self.requests_burst),
            ("bytes_per_second", bytes(self.bytes_per_second)),
            ("bytes_burst", bytes(self.bytes_burst)),
            ("samples_per_second", self.samples_per_second),
            ("samples_burst", self.samples_burst),
            ("max_active_series", self.max_active_series),
            ("max_series_per_request", self.max_series_per_request),
            ("max_labels_per_series", self.max_labels_per_series),
            ("max_label_name_bytes", bytes(self.max_label_name_bytes)),
            ("max_label_value_bytes", bytes(self.max_label_value_bytes)),
        ] {
            if value == Some(0) {
                let problem = problems.at(format!("{path}{key}"), "must be at least 1");
                problem.help("to refuse all requests of a tenant, remove its credentials or roles");
            }
        }
        if self.max_active_series > Some(MOST_SERIES) {
            let what = "must be at most 100000000";
            problems.at(format!("{path}max_active_series"), what);
        }
        let idle = self.idle();
        if !(Period::secs(60)..=Period::secs(24 * 3600)).contains(&idle) {
            let key = format!("{path}active_series_idle_timeout");
            problems.at(key, "must be from 1m to 24h");
        }
    }

    /// These limits, with those of `other` where they are not set.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            requests_burst: self.requests_burst.or(other.requests_burst),
            bytes_per_second: self.bytes_per_second.or(other.bytes_per_second),
            bytes_burst: self.bytes_burst.or(other.bytes_burst),
            samples_per_second: self.samples_per_second.or(other.samples_per_second),
            samples_burst: self.samples_burst.or(other.samples_burst),
            max_active_series: self.max_active_series.or(other.max_active_series),
            active_series_idle_timeout: self
                .active_series_idle_timeout
                .or(other.active_series_idle_timeout),
            max_series_per_request: self.max_series_per_request.or(other.max_series_per_request),
            max_labels_per_series: self.max_labels_per_series.or(other.max_labels_per_series),
            max_label_name_bytes: self.max_label_name_bytes.or(other.max_label_name_bytes),
            max_label_value_bytes: self.max_label_value_bytes.or(other.max_label_value_bytes),
            status: self.status.or(other.status),
            soft: self.soft.or(other.soft),
        }
    }

    /// Whether a limit can only be checked on a decoded batch.
    pub fn looks_inside(&self) -> bool {
        self.samples_per_second.is_some()
            || self.max_active_series.is_some()
            || self.max_series_per_request.is_some()
            || self.max_labels_per_series.is_some()
            || self.max_label_name_bytes.is_some()
            || self.max_label_value_bytes.is_some()
    }

    /// Whether the limits are soft: what exceeds them is counted and let in.
    pub fn is_soft(&self) -> bool {
        self.soft == Some(true)
    }

    /// Requests per second.
    pub fn requests(&self) -> Option<Rate> {
        Rate::new(self.requests_per_second, self.requests_burst)
    }

    /// Bytes per second.
    pub fn bytes(&self) -> Option<Rate> {
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        Rate::new(bytes(self.bytes_per_second), bytes(self.bytes_burst))
    }

    /// Samples per second.
    pub fn samples(&self) -> Option<Rate> {
        Rate::new(self.samples_per_second, self.samples_burst)
    }

    /// Time that a series stays active after its last sample.
    pub fn idle(&self) -> Period {
        self.active_series_idle_timeout.unwrap_or(IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let keys: LimitKeys = toml::from_str(text).unwrap();
        let mut problems = Problems::new(true);
        keys.validate("limits.", &mut problems);
        let list = problems.into_list().into_iter();
        list.map(|it| format!("{}: {}", it.path, it.message))
            .collect()
    }

    #[test]
    fn zero_and_timeouts_out_of_range_are_no_limits() {
        assert_eq!(problems("samples_per_second = 1"), [""; 0]);
        assert_eq!(
            problems("samples_per_second = 0\nmax_label_name_bytes = '0B'"),
            [
                "limits.samples_per_second: must be at least 1",
                "limits.max_label_name_bytes: must be at least 1"
            ]
        );
        for timeout in ["59s", "25h"] {
            let text = format!("active_series_idle_timeout = '{timeout}'");
            let found = problems(&text);
            assert_eq!(
                found,
                ["limits.active_series_idle_timeout: must be from 1m to 24h"]
            );
        }
    }

    #[test]
    fn what_is_absent_is_taken_from_others_key_by_key() {
        let own: LimitKeys = toml::from_str("samples_per_second = 2\nsoft = false").unwrap();
        let all: LimitKeys =
            toml::from_str("samples_per_second = 1\nmax_active_series = 9\nsoft = true").unwrap();
        let both = own.or(&all);
        assert_eq!(both.samples().unwrap().per_second, 2);
        assert_eq!(both.max_active_series, Some(9));
        assert!(!both.is_soft());
        assert!(both.looks_inside());
    }
}
