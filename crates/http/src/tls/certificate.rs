//! Reads certificates: their owners, their issuers, and when they expire.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;

use metrifold_model::{AlternativeName, ClientCertificate};

/// The issuer's name in a certificate, in DER as in [`root_hint_subjects`]. `None`
/// if the certificate is malformed.
///
/// [`root_hint_subjects`]: rustls::server::danger::ClientCertVerifier::root_hint_subjects
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

/// The kind of content of a file in PEM, and when the first certificate or list in it expires. Of authorities,
/// a file may still hold old ones beside their successors, so that those that have expired at `now` count
/// only if all have. `None` if the file holds nothing that expires.
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
