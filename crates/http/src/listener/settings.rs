//! How an address is listened on: certificates, and how many connections there may be.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use metrifold_base::BuildError;

use crate::descriptors;
use crate::listener::Listen;
use crate::tls::ServerTls;

/// All that a listener and not a path determines.
pub(super) struct Settings {
    pub(super) listen: Listen,
    pub(super) acceptor: Option<TlsAcceptor>,
    /// When the certificate expires that is shown.
    pub(super) expires: Option<SystemTime>,
    pub(super) slots: Arc<Semaphore>,
}

impl Settings {
    /// Whether certificates that callers show are verified here.
    pub(super) fn verifies(&self) -> bool {
        let tls = self.listen.tls.as_ref();
        tls.is_some_and(|tls| tls.client_ca_file.is_some())
    }

    /// Reads the certificates. Connections are counted together with those of `before`, if that
    /// had the same limit.
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

/// How many connections a listener may have.
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
