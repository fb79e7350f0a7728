//! Where the API server is asked, as whom, and for which namespaces.

use super::*;

#[tokio::test]
async fn a_token_that_is_rotated_is_read_anew_when_the_old_one_is_refused() {
    let cluster = shop();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    cluster.state().token = Some("one".to_owned());
    let auth = format!("authorization = {{ credentials_file = {file:?} }}\n");
    let running = Running::new(&cluster, &format!("{auth}{SLICES}"));
    running.until_at(&SHOP).await;
    std::fs::write(&file, "two\n").unwrap();
    let mut state = cluster.state();
    state.token = Some("two".to_owned());
    state.break_watches();
    state.delete("endpointslices", "sales", "shop-0");
    drop(state);
    running.until_at(&[]).await;
    cluster.state().token = Some("three".to_owned());
    cluster.state().break_watches();
    let refused = |_: &Found, status: &Status| {
        status
            .failing
            .iter()
            .any(|it| it.reason.as_str() == "credentials")
    };
    running.until("it is refused", refused).await;
}

#[tokio::test]
async fn namespaces_are_watched_one_by_one_and_one_that_is_forbidden_keeps_no_other() {
    let cluster = Kubernetes::new();
    for (space, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        cluster.put("pods", pod(space, "p", ip, "node-1", &[("web", 1)]));
    }
    let running = Running::new(&cluster, "role = \"pod\"\nnamespaces = [\"a\", \"c\"]\n");
    running.until_at(&["10.0.0.1:1", "10.0.0.3:1"]).await;
    assert!(cluster.asked().iter().all(|it| it.contains("/namespaces/")));
    cluster.state().forbidden.insert("nodes".to_owned());
    let attach = "role = \"pod\"\nattach_metadata = { node = true }\n";
    let running = Running::new(&cluster, attach);
    let refused = |_: &Found, status: &Status| !status.failing.is_empty();
    let found = running.until("nodes are refused", refused).await;
    // The joined objects are unknown; targets without their labels would be different targets.
    assert!(found.is_empty());
    let failing = running.slot.status().failing;
    assert_eq!(&*failing[0].source, "watch of node");
    assert!(failing[0].text.contains("forbidden"), "{}", failing[0].text);
    cluster.state().forbidden.clear();
    cluster.put("nodes", node("node-1", "192.0.2.1"));
    running
        .until_at(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"])
        .await;
}

#[tokio::test]
async fn a_kubeconfig_says_where_and_as_whom() {
    let authority = Authority::new();
    let cluster = Kubernetes::tls(authority.server(Some(&authority.ca())));
    cluster.put(
        "pods",
        pod("sales", "shop-0", "10.0.0.1", "node-1", &[("web", 8080)]),
    );
    cluster.state().token = Some("geheim".to_owned());
    let (cert, key) = authority.issue("user");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "geheim").unwrap();
    let data = |file: &Path| STANDARD.encode(std::fs::read(file).unwrap());
    let file = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
         clusters:\n- name: c\n  cluster: {{server: '{}', certificate-authority-data: {}}}\n\
         users:\n- name: u\n  user: {{client-certificate-data: {}, client-key-data: {}, tokenFile: token}}\n\
         contexts:\n- name: x\n  context: {{cluster: c, user: u}}\n",
        cluster.url(),
        data(&authority.ca()),
        data(&cert),
        data(&key)
    );
    std::fs::write(&file, text).unwrap();
    let keys = format!("kubeconfig_file = {file:?}\ncontext = \"x\"\nrole = \"pod\"\n");
    let running = Running::by(&keys, None);
    running.until_at(&[SHOP[0]]).await;
    // An exec plugin can supply the token.
    let helper = folder.path().join("helper");
    let answer = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"geheim"}}"#;
    std::fs::write(&helper, answer).unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace(
        "tokenFile: token",
        &format!("exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, args: [{helper:?}]}}"),
    );
    std::fs::write(&file, text).unwrap();
    let running = Running::by(&keys, None);
    running.until_at(&[SHOP[0]]).await;
}

#[test]
fn what_cannot_be_is_refused_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("kubeconfig");
    std::fs::write(&broken, "current-context: x\nsecret-word: [").unwrap();
    for (keys, key, message) in [
        (
            "role = \"pod\"\nselectors = [{ role = \"service\" }]",
            "selectors[0].role",
            "does not apply",
        ),
        (
            "role = \"pod\"\nselectors = [{ role = \"pod\" }, { role = \"pod\" }]",
            "selectors[1].role",
            "already",
        ),
        (
            "role = \"node\"\nnamespaces = [\"a\"]",
            "namespaces",
            "no namespace",
        ),
        (
            "role = \"pod\"\nnamespaces = [\"a/../b\"]",
            "namespaces[0]",
            "not the name",
        ),
        (
            "role = \"pod\"\napi_server = \"http://h\"\nown_namespace = true",
            "own_namespace",
            "within a cluster",
        ),
        (
            "role = \"pod\"\nauthorization = { credentials = \"x\" }",
            "authorization",
            "api_server",
        ),
        (
            "role = \"pod\"\ncontext = \"x\"",
            "context",
            "kubeconfig_file",
        ),
        ("role = \"node\"\nport = \"web\"", "port", "endpoints"),
        (
            "role = \"service\"\nonly_ready = true",
            "only_ready",
            "pods",
        ),
        (
            "role = \"pod\"\nwatch_timeout = \"100ms\"",
            "watch_timeout",
            "1s",
        ),
        (
            &format!("role = \"pod\"\nkubeconfig_file = {broken:?}"),
            "kubeconfig_file",
            "no kubeconfig",
        ),
    ] {
        let config: KubernetesConfig = toml::from_str(keys).unwrap();
        let mut problems = Problems::new(true);
        config.validate(&mut problems);
        let problems = problems.into_list();
        let found = problems.iter().find(|it| it.path == key);
        let found = found.unwrap_or_else(|| panic!("{keys}: {problems:?}"));
        assert!(found.message.contains(message), "{keys}: {}", found.message);
        assert!(!format!("{problems:?}").contains("secret-word"));
    }
}
