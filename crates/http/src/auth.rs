//! Authentication of callers and at endpoints: the keys under `basic_auth`, `authorization` and
//! `oauth2`, and the credentials for a proxy.
//!
//! [`Callers`] checks incoming requests, [`Credentials`] adds headers to outgoing ones.

pub(crate) mod callers;
pub(crate) mod credentials;
pub(crate) mod oauth2;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

pub use crate::auth::callers::Callers;
pub use crate::auth::credentials::{AuthError, Credentials};
use metrifold_base::{Endpoint, FileError, Problems, Secret, keys, read_text};

use super::tls::ClientTls;

/// Largest file that is read as a secret.
const MAX_SECRET: u64 = 64 << 10;

/// Parameters of a token request that `endpoint_params` must not override.
const RESERVED: [&str; 5] = [
    "grant_type",
    "client_id",
    "client_secret",
    "scope",
    "audience",
];

keys! {
    /// A user and a password: the keys under `basic_auth`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BasicAuth {
        /// User name. It must not contain a colon.
        pub username: String = required("prometheus"),
        /// Password. Either this or `password_file` must be set.
        pub password: Option<Secret> = unset("${PASSWORD}"),
        /// File with the password, instead of `password`. Trailing white space is ignored.
        pub password_file: Option<PathBuf> = unset("/etc/metrifold/password"),
    }
}

keys! {
    /// An `Authorization` header: the keys under `authorization`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Authorization {
        /// Authentication scheme in front of the credentials. For `Basic`, use `basic_auth`.
        #[name = "type"]
        pub scheme: String = default("Bearer"),
        /// Credentials. Either this or `credentials_file` must be set.
        pub credentials: Option<Secret> = unset("${TOKEN}"),
        /// File with the credentials, instead of `credentials`. Trailing white space is ignored.
        pub credentials_file: Option<PathBuf> = unset("/etc/metrifold/token"),
    }
}

keys! {
    /// An HTTP proxy for requests to a server.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ProxyKeys {
        /// URL of a proxy for all requests. The environment's proxy variables are ignored.
        pub proxy_url: Option<Endpoint> = unset("http://proxy.example:3128"),
        /// User name and password for the proxy.
        pub proxy_basic_auth: Option<BasicAuth> = optional,
    }
}

keys! {
    /// OAuth 2.0 with client credentials: the keys under `oauth2`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OAuth2 {
        /// ID of the OAuth 2.0 client.
        pub client_id: String = required("metrifold"),
        /// Secret of the client. Either this or `client_secret_file` must be set, unless the client authenticates with a certificate (`tls.cert_file`).
        pub client_secret: Option<Secret> = unset("${CLIENT_SECRET}"),
        /// File with the client's secret, instead of `client_secret`. Trailing white space is ignored.
        pub client_secret_file: Option<PathBuf> = unset("/etc/metrifold/client-secret"),
        /// URL to request tokens from.
        pub token_url: Endpoint = required("https://login.example/oauth/token"),
        /// Scopes of the token request.
        pub scopes: Vec<String> = unset(["metrics.write"]),
        /// Audience of the token request.
        pub audience: Option<String> = unset("receive"),
        /// Additional parameters of the token request. Their values are secrets, and never shown.
        pub endpoint_params: BTreeMap<String, Secret> = unset({ resource = "x" }),
        proxy: ProxyKeys = include,
        /// TLS settings for the connection to the token URL.
        pub tls: ClientTls = table,
    }
}

impl BasicAuth {
    /// Reports problems at keys below `prefix`, usually `basic_auth`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        if self.username.contains(':') {
            let at = format!("{prefix}.username");
            problems.at(at, "a user name cannot contain a colon");
        }
        let keys = ["password", "password_file"];
        self.secret().validate(prefix, keys, problems);
    }

    pub(super) fn secret(&self) -> SecretFrom<'_> {
        SecretFrom(self.password.as_ref(), self.password_file.as_deref())
    }

    /// User and password, as they are encoded in the header.
    pub(super) fn pair(&self, password: &str) -> String {
        format!("{}:{password}", self.username)
    }
}

