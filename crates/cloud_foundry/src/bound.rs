//! Credentials in the binding of a service instance, as its broker or a user has written them.

use serde_json::Value;

use metrifold_base::{BuildError, Secret};
use metrifold_http::{BasicAuth, Credentials, OAuth2};

/// Credentials of a binding.
#[derive(Debug)]
pub enum Bound {
    /// User name and password.
    Basic(BasicAuth),
    /// A client of UAA.
    OAuth2(Box<OAuth2>),
}

impl Bound {
    /// Reads the credentials of a binding to the service instance `name`.
    ///
    /// # Errors
    ///
    /// Fails when there are none that can be used. The reason quotes no part of them.
    pub fn read(name: &str, credentials: &Value) -> Result<Self, String> {
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|key| credentials[*key].as_str());
            found.map(str::to_owned)
        };
        let client = (
            text(["clientid", "client_id"]),
            text(["clientsecret", "client_secret"]),
        );
        if let ((Some(id), Some(secret)), Some(url)) = (client, text(["url", "uaa_url"])) {
            let mut keys = toml::Table::new();
            let place = format!("{}/oauth/token", url.trim_end_matches('/'));
            for (key, value) in [
                ("client_id", id),
                ("client_secret", secret),
                ("token_url", place),
            ] {
                keys.insert(key.to_owned(), value.into());
            }
            // The parser's error could quote the secret.
            let oauth2 = keys.try_into::<OAuth2>();
            let oauth2 =
                oauth2.map_err(|_| format!("the credentials of {name:?} hold no valid URL"))?;
            return Ok(Self::OAuth2(Box::new(oauth2)));
        }
        if let (Some(username), Some(password)) =
            (text(["username", "user"]), text(["password", "pass"]))
        {
            return Ok(Self::Basic(BasicAuth {
                username,
                password: Some(Secret::new(password)),
                password_file: None,
            }));
        }
        Err(format!(
            "the credentials of {name:?} are neither clientid, clientsecret and url nor username and password: write certificates to files, and name these under oauth2.tls of an authenticator"
        ))
    }

    /// Builds the credentials for requests.
    ///
    /// # Errors
    ///
    /// Fails when no client for the token endpoint can be built.
    pub fn build(&self) -> Result<Credentials, BuildError> {
        match self {
            Self::Basic(basic) => Credentials::build(Some(basic), None, None),
            Self::OAuth2(oauth2) => Credentials::build(None, None, Some(oauth2)),
        }
    }
}
