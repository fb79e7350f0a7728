//! Who calls, and who we are: `basic_auth`, `authorization` and `oauth2`, inbound and outbound.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use thiserror::Error;

use super::Response;
use super::tls::ClientTls;
use crate::component::BuildError;
use crate::config::{Endpoint, Problems, Secret};

/// A user and a password: the keys under `basic_auth`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user's name. It holds no colon.
    pub username: String,
    /// The password. Either this or `password_file` must be set.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file that holds the password; white space at its end is ignored.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// An `Authorization` header: the keys under `authorization`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// The scheme in front of the credentials. `Bearer` unless set; `Basic` belongs under
    /// `basic_auth`.
    #[serde(rename = "type", default = "bearer")]
    pub scheme: String,
    /// The credentials. Either this or `credentials_file` must be set.
    #[serde(default)]
    pub credentials: Option<Secret>,
    /// A file that holds the credentials; white space at its end is ignored.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

/// OAuth 2.0 with client credentials: the keys under `oauth2`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// The client's identifier at the token endpoint.
    pub client_id: String,
    /// The client's secret. Either this or `client_secret_file` must be set.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// A file that holds the client's secret; white space at its end is ignored.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The token endpoint.
    pub token_url: Endpoint,
    /// The scopes that are asked for. None unless set.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The audience that is asked for. None unless set.
    #[serde(default)]
    pub audience: Option<String>,
    /// Further parameters of the token request.
    #[serde(default)]
    pub endpoint_params: BTreeMap<String, String>,
    /// TLS of the token endpoint.
    #[serde(default)]
    pub tls: ClientTls,
}

/// The callers that a source lets in.
#[derive(Clone)]
pub struct Callers {}

/// What a sink or a scrape shows to prove who it is. A clone shares the cached token.
#[derive(Clone)]
pub struct Credentials {}

/// Why there are no credentials right now. It is always worth a retry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct AuthError(pub String);

impl BasicAuth {
    /// Reports what is wrong, at keys below `prefix`, usually `basic_auth`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        unimplemented!()
    }
}

impl Authorization {
    /// Reports what is wrong, at keys below `prefix`, usually `authorization`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        unimplemented!()
    }
}

impl OAuth2 {
    /// Reports what is wrong, at keys below `prefix`, usually `oauth2`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        unimplemented!()
    }
}

/// Reports what is wrong with the three together and each for itself. `prefix` is the table that
/// holds them: empty, or such as `read`.
pub fn validate(
    prefix: &str,
    basic_auth: Option<&BasicAuth>,
    authorization: Option<&Authorization>,
    oauth2: Option<&OAuth2>,
    problems: &mut Problems,
) {
    unimplemented!()
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
        unimplemented!()
    }

    /// Lets a request pass, or says how it must be answered: 401 with `WWW-Authenticate`.
    ///
    /// # Errors
    ///
    /// Fails when the request's `Authorization` is absent or wrong.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Response> {
        unimplemented!()
    }
}

impl Credentials {
    /// Makes credentials of at most one of the three; asks no token endpoint yet.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, or when more than one of them is given.
    pub fn build(
        basic_auth: Option<&BasicAuth>,
        authorization: Option<&Authorization>,
        oauth2: Option<&OAuth2>,
    ) -> Result<Self, BuildError> {
        unimplemented!()
    }

    /// The value of the `Authorization` header, marked as sensitive; none without credentials.
    ///
    /// A token is asked for once, however many wait for it, and kept until shortly before it
    /// expires. Files are read again every few seconds, so that rotated secrets are picked up.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or the token endpoint gives no token in time.
    pub async fn header(&self) -> Result<Option<HeaderValue>, AuthError> {
        unimplemented!()
    }

    /// Forgets what is cached, to be called after a 401: the next [`Credentials::header`] asks
    /// again.
    pub fn invalidate(&self) {
        unimplemented!()
    }
}

fn bearer() -> String {
    "Bearer".to_owned()
}
