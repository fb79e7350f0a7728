//! TLS for listeners and clients: the keys under `tls`, and rustls configurations from them.

mod certificate;
mod files;
mod verifiers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedProtocolVersion};

use metrifold_base::{BuildError, Problems, keys, words};

pub use certificate::{Expiring, client_certificate, expiry, issuer_name};
use files::{
    certificates, certificates_in, private_key, private_key_in, revocations, roots, roots_in,
};
use verifiers::{Presented, Trust, Verifier, provider};

/// Stands for a file's name in errors about inline PEM.
const INLINE: &str = "the inline PEM";

/// Versions without 1.2.
static ONLY_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

keys! {
    /// TLS settings of a listener.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServerTls {
        /// PEM file with the certificate of the listener, followed by intermediate certificates.
        pub cert_file: PathBuf = required("/etc/metrifold/tls.crt"),
        /// PEM file with the private key of the certificate.
        pub key_file: PathBuf = required("/etc/metrifold/tls.key"),
        /// PEM file with certificate authorities. Callers must present a certificate that one of them signed, unless `client_auth` says otherwise.
        pub client_ca_file: Option<PathBuf> = unset("/etc/metrifold/client-ca.crt"),
        /// PEM file with certificate revocation lists, from every authority in the chain up to those in `client_ca_file`.
        pub client_crl_file: Option<PathBuf> = unset("/etc/metrifold/client.crl"),
        /// Client authentication: `required` (with `client_ca_file`, every caller must present a certificate), `optional` (a certificate, if presented, must be signed by an authority in `client_ca_file`) or `tenants` (certificates are verified against the `mtls` authorities of the tenants; without `client_ca_file`).
        pub client_auth: ClientAuth = default("required"),
        /// Minimum TLS version: `1.2` or `1.3`.
        pub min_version: TlsVersion = default("1.2"),
        /// Whether HTTP/2 is offered in the handshake. Callers that do not negotiate it use HTTP/1.1.
        pub http2: bool = default(true),
        /// Maximum number of concurrent requests of an HTTP/2 connection.
        pub http2_max_streams: u32 = default(100),
    }
}

words! {
    /// Client authentication.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ClientAuth {
        /// Required, if authorities for them are configured.
        Required = "required",
        /// A certificate is verified if the caller presents one.
        Optional = "optional",
        /// A certificate is optional, and verified by the tenants.
        Tenants = "tenants",
    }
}

words! {
    /// A version of TLS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum TlsVersion {
        /// 1.2.
        V12 = "1.2",
        /// 1.3.
        V13 = "1.3",
    }
}

keys! {
    /// TLS settings of a client.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ClientTls {
        /// PEM file with the certificate authorities to verify the server with, instead of the system's.
        pub ca_file: Option<PathBuf> = unset("/etc/metrifold/ca.crt"),
        /// PEM file with the client certificate, for servers that request one. Requires `key_file`.
        pub cert_file: Option<PathBuf> = unset("/etc/metrifold/tls.crt"),
        /// PEM file with the private key of the certificate. Requires `cert_file`.
        pub key_file: Option<PathBuf> = unset("/etc/metrifold/tls.key"),
        /// Name to verify the server's certificate against, instead of the host of the URL. It is also sent in the TLS handshake (SNI).
        pub server_name: Option<String> = unset("receive.example"),
        /// Disable verification of the server's certificate.
        pub insecure_skip_verify: bool = default(false),
    }
}

/// PEM in place of files, such as from a kubeconfig.
#[derive(Clone, Default)]
pub struct Pem {
    /// Authorities by which the server is verified.
    pub ca: Option<Vec<u8>>,
    /// The client's certificate.
    pub cert: Option<Vec<u8>>,
    /// The certificate's private key.
    pub key: Option<Vec<u8>>,
}

