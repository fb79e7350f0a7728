//! TLS: certificates of both sides, names, and its keys.

use super::*;

#[tokio::test]
async fn a_client_certificate_reaches_the_handler() {
    let authority = Authority::new();
    let (cert_file, key_file) = authority.issue("team-a", &["agent.test", "10.0.0.7"]);
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, true)), By(who));
    let client = secure(ClientTls {
        ca_file: Some(authority.file("ca.crt")),
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..ClientTls::default()
    });
    let reply = post(&client, &https(route.local_addr())).await.unwrap();
    assert_eq!(
        reply.excerpt,
        "Some((Some(\"team-a\"), [\"unit of team-a\"], \
         [Dns(\"agent.test\"), Ip(10.0.0.7), Uri(\"spiffe://test/team-a\")]))"
    );
}

#[tokio::test]
async fn callers_without_a_certificate_of_the_authority_are_refused() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, true)), By(who));
    let ca_file = Some(authority.file("ca.crt"));
    let nobody = secure(ClientTls {
        ca_file: ca_file.clone(),
        ..ClientTls::default()
    });
    let strangers = Authority::new();
    let (cert_file, key_file) = strangers.issue("stranger", &[]);
    let stranger = secure(ClientTls {
        ca_file,
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..ClientTls::default()
    });
    for client in [nobody, stranger] {
        let error = post(&client, &https(route.local_addr())).await.unwrap_err();
        assert!(
            matches!(error.kind, TransportKind::Tls | TransportKind::Reset),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_unless_nobody_looks() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let other = Authority::new();
    let wrong = secure(ClientTls {
        ca_file: Some(other.file("ca.crt")),
        ..ClientTls::default()
    });
    let error = post(&wrong, &https(route.local_addr())).await.unwrap_err();
    assert_eq!(error.kind, TransportKind::Tls);
    assert!(error.message.contains("set tls.ca_file"), "{error}");
    let blind = secure(ClientTls {
        insecure_skip_verify: true,
        ..ClientTls::default()
    });
    let reply = post(&blind, &https(route.local_addr())).await.unwrap();
    assert_eq!(reply.excerpt, "None");
}

#[tokio::test]
async fn the_server_name_stands_in_for_the_host() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let uri = format!("https://{}/", route.local_addr());
    let named = |name: Option<&str>| {
        secure(ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            server_name: name.map(str::to_owned),
            ..ClientTls::default()
        })
    };
    let error = post(&named(None), &uri).await.unwrap_err();
    assert_eq!(error.kind, TransportKind::Tls);
    assert!(error.message.contains("set tls.server_name"), "{error}");
    assert!(post(&named(Some("wrong.test")), &uri).await.is_err());
    let reply = post(&named(Some("metrics.test")), &uri).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_bounded() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(&ClientConfig {
        connect_timeout: Duration::from_millis(50),
        ..config()
    })
    .unwrap();
    let error = post(&client, &format!("https://{address}/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Connect);
    assert!(error.message.contains("not done in 50ms"), "{error}");
}

#[test]
fn tls_problems_are_found_at_their_keys() {
    let authority = Authority::new();
    let (cert_file, key_file) = authority.issue("a", &[]);
    let (_, other_key) = authority.issue("b", &[]);
    let find = |tls: &ClientTls, environment| {
        let mut problems = Problems::new(environment);
        tls.validate("tls", &mut problems);
        let paths = problems.into_list().into_iter().map(|p| p.path);
        paths.collect::<Vec<_>>().join(" ")
    };
    let good = ClientTls {
        ca_file: Some(authority.file("ca.crt")),
        cert_file: Some(cert_file.clone()),
        key_file: Some(key_file.clone()),
        server_name: Some("metrics.test".to_owned()),
        insecure_skip_verify: false,
    };
    assert_eq!(find(&good, true), "");
    let mut tls = good.clone();
    tls.key_file = None;
    assert_eq!(find(&tls, false), "tls.cert_file");
    tls.key_file = Some(other_key);
    assert_eq!(find(&tls, false), "");
    assert_eq!(find(&tls, true), "tls.key_file");
    tls.ca_file = Some(authority.file("nowhere"));
    tls.cert_file = Some(key_file.clone());
    tls.key_file = Some(cert_file.clone());
    tls.server_name = Some("not a name".to_owned());
    assert_eq!(
        find(&tls, true),
        "tls.server_name tls.ca_file tls.cert_file tls.key_file"
    );
    let server = ServerTls {
        cert_file,
        key_file: authority.file("nowhere"),
        client_ca_file: Some(key_file),
        client_crl_file: None,
        client_auth: crate::ClientAuth::Required,
        min_version: crate::tls::TlsVersion::V12,
        http2: true,
        http2_max_streams: 100,
    };
    let mut problems = Problems::new(true);
    server.validate("tls", &mut problems);
    let list = problems.into_list();
    assert_eq!(list[0].path, "tls.key_file");
    assert!(list[0].message.starts_with("cannot read"), "{list:?}");
    assert_eq!(list[1].path, "tls.client_ca_file");
}
