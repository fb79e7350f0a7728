//! Credentials for applications, by name. A target that names unknown ones is not scraped.

use std::collections::BTreeMap;
use std::path::Path;

use metrifold_base::{BuildError, Problems, keys};
use metrifold_http::{
    Authorization, BasicAuth, Client, ClientConfig, ClientTls, Credentials, OAuth2, auth,
};

use super::bound;

keys! {
    /// Credentials for applications: at most one of `basic_auth`, `authorization`, `oauth2` and `service`.
    #[derive(Clone, Debug)]
    pub struct AuthenticatorKeys {
        /// User name and password.
        basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header.
        authorization: Option<Authorization> = optional,
        /// OAuth 2.0 token, obtained with the client credentials grant.
        oauth2: Option<OAuth2> = optional,
        /// Name of a service instance bound to this process, whose credentials are used: those of a UAA client, or user name and password.
        service: Option<String> = unset("xsuaa"),
        /// TLS settings for the connection to the application, such as a client certificate.
        tls: Option<ClientTls> = optional,
    }
}

/// Authenticators by name.
#[derive(Default)]
pub(super) struct Authenticators(BTreeMap<String, Authenticator>);

/// Credentials and client of a scrape.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    pub(super) credentials: Credentials,
    /// Client with TLS of its own, replacing the source's.
    pub(super) client: Option<Client>,
}

impl AuthenticatorKeys {
    /// The files that the keys name.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let (basic, header) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        let tls = self.tls.iter().flat_map(ClientTls::files);
        tls.chain(auth::files(basic, header, self.oauth2.as_ref()))
    }

    /// Reports invalid values and combinations, at keys below `prefix`.
    pub(super) fn validate(&self, prefix: &str, problems: &mut Problems) {
        let (basic, header) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        auth::validate(prefix, basic, header, self.oauth2.as_ref(), problems);
        if let Some(service) = &self.service {
            let at = format!("{prefix}.service");
            if basic.is_some() || header.is_some() || self.oauth2.is_some() {
                problems.at(at, "cannot be set together with other credentials");
            } else if problems.environment()
                && let Err(error) = bound::credentials(service)
            {
                problems.at(at, error);
            }
        }
        if let Some(tls) = &self.tls {
            tls.validate(&format!("{prefix}.tls"), problems);
        }
    }

    fn credentials(&self, name: &str) -> Result<Credentials, BuildError> {
        let Some(service) = &self.service else {
            let (basic, header) = (self.basic_auth.as_ref(), self.authorization.as_ref());
            return Credentials::build(basic, header, self.oauth2.as_ref());
        };
        let bound = bound::credentials(service)
            .map_err(|error| BuildError::new(format!("authenticators.{name}.service"), error))?;
        bound.build()
    }
}

impl Authenticators {
    /// Builds the authenticators; `config` holds the source's settings of connections.
    pub(super) fn build(
        keys: &BTreeMap<String, AuthenticatorKeys>,
        config: &ClientConfig,
    ) -> Result<Self, BuildError> {
        let made = keys.iter().map(|(name, keys)| {
            let client = keys.tls.as_ref().map(|tls| {
                Client::new(&ClientConfig {
                    tls: tls.clone(),
                    ..config.clone()
                })
            });
            let credentials = keys.credentials(name)?;
            let client = client.transpose()?;
            let authenticator = Authenticator {
                credentials,
                client,
            };
            Ok((name.clone(), authenticator))
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    /// The authenticator with this name.
    pub(super) fn get(&self, name: &str) -> Result<&Authenticator, String> {
        self.0.get(name).ok_or_else(|| {
            format!("there is no authenticator {name:?}: declare authenticators.{name}")
        })
    }
}
