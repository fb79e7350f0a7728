//! The pause that an answer asks for.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The pause in `Retry-After`, a number of seconds or a date; zero for one that has passed. `None`
/// without a valid one. Callers bound it.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<Duration> {
        let header = (RETRY_AFTER, text.parse().unwrap());
        retry_after(&HeaderMap::from_iter([header]))
    }

    #[test]
    fn a_pause_is_a_number_of_seconds_or_ends_at_a_date() {
        assert_eq!(said(" 70 "), Some(Duration::from_secs(70)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let pause = said(&date).unwrap().as_secs();
        assert!((90..=100).contains(&pause), "{pause}");
        assert_eq!(said("soon"), None);
        assert_eq!(said("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
