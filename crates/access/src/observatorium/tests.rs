use std::fs;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};

use metrifold_http::access::Head;
use metrifold_model::RejectionKind;

use super::*;
use crate::shown::Shown;
use crate::tenants::{Settings, Tenants};

/// A tenant in the usual form of the file.
fn tenant(name: &str, id: &str) -> String {
    format!(
        "- name: {name}\n  id: {id}\n  oidc:\n    clientID: c\n    issuerURL: https://issuer.example\n"
    )
}

fn tenants(of: &ForeignTenants) -> Vec<(Membership, &TenantConfig)> {
    of.tenants()
        .map(|tenant| (tenant.membership, tenant.config))
        .collect()
}

#[test]
fn what_is_unchanged_is_taken_over_and_what_has_changed_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.yaml");
    let write = |entries: &[String]| fs::write(&file, format!("tenants:\n{}", entries.concat()));
    let [a, b, c] = ["a", "b", "c"].map(|name| tenant(name, name));
    write(&[a.clone(), b.clone()]).unwrap();
    let first = read_tenants(&file).unwrap();
    write(&[c.clone(), b.clone(), tenant("a", "x")]).unwrap();
    let second = ForeignTenants::read(&file, Some(&first)).unwrap();
    assert_eq!(tenants(&second), tenants(&read_tenants(&file).unwrap()));
    let kept = |at: usize| {
        first
            .entries
            .all
            .iter()
            .any(|entry| Arc::ptr_eq(entry, &second.entries.all[at]))
    };
    assert_eq!([0, 1, 2].map(kept), [false, true, false]);
    let prints = |of: &ForeignTenants| of.tenants().map(|it| it.print).collect::<Vec<_>>();
    assert_eq!(prints(&first)[1], prints(&second)[1]);
    assert!(prints(&first)[1].is_some() && prints(&first)[0] != prints(&second)[2]);
    // The certificate of one that names a file may have changed.
    write(&["- {name: d, id: d, mTLS: {caPath: /d}}\n".to_owned()]).unwrap();
    assert_eq!(prints(&read_tenants(&file).unwrap()), [None]);

    // A key keeps what it has read, and reads again in the next configuration.
    let key =
        || serde_json::from_value::<Foreign<ForeignTenants>>(file.display().to_string().into());
    let now = key().unwrap();
    write(&[a, b]).unwrap();
    assert_eq!(tenants(now.get().unwrap()).len(), 2);
    write(&[c]).unwrap();
    assert_eq!(tenants(now.clone().get().unwrap()).len(), 2);
    let next = key().unwrap();
    next.take_over(&now);
    assert_eq!(tenants(next.get().unwrap()).len(), 1);
}

#[test]
fn a_file_of_any_form_gives_what_its_entries_give() {
    let one = tenant("a", "x");
    let usual = parse_tenants(&format!("tenants:\n{one}"), None, true).unwrap();
    for other in [
        "tenants: [{name: a, id: x, oidc: {clientID: c, issuerURL: 'https://issuer.example'}}]\n",
        "{tenants: [{name: a, id: x, oidc: {clientID: c, issuerURL: 'https://issuer.example'}}]}\n",
        "tenants:\n  -\n    name: a\n    id: x\n    oidc: {clientID: c, issuerURL: https://issuer.example}\n",
        "tenants:\n- name: &n a\n  id: x\n  oidc: {clientID: c, issuerURL: https://issuer.example}\n",
    ] {
        let read = parse_tenants(other, None, true).unwrap();
        assert_eq!(tenants(&read), tenants(&usual), "{other}");
    }
    // An alias for something in another entry.
    let aliased = format!(
        "tenants:\n{one}- name: b\n  id: y\n  oidc: &o\n    clientID: c\n    issuerURL: https://x.example\n\
         - name: d\n  id: z\n  oidc: *o\n"
    );
    assert_eq!(
        parse_tenants(&aliased, None, true)
            .unwrap()
            .tenants()
            .count(),
        3
    );
    // Errors name the line in the file, and the tenant.
    let oidc = "  oidc:\n    clientID: c\n    issuerURL: https://x.example\n";
    for (entry, expected) in [
        (
            "- name: b\n  idd: y\n",
            "tenant \"b\": line 8: key `idd` is unknown",
        ),
        (
            &format!("- name: b\n{oidc}"),
            "tenant \"b\": line 8: key `id` is missing",
        ),
        (
            "- name: b\n  id: [hush]\n",
            "tenant \"b\": line 8: the value of key `id` has another type",
        ),
        (
            "- name: b\n  id: y\n  oidc:\n    clientID: c\n    clientSecret: hush\n",
            "key `issuerURL` is missing",
        ),
        (
            "- name: b\n  id: y\n  authenticator: {type: oidc, config: {clientID: c}}\n",
            "tenant \"b\": line 7: authenticator.config: key `issuerURL` is missing",
        ),
        (
            "- name: b\n  id: y\n",
            "tenant \"b\": line 7: must have exactly one",
        ),
        (
            "- name: b\n  id: y\n  mTLS: {}\n",
            "tenant \"b\": line 7: mTLS.caPath is missing",
        ),
        (
            "- name: b\n  id: y\n  mTLS: {caPath: /nowhere}\n",
            "tenant \"b\": line 7: mTLS.caPath: ",
        ),
        (
            &format!("- name: a/b\n  id: y\n{oidc}"),
            "tenant \"a/b\": line 7: name: ",
        ),
        ("- id: y\n", "line 7: key `name` is missing"),
    ] {
        let text = format!("tenants:\n{one}{entry}");
        let reason = parse_tenants(&text, None, true).unwrap_err();
        assert!(reason.contains(expected), "{entry}: {reason}");
        assert!(!reason.contains("hush"), "{reason}");
    }
    let role = "- name: r\n  resources: [metrics]\n  tenants: [a]\n  permissions: [read]\n";
    let rbac = format!("roles:\n{role}roleBindings:\n- name: b\n  roles: [r]\n");
    let rbac = parse_rbac(&rbac, None).unwrap();
    assert_eq!((rbac.roles().count(), rbac.bindings().count()), (1, 1));
    let twice = parse_rbac(&format!("roles:\n{role}{role}"), None).unwrap_err();
    assert!(twice.contains("declared twice"), "{twice}");
}