impl ServerTls {
    /// Files that the keys name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [
            Some(&self.cert_file),
            Some(&self.key_file),
            self.client_ca_file.as_ref(),
            self.client_crl_file.as_ref(),
        ];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reports problems at keys below `prefix`. Files are read only if the problems' environment
    /// allows it.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        let authorities = self.client_ca_file.is_some();
        match self.client_auth {
            ClientAuth::Tenants if authorities => {
                let what = "has no effect: with client_auth = \"tenants\", tenants verify certificates with their own authorities";
                let problem = problems.at(format!("{prefix}.client_ca_file"), what);
                problem.help("remove it, or set client_auth = \"optional\"");
            }
            ClientAuth::Optional if !authorities => {
                let what = "needs the authorities that verify client certificates";
                let problem = problems.at(format!("{prefix}.client_auth"), what);
                problem.help("set client_ca_file");
            }
            _ => {}
        }
        if self.http2_max_streams == 0 {
            problems.at(format!("{prefix}.http2_max_streams"), "must be at least 1");
        }
        if self.client_crl_file.is_some() && !authorities {
            let what = "has no effect without client_ca_file";
            let problem = problems.at(format!("{prefix}.client_crl_file"), what);
            problem.help("set client_ca_file, or write it under a tenant's mtls");
        }
        if !problems.environment() {
            return;
        }
        let mut sound = true;
        let mut check = |key: &str, result: Result<(), String>| {
            if let Err(error) = result {
                problems.at(format!("{prefix}.{key}"), error);
                sound = false;
            }
        };
        check("cert_file", certificates(&self.cert_file).map(drop));
        check("key_file", private_key(&self.key_file).map(drop));
        if let Some(file) = &self.client_ca_file {
            check("client_ca_file", roots(file).map(drop));
        }
        if let Some(file) = &self.client_crl_file {
            check("client_crl_file", revocations(file).map(drop));
        }
        // All files are readable, so that an error means that they do not match.
        if sound && let Err(error) = self.config() {
            problems.at(format!("{prefix}.key_file"), error.reason);
        }
    }

    /// Expiry of the certificate shown to callers, if it can be parsed.
    pub fn expires(&self) -> Option<SystemTime> {
        let chain = certificates(&self.cert_file).ok()?;
        client_certificate(chain.first()?)?.not_after
    }

    /// Reads the files and builds rustls's configuration.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or used; the error names the key.
    pub fn config(&self) -> Result<Arc<ServerConfig>, BuildError> {
        let chain = at("tls.cert_file", certificates(&self.cert_file))?;
        let key = at("tls.key_file", private_key(&self.key_file))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(match self.min_version {
                TlsVersion::V12 => rustls::ALL_VERSIONS,
                TlsVersion::V13 => &ONLY_13,
            })
            .map_err(|error| BuildError::new("tls", error))?;
        let verifier: Option<Arc<dyn ClientCertVerifier>> = match &self.client_ca_file {
            None if self.client_auth == ClientAuth::Tenants => Some(Arc::new(Presented)),
            None => None,
            Some(file) => {
                let builder = verifier(file, self.client_crl_file.as_deref());
                let builder = at("tls.client_ca_file", builder)?;
                let builder = match self.client_auth {
                    ClientAuth::Optional => builder.allow_unauthenticated(),
                    ClientAuth::Required | ClientAuth::Tenants => builder,
                };
                let built = builder.build();
                Some(built.map_err(|error| BuildError::new("tls.client_ca_file", error))?)
            }
        };
        let certified = verifier.is_some();
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| mismatch(&self.cert_file, &self.key_file, &error))?;
        config.alpn_protocols = match self.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        if certified {
            // A resumed session is not verified again: a certificate that was revoked or has
            // expired meanwhile would still be accepted.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }
}

/// A verifier for callers' certificates: signed by one of these authorities, and not revoked.
///
/// # Errors
///
/// Fails with the reason when a file cannot be read or used.
pub fn client_verifier(
    ca_file: &Path,
    crl_file: Option<&Path>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    verifier(ca_file, crl_file)?
        .build()
        .map_err(|error| format!("{} cannot be used: {error}", ca_file.display()))
}

fn verifier(ca_file: &Path, crl_file: Option<&Path>) -> Result<ClientCertVerifierBuilder, String> {
    let roots = roots(ca_file)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(file) = crl_file {
        // A list that has expired says nothing about revocations since: its certificates are refused.
        builder = builder
            .with_crls(revocations(file)?)
            .enforce_revocation_expiration();
    }
    Ok(builder)
}