impl Authorization {
    /// Reports problems at keys below `prefix`, usually `authorization`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        let at = format!("{prefix}.type");
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.scheme.eq_ignore_ascii_case("basic") {
            let problem = problems.at(at, "Basic needs a user and a password");
            problem.help("write them under basic_auth");
        } else if self.scheme.is_empty() || !self.scheme.bytes().all(is_token) {
            // Not quoted: it may be a whole header, with the credentials.
            let problem = problems.at(at, "is not the name of an authorization scheme");
            problem
                .help("write one word, such as \"Bearer\", and what follows it under credentials");
        }
        let keys = ["credentials", "credentials_file"];
        self.secret().validate(prefix, keys, problems);
    }

    pub(super) fn secret(&self) -> SecretFrom<'_> {
        SecretFrom(self.credentials.as_ref(), self.credentials_file.as_deref())
    }
}

impl OAuth2 {
    /// Reports problems at keys below `prefix`, usually `oauth2`.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        if self.client_id.is_empty() {
            problems.at(format!("{prefix}.client_id"), "must not be empty");
        }
        let keys = ["client_secret", "client_secret_file"];
        if self.has_secret() || self.tls.cert_file.is_none() {
            self.secret().validate(prefix, keys, problems);
        }
        for key in RESERVED {
            if self.endpoint_params.contains_key(key) {
                let at = format!("{prefix}.endpoint_params.{key}");
                problems.at(
                    at,
                    format!("{key} is part of every token request and cannot be set here"),
                );
            }
        }
        self.tls.validate(&format!("{prefix}.tls"), problems);
        self.proxy.validate(&format!("{prefix}."), problems);
    }

    /// Whether the client has a secret. A client with a certificate needs none (RFC 8705).
    pub(super) fn has_secret(&self) -> bool {
        self.client_secret.is_some() || self.client_secret_file.is_some()
    }

    /// Reads the secret, if the client has one.
    pub(super) fn read_secret(&self) -> Result<Option<Secret>, String> {
        let secret = self.has_secret().then(|| self.secret().read());
        secret.transpose()
    }

    pub(super) fn secret(&self) -> SecretFrom<'_> {
        let file = self.client_secret_file.as_deref();
        SecretFrom(self.client_secret.as_ref(), file)
    }
}

impl ProxyKeys {
    /// Files that the keys name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let secret = self.proxy_basic_auth.as_ref().map(BasicAuth::secret);
        secret.and_then(SecretFrom::file).into_iter()
    }

    /// Reports problems at keys below `prefix`, which is empty or ends with a dot.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        let Some(basic_auth) = &self.proxy_basic_auth else {
            return;
        };
        let at = format!("{prefix}proxy_basic_auth");
        if self.proxy_url.is_none() {
            let problem = problems.at(&at, "has no effect without a proxy");
            problem.help(format_args!("set {prefix}proxy_url"));
        }
        basic_auth.validate(&at, problems);
    }
}

/// Files named by any of the three kinds of credentials.
pub fn files<'a>(
    basic_auth: Option<&'a BasicAuth>,
    authorization: Option<&'a Authorization>,
    oauth2: Option<&'a OAuth2>,
) -> impl Iterator<Item = &'a Path> {
    let secrets = [
        basic_auth.map(BasicAuth::secret),
        authorization.map(Authorization::secret),
        oauth2.map(OAuth2::secret),
    ];
    let secrets = secrets.into_iter().flatten().filter_map(SecretFrom::file);
    let of_oauth2 = |oauth2: &'a OAuth2| oauth2.tls.files().chain(oauth2.proxy.files());
    secrets.chain(oauth2.into_iter().flat_map(of_oauth2))
}

