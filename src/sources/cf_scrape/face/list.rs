//! `/discovery`: each instance as a target of this address, in the form of `http_sd`.

use std::collections::BTreeMap;

use http::header::HOST;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use metrifold_http::{Request, Response, answer};

use super::catalogue::Entry;
use super::{Face, page};

/// Seconds after which a caller may come again as long as nothing is known.
const RETRY_AFTER: u64 = 5;
const OWN_PATH: &str = "/promregatorMetrics";

#[derive(Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

impl Face {
    pub(super) fn discovery(&self, request: &Request) -> Response {
        let catalogue = self.catalogue();
        if catalogue.is_unknown() {
            // Prometheus keeps the targets that it has.
            let text = "targets are not known yet";
            return answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, RETRY_AFTER, text);
        }
        let host = request.headers.get(HOST).and_then(|it| it.to_str().ok());
        let address = self.keys.discovery_address.as_deref().or(host);
        let address = address.unwrap_or_default();
        let entries = catalogue.entries.iter();
        let mut groups: Vec<Group> = entries.map(|entry| group(entry, address)).collect();
        if self.keys.own_metrics {
            let labels = ["__meta_promregator_target_path", "__metrics_path__"];
            groups.push(Group {
                targets: [address.to_owned()],
                labels: labels.map(|name| (name, OWN_PATH.to_owned())).into(),
            });
        }
        let list = serde_json::to_vec(&groups).unwrap_or_default();
        page(HeaderValue::from_static("application/json"), list.into())
    }
}

fn group(entry: &Entry, address: &str) -> Group {
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
    Group {
        targets: [address.to_owned()],
        labels: labels.into(),
    }
}
