//! Settings of single instances: the header that selects one behind the router, credentials, rules,
//! gauges.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use metrifold_base::words;
use metrifold_cloud_foundry::Facts;
use metrifold_discovery::{Labels, Target, Targets};
use metrifold_expr::relabel::Program;
use metrifold_http::Credentials;
use metrifold_scrape::{FindCredentials, FindHeader, Gauges, Own, Particulars};

use super::authenticators::Authenticators;
use super::routers::{Routers, WhereKnown};

pub(super) const APP_INSTANCE: HeaderName = HeaderName::from_static("x-cf-app-instance");
pub(super) const PROCESS_INSTANCE: HeaderName = HeaderName::from_static("x-cf-process-instance");

words! {
    /// Header that selects the instance behind the router.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum InstanceHeader {
        /// By process where application and number are ambiguous, by application otherwise.
        Auto = "auto",
        /// Always by the application.
        App = "app",
        /// Always by the process.
        Process = "process",
    }
}

/// Settings of instances beyond their labels.
pub(super) struct Instances {
    pub(super) authenticators: Authenticators,
    pub(super) by: InstanceHeader,
    /// Rules by the name of the selector that found the instance.
    pub(super) rules: BTreeMap<String, Arc<Program>>,
    /// The providers, in the order of the pool's inlets. They may share the usage of instances.
    pub(super) providers: Arc<[Targets]>,
    /// What the routers in front of the instances support.
    pub(super) routers: Arc<Routers>,
}

/// The provider of an instance.
#[derive(Clone)]
struct Origin {
    providers: Arc<[Targets]>,
    at: usize,
}

impl Origin {
    /// The facts about instances that the provider shares besides their labels.
    fn facts(&self) -> Option<Arc<Facts>> {
        self.providers.get(self.at)?.beside()
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.at).finish()
    }
}

/// Gauges of an instance's usage, where its provider measures it.
#[derive(Debug)]
struct InstanceGauges {
    origin: Origin,
    process: String,
    number: u32,
}

impl Gauges for InstanceGauges {
    fn values(&self) -> Vec<(&'static str, f64)> {
        let usages = self.origin.facts().and_then(|facts| facts.usages.clone());
        usages.map_or_else(Vec::new, |it| it.gauges(&self.process, self.number))
    }
}

/// The credentials of an application, which are in its binding to a service instance.
#[derive(Debug)]
struct BoundCredentials {
    origin: Origin,
    /// GUID of the binding.
    binding: String,
}

impl FindCredentials for BoundCredentials {
    fn find(&self) -> Result<Credentials, String> {
        let facts = self.origin.facts();
        let found = facts.and_then(|facts| facts.bindings.get(&self.binding));
        found.unwrap_or_else(|| {
            let text = "the credentials in the application's service binding have not been read";
            Err(text.to_owned())
        })
    }
}

impl Particulars for Instances {
    fn of(&self, discovered: &Target, inlet: usize) -> Result<Own, String> {
        let authenticator = discovered.get("__meta_cf_authenticator");
        let authenticator = authenticator.map(|name| self.authenticators.get(name));
        let authenticator = authenticator.transpose()?;
        let selector = discovered.get("__meta_cf_selector").unwrap_or_default();
        let header = instance_header(discovered, self.by)?;
        let (headers, find_header) = match header {
            // Only routers since March 2025 know it, and others would pick any instance.
            Some((name, process))
                if name == PROCESS_INSTANCE && self.by == InstanceHeader::Auto =>
            {
                let app = instance_header(discovered, InstanceHeader::App)?;
                let app = app.map_or_else(|| process.clone(), |(_, value)| value);
                let finder = WhereKnown::new(self.routers.clone(), discovered, process, app);
                (Vec::new(), Some(Arc::new(finder) as Arc<dyn FindHeader>))
            }
            header => (header.into_iter().collect(), None),
        };
        let origin = Origin {
            providers: self.providers.clone(),
            at: inlet,
        };
        Ok(Own {
            headers,
            find_header,
            credentials: authenticator.map(|it| it.credentials.clone()),
            find_credentials: bound(&origin, discovered),
            client: authenticator.and_then(|it| it.client.clone()),
            metric_rules: self.rules.get(selector).cloned(),
            gauges: gauges(&origin, discovered),
        })
    }
}

