//! Who calls: the check of a request's `Authorization`.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use metrifold_base::{BuildError, Secret};

use super::auth::{Authorization, BasicAuth};
use super::{Response, answer};

/// The callers that a source lets in.
#[derive(Clone)]
pub struct Callers(Arc<[Expected]>);

struct Expected {
    scheme: String,
    /// Decoded, for `Basic`.
    credentials: Secret,
    challenge: HeaderValue,
}

impl Callers {
    /// Reads the secrets. With neither, everybody is let in; with both, either will do.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or is empty.
    pub fn build(
        basic_auth: Option<&BasicAuth>,
        authorization: Option<&Authorization>,
    ) -> Result<Self, BuildError> {
        let mut expected = Vec::new();
        if let Some(basic_auth) = basic_auth {
            let failed = |error| BuildError::new("basic_auth", error);
            let password = basic_auth.secret().read().map_err(failed)?;
            let pair = Secret::new(basic_auth.pair(password.expose()));
            expected.push(Expected::new("Basic", pair).map_err(failed)?);
        }
        if let Some(authorization) = authorization {
            let failed = |error| BuildError::new("authorization", error);
            let credentials = authorization.secret().read().map_err(failed)?;
            expected.push(Expected::new(&authorization.scheme, credentials).map_err(failed)?);
        }
        Ok(Self(expected.into()))
    }

    /// Lets a request pass, or says how it must be answered: 401 with `WWW-Authenticate`.
    ///
    /// # Errors
    ///
    /// Fails when the request's `Authorization` is absent, wrong, or there twice.
    #[expect(
        clippy::result_large_err,
        reason = "the answer is sent as it is, and boxing it would only move the cost"
    )]
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Response> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        if let (Some(value), None) = (values.next(), values.next())
            && self.0.iter().any(|expected| expected.is(value))
        {
            return Ok(());
        }
        let mut refusal =
            answer::text(StatusCode::UNAUTHORIZED, "credentials are missing or wrong");
        for expected in self.0.iter() {
            let challenge = expected.challenge.clone();
            refusal.headers_mut().append(WWW_AUTHENTICATE, challenge);
        }
        Err(refusal)
    }
}

impl Expected {
    fn new(scheme: &str, credentials: Secret) -> Result<Self, String> {
        let challenge = HeaderValue::from_str(&format!("{scheme} realm=\"metrifold\""))
            .map_err(|_| format!("{scheme:?} is not the name of an authorization scheme"))?;
        Ok(Self {
            scheme: scheme.to_owned(),
            credentials,
            challenge,
        })
    }

    fn is(&self, value: &HeaderValue) -> bool {
        let bytes = value.as_bytes();
        let Some(space) = bytes.iter().position(|&byte| byte == b' ') else {
            return false;
        };
        let (scheme, given) = (&bytes[..space], bytes[space..].trim_ascii());
        let expected = self.credentials.expose().as_bytes();
        if !scheme.eq_ignore_ascii_case(self.scheme.as_bytes()) {
            false
        } else if self.scheme == "Basic" {
            STANDARD
                .decode(given)
                .is_ok_and(|given| same(&given, expected))
        } else {
            same(given, expected)
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes = self.0.iter().map(|expected| &expected.scheme);
        f.debug_tuple("Callers")
            .field(&schemes.collect::<Vec<_>>())
            .finish()
    }
}

/// Compares in a time that depends on the given length alone: not on where the first difference
/// is, and not on whether the lengths agree.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != expected.len());
    for (byte, other) in given.iter().zip(expected.iter().cycle()) {
        difference = black_box(difference | (byte ^ other));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::basic;

    fn callers() -> Callers {
        let user = BasicAuth {
            username: "prometheus".to_owned(),
            password: Some(Secret::new("pass:word")),
            password_file: None,
        };
        let token = Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Some(Secret::new("t0ken")),
            credentials_file: None,
        };
        Callers::build(Some(&user), Some(&token)).unwrap()
    }

    fn with(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| value.parse().unwrap());
        values.map(|value| (AUTHORIZATION, value)).collect()
    }

    #[test]
    fn the_right_user_and_the_right_token_get_in() {
        let good = basic("prometheus:pass:word").unwrap();
        let good = good.to_str().unwrap();
        for value in [
            good,
            &good.replace("Basic", "bAsIC"),
            "Bearer t0ken",
            "bearer  t0ken",
        ] {
            assert!(callers().check(&with(&[value])).is_ok(), "{value}");
        }
        let nobody_asked = Callers::build(None, None).unwrap();
        assert!(nobody_asked.check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn everybody_else_is_told_how_to_get_in() {
        let wrong = basic("prometheus:pass:wore").unwrap();
        for values in [
            &[][..],
            &["Bearer t0ken", "Bearer t0ken"],
            &[wrong.to_str().unwrap()],
            &["Bearer t0keN"],
            &["Bearer t0ken0"],
            &["Bearer t0kent0ken"],
            &["Bearer t0ke"],
            &["Bearer "],
            &["Bearer"],
            &["Basic t0ken"],
            &["Basic ###"],
            &["t0ken"],
        ] {
            let refusal = callers().check(&with(values)).unwrap_err();
            assert_eq!(refusal.status(), 401, "{values:?}");
            let challenges: Vec<_> = refusal.headers().get_all(WWW_AUTHENTICATE).iter().collect();
            let expected = ["Basic realm=\"metrifold\"", "Bearer realm=\"metrifold\""];
            assert_eq!(challenges, expected);
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let text = format!("{:?}", callers());
        assert_eq!(text, "Callers([\"Basic\", \"Bearer\"])");
    }
}