#[test]
fn a_file_may_have_more_nodes_than_the_parser_allows_by_default() {
    let many = "a,".repeat(300_000);
    let text = format!("roles: [{{name: r, tenants: [{many}]}}]\n");
    let rbac = parse_rbac(&text, None).unwrap();
    assert_eq!(rbac.roles().count(), 1);
    assert_eq!(rbac_tables(&text).unwrap().0[0].1.tenants.len(), 300_000);
}

fn key(file: &Path) -> Foreign<ForeignTenants> {
    serde_json::from_value(file.display().to_string().into()).unwrap()
}

/// The names of the tenants that are used, and of those that are set aside.
fn names(of: &ForeignTenants) -> (Vec<&str>, Vec<&str>) {
    let used = of.memberships().map(|it| &*it.name).collect();
    (
        used,
        of.aside().iter().map(|aside| aside.name.as_str()).collect(),
    )
}

#[test]
fn a_tenant_that_cannot_be_used_is_set_aside_at_the_start_and_is_an_error_at_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.yaml");
    let write = |text: &str| fs::write(&file, format!("tenants:\n{text}")).unwrap();
    let good = tenant("good", "0123");
    for bad in [
        "- name: bad\n  id: x\n  mTLS: {caPath: /nowhere/ca.crt}\n",
        "- name: bad\n  id: x\n  opa: {query: data.x.allow}\n  oidc: {clientID: c, issuerURL: https://x.example}\n",
        "- name: bad\n  id: x\n  unknown: key\n",
        "- name: bad\n  id: x\n",
        "- name: bad\n  oidc: {clientID: c, issuerURL: https://x.example}\n",
    ] {
        write(&format!("{good}{bad}"));
        let start = key(&file);
        let read = start.get().unwrap();
        assert_eq!(names(read), (vec!["good"], vec!["bad"]), "{bad}");
        assert_eq!(&*read.tenants().next().unwrap().membership.tenant, "0123");
        let reason = &read.aside()[0].reason;
        let place = format!("{}: line ", file.display());
        assert!(reason.starts_with(&place), "{reason}");

        // A tenant that cannot be used stays aside at a reload, and no other is set aside then.
        let reload = key(&file);
        reload.take_over(&start);
        assert_eq!(names(reload.get().unwrap()).1, ["bad"]);
        let worse = bad.replace("name: bad", "name: good");
        write(&worse);
        let refused = key(&file);
        refused.take_over(&reload);
        let reason = refused.get().err().unwrap();
        assert!(reason.contains("tenant \"good\": "), "{reason}");
        write(&format!("{good}{}", tenant("bad", "x")));
        let mended = key(&file);
        mended.take_over(&reload);
        assert_eq!(names(mended.get().unwrap()), (vec!["good", "bad"], vec![]));
    }
    // What is not an entry of any tenant is an error at the start as well.
    write(&format!("{good}- name: [\n"));
    assert!(key(&file).get().is_err());
    write(&format!("{good}- id: nameless\n"));
    assert!(key(&file).get().is_err());
}

