//! What a target needs that no label can say, since it is secret or no text.

use std::fmt::Debug;
use std::sync::Arc;

use http::HeaderMap;

use metrifold_discovery::Target;
use metrifold_expr::relabel::Program;
use metrifold_http::{Client, Credentials};

/// Says what single targets need. It is asked whenever a target is new, or comes with other labels.
pub trait Particulars: Send + Sync {
    /// What the target with these labels, as they were discovered, needs of its own.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be scraped as it has to be, such as without the credentials that were
    /// asked for. It is then shown as dropped, with the reason.
    fn of(&self, discovered: &Target) -> Result<Own, String>;
}

/// What a target has in place of what its pool has.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Headers besides those of every scrape. They go to the target's own server only.
    pub headers: HeaderMap,
    /// Credentials in place of the pool's.
    pub credentials: Option<Credentials>,
    /// The client in place of the pool's.
    pub client: Option<Client>,
    /// Rules over its series, which run before those of the pool.
    pub metric_rules: Option<Arc<Program>>,
    /// What is reported with each of its scrapes besides what is reported of all.
    pub gauges: Option<Arc<dyn Gauges>>,
}

/// What is known of a target from elsewhere than its page, such as the memory that it uses.
pub trait Gauges: Send + Sync + Debug {
    /// The names of all series that there may be. Their labels are those of the target.
    fn names(&self) -> &'static [&'static str];

    /// The values at the moment, by the places of their names.
    fn values(&self) -> Vec<(usize, f64)>;
}

/// Nothing, for any target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Particulars for Plain {
    fn of(&self, _discovered: &Target) -> Result<Own, String> {
        Ok(Own::default())
    }
}
