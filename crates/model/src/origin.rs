//! Where a batch comes from.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::Caller;

/// A tenant's name, checked where it was found.
pub type Tenant = Arc<str>;

/// Where a batch comes from: what transforms may look at, and what keeps a sender's order.
#[derive(Debug)]
pub struct Origin {
    /// The source's name.
    pub source: Arc<str>,
    /// The sender's address; none for a source inside of the process.
    pub peer: Option<IpAddr>,
    /// What keeps its order among the batches of a tenant, if that is not the sender: a scraped
    /// target, for one. Batches of different keys may overtake each other.
    pub order: Option<Arc<str>>,
    /// What the path's parameters matched, by name.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The request's headers, without those that hold credentials.
    pub headers: HeaderMap,
    /// Who the sender was proven to be.
    pub caller: Caller,
}

impl Origin {
    /// The origin of batches that a source makes itself.
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

    /// What the path's parameter `name` matched.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }
}