#[tokio::test]
async fn callers_of_a_tenant_that_is_set_aside_are_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.yaml");
    // The second has the id of a tenant that can be used.
    let bad = "- name: bad\n  id: id-b\n  mTLS: {caPath: /nowhere/ca.crt}\n\
               - name: worse\n  id: id-g\n  mTLS: {caPath: /nowhere/ca.crt}\n";
    fs::write(&file, format!("tenants:\n{}{bad}", tenant("good", "id-g"))).unwrap();
    let mut settings = Settings::default();
    settings.access.tenants_file = Some(key(&file));
    let role = RoleConfig {
        resources: vec!["metrics".to_owned()],
        tenants: vec!["bad".to_owned()],
        permissions: vec![Permission::Read],
    };
    settings.roles.push(("reader", &role));
    let built = Tenants::build(&settings, Some(&Tenants::default())).unwrap();
    assert_eq!(built.len(), 1);
    let warnings = settings.access.warnings();
    assert!(
        warnings[0].contains("\"bad\" of tenants_file cannot be used"),
        "{warnings:?}"
    );
    for (tenant, authorization, kind) in [
        (Some("bad"), Some("Bearer x"), RejectionKind::Unavailable),
        (Some("id-b"), Some("Bearer x"), RejectionKind::Unavailable),
        (
            Some("id-g"),
            Some("Bearer x"),
            RejectionKind::Unauthenticated,
        ),
        (
            Some("good"),
            Some("Bearer x"),
            RejectionKind::Unauthenticated,
        ),
        (
            Some("none"),
            Some("Bearer x"),
            RejectionKind::Unauthenticated,
        ),
        (None, Some("Bearer x"), RejectionKind::Unavailable),
        (None, None, RejectionKind::Unauthenticated),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", authorization), ("thanos-tenant", tenant)] {
            headers.extend(value.map(|it| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    it.parse().unwrap(),
                )
            }));
        }
        let uri = Uri::from_static("/receive");
        let head = Head {
            peer: "127.0.0.1:1".parse().unwrap(),
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            params: &[],
            presented: &[],
            certificate: None,
        };
        let refused = built.decide(&Shown::of(head), Permission::Write).await;
        let rejection = refused.err().unwrap().rejection;
        assert_eq!(rejection.kind, kind, "{tenant:?}: {}", rejection.reason);
    }
}

#[test]
fn login_limits_and_issuers_without_tls_are_as_in_the_file() {
    let entry = |more: &str| {
        let text = format!(
            "tenants:\n- name: a\n  id: x\n  oidc:\n    clientID: c\n    clientSecret: hush\n{more}"
        );
        let read = parse_tenants(&text, None, true).unwrap();
        let config = read.tenants().next().unwrap().config.clone();
        let notes: Vec<_> = read.notes().map(|(_, note)| note.to_owned()).collect();
        (config, notes)
    };
    let https = "    issuerURL: https://x.example\n";
    let redirect = |url: &str| format!("{https}    redirectURL: {url}\n");
    let (config, notes) = entry(&redirect("https://m.example/oidc/a/callback"));
    let login = config.oidc.unwrap().login.unwrap();
    assert_eq!(login.external_url, "https://m.example");
    assert_eq!(login.client_secret.unwrap().expose(), "hush");
    assert_eq!(notes, [""; 0]);
    for other in [
        "http://m.example/oidc/a/callback",
        "https://m.example/oidc/b/callback",
        "https://m.example/sub/oidc/a/callback",
    ] {
        let (config, notes) = entry(&redirect(other));
        assert_eq!(config.oidc.unwrap().login, None, "{other}");
        assert!(notes[0].contains("redirectURL"), "{notes:?}");
    }
    let (config, notes) = entry("    issuerURL: http://dex.auth:5556\n");
    assert!(config.oidc.unwrap().allow_http);
    assert!(notes[0].contains("forge"), "{notes:?}");

    let rates = |rates: &str| entry(&format!("{https}  rateLimits: [{rates}]\n"));
    let (config, notes) = rates("{endpoint: '/.*', limit: 600, window: 1m, failOpen: true}");
    let keys = config.limits.unwrap().keys;
    assert_eq!(
        (keys.requests_per_second, keys.requests_burst),
        (Some(10), Some(600))
    );
    assert_eq!(notes, [""; 0]);
    for other in [
        "{endpoint: '/api/metrics/v1/.+/api/v1/receive', limit: 600, window: 1m}",
        "{endpoint: '/.*', limit: 6, window: 1m}",
        "{endpoint: '/.*'}",
    ] {
        let (config, notes) = rates(other);
        assert_eq!(config.limits, None, "{other}");
        assert!(notes[0].contains("rateLimits"), "{notes:?}");
    }
    assert_eq!(rates("").0.limits, None);
}

#[tokio::test]
async fn another_client_secret_makes_another_login() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenants.yaml");
    let build = |secret: &str, before: &Tenants| {
        let text = format!(
            "tenants:\n- name: a\n  id: x\n  oidc:\n    clientID: c\n    clientSecret: {secret}\n    \
             issuerURL: https://127.0.0.1:1\n    redirectURL: https://m.example/oidc/a/callback\n"
        );
        fs::write(&file, text).unwrap();
        let mut settings = Settings::default();
        settings.access.tenants_file = Some(key(&file));
        Tenants::build(&settings, Some(before)).unwrap()
    };
    let verifier = |of: &Tenants| std::ptr::from_ref(of.login("a").unwrap().1);
    let first = build("one", &Tenants::default());
    let same = build("one", &first);
    assert_eq!(verifier(&first), verifier(&same));
    let other = build("two", &same);
    assert_ne!(verifier(&same), verifier(&other));
}
