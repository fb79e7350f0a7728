//! The replicas of all routers as JSON: which are queried, and why others are not.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Status;

/// Path of the replicas.
pub(super) const REPLICAS: &str = "/api/v1/replicas";

#[derive(Serialize)]
pub(super) struct Answer {
    routers: Vec<Router>,
}

#[derive(Serialize)]
struct Router {
    sink: Arc<str>,
    r#type: String,
    /// Details as the router reports them.
    fleet: Box<RawValue>,
}

/// Replicas of every router.
pub(super) fn replicas(status: &Status) -> Answer {
    let config = status.board.config();
    let components = status.components(&config);
    let routers = components.filter_map(|(id, _, type_name, metrics)| {
        Some(Router {
            sink: id.clone(),
            r#type: type_name.to_owned(),
            fleet: RawValue::from_string(metrics.details()?).ok()?,
        })
    });
    Answer {
        routers: routers.collect(),
    }
}
