//! Plans of providers of Aiven's services as JSON: the changes to make and why, and the changes
//! made.

use std::sync::Arc;

use metrifold_aiven::{Accounts, PlanStatus};
use metrifold_base::Shared;
use metrifold_http::Response;
use serde::Serialize;

use super::json;

/// Path of the plans.
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
