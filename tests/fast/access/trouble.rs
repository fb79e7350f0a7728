//! Trouble with certificates, issuers and tenants as operators see it, and errors as callers see them.

use std::fs;

use metrifold_testing::issuer::{OpenIdIssuer, forged};
use metrifold_testing::series::{TYPE_1, TYPE_2};
use metrifold_testing::{Authority, Endpoint, Metrifold, Sender, expect, request, until, up};

use super::{AS_ACME, files, numbered, post, tenants, writing};

#[test]
fn whatever_expires_has_a_metric() {
    let (authority, endpoint) = (Authority::new(), Endpoint::healthy());
    let (cert, key) = authority.issue("server");
    let (client, client_key) = authority.issue("client");
    let ca = authority.ca();
    let list = ca.with_file_name("revoked.pem");
    fs::write(&list, authority.revocations(1, &[])).unwrap();
    let tenants_list = ca.with_file_name("revoked-of-tenant.pem");
    fs::write(&tenants_list, authority.expired_revocations(1)).unwrap();
    let tenants_ca = ca.with_file_name("of-tenant.crt");
    fs::copy(&ca, &tenants_ca).unwrap();
    let gateway = Metrifold::start(&format!(
        "[tenants.acme.mtls]\nca_file = {tenants_ca:?}\ncrl_file = {tenants_list:?}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sources.ingest.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n\
         client_ca_file = {ca:?}\nclient_crl_file = {list:?}\n\
         [sinks.thanos]\ntype = \"thanos\"\ninputs = [\"ingest\"]\nendpoint = \"{}\"\n\
         tls = {{ cert_file = {client:?}, key_file = {client_key:?} }}\n",
        endpoint.url(),
    ));
    let expiry = |file: &std::path::Path, content: &str| {
        let labels = [("file", file.to_str().unwrap()), ("content", content)];
        gateway.metric("metrifold_file_expiry_timestamp_seconds", &labels)
    };
    until("the metrics are there", || {
        (expiry(&ca, "authority") > 0.0).then_some(())
    });
    for file in [&cert, &client] {
        assert!(expiry(file, "certificate") > 1.7e9, "{file:?}");
    }
    assert!(expiry(&tenants_ca, "authority") > 1.7e9);
    // 2100-01-02 and 2026-01-02.
    assert_eq!(expiry(&list, "revocation_list"), 4_102_531_200.0);
    assert_eq!(expiry(&tenants_list, "revocation_list"), 1_767_312_000.0);
    let page = gateway.get("/metrics").text();
    assert!(!page.contains(key.to_str().unwrap()));

    fs::write(&tenants_list, authority.revocations(2, &[])).unwrap();
    until("the new list is seen", || {
        (expiry(&tenants_list, "revocation_list") > 4e9).then_some(())
    });
}

#[test]
fn failing_issuers_and_tenants_that_are_set_aside_are_shown() {
    let (folder, issuer) = (files(), OpenIdIssuer::start("jane", 300));
    let file = folder.path().join("tenants.yaml");
    let sound = format!(
        "tenants:\n- name: reached\n  id: id-1\n  oidc:\n    clientID: gateway\n    issuerURL: {}\n\
         - name: unreached\n  id: id-2\n  oidc:\n    clientID: gateway\n    issuerURL: http://127.0.0.1:1\n",
        issuer.url()
    );
    let aside = "- name: aside\n  id: id-aside\n  mTLS:\n    caPath: /nowhere/ca.crt\n";
    fs::write(&file, format!("{sound}{aside}")).unwrap();
    let endpoint = Endpoint::healthy();
    let more = format!("[api]\naddress = \"API\"\n[access]\ntenants_file = {file:?}\n");
    let gateway = Metrifold::start(&writing(folder.path(), &endpoint, &more));
    let metric = |name: &str| gateway.metric(&format!("metrifold_{name}"), &[]);
    until("the issuer was tried", || {
        (metric("issuers_failing") == 1.0).then_some(())
    });
    assert_eq!(metric("tenants_set_aside"), 1.0);
    assert_eq!(metric("issuer_keys_age_seconds"), f64::INFINITY);
    let access = gateway.get("/api/v1/topology").json()["access"].take();
    assert_eq!(access["tenants"][0]["name"], "aside", "{access}");
    let reason = access["tenants"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("/nowhere/ca.crt"), "{access}");
    assert_eq!(access["issuers"][0]["issuer"], "http://127.0.0.1:1");
    assert!(access["issuers"][0]["keys_age_seconds"].is_null());
    assert_eq!(access["issuers"].as_array().unwrap().len(), 1, "{access}");

    // The other one fails as well: a token of a key that it may have now asks it.
    issuer.is_down(true);
    let token = forged(
        &serde_json::json!({ "iss": issuer.url(), "aud": "gateway", "sub": "jane", "exp": 4e9 }),
        "EdDSA",
        b"none",
    );
    let bearer = format!("Bearer {token}");
    until("the keys are asked for again", || {
        post(&gateway, "/of/reached/write", &[("authorization", &bearer)]);
        (metric("issuers_failing") == 2.0).then_some(())
    });
    let access = gateway.get("/api/v1/topology").json()["access"].take();
    assert!(
        access["issuers"][1]["keys_age_seconds"].as_f64() > Some(0.0),
        "{access}"
    );

    fs::write(&file, "tenants: []\n").unwrap();
    until("nothing is shown without trouble", || {
        let access = gateway.get("/api/v1/topology").json()["access"].take();
        let none = metric("tenants_set_aside") + metric("issuers_failing") == 0.0;
        (access.is_null() && none).then_some(())
    });
    assert_eq!(metric("issuer_keys_age_seconds"), 0.0);
}

