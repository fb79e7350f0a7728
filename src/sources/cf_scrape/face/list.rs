//! `/discovery`: each instance as a target at this address, in the form of `http_sd`.

use std::collections::BTreeMap;

use http::header::HOST;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use metrifold_http::{Request, Response, answer};

use super::super::expose::ExposeKeys;
use super::catalogue::{Catalogue, Entry, Part};
use super::{Face, RETRY_AFTER, page};

const OWN_PATH: &str = "/promregatorMetrics";

/// The labels of every instance, which Promregator's own labels give already, and those that the
/// program that pulls sets.
const OF_ALL: [&str; 7] = [
    "job",
    "instance",
    "org_name",
    "space_name",
    "app_name",
    "cf_instance_id",
    "cf_instance_number",
];

#[derive(Serialize)]
struct Group<'a> {
    targets: [String; 1],
    labels: BTreeMap<&'a str, String>,
}

impl Face {
    pub(super) fn discovery(&self, catalogue: &Catalogue, request: &Request) -> Response {
        let waits = match catalogue.known() {
            Part::None => true,
            // The instances of the other foundations may be known within moments, and Prometheus
            // keeps its targets when it gets an error. After the grace, the known ones are listed.
            Part::Some => self.started.elapsed() < self.keys.discovery_grace.0,
            Part::All => false,
        };
        if waits {
            let text = "targets are not known yet";
            return answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, text);
        }
        let host = request.headers.get(HOST).and_then(|it| it.to_str().ok());
        let address = self.keys.discovery_address.as_deref().or(host);
        let address = address.unwrap_or_default();
        let groups = groups(catalogue, address, &self.keys);
        let list = serde_json::to_vec(&groups).unwrap_or_default();
        page(HeaderValue::from_static("application/json"), list.into())
    }
}

/// The targets of the list, all at this address.
fn groups<'a>(catalogue: &'a Catalogue, address: &str, keys: &ExposeKeys) -> Vec<Group<'a>> {
    let entries = catalogue.entries.iter();
    let mut groups: Vec<Group<'a>> = entries.map(|entry| group(entry, address)).collect();
    if keys.own_metrics {
        let labels = ["__meta_promregator_target_path", "__metrics_path__"];
        groups.push(Group {
            targets: [address.to_owned()],
            labels: labels.map(|name| (name, OWN_PATH.to_owned())).into(),
        });
    }
    if let Some(scheme) = keys.scheme() {
        for group in &mut groups {
            group
                .labels
                .insert("__scheme__", scheme.as_str().to_owned());
        }
    }
    groups
}

fn group<'a>(entry: &'a Entry, address: &str) -> Group<'a> {
    let get = |name: &str| {
        let value = entry.discovered.get(&format!("__meta_cf_{name}"));
        value.unwrap_or_default().to_owned()
    };
    let labels = [
        ("__meta_promregator_target_path", entry.path.clone()),
        ("__meta_promregator_target_orgName", get("org_name")),
        ("__meta_promregator_target_spaceName", get("space_name")),
        ("__meta_promregator_target_applicationName", get("app_name")),
        ("__meta_promregator_target_applicationId", get("app_guid")),
        (
            "__meta_promregator_target_instanceNumber",
            get("instance_number"),
        ),
        ("__meta_promregator_target_instanceId", get("instance_id")),
        ("__metrics_path__", entry.path.clone()),
    ];
    // Without them, the targets of an instance that has several would have equal labels.
    let plain = entry.discovered.iter();
    let plain = plain.filter(|(name, _)| !name.starts_with("__") && !OF_ALL.contains(name));
    let plain = plain.map(|(name, value)| (name, value.to_owned()));
    Group {
        targets: [address.to_owned()],
        labels: labels.into_iter().chain(plain).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_that_tell_targets_apart_are_listed_as_they_are() {
        let labels = [
            ("__meta_cf_app_guid", "a"),
            ("__meta_cf_instance_id", "a:0"),
            ("app_name", "shop"),
            ("cf_instance_id", "a:0"),
            ("cf_process_id", "p"),
            ("instance", "a:0"),
            ("metrics_path", "/b"),
        ];
        let catalogue = Catalogue::of(labels.into_iter().collect());
        let labels = group(&catalogue.entries[0], "here:1").labels;
        let plain = labels.keys().filter(|name| !name.starts_with("__"));
        let plain: Vec<_> = plain.copied().collect();
        assert_eq!(plain, ["cf_process_id", "metrics_path"]);
        assert_eq!(labels["__meta_promregator_target_instanceId"], "a:0");
    }

    #[test]
    fn targets_are_asked_by_the_protocol_of_the_endpoint() {
        for (keys, scheme) in [
            ("address = '127.0.0.1:1'", None),
            (
                "address = '127.0.0.1:1'\ntls = { cert_file = 'c', key_file = 'k' }",
                Some("https"),
            ),
            // A proxy in front of the endpoint ends TLS, or adds it.
            (
                "address = '127.0.0.1:1'\ndiscovery_scheme = 'https'",
                Some("https"),
            ),
            (
                "address = '127.0.0.1:1'\ndiscovery_scheme = 'http'\ntls = { cert_file = 'c', key_file = 'k' }",
                Some("http"),
            ),
        ] {
            let keys: ExposeKeys = toml::from_str(keys).unwrap();
            let labels = [
                ("__meta_cf_app_guid", "a"),
                ("__meta_cf_instance_number", "0"),
            ];
            let catalogue = Catalogue::of(labels.into_iter().collect());
            let groups = groups(&catalogue, "here:1", &keys);
            assert_eq!(groups.len(), 2);
            for group in groups {
                assert_eq!(group.labels.get("__scheme__").map(String::as_str), scheme);
            }
        }
    }
}
