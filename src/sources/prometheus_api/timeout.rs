//! The time limit that a caller asks for with the parameter `timeout`.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use metrifold_base::Period;
use metrifold_http::form::{Form, is_form};
use metrifold_http::{Request, body};
use metrifold_model::{Rejection, RejectionKind};

/// Most bytes of a form that is read here, more than any query that people write. A larger one is
/// streamed without a look at its parameters.
const MAX_FORM: u64 = 256 << 10;

/// Reads the body of a request if it is a form of known, small size. The request keeps the body.
///
/// # Errors
///
/// Fails when the body does not arrive in time, or breaks off.
pub(super) async fn read_form(
    request: &mut Request,
    deadline: Instant,
) -> Result<Option<String>, Rejection> {
    let small = request
        .content_length()
        .is_some_and(|it| (1..=MAX_FORM).contains(&it));
    if request.method != Method::POST || !small || !is_form(&request.headers) {
        return Ok(None);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let read = body::read(
        std::mem::take(&mut request.body),
        None,
        MAX_FORM as usize,
        left,
    )
    .await;
    let whole = read.map_err(|error| match error {
        body::BodyError::Timeout => {
            let reason = "the request's body did not arrive in time";
            Rejection::new(RejectionKind::TimedOut, reason)
        }
        error => Rejection::invalid(error.to_string()),
    })?;
    let text = String::from_utf8(whole.to_vec()).ok();
    request.body = whole.into();
    Ok(text)
}

/// The caller's time limit. `None` without the parameter, or if Prometheus would not accept its
/// value.
pub(super) fn asked(query: Option<&str>, form: Option<&str>) -> Option<Duration> {
    let forms = form.into_iter().chain(query);
    // Most queries have no such parameter: they are not decoded.
    let forms = forms.filter(|text| may_have_it(text));
    let forms = forms.filter_map(|text| Form::parse(text).ok());
    // A parameter of the form takes precedence over the URL's, as in Go.
    let value = forms
        .filter_map(|form| form.values("timeout").next().map(str::to_owned))
        .next()?;
    match value.parse::<f64>() {
        Ok(secs) => Duration::try_from_secs_f64(secs).ok(),
        Err(_) => value.parse::<Period>().ok().map(|period| period.0),
    }
    .filter(|time| !time.is_zero())
}

/// Whether a parameter has the name `timeout`, or one that must be decoded first.
fn may_have_it(form: &str) -> bool {
    let mut names = form.split('&').map(|pair| pair.split('=').next());
    names.any(|name| name.is_some_and(|name| name == "timeout" || name.contains('%')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_seconds_or_a_duration_and_the_form_goes_first() {
        let ms = Duration::from_millis;
        for (query, form, expected) in [
            (Some("query=up&timeout=30s"), None, Some(ms(30_000))),
            (Some("timeout=1.5"), None, Some(ms(1500))),
            (Some("timeout=1m30s"), Some("timeout=200ms"), Some(ms(200))),
            (Some("timeout=1m"), Some("query=up"), Some(ms(60_000))),
            (Some("query=up"), None, None),
            (Some("a=b&%74imeout=2s&c"), None, Some(ms(2000))),
            (Some("atimeout=2s&query=timeout"), None, None),
            (Some("timeout=soon"), None, None),
            (Some("timeout=-1"), None, None),
            (Some("timeout=0"), None, None),
            (Some("timeout=NaN"), None, None),
            (Some("timeout=1e300"), None, None),
            (None, None, None),
        ] {
            assert_eq!(asked(query, form), expected, "{query:?} {form:?}");
        }
    }
}
