//! TLS for listeners and for clients: the keys under `tls`, and what rustls makes of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use serde::Deserialize;

use crate::component::BuildError;
use crate::config::Problems;

/// TLS of a listener: the keys under `tls` of a source that listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate that is shown to callers, in PEM, with the intermediates behind it.
    pub cert_file: PathBuf,
    /// The certificate's private key, in PEM.
    pub key_file: PathBuf,
    /// The authorities whose client certificates are accepted, in PEM. Set, every caller must show
    /// one; unset, none is asked for.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// TLS of a client: the keys under `tls` of everything that connects somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    /// The authorities that may have signed the server's certificate, in PEM. Unset, those of the
    /// operating system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to a server that asks for one, in PEM. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, in PEM. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must bear, and that is asked for when connecting.
    /// Unset, the endpoint's host.
    pub server_name: Option<String>,
    /// Accepts any certificate, whoever signed it and for whatever name. The server must still own
    /// its private key. False unless set.
    pub insecure_skip_verify: bool,
}

impl ServerTls {
    /// Reports what is wrong, at keys below `prefix`. Files are looked at only if the problems'
    /// environment may be.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        unimplemented!()
    }

    /// Reads the files and makes rustls's configuration for HTTP/1.1.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or used; the error names it.
    pub fn config(&self) -> Result<Arc<ServerConfig>, BuildError> {
        unimplemented!()
    }
}

impl ClientTls {
    /// Reports what is wrong, at keys below `prefix`. Files are looked at only if the problems'
    /// environment may be.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        unimplemented!()
    }

    /// Reads the files and makes rustls's configuration for HTTP/1.1.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or used; the error names it.
    pub fn config(&self) -> Result<ClientConfig, BuildError> {
        unimplemented!()
    }
}

/// Makes aws-lc-rs the crypto provider of the process, for libraries that ask for the default
/// (reqwest does). Does nothing when there is one already.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
