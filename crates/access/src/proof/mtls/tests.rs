use http::{HeaderMap, Method, Uri};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, date_time_ymd,
};

use metrifold_http::access::Head;

use super::*;

/// A certificate authority, with the folder of its certificate and its list.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), pem).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    /// A certificate with these alternative names, changed by `edit`.
    fn issue(
        &self,
        names: &[SanType],
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(7.into());
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()]
    }

    /// A proof by certificates whose subject is taken from this kind of name, with this revocation list.
    fn accepting(&self, subject: &str, list: Option<&str>) -> Certificates {
        let file = |name: &str| self.folder.path().join(name);
        let list = list.map_or_else(String::new, |list| {
            std::fs::write(file("crl"), list).unwrap();
            format!("crl_file = {:?}\n", file("crl"))
        });
        let text = format!(
            "ca_file = {:?}\nsubject = {subject:?}\n{list}",
            file("ca.crt")
        );
        Certificates::read(&toml::from_str(&text).unwrap()).unwrap()
    }

    /// A list that revokes these serial numbers.
    fn list(&self, revoked: &[u64]) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// The name of the caller, or the reason why it is rejected.
fn prove(by: &Certificates, chain: &[CertificateDer<'static>]) -> Result<String, String> {
    let (headers, uri) = (HeaderMap::new(), Uri::from_static("/"));
    let shown = Shown::of(Head {
        method: &Method::POST,
        uri: &uri,
        headers: &headers,
        params: &[],
        peer: ([127, 0, 0, 1], 1).into(),
        certificate: None,
        presented: chain,
    });
    // Twice, since the second verdict is a cached one.
    let verdicts = [(); 2].map(|()| match by.prove(&shown) {
        Verdict::Proven(proven) => {
            let groups = proven.groups.iter().map(|it| format!("/{it}"));
            let subject = proven.subject.as_deref().unwrap();
            Ok(format!("{subject}{}", groups.collect::<String>()))
        }
        Verdict::Wrong(reason) => Err(reason.to_string()),
        Verdict::Absent | Verdict::Unknown(_) => Err("absent".to_owned()),
    });
    assert_eq!(verdicts[0], verdicts[1]);
    verdicts[0].clone()
}

#[test]
fn names_of_every_kind_name_the_owner() {
    let authority = Authority::new("ours");
    let dns = SanType::DnsName("agent.example".try_into().unwrap());
    let email = SanType::Rfc822Name("agent@example.com".try_into().unwrap());
    let uri = SanType::URI("spiffe://example/agent".try_into().unwrap());
    let address = SanType::IpAddress([10, 0, 0, 7].into());
    let six = SanType::IpAddress("2001:db8::7".parse::<std::net::IpAddr>().unwrap());
    let all = [dns.clone(), address, uri.clone(), email.clone()];
    let named = |params: &mut CertificateParams| {
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "agent");
        name.push(DnType::OrganizationalUnitName, "agents");
    };
    let nameless = |kind: &str| Err(format!("certificate has no {kind}"));
    let among = |kind: &str| nameless(&format!("{kind} among its alternative names"));
    let ok = |name: &str| Ok(format!("{name}/agents"));
    let cases: [(&str, &[SanType], Result<String, String>); 16] = [
        ("any", &all, ok("agent@example.com")),
        ("any", &all[..3], ok("spiffe://example/agent")),
        ("any", &all[..2], ok("agent.example")),
        ("any", &all[1..2], ok("10.0.0.7")),
        ("any", &[], nameless("alternative name")),
        ("email", &all, ok("agent@example.com")),
        ("email", &all[..3], among("e-mail address")),
        ("uri", &all, ok("spiffe://example/agent")),
        ("uri", &[dns.clone(), email], among("URI")),
        ("dns", &all, ok("agent.example")),
        ("dns", &all[1..], among("DNS name")),
        ("ip", &all, ok("10.0.0.7")),
        ("ip", &[six], ok("2001:db8::7")),
        ("ip", &[uri], among("IP address")),
        ("common_name", &all, ok("agent")),
        ("common_name", &[], ok("agent")),
    ];
    for (subject, names, expected) in cases {
        let by = authority.accepting(subject, None);
        let chain = authority.issue(names, named);
        assert_eq!(prove(&by, &chain), expected, "{subject} {names:?}");
    }
    let by = authority.accepting("common_name", None);
    let chain = authority.issue(&[dns], |params| {
        params.distinguished_name = Default::default()
    });
    assert_eq!(prove(&by, &chain), nameless("common name"));
}

#[test]
fn a_certificate_must_be_signed_in_its_time_and_not_revoked() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let names = [SanType::DnsName("agent.example".try_into().unwrap())];
    let by = ours.accepting("any", None);
    let until = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
    };
    let good = ours.issue(&names, |_| {});
    let wrong = |reason: &str| Err(format!("certificate {reason}"));
    assert_eq!(prove(&by, &good), Ok("agent.example".to_owned()));
    assert_eq!(prove(&by, &[]), Err("absent".to_owned()));
    for (chain, reason) in [
        (theirs.issue(&names, |_| {}), "is not trusted"),
        (ours.issue(&names, until(2020, 2021)), "has expired"),
        (ours.issue(&names, until(2090, 2099)), "is not valid yet"),
    ] {
        assert_eq!(prove(&by, &chain), wrong(reason));
    }
    for (revoked, expected) in [
        (&[8][..], Ok("agent.example".to_owned())),
        (&[7, 8], wrong("is revoked")),
    ] {
        let by = ours.accepting("any", Some(&ours.list(revoked)));
        assert_eq!(prove(&by, &good), expected);
    }
    // The list of another authority vouches for nobody.
    let by = ours.accepting("any", Some(&theirs.list(&[])));
    let reason = prove(&by, &good).unwrap_err();
    assert!(reason.contains("no revocation list"), "{reason}");
}
