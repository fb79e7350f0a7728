//! TLS for listeners and clients: the keys under `tls`, and rustls configurations from them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use x509_parser::extensions::GeneralName;

use metrifold_base::{BuildError, Problems, keys, read_file, words};
use metrifold_model::{AlternativeName, ClientCertificate};

/// Largest file with certificates, ten times that of all authorities that browsers trust.
const MAX_PEM: u64 = 4 << 20;

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

/// Reads the certificate revocation lists of a file.
fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let pem = pem_file(file)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.map_err(|error| unusable(file, &error, "list of revoked certificates"))?;
    if lists.is_empty() {
        let error = pem::Error::NoItemsFound;
        return Err(unusable(file, &error, "list of revoked certificates"));
    }
    Ok(lists)
}

/// Accepts any certificate whose key the caller has. Its signer is unknown, and must be checked by
/// the code that uses it.
#[derive(Debug)]
struct Presented;

impl ClientCertVerifier for Presented {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
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

/// The issuer's name in a certificate, in DER as in [`ClientCertVerifier::root_hint_subjects`]. `None`
/// if the certificate is malformed.
pub fn issuer_name(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.issuer().as_raw().to_vec())
}

/// Kind of a PEM file's content that expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// Certificates, at least one of which is not an authority's.
    Certificate,
    /// Certificates of authorities only.
    Authority,
    /// Revocation lists.
    RevocationList,
}

impl Expiring {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Authority => "authority",
            Self::RevocationList => "revocation_list",
        }
    }
}

/// What a file in PEM holds, and when it expires: when the first certificate or list does. Of authorities,
/// a file may still hold old ones beside their successors, so that those that have expired at `now` count
/// only if all have. `None` if it holds nothing that expires.
pub fn expiry(pem: &[u8], now: SystemTime) -> Option<(Expiring, SystemTime)> {
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let mut times = Vec::new();
    let mut of_authorities = true;
    for der in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
            continue;
        };
        of_authorities &= certificate.is_ca();
        times.push(at(certificate.validity().not_after.timestamp()));
    }
    if !times.is_empty() && !of_authorities {
        return Some((Expiring::Certificate, times.into_iter().min()?));
    }
    if !times.is_empty() {
        let valid = times.iter().filter(|time| **time > now).min();
        let time = valid.or(times.iter().max()).copied()?;
        return Some((Expiring::Authority, time));
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).filter_map(Result::ok);
    let times = lists.filter_map(|der| {
        let (_, list) = x509_parser::parse_x509_crl(&der).ok()?;
        Some(at(list.next_update()?.timestamp()))
    });
    Some((Expiring::RevocationList, times.min()?))
}

/// The owner in a client certificate, which must have been verified.
pub fn client_certificate(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let common_name = subject
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .map(str::to_owned);
    let organizational_units = subject
        .iter_organizational_unit()
        .filter_map(|unit| unit.as_str().ok())
        .map(str::to_owned)
        .collect();
    let alternative_names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    let serial = certificate.raw_serial().iter();
    Some(ClientCertificate {
        der: Arc::from(&**der),
        serial: serial.map(|byte| format!("{byte:02x}")).collect(),
        issuer: certificate.issuer().to_string(),
        common_name,
        organizational_units,
        alternative_names,
        not_after: u64::try_from(certificate.validity().not_after.timestamp())
            .ok()
            .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
    })
}

/// The certificates that a client accepts.
#[derive(Debug)]
enum Trust {
    System,
    Given(Arc<WebPkiServerVerifier>),
    One(CertificateDer<'static>),
    Anybody,
}

/// Checks a server's certificate according to `tls`. Signatures are always checked, so that the
/// server has at least the key of its certificate.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::One(certificate) if certificate == end_entity => {
                return Ok(ServerCertVerified::assertion());
            }
            Trust::One(_) => return Err(rustls::CertificateError::UnknownIssuer.into()),
            Trust::Given(verifier) => verifier,
            Trust::System => system_verifier()?,
        };
        let server_name = self.name.as_ref().unwrap_or(server_name);
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Verifier with the operating system's authorities, which are read for the first connection: a
/// process with plain HTTP only may run in an image without any.
fn system_verifier() -> Result<&'static Arc<WebPkiServerVerifier>, rustls::Error> {
    static VERIFIER: OnceLock<Result<Arc<WebPkiServerVerifier>, String>> = OnceLock::new();
    let verifier = VERIFIER.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("this system has no root certificates: set tls.ca_file".to_owned());
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| error.to_string())
    });
    verifier
        .as_ref()
        .map_err(|error| rustls::Error::General(error.clone()))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Arc::clone(PROVIDER.get_or_init(make))
}

/// Reads a file with certificates or a key.
fn pem_file(file: &Path) -> Result<Vec<u8>, String> {
    read_file(file, MAX_PEM).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&pem_file(file)?, file)
}

/// Parses certificates in PEM; `file` is named in errors.
fn certificates_in(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| unusable(file, &error, "certificate"))?;
    if certificates.is_empty() {
        return Err(unusable(file, &pem::Error::NoItemsFound, "certificate"));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    private_key_in(&pem_file(file)?, file)
}

fn private_key_in(pem: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(file, &error, "private key"))
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    roots_in(&pem_file(file)?, file)
}

fn roots_in(pem: &[u8], file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(pem, file)? {
        roots.add(certificate).map_err(|error| {
            format!(
                "{} contains an unusable certificate: {error}",
                file.display()
            )
        })?;
    }
    Ok(roots)
}

/// Why a PEM file cannot be used. Nothing of its content is shown, since it may be a key.
fn unusable(file: &Path, error: &pem::Error, wanted: &str) -> String {
    let file = file.display();
    match error {
        pem::Error::NoItemsFound => format!("{file} contains no {wanted} in PEM"),
        _ => format!("{file} is not valid PEM"),
    }
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

fn name(name: &GeneralName<'_>) -> Option<AlternativeName> {
    match name {
        GeneralName::DNSName(name) => Some(AlternativeName::Dns((*name).to_owned())),
        GeneralName::RFC822Name(name) => Some(AlternativeName::Email((*name).to_owned())),
        GeneralName::URI(name) => Some(AlternativeName::Uri((*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(AlternativeName::Ip)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, of_authority: bool) -> String {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        if of_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn an_old_authority_counts_only_while_it_is_the_last_and_an_old_certificate_always() {
        let at = |year: i32| {
            UNIX_EPOCH + Duration::from_secs(date_time_ymd(year, 1, 1).unix_timestamp() as u64)
        };
        let f = |all: &[(i32, bool)]| {
            let pem: String = all
                .iter()
                .map(|(year, ca)| certificate(*year, *ca))
                .collect();
            expiry(pem.as_bytes(), at(2020))
        };
        use Expiring::{Authority, Certificate};
        assert_eq!(
            f(&[(2019, true), (2031, true), (2030, true)]),
            Some((Authority, at(2030)))
        );
        assert_eq!(
            f(&[(2018, true), (2019, true)]),
            Some((Authority, at(2019)))
        );
        assert_eq!(
            f(&[(2019, false), (2030, true)]),
            Some((Certificate, at(2019)))
        );
        assert_eq!(
            f(&[(2031, false), (2030, true)]),
            Some((Certificate, at(2030)))
        );
        assert_eq!(f(&[]), None);
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(expiry(key.as_bytes(), at(2020)), None);
    }
}