impl ClientTls {
    /// Files that the keys name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reports problems at keys below `prefix`. Files are read only if the problems' environment
    /// allows it.
    pub fn validate(&self, prefix: &str, problems: &mut Problems) {
        let environment = problems.environment();
        let mut sound = true;
        let mut check = |key: &str, result: Result<(), String>| {
            if let Err(error) = result {
                problems.at(format!("{prefix}.{key}"), error);
                sound = false;
            }
        };
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => check(
                "cert_file",
                Err("a certificate needs its private key: set key_file".to_owned()),
            ),
            (None, Some(_)) => check(
                "key_file",
                Err("a private key needs its certificate: set cert_file".to_owned()),
            ),
            _ => {}
        }
        if let Some(name) = &self.server_name {
            check("server_name", server_name(name).map(drop));
        }
        if !environment {
            return;
        }
        if let Some(file) = &self.ca_file {
            check("ca_file", roots(file).map(drop));
        }
        if let Some(file) = &self.cert_file {
            check("cert_file", certificates(file).map(drop));
        }
        if let Some(file) = &self.key_file {
            check("key_file", private_key(file).map(drop));
        }
        if sound && let Err(error) = self.config() {
            problems.at(format!("{prefix}.key_file"), error.reason);
        }
    }

    /// Reads the files and builds rustls's configuration for HTTP/1.1. `server_name` is part of it
    /// for the check of the server's certificate only; code that connects itself must also request
    /// [`ClientTls::name`].
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or used; the error names the key.
    pub fn config(&self) -> Result<ClientConfig, BuildError> {
        self.config_with(&Pem::default())
    }

    /// As [`config`](Self::config), with the contents of `pem` in place of files.
    pub(crate) fn config_with(&self, pem: &Pem) -> Result<ClientConfig, BuildError> {
        let roots = match (&pem.ca, &self.ca_file) {
            (Some(ca), _) => Some(roots_in(ca, Path::new(INLINE))),
            (None, file) => file.as_deref().map(roots),
        };
        let trust = match roots {
            _ if self.insecure_skip_verify => Trust::Anybody,
            None => Trust::System,
            Some(roots) => {
                let roots = at("tls.ca_file", roots)?;
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                        .build()
                        .map_err(|error| BuildError::new("tls.ca_file", error))?;
                Trust::Given(verifier)
            }
        };
        let verifier = Verifier {
            trust,
            name: self.name()?,
            provider: provider(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::new("tls", error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let inline = Path::new(INLINE);
        let chain = match (&pem.cert, &self.cert_file) {
            (Some(cert), _) => Some((certificates_in(cert, inline), inline)),
            (None, file) => file.as_deref().map(|file| (certificates(file), file)),
        };
        let key = match (&pem.key, &self.key_file) {
            (Some(key), _) => Some((private_key_in(key, inline), inline)),
            (None, file) => file.as_deref().map(|file| (private_key(file), file)),
        };
        let mut config = match (chain, key) {
            (Some((chain, cert_file)), Some((key, key_file))) => {
                let chain = at("tls.cert_file", chain)?;
                let key = at("tls.key_file", key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| mismatch(cert_file, key_file, &error))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => {
                return Err(BuildError::new(
                    "tls",
                    "cert_file and key_file must be set together",
                ));
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The name to request from the server, if it is not the endpoint's host.
    ///
    /// # Errors
    ///
    /// Fails when `server_name` is neither a DNS name nor an IP address.
    pub fn name(&self) -> Result<Option<ServerName<'static>>, BuildError> {
        match &self.server_name {
            None => Ok(None),
            Some(name) => at("tls.server_name", server_name(name)).map(Some),
        }
    }
}

/// A client's configuration that accepts the certificate in a file, under any name, and no other one.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub fn pinned(cert_file: &Path) -> Result<ClientConfig, BuildError> {
    let mut chain = at("tls.cert_file", certificates(cert_file))?;
    // `certificates` returns at least one.
    let verifier = Verifier {
        trust: Trust::One(chain.swap_remove(0)),
        name: None,
        provider: provider(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::new("tls", error))?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(builder.with_no_client_auth())
}

/// Makes aws-lc-rs the crypto provider of the process, for libraries that use the default (such as
/// reqwest). Has no effect if there is one already.
pub fn install_crypto_provider() {
    // An error means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn mismatch(cert_file: &Path, key_file: &Path, error: &rustls::Error) -> BuildError {
    let (cert_file, key_file) = (cert_file.display(), key_file.display());
    let reason = match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key_file} is not the private key of the certificate in {cert_file}")
        }
        error => format!("{cert_file} and {key_file} cannot be used: {error}"),
    };
    BuildError::new("tls.key_file", reason)
}

fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is neither a DNS name nor an IP address"))
}

fn at<T>(key: &str, result: Result<T, String>) -> Result<T, BuildError> {
    result.map_err(|error| BuildError::new(key, error))
}