fn bound(origin: &Origin, target: &Target) -> Option<Arc<dyn FindCredentials>> {
    Some(Arc::new(BoundCredentials {
        origin: origin.clone(),
        binding: target.get("__meta_cf_binding")?.to_owned(),
    }))
}

fn gauges(origin: &Origin, target: &Target) -> Option<Arc<dyn Gauges>> {
    let number = target.get("__meta_cf_instance_number")?.parse().ok()?;
    Some(Arc::new(InstanceGauges {
        origin: origin.clone(),
        process: target.get("__meta_cf_process_guid")?.to_owned(),
        number,
    }))
}

/// The header that selects the instance: none for an internal route. Fails for a target that does
/// not come from a provider of type `cloud_foundry`.
fn instance_header(
    target: &Labels,
    by: InstanceHeader,
) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let get = |name: &str| target.get(name).unwrap_or_default();
    if !get("__meta_cf_route_internal").is_empty() {
        return Ok(None);
    }
    let number = get("__meta_cf_instance_number");
    let by_process = match by {
        InstanceHeader::Auto => !get("__meta_cf_by_process").is_empty(),
        InstanceHeader::App => false,
        InstanceHeader::Process => true,
    };
    let (name, guid) = match by_process {
        true => (PROCESS_INSTANCE, get("__meta_cf_process_guid")),
        false => (APP_INSTANCE, get("__meta_cf_app_guid")),
    };
    if guid.is_empty() || number.is_empty() {
        return Err(
            "it is not an instance of Cloud Foundry: it has no __meta_cf_app_guid".to_owned(),
        );
    }
    let value = HeaderValue::try_from(format!("{guid}:{number}"));
    Ok(Some((name, value.map_err(|error| error.to_string())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(more: &[(&str, &str)]) -> Labels {
        let labels = [
            ("__meta_cf_app_guid", "a"),
            ("__meta_cf_process_guid", "p"),
            ("__meta_cf_instance_number", "3"),
        ];
        labels.iter().chain(more).copied().collect()
    }

    #[test]
    fn the_header_names_the_process_where_the_application_is_not_enough() {
        let plain = target(&[]);
        let several = target(&[("__meta_cf_by_process", "true")]);
        for (target, by, name, value) in [
            (&plain, InstanceHeader::Auto, APP_INSTANCE, "a:3"),
            (&several, InstanceHeader::Auto, PROCESS_INSTANCE, "p:3"),
            (&several, InstanceHeader::App, APP_INSTANCE, "a:3"),
            (&plain, InstanceHeader::Process, PROCESS_INSTANCE, "p:3"),
        ] {
            let (found, shown) = instance_header(target, by).unwrap().unwrap();
            assert_eq!((found, shown.to_str().unwrap()), (name, value));
        }
        let internal = target(&[("__meta_cf_route_internal", "true")]);
        let none = instance_header(&internal, InstanceHeader::Auto).unwrap();
        assert!(none.is_none());
        let other: Labels = [("__address__", "a:1")].into_iter().collect();
        assert!(instance_header(&other, InstanceHeader::Auto).is_err());
    }

    #[test]
    fn a_target_is_not_scraped_without_the_authenticator_that_it_asks_for() {
        let instances = Instances {
            authenticators: Authenticators::default(),
            by: InstanceHeader::Auto,
            rules: BTreeMap::new(),
            providers: Arc::new([]),
            routers: Arc::default(),
        };
        let own = instances.of(&Arc::new(target(&[])), 0).unwrap();
        assert!(own.credentials.is_none());
        let asks = target(&[("__meta_cf_authenticator", "x")]);
        let error = instances.of(&Arc::new(asks), 0).unwrap_err();
        assert!(error.contains("declare authenticators.x"), "{error}");
    }
}
