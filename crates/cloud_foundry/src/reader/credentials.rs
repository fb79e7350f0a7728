//! Credentials of applications, in their bindings to service instances.

use std::collections::{HashMap, HashSet};

use tracing::warn;

use metrifold_http::Credentials;

use crate::bound::Bound;
use crate::metadata::Metadata;
use crate::resources::BindingDetails;

use super::Reader;

impl Reader {
    /// Reads the credentials of applications, as far as they are needed and not known: at most
    /// `max_stats` per refresh. The credentials of a binding never change. After a failure, they are
    /// tried again with the next refresh; until then, their applications are not scraped.
    pub(super) async fn read_credentials(&mut self, metadata: &Metadata) {
        let selectors = self.selectors.clone();
        let mut needed = HashMap::new();
        for (at, (selector, last)) in selectors.iter().zip(&mut self.needed).enumerate() {
            let Some(service) = &selector.service_credentials else {
                continue;
            };
            let mut now = HashSet::new();
            for (app, verdict) in metadata.judged(at) {
                if let Some(binding) = metadata.binding(&app.guid, service)
                    && app.started
                    && verdict.is_ok()
                {
                    now.insert(binding.to_owned());
                    needed.insert(binding.to_owned(), service);
                }
            }
            // Without any, the targets may be those known so far, which need the known ones.
            if !now.is_empty() {
                *last = now;
            }
        }
        let kept = self.needed.iter().flatten().cloned().collect();
        self.bindings.retain(&kept);
        let missing = needed.into_iter();
        let missing = missing.filter(|(binding, _)| self.bindings.get(binding).is_none());
        let missing: Vec<_> = missing.take(self.max_stats).collect();
        for (binding, service) in missing {
            if !self.api.pace.blocked().is_zero() {
                return;
            }
            let path = format!("/v3/service_credential_bindings/{binding}/details");
            match self.api.one::<BindingDetails>(&path).await {
                Ok(details) => {
                    let credentials = credentials(service, &details);
                    self.bindings.put(binding, credentials);
                    self.credentials_failed = false;
                }
                // The binding has gone since the list was read, or is still being made.
                Err(error) if matches!(error.status, Some(404 | 422)) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.credentials_failed, true) {
                        warn!(%error, service, "cannot read the credentials of applications");
                    }
                    // A user who may not read these can hardly read others.
                    if error.is_general() || error.status == Some(403) {
                        return;
                    }
                }
            }
        }
    }
}

/// Credentials for requests from the content of a binding. Those of a client are sent to the URL that
/// the binding gives, which has to be encrypted.
fn credentials(service: &str, details: &BindingDetails) -> Result<Credentials, String> {
    let bound = Bound::read(service, &details.credentials)?;
    match &bound {
        Bound::OAuth2(oauth2) if oauth2.token_url.uri().scheme_str() != Some("https") => Err(
            format!("the URL in the credentials of {service:?} is not an https URL"),
        ),
        bound => bound.build().map_err(|error| error.to_string()),
    }
}