/// Reports problems of each kind of credentials, and of their combination. `prefix` is the table
/// that holds them: empty, or such as `read`.
pub fn validate(
    prefix: &str,
    basic_auth: Option<&BasicAuth>,
    authorization: Option<&Authorization>,
    oauth2: Option<&OAuth2>,
    problems: &mut Problems,
) {
    let at = |key: &str| match prefix {
        "" => key.to_owned(),
        prefix => format!("{prefix}.{key}"),
    };
    let given: Vec<&str> = [
        basic_auth.map(|_| "basic_auth"),
        authorization.map(|_| "authorization"),
        oauth2.map(|_| "oauth2"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let [first, rest @ .., last] = &*given {
        let others = rest
            .iter()
            .map(|key| format!(", {key}"))
            .collect::<String>();
        problems
            .at(
                at(last),
                format!("cannot be set together with {first}{others}"),
            )
            .help("a request has only one Authorization header: keep one of them");
    }
    if let Some(basic_auth) = basic_auth {
        basic_auth.validate(&at("basic_auth"), problems);
    }
    if let Some(authorization) = authorization {
        authorization.validate(&at("authorization"), problems);
    }
    if let Some(oauth2) = oauth2 {
        oauth2.validate(&at("oauth2"), problems);
    }
}

/// A secret from the configuration or from a file.
#[derive(Clone, Copy)]
pub struct SecretFrom<'a>(Option<&'a Secret>, Option<&'a Path>);

impl<'a> SecretFrom<'a> {
    /// A secret that is `inline` or in `file`.
    pub fn new(inline: Option<&'a Secret>, file: Option<&'a Path>) -> Self {
        Self(inline, file)
    }

    /// Reports problems at the keys of table `prefix` for the secret itself and for its file,
    /// exactly one of which must be given.
    pub fn validate(self, prefix: &str, [inline, file]: [&str; 2], problems: &mut Problems) {
        let at = |key: &str| match prefix {
            "" => key.to_owned(),
            prefix => format!("{prefix}.{key}"),
        };
        match self {
            Self(Some(_), Some(_)) => {
                let what = format!("cannot be set together with {inline}");
                problems.at(at(file), what);
            }
            Self(None, None) => {
                let what = format!("needs {inline} or {file}");
                problems.at(prefix, what);
            }
            Self(Some(_), None) => {
                if let Err(error) = self.read() {
                    problems.at(at(inline), error);
                }
            }
            Self(None, Some(_)) => {
                if problems.environment()
                    && let Err(error) = self.read()
                {
                    problems.at(at(file), error);
                }
            }
        }
    }

    /// The file, unless the secret is inline.
    pub fn file(self) -> Option<&'a Path> {
        self.1
    }

    /// Reads the secret, which must not be empty and must fit into a header.
    ///
    /// # Errors
    ///
    /// Fails when the secret is missing, unreadable or empty, or holds a control character.
    pub fn read(self) -> Result<Secret, String> {
        let (secret, from) = match self {
            Self(Some(secret), _) => (secret.clone(), "it".to_owned()),
            Self(None, Some(file)) => (from_file(file)?, file.display().to_string()),
            Self(None, None) => return Err("no secret is configured".to_owned()),
        };
        if secret.expose().is_empty() {
            return Err(format!("{from} is empty"));
        }
        if secret.expose().chars().any(char::is_control) {
            return Err(format!(
                "{from} contains a line break or a control character"
            ));
        }
        Ok(secret)
    }
}

fn from_file(file: &Path) -> Result<Secret, String> {
    match read_text(file, MAX_SECRET) {
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(FileError::TooLarge(_)) => Err(format!("{} is too large for a secret", file.display())),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

/// An `Authorization` header for a pair of user and password.
pub(super) fn basic(pair: &str) -> Result<HeaderValue, String> {
    header("Basic", &STANDARD.encode(pair))
}

/// An `Authorization` header, marked as sensitive.
pub(super) fn header(scheme: &str, credentials: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {credentials}")).map_err(|_| {
        "credentials contain a character that an HTTP header cannot contain".to_owned()
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
