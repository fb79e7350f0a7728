//! What a target needs that no label can say, since it is secret or no text.

use http::HeaderMap;

use metrifold_discovery::Target;
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
}

/// Nothing, for any target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Particulars for Plain {
    fn of(&self, _discovered: &Target) -> Result<Own, String> {
        Ok(Own::default())
    }
}
