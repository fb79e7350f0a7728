//! Settings of a listener: certificates, and the number of connections.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use metrifold_base::BuildError;

use crate::descriptors;
use crate::listener::Listen;
use crate::tls::ServerTls;

/// Settings that belong to the listener, and not to a path.
pub(super) struct Settings {
    pub(super) listen: Listen,
    pub(super) acceptor: Option<TlsAcceptor>,
    /// Expiry of the listener's certificate.
    pub(super) expires: Option<SystemTime>,
    pub(super) slots: Arc<Semaphore>,
}

impl Settings {
    /// Whether callers' certificates are verified.
    pub(super) fn verifies(&self) -> bool {
        let tls = self.listen.tls.as_ref();
        tls.is_some_and(|tls| tls.client_ca_file.is_some())
    }

    /// Most concurrent requests of an HTTP/2 connection.
    pub(super) fn max_streams(&self) -> u32 {
        let tls = self.listen.tls.as_ref();
        tls.map_or(1, |tls| tls.http2_max_streams)
    }

    /// Reads the certificates. Connections share the slots of `before` if its limit was the same.
    pub(super) fn build(listen: &Listen, before: Option<&Self>) -> Result<Self, BuildError> {
        let acceptor = match &listen.tls {
            None => None,
            Some(tls) => Some(TlsAcceptor::from(tls.config()?)),
        };
        let expires = listen.tls.as_ref().and_then(ServerTls::expires);
        let slots = match before {
            Some(before) if before.listen.max_connections == listen.max_connections => {
                Arc::clone(&before.slots)
            }
            _ => Arc::new(Semaphore::new(connections(listen)?)),
        };
        Ok(Self {
            listen: listen.clone(),
            acceptor,
            expires,
            slots,
        })
    }
}

/// Most connections of a listener.
fn connections(listen: &Listen) -> Result<usize, BuildError> {
    let limit = descriptors::limit();
    let Some(connections) = listen.max_connections else {
        return Ok(descriptors::default_connections(limit));
    };
    if !descriptors::leave_room(connections, limit) {
        let limit = limit.unwrap_or_default();
        let reason = format!(
            "max_connections = {connections} leaves too few of the {limit} descriptors that the process may have for files and endpoints: raise their number (ulimit -n, LimitNOFILE) or lower this"
        );
        return Err(BuildError::new(listen.address, reason));
    }
    Ok(connections.min(Semaphore::MAX_PERMITS))
}
