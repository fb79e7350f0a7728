//! Credentials for applications, by name. A target that asks for some that do not exist is not scraped.

use std::collections::BTreeMap;
use std::path::Path;

use metrifold_base::{BuildError, Problems, keys};
use metrifold_http::{
    Authorization, BasicAuth, Client, ClientConfig, ClientTls, Credentials, OAuth2, auth,
};

keys! {
    /// Credentials for applications: at most one of `basic_auth`, `authorization` and `oauth2`.
    #[derive(Clone, Debug)]
    pub struct AuthenticatorKeys {
        /// User and password.
        basic_auth: Option<BasicAuth> = optional,
        /// An `Authorization` header.
        authorization: Option<Authorization> = optional,
        /// Token, got by client credentials.
        oauth2: Option<OAuth2> = optional,
        /// TLS towards the application, such as a client certificate.
        tls: Option<ClientTls> = optional,
    }
}

/// Authenticators by name.
pub(super) struct Authenticators(BTreeMap<String, Authenticator>);

/// What a scrape authenticates with.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    pub(super) credentials: Credentials,
    /// The client to connect with, in place of that of all.
    pub(super) client: Option<Client>,
}

impl AuthenticatorKeys {
    /// The files that they name.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let (basic, header) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        let tls = self.tls.iter().flat_map(ClientTls::files);
        tls.chain(auth::files(basic, header, self.oauth2.as_ref()))
    }

    /// Reports what is wrong with them, at keys below `prefix`.
    pub(super) fn validate(&self, prefix: &str, problems: &mut Problems) {
        let (basic, header) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        auth::validate(prefix, basic, header, self.oauth2.as_ref(), problems);
        if let Some(tls) = &self.tls {
            tls.validate(&format!("{prefix}.tls"), problems);
        }
    }
}

impl Authenticators {
    /// Makes them, with connections as configured for all.
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
            let credentials = Credentials::build(
                keys.basic_auth.as_ref(),
                keys.authorization.as_ref(),
                keys.oauth2.as_ref(),
            )?;
            let client = client.transpose()?;
            let authenticator = Authenticator {
                credentials,
                client,
            };
            Ok((name.clone(), authenticator))
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    /// The authenticator of this name.
    pub(super) fn get(&self, name: &str) -> Result<&Authenticator, String> {
        self.0.get(name).ok_or_else(|| {
            format!("there is no authenticator {name:?}: declare authenticators.{name}")
        })
    }
}
