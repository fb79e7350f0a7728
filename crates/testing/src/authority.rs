//! A certificate authority of a test, and its certificates, as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// Files of a certificate and of its key.
type Identity = (PathBuf, PathBuf);

pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// The last serial number, and those of the certificates by their files.
    serials: Mutex<(u64, BTreeMap<PathBuf, u64>)>,
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
            serials: Mutex::default(),
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Issues a certificate for loopback; returns the files of certificate and key.
    pub fn issue(&self, name: &str) -> Identity {
        self.issue_for(name, &["127.0.0.1", "localhost"])
    }

    /// Issues a certificate for these names.
    fn issue_for(&self, name: &str, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        let mut serials = self.serials.lock().unwrap();
        serials.0 += 1;
        let serial = serials.0;
        serials.1.insert(path("crt"), serial);
        drop(serials);
        params.serial_number = Some(serial.into());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("crt"), path("key"))
    }

    /// A list in PEM that revokes these certificates.
    pub fn revocations(&self, number: u64, revoked: &[&Path]) -> String {
        self.list(number, revoked, 2100)
    }

    /// A list in PEM that revokes nothing and has expired.
    pub fn expired_revocations(&self, number: u64) -> String {
        self.list(number, &[], 2026)
    }

    fn list(&self, number: u64, revoked: &[&Path], until: i32) -> String {
        let serials = self.serials.lock().unwrap();
        let revoked = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: serials.1[*certificate].into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(until, 1, 2),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// TLS of a server, which requires certificates of `clients` if given.
    pub fn server(&self, clients: Option<&Path>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(roots(ca));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificates, key) = read(&self.issue("server"));
        Arc::new(builder.with_single_cert(certificates, key).unwrap())
    }

    /// TLS of a server with a certificate for these names only.
    pub fn server_of(&self, names: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let (certificates, key) = read(&self.issue_for(names[0], names));
        let builder = builder.with_no_client_auth();
        Arc::new(builder.with_single_cert(certificates, key).unwrap())
    }

    /// TLS of a client that trusts this authority, with a certificate if given.
    pub fn client(&self, identity: Option<Identity>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots(&self.ca()));
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificates, key) = read(&identity);
                builder.with_client_auth_cert(certificates, key).unwrap()
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(file).unwrap();
    certificates.map(|found| found.unwrap()).collect()
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(file));
    assert_eq!(added, 1);
    roots
}

fn read((certificate, key): &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    (certificates(certificate), key)
}
