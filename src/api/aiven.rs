//! Plans of providers of Aiven's services as JSON: what would be changed and why, and what was.

use std::sync::Arc;

use metrifold_aiven::{Accounts, PlanStatus};
use metrifold_base::Shared;
use metrifold_http::Response;
use serde::Serialize;

use super::json;

/// Where plans are.
pub(super) const PLANS: &str = "/api/v1/aiven/plans";

#[derive(Serialize)]
struct Provider {
    name: Arc<str>,
    #[serde(flatten)]
    status: PlanStatus,
}

pub(super) fn plans(shared: &Shared) -> Response {
    let accounts: Arc<Accounts> = shared.get();
    let plans = accounts.plans().into_iter();
    let providers: Vec<_> = plans
        .map(|(name, status)| Provider { name, status })
        .collect();
    json(&serde_json::json!({ "providers": providers }))
}
