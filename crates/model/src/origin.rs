//! The origin of a batch.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::Caller;

/// Name of a tenant, validated where it was read.
pub type Tenant = Arc<str>;

/// The origin of a batch: transforms read it, and the order of a sender's batches depends on it.
#[derive(Debug)]
pub struct Origin {
    /// Name of the source.
    pub source: Arc<str>,
    /// Address of the sender; `None` for a source without senders.
    pub peer: Option<IpAddr>,
    /// Key that orders batches of a tenant in place of the sender's address, such as a share of the
    /// scraped targets. Batches with different keys may overtake each other.
    pub order: Option<Arc<str>>,
    /// Values of the path's parameters, by name.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The request's headers, without those that hold credentials.
    pub headers: HeaderMap,
    /// Authenticated caller of the request.
    pub caller: Caller,
}

impl Origin {
    /// The origin of batches that a source makes without a sender.
    pub fn internal(source: Arc<str>) -> Self {
        Self {
            source,
            peer: None,
            order: None,
            params: Vec::new(),
            headers: HeaderMap::new(),
            caller: Caller::anonymous(),
        }
    }

    /// The value of the path's parameter `name`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }
}
