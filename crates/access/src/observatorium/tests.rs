use std::fs;
use std::sync::Arc;

use super::*;

/// A tenant in the usual form of the file.
fn tenant(name: &str, id: &str) -> String {
    format!(
        "- name: {name}\n  id: {id}\n  oidc:\n    clientID: c\n    issuerURL: https://issuer.example\n"
    )
}

fn tenants(of: &ForeignTenants) -> Vec<(&str, &TenantConfig)> {
    of.tenants()
        .map(|tenant| (tenant.name, tenant.config))
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
            .0
            .all
            .iter()
            .any(|entry| Arc::ptr_eq(entry, &second.0.all[at]))
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
    let usual = parse_tenants(&format!("tenants:\n{one}"), None).unwrap();
    for other in [
        "tenants: [{name: a, id: x, oidc: {clientID: c, issuerURL: 'https://issuer.example'}}]\n",
        "{tenants: [{name: a, id: x, oidc: {clientID: c, issuerURL: 'https://issuer.example'}}]}\n",
        "tenants:\n  -\n    name: a\n    id: x\n    oidc: {clientID: c, issuerURL: https://issuer.example}\n",
        "tenants:\n- name: &n a\n  id: x\n  oidc: {clientID: c, issuerURL: https://issuer.example}\n",
    ] {
        let read = parse_tenants(other, None).unwrap();
        assert_eq!(tenants(&read), tenants(&usual), "{other}");
    }
    // An alias for something in another entry.
    let aliased = format!(
        "tenants:\n{one}- name: b\n  id: y\n  oidc: &o\n    clientID: c\n    issuerURL: https://x.example\n\
         - name: d\n  id: z\n  oidc: *o\n"
    );
    assert_eq!(parse_tenants(&aliased, None).unwrap().tenants().count(), 3);
    // Errors name the line in the file, and the tenant.
    let wrong = format!("tenants:\n{one}- name: b\n  idd: y\n");
    assert!(parse_tenants(&wrong, None).unwrap_err().contains("line 8"));
    let wrong = format!("tenants:\n{one}- name: b\n  id: y\n");
    let reason = parse_tenants(&wrong, None).unwrap_err();
    assert!(
        reason.starts_with("tenant \"b\": must have exactly one"),
        "{reason}"
    );
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
    assert_eq!(rbac.roles().next().unwrap().1.tenants.len(), 300_000);
}
