//! Headers of a trusted proxy in front that authenticates callers.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use metrifold_model::{ClientCertificate, Proof};

use super::{Proven, Verdict};
use crate::config::TrustedHeaderConfig;
use crate::shown::Shown;

/// A trusted proxy and its headers.
pub(crate) struct Proxy {
    config: TrustedHeaderConfig,
    user: HeaderName,
    groups: Option<HeaderName>,
}

impl Proxy {
    pub(crate) fn new(config: &TrustedHeaderConfig) -> Result<Self, String> {
        let name = |name: &String| {
            let parsed = name.parse::<HeaderName>();
            parsed.map_err(|_| format!("{name:?} is not the name of a header"))
        };
        Ok(Self {
            user: name(&config.user)?,
            groups: config.groups.as_ref().map(name).transpose()?,
            config: config.clone(),
        })
    }

    /// The headers that are accepted from the proxy only.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.user].into_iter().chain(&self.groups)
    }

    pub(crate) fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let head = &shown.head;
        let mut users = head.headers.get_all(&self.user).iter();
        let Some(user) = users.next() else {
            return Verdict::Absent;
        };
        let certificate = head.certificate.map(|certificate| &**certificate);
        let trusted =
            self.config.trusts(head.peer.ip()) || certificate.is_some_and(|it| self.knows(it));
        if !trusted {
            // Headers of other senders are ignored silently, so as not to reveal their effect.
            return Verdict::Absent;
        }
        let user = user.to_str().ok().map(str::trim);
        let (Some(user), None) = (user.filter(|user| !user.is_empty()), users.next()) else {
            return Verdict::wrong("the proxy's header with the user is empty or repeated");
        };
        let values = self
            .groups
            .iter()
            .flat_map(|name| head.headers.get_all(name));
        let values: Vec<&HeaderValue> = values.collect();
        // A proxy that adds its header to the caller's would let the caller choose its groups.
        if values.len() > 1 {
            return Verdict::wrong("the proxy's header with the groups is repeated");
        }
        let groups = values.iter().filter_map(|value| value.to_str().ok());
        let groups = groups.flat_map(|value| value.split(',')).map(str::trim);
        Verdict::Proven(Arc::new(Proven {
            subject: Some(user.into()),
            groups: groups.filter(|it| !it.is_empty()).map(Arc::from).collect(),
            proof: Proof::Header,
            certificate: None,
        }))
    }

    /// Whether the certificate has a name that is trusted.
    fn knows(&self, certificate: &ClientCertificate) -> bool {
        let names = certificate.common_name.as_deref().into_iter();
        let mut names = names.chain(certificate.dns_names());
        names.any(|name| self.config.certificates.iter().any(|it| it == name))
    }
}