#[test]
fn errors_of_whatever_origin_have_the_form_of_prometheus_api() {
    let (folder, endpoint) = (files(), Endpoint::healthy());
    let keys = "address = \"INGEST\"\nmax_body_bytes = \"1KiB\"\nmax_decoded_bytes = \"1KiB\"\nmax_in_flight_bytes = \"2KiB\"\n";
    let more = "[tenants.acme.limits]\nsamples_per_second = 1\n";
    let config = writing(folder.path(), &endpoint, more);
    let config = config.replace("address = \"INGEST\"\n", keys);
    let gateway = Metrifold::start(&config);
    let path = "/of/acme/write";
    let send = |method: &str, path: &str, more: &[(&str, &str)], body: &[u8]| {
        let headers = [AS_ACME, ("content-encoding", "snappy")];
        let headers = [&headers, more].concat();
        request(method, gateway.ingest, path, &headers, body).unwrap()
    };
    let v1 = [("content-type", TYPE_1)];
    let v2 = [
        ("content-type", TYPE_2),
        ("x-prometheus-remote-write-version", "2.0.0"),
    ];
    let other = [("content-type", "text/plain")];
    let over_the_limit = || {
        // More than what the limit lets follow for a while.
        expect(&send("POST", path, &v1, &numbered(20)), 204);
        send("POST", path, &v1, &up(1))
    };
    for (answer, status, error_type) in [
        (send("GET", path, &v1, b""), 405, "bad_data"),
        (send("POST", "/of/acme/other", &v1, b""), 404, "not_found"),
        (send("POST", "/of//write", &v1, b""), 400, "bad_data"),
        (send("POST", path, &other, &up(1)), 415, "bad_data"),
        (send("POST", path, &v1, &[0; 2000]), 413, "bad_data"),
        (send("POST", path, &v1, b"no snappy"), 400, "bad_data"),
        (send("POST", path, &v2, b"no snappy"), 400, "bad_data"),
        (over_the_limit(), 429, "unavailable"),
    ] {
        expect(&answer, status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let error = answer.json();
        assert_eq!(error["status"], "error", "{error}");
        assert_eq!(error["errorType"], error_type, "{error}");
        assert!(!error["error"].as_str().unwrap().is_empty());
        // Senders log the first line.
        assert_eq!(answer.text().lines().count(), 1, "{}", answer.text());
    }
    // The admin address, whose pages for people and probes stay as they are.
    let errors = [
        ("/api/v1/ledger?sink=none", 404, true),
        ("/api/v1/dead-letters?limit=x", 400, true),
        ("/api/v1/none", 404, true),
        ("/-/healthy", 200, false),
    ];
    for (path, status, in_json) in errors {
        let answer = gateway.get(path);
        expect(&answer, status);
        let json = Some("application/json");
        assert_eq!(answer.header("content-type") == json, in_json, "{path}");
    }
    // Without tenants, what the receiver says is a line of text, as Prometheus' own.
    let plain = tenants(folder.path());
    let plain = config
        .replace(&plain, "")
        .replace("access = \"tenants\"\n", "");
    let plain = plain.replace(more, "");
    let gateway = Metrifold::start(&plain.replace("{tenant}", "acme").replace(
        "label = \"tenant_id\"",
        "label = \"tenant_id\"\nfrom = [{ value = \"acme\" }]",
    ));
    let answer = Sender::new(gateway.ingest).post(path, &[], b"no snappy");
    expect(&answer, 400);
    let text = Some("text/plain; charset=utf-8");
    assert_eq!(answer.header("content-type"), text);
    assert_eq!(answer.text().lines().count(), 1);
}
