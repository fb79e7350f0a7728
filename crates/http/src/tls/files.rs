//! Reading files in PEM, bounded, without a word of their content in errors.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use metrifold_base::read_file;

/// Largest file with certificates, ten times that of all authorities that browsers trust.
const MAX_PEM: u64 = 4 << 20;

/// Reads the certificate revocation lists of a file.
pub(super) fn revocations(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let pem = pem_file(file)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.map_err(|error| unusable(file, &error, "list of revoked certificates"))?;
    if lists.is_empty() {
        let error = pem::Error::NoItemsFound;
        return Err(unusable(file, &error, "list of revoked certificates"));
    }
    Ok(lists)
}

/// Reads a file with certificates or a key.
pub(super) fn pem_file(file: &Path) -> Result<Vec<u8>, String> {
    read_file(file, MAX_PEM).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&pem_file(file)?, file)
}

/// Parses certificates in PEM; `file` is named in errors.
pub(super) fn certificates_in(
    pem: &[u8],
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| unusable(file, &error, "certificate"))?;
    if certificates.is_empty() {
        return Err(unusable(file, &pem::Error::NoItemsFound, "certificate"));
    }
    Ok(certificates)
}

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    private_key_in(&pem_file(file)?, file)
}

pub(super) fn private_key_in(pem: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(file, &error, "private key"))
}

pub(super) fn roots(file: &Path) -> Result<RootCertStore, String> {
    roots_in(&pem_file(file)?, file)
}

pub(super) fn roots_in(pem: &[u8], file: &Path) -> Result<RootCertStore, String> {
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
pub(super) fn unusable(file: &Path, error: &pem::Error, wanted: &str) -> String {
    let file = file.display();
    match error {
        pem::Error::NoItemsFound => format!("{file} contains no {wanted} in PEM"),
        _ => format!("{file} is not valid PEM"),
    }
}
