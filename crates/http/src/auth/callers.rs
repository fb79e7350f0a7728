//! Identifies callers by the `Authorization` and the certificate of a request.

use std::fmt;
use std::future::ready;
use std::hint::black_box;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use metrifold_base::{BuildError, Secret};
use metrifold_model::{Caller, ClientCertificate, Identity, Proof};
use metrifold_model::{Rejection, RejectionKind};

use crate::access::{Access, Admission, Head, Refusal};
use crate::auth::{Authorization, BasicAuth};

/// Credentials of the callers that a source admits.
#[derive(Clone, PartialEq, Eq)]
pub struct Callers(Arc<[Expected]>);

#[derive(PartialEq, Eq)]
struct Expected {
    scheme: String,
    /// User and password for `Basic`, not encoded.
    credentials: Secret,
    challenge: HeaderValue,
    /// Identity of a caller with these credentials.
    identity: Arc<Identity>,
}

impl Callers {
    /// Reads the secrets. Without credentials everybody is admitted; with both kinds, either
    /// suffices.
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
            let user = Some(Arc::from(basic_auth.username.as_str()));
            expected.push(Expected::new("Basic", pair, user).map_err(failed)?);
        }
        if let Some(authorization) = authorization {
            let failed = |error| BuildError::new("authorization", error);
            let credentials = authorization.secret().read().map_err(failed)?;
            let token = Expected::new(&authorization.scheme, credentials, None);
            expected.push(token.map_err(failed)?);
        }
        Ok(Self(expected.into()))
    }

    /// Identifies the caller of a request by its headers and certificate.
    ///
    /// # Errors
    ///
    /// Fails when credentials are required, and the request's `Authorization` is absent, wrong, or
    /// present twice.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Arc<ClientCertificate>>,
    ) -> Result<Caller, Refusal> {
        let certificate = certificate.cloned();
        if self.0.is_empty() {
            let identity = certificate.as_deref().map(named_by).map(Arc::new);
            return Ok(Caller {
                identity,
                certificate,
            });
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let found = match (values.next(), values.next()) {
            (Some(value), None) => self.0.iter().find(|expected| expected.is(value)),
            _ => None,
        };
        match found {
            Some(expected) => Ok(Caller {
                identity: Some(Arc::clone(&expected.identity)),
                certificate,
            }),
            None => Err(Refusal {
                rejection: Rejection::new(
                    RejectionKind::Unauthenticated,
                    "credentials are missing or wrong",
                ),
                challenges: self.0.iter().map(|e| e.challenge.clone()).collect(),
                entrance: None,
            }),
        }
    }
}

impl Access for Callers {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(ready(self.identify(head.headers, head.certificate)))
    }
}

/// The identity in a certificate.
fn named_by(certificate: &ClientCertificate) -> Identity {
    let groups = certificate.organizational_units.iter();
    Identity {
        tenants: Arc::default(),
        subject: certificate.common_name.as_deref().map(Arc::from),
        groups: groups.map(|unit| Arc::from(unit.as_str())).collect(),
        proof: Proof::Certificate,
    }
}

impl Expected {
    fn new(scheme: &str, credentials: Secret, user: Option<Arc<str>>) -> Result<Self, String> {
        let challenge = HeaderValue::from_str(&format!("{scheme} realm=\"metrifold\""))
            .map_err(|_| "is not the name of an authorization scheme".to_owned())?;
        Ok(Self {
            scheme: scheme.to_owned(),
            credentials,
            challenge,
            identity: Arc::new(Identity {
                tenants: Arc::default(),
                proof: match user {
                    Some(_) => Proof::Password,
                    None => Proof::Token,
                },
                subject: user,
                groups: Arc::default(),
            }),
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

/// Compares in a time that depends only on the length of `given`: neither on the place of the first
/// difference nor on the expected length.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != expected.len());
    for (byte, other) in given.iter().zip(expected.iter().cycle()) {
        difference = black_box(difference | (byte ^ other));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

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
            let caller = callers().identify(&with(&[value]), None).unwrap();
            let identity = caller.identity.unwrap();
            let (subject, proof) = match value.to_ascii_lowercase().starts_with("basic") {
                true => (Some("prometheus"), Proof::Password),
                false => (None, Proof::Token),
            };
            assert_eq!(
                (identity.subject.as_deref(), identity.proof),
                (subject, proof)
            );
        }
    }

    #[test]
    fn where_nobody_in_particular_is_expected_a_certificate_names_its_owner() {
        let open = Callers::build(None, None).unwrap();
        let nobody = open.identify(&HeaderMap::new(), None).unwrap();
        assert_eq!(nobody, Caller::anonymous());
        let certificate = Arc::new(ClientCertificate {
            common_name: Some("agent".to_owned()),
            organizational_units: vec!["unit".to_owned()],
            ..ClientCertificate::default()
        });
        let agent = open.identify(&HeaderMap::new(), Some(&certificate));
        let agent = agent.unwrap();
        assert_eq!(agent.subject(), Some("agent"));
        let identity = agent.identity.unwrap();
        assert_eq!(
            (&*identity.groups[0], identity.proof),
            ("unit", Proof::Certificate)
        );
        assert_eq!(agent.certificate, Some(certificate));
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
            let refusal = callers().identify(&with(values), None).unwrap_err();
            let answer = refusal.answer();
            assert_eq!(answer.status(), 401, "{values:?}");
            let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
            let expected = ["Basic realm=\"metrifold\"", "Bearer realm=\"metrifold\""];
            assert!(challenges.eq(expected), "{values:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let text = format!("{:?}", callers());
        assert_eq!(text, "Callers([\"Basic\", \"Bearer\"])");
    }
}
