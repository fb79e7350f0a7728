//! Resolves the names of services to their nodes.

use std::net::IpAddr;
use std::time::Duration;

use metrifold_discovery::{Failure, Reason};

#[cfg(feature = "dns")]
use metrifold_discovery::NameServers;

use crate::config::AivenConfig;

/// Resolver of service names.
pub(crate) struct Resolver {
    #[cfg(feature = "dns")]
    servers: Option<NameServers>,
    timeout: Duration,
}

impl Resolver {
    pub(crate) fn new(config: &AivenConfig) -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(feature = "dns")]
            servers: match config.dns_servers.as_slice() {
                [] => None,
                servers => {
                    let servers: Vec<_> = servers.iter().map(|it| it.0).collect();
                    Some(NameServers::new(&servers, config.dns_timeout.0)?)
                }
            },
            timeout: config.dns_timeout.0,
        })
    }

    /// Addresses of a name, sorted; an empty answer is a failure.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let unreachable = |why: String| Failure::new(Reason::Unreachable, format!("{host}: {why}"));
        let asked = async {
            #[cfg(feature = "dns")]
            if let Some(servers) = &self.servers {
                return servers.addresses(host).await;
            }
            let found = tokio::net::lookup_host((host, 0)).await;
            let found = found.map_err(|error| unreachable(error.to_string()))?;
            Ok(found.map(|address| address.ip()).collect())
        };
        let mut found: Vec<IpAddr> = match tokio::time::timeout(self.timeout, asked).await {
            Ok(found) => found?,
            Err(_) => {
                return Err(unreachable(
                    "no address was found within dns_timeout".to_owned(),
                ));
            }
        };
        if found.is_empty() {
            return Err(unreachable("the name has no address".to_owned()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
