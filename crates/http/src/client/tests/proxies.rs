//! Proxies.

use super::*;

#[tokio::test]
async fn a_proxy_is_asked_in_the_form_that_the_endpoint_needs() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let (address, seen) = proxy(false).await;
    let client = Client::new(&ClientConfig {
        tls: ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            ..ClientTls::default()
        },
        proxy_url: Some(format!("http://{address}").parse().unwrap()),
        ..config()
    })
    .unwrap();
    let reply = post(&client, "http://far.test/write?x=y").await.unwrap();
    assert_eq!(reply.excerpt, "proxied");
    let far = https(route.local_addr());
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    let tunnel = format!("CONNECT localhost:{} HTTP/1.1", route.local_addr().port());
    let lines = ["POST http://far.test/write?x=y HTTP/1.1", &*tunnel];
    assert_eq!(*seen.lock().unwrap(), lines);
}

#[tokio::test]
async fn a_proxy_hears_its_own_password_and_the_endpoint_does_not() {
    let authority = Authority::new();
    let (_listeners, route, _serving) = serving(&listen_tls(tls(&authority, false)), By(who));
    let (address, seen) = proxy(false).await;
    let client = Client::new(&ClientConfig {
        tls: ClientTls {
            ca_file: Some(authority.file("ca.crt")),
            ..ClientTls::default()
        },
        proxy_url: Some(format!("http://{address}").parse().unwrap()),
        proxy_basic_auth: Some(BasicAuth {
            username: "u".to_owned(),
            password: Some(Secret::new("p")),
            password_file: None,
        }),
        ..config()
    })
    .unwrap();
    post(&client, "http://far.test/").await.unwrap();
    let far = https(route.local_addr());
    assert_eq!(post(&client, &far).await.unwrap().excerpt, "None");
    let tunnel = format!(
        "CONNECT localhost:{} HTTP/1.1 Basic dTpw",
        route.local_addr().port()
    );
    let lines = ["POST http://far.test/ HTTP/1.1 Basic dTpw", &*tunnel];
    assert_eq!(*seen.lock().unwrap(), lines);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_not_there_is_a_proxy_error() {
    let (address, _) = proxy(true).await;
    let through = |address: SocketAddr| {
        let proxy_url = Some(format!("http://{address}").parse().unwrap());
        Client::new(&ClientConfig {
            proxy_url,
            ..config()
        })
        .unwrap()
    };
    let error = post(&through(address), "https://far.test/")
        .await
        .unwrap_err();
    assert_eq!(error.kind, TransportKind::Proxy, "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for uri in ["https://far.test/", "http://far.test/"] {
        let error = post(&through(address), uri).await.unwrap_err();
        assert_eq!(error.kind, TransportKind::Proxy, "{error}");
        assert!(error.message.contains(&address.to_string()), "{error}");
    }
}
