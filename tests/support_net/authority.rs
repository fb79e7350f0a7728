//! A certificate authority of the test's own, and what it signs, as files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use metrifold_http::{ClientTls, ServerTls};

pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
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
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Signs a certificate for loopback; returns its file and its key's.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("crt"), path("key"))
    }

    /// A server that asks for certificates of `clients`.
    pub fn server(&self, clients: Option<&Path>) -> ServerTls {
        let (cert_file, key_file) = self.issue("server");
        ServerTls {
            cert_file,
            key_file,
            client_ca_file: clients.map(Path::to_owned),
        }
    }

    /// A client that trusts this authority and shows a certificate if it has one.
    pub fn client(&self, certificate: Option<(PathBuf, PathBuf)>) -> ClientTls {
        let (cert_file, key_file) = certificate.unzip();
        ClientTls {
            ca_file: Some(self.ca()),
            cert_file,
            key_file,
            ..ClientTls::default()
        }
    }
}
