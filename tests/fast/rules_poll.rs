//! Polled rules of a backend, and a tenant's rules from the command line.

use std::fs;
use std::sync::{Arc, Mutex};

use metrifold_testing::{Authority, Does, Endpoint, Metrifold, Reply, Seen, cli, until_so};

/// The backend's answer for each tenant: status and text.
type Answers = Arc<Mutex<Vec<(&'static str, u16, String)>>>;

fn rules(name: &str) -> String {
    format!("groups: [{{name: g, rules: [{{record: {name}, expr: up}}]}}]")
}

#[test]
fn tenants_are_asked_for_one_by_one_and_each_keeps_what_it_had() {
    let place = tempfile::tempdir().unwrap();
    let answers: Answers = Arc::new(Mutex::new(vec![
        ("/rules/a", 200, rules("one")),
        ("/rules/b", 503, String::new()),
    ]));
    let says = answers.clone();
    let backend = Endpoint::new(move |seen: &Seen| {
        let answers = says.lock().unwrap();
        let (_, status, text) = answers
            .iter()
            .find(|(path, ..)| *path == seen.path)
            .unwrap();
        let tag = format!("\"{}\"", text.len());
        match seen.header("if-none-match") == Some(&tag) {
            true => Reply::new(304),
            false => Reply::new(*status).header("etag", &tag).body(text.clone()),
        }
    });
    let (url, out) = (backend.url_of("/rules/{tenant}"), place.path().join("out"));
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\nendpoint = {url:?}\ntenants = [\"a\", \"b\"]\npoll_interval = \"100ms\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    let has = |tenant: &str, what: &str| {
        let text = fs::read_to_string(out.join(format!("{tenant}~rules~.yaml")));
        text.unwrap_or_default().contains(what)
    };
    let say = |at: usize, status: u16, text: String| {
        let mut answers = answers.lock().unwrap();
        (answers[at].1, answers[at].2) = (status, text);
    };
    program.until_logged("server answered 503");
    assert!(!out.join("a~rules~.yaml").is_file(), "not all is known yet");
    say(1, 404, String::new());
    until_so("a has its rules, and b none", || has("a", "one"));
    say(1, 200, rules("two"));
    until_so("b has some", || has("b", "two"));
    // Invalid rules of one tenant change nothing, and other tenants go on.
    say(1, 200, "groups: [".to_owned());
    say(0, 200, rules("another"));
    until_so("a goes on", || has("a", "another"));
    program.until_logged("tenant \"b\": 1:");
    assert!(has("b", "two"));
    // Nor does an answer without content, such as that of a proxy.
    say(1, 200, "\n".to_owned());
    program.until_logged("tenant \"b\": the answer has no `groups`");
    assert!(has("b", "two"));
    backend.reset(0);
    let unread = |seen: &Seen| seen.path == "/rules/a" && !seen.accepted;
    until_so("what did not change is not sent again", || {
        backend.seen().iter().any(unread)
    });
}

#[test]
fn tenants_are_asked_for_side_by_side_and_no_more_of_them_than_may_be() {
    let place = tempfile::tempdir().unwrap();
    // Nothing is answered before the most requests are in flight.
    let backend = Endpoint::new(|_: &Seen| Does::Hang(Reply::new(200).body(rules("one"))));
    let (url, out) = (backend.url_of("/rules/{tenant}"), place.path().join("out"));
    let tenants: Vec<String> = (0..10).map(|at| format!("t{at}")).collect();
    let _program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\nendpoint = {url:?}\ntenants = {tenants:?}\nmax_requests = 3\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    until_so("three are in flight", || backend.most_at_once() == 3);
    backend.release();
    until_so("all are published", || {
        let is_written = |tenant: &String| out.join(format!("{tenant}~rules~.yaml")).is_file();
        tenants.iter().all(is_written)
    });
    assert_eq!(backend.most_at_once(), 3);
}

#[test]
fn a_tenant_whose_answer_takes_long_holds_up_no_other() {
    let place = tempfile::tempdir().unwrap();
    let name = Arc::new(Mutex::new("one"));
    let says = name.clone();
    let backend = Endpoint::new(move |seen: &Seen| {
        let name = *says.lock().unwrap();
        let reply = Reply::new(200).body(rules(name));
        match seen.path == "/rules/a" && name != "one" {
            true => Does::Hang(reply),
            false => reply.into(),
        }
    });
    let (url, out) = (backend.url_of("/rules/{tenant}"), place.path().join("out"));
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\nendpoint = {url:?}\ntenants = [\"a\", \"b\"]\npoll_interval = \"100ms\"\nmax_requests = 1\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    let has = |tenant: &str, what: &str| {
        let text = fs::read_to_string(out.join(format!("{tenant}~rules~.yaml")));
        text.unwrap_or_default()
            .contains(&format!("record: {what}\n"))
    };
    until_so("both have rules", || has("a", "one") && has("b", "one"));
    for next in ["two", "three"] {
        *name.lock().unwrap() = next;
        until_so("the other goes on", || has("b", next));
        assert!(has("a", "one"));
    }
    program.until_logged("tenant \"a\": server does not answer");
    backend.release();
    until_so("the late answer is used", || has("a", "three"));
}

#[test]
fn a_folder_is_only_read_and_its_absence_removes_no_rules() {
    let place = tempfile::tempdir().unwrap();
    let (store, out) = (place.path().join("store"), place.path().join("out"));
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\ndirectory = {store:?}\npoll_interval = \"100ms\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    program.until_logged("rules could not be used");
    assert!(!store.is_dir() && !out.is_dir(), "nothing is created");
    let tenant = store.join("metrics/rules/a");
    fs::create_dir_all(&tenant).unwrap();
    fs::write(tenant.join("rules.yaml"), rules("one")).unwrap();
    let is_written = || out.join("a~rules~.yaml").is_file();
    until_so("it is read once it is there", is_written);
    let names: Vec<_> = fs::read_dir(&store).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // As if it were no longer mounted.
    fs::rename(store.join("metrics"), place.path().join("away")).unwrap();
    program.until_logged("list metrics/rules/");
    assert!(is_written());
    fs::rename(place.path().join("away"), store.join("metrics")).unwrap();
    fs::remove_dir_all(&tenant).unwrap();
    until_so("what is removed is gone", || !is_written());
}

#[test]
fn one_tenant_that_cannot_be_read_at_the_start_stops_no_other_for_ever() {
    let place = tempfile::tempdir().unwrap();
    let status = Arc::new(Mutex::new(503));
    let says = status.clone();
    let backend = Endpoint::new(move |seen: &Seen| match seen.path.as_str() {
        "/rules/a" => Reply::new(200).body(rules("one")),
        "/rules/b" => Reply::new(*says.lock().unwrap()).body(rules("two")),
        // An answer, though not with valid rules.
        _ => Reply::new(200).body("groups: ["),
    });
    let start = |tenants: &str, more: &str| {
        let (url, out) = (
            backend.url_of("/rules/{tenant}"),
            place.path().join(tenants.len().to_string()),
        );
        let program = Metrifold::start(&format!(
            "[sources.rules]\ntype = \"rules_poll\"\nendpoint = {url:?}\ntenants = [{tenants}]\npoll_interval = \"100ms\"\n{more}\
             [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
        ));
        (program, out)
    };
    let (_program, out) = start("\"a\", \"c\"", "");
    until_so("invalid rules do not hold up the others", || {
        out.join("a~rules~.yaml").is_file()
    });
    let (program, out) = start("\"a\", \"b\", \"c\"", "first_read_timeout = \"500ms\"\n");
    until_so(
        "nor does a tenant that fails for longer than it may",
        || out.join("a~rules~.yaml").is_file(),
    );
    program.until_logged("tenant \"b\": server answered 503");
    *status.lock().unwrap() = 200;
    until_so("it is published when it can be read", || {
        out.join("b~rules~.yaml").is_file()
    });
    // If nothing at all can be read, nothing is taken to be gone.
    *status.lock().unwrap() = 503;
    let (program, out) = start("\"b\"", "first_read_timeout = \"0s\"\n");
    program.until_logged("tenant \"b\": server answered 503");
    assert!(!out.is_dir());
}

#[test]
fn a_tenants_rules_are_changed_from_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {store:?}\n\
         [sources.poll]\ntype = \"rules_poll\"\ndirectory = {store:?}\npoll_interval = \"100ms\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\", \"poll\"]\npath = {:?}\n",
        place.path().join("out")
    ));
    let url = format!("http://{}/api/metrics/v1/team-a", program.ingest);
    let rules_command = |arguments: &[&str]| {
        let words = [&["rules"], arguments, &["--url", &url]].concat();
        let output = cli(&words).output().unwrap();
        let text = [output.stderr, output.stdout].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    let file = place.path().join("rules.yaml");
    let path = file.to_str().unwrap();
    let write = |name: &str| fs::write(&file, rules(name)).unwrap();
    write("one");
    assert_eq!(rules_command(&["get", "alerts"]).0, 1);
    let (code, said) = rules_command(&["put", "--dry-run", "alerts", path]);
    assert!(
        code == 0 && said.starts_with("valid, and not stored"),
        "{said}"
    );
    assert_eq!(rules_command(&["diff", "alerts", path]).0, 1);
    let (code, said) = rules_command(&["put", "alerts", path]);
    assert!(code == 0 && said.starts_with("stored: version "), "{said}");
    let version = said.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(rules_command(&["diff", "alerts", path]), (0, String::new()));
    assert_eq!(rules_command(&["get", "alerts"]), (0, rules("one")));
    write("two");
    assert_eq!(
        rules_command(&["put", "--if-version", &version, "alerts", path]).0,
        0
    );
    let (code, said) = rules_command(&["put", "--if-version", &version, "alerts", path]);
    assert!(code == 1 && said.contains("412"), "{said}");
    let (_, said) = rules_command(&["history", "alerts"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let first = said
        .lines()
        .last()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let (code, said) = rules_command(&["get", "alerts", "--version", &first]);
    assert_eq!((code, said), (0, rules("one")));
    for change in [
        &["rollback", "alerts", &first, "--if-version", "0000"][..],
        &["delete", "alerts", "--if-version", "0000"],
    ] {
        let (code, said) = rules_command(change);
        assert!(code == 1 && said.contains("412"), "{change:?}: {said}");
    }
    let (code, said) = rules_command(&["rollback", "alerts", &first, "--dry-run"]);
    let tried = format!("valid, and not stored: version {version}\n");
    assert_eq!((code, said), (0, tried));
    let (code, said) = rules_command(&["delete", "alerts", "--dry-run"]);
    assert_eq!((code, said.as_str()), (0, "can be deleted: alerts\n"));
    assert_eq!(rules_command(&["get", "alerts"]), (0, rules("two")));
    let (_, said) = rules_command(&["rollback", "alerts", &first]);
    assert_eq!(said, format!("stored: version {version}\n"));
    assert_eq!(rules_command(&["get", "alerts"]), (0, rules("one")));
    let (_, said) = rules_command(&["list"]);
    assert!(
        said.starts_with("not known: no ruler reports to this process")
            && said.contains("\nalerts  ")
            && said.contains(&format!(
                "  version {version}\n  g\n    stored, and no ruler has said"
            )),
        "{said}"
    );
    fs::write(&file, "groups:\n- nam: x\n").unwrap();
    let (code, said) = rules_command(&["put", "alerts", path]);
    assert!(
        code == 1 && said.contains("2:3: groups[0]: unknown key"),
        "{said}"
    );
    // What concerns no key is told without one.
    fs::write(&file, "nothing: []\n").unwrap();
    let (_, said) = rules_command(&["put", "alerts", path]);
    assert!(said.starts_with("1:1: unknown key"), "{said}");
    // In a URL, these would name all files.
    for name in [".", "..", ""] {
        write("three");
        for change in [&["delete", name][..], &["put", name, path], &["get", name]] {
            let (code, said) = rules_command(change);
            assert!(
                code == 1 && said.contains("is not the name of a file"),
                "{change:?}: {said}"
            );
        }
    }
    assert_eq!(rules_command(&["get", "alerts"]), (0, rules("one")));
    assert_eq!(rules_command(&["delete", "alerts"]).0, 0);
    assert_eq!(rules_command(&["delete", "alerts"]).0, 1);
}

#[test]
fn success_of_another_program_than_the_api_is_none_for_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("rules.yaml");
    fs::write(&file, rules("one")).unwrap();
    let path = file.to_str().unwrap();
    for answer in ["", "{}", "<html>", "[]", "{\"status\": \"success\"}"] {
        let other = Endpoint::new(move |_: &Seen| Reply::new(200).body(answer));
        let url = other.url_of("/");
        for words in [
            &["list"][..],
            &["put", "a", path],
            &["delete", "a"],
            &["history", "a"],
            &["rollback", "a", "1"],
        ] {
            let words = [&["rules"], words, &["--url", &url]].concat();
            let output = cli(&words).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.status.code() == Some(1) && said.contains("is not that of the rules API"),
                "{words:?}: {said}"
            );
        }
    }
}

#[test]
fn the_command_line_authenticates_by_files_and_verifies_the_server() {
    let place = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let server = servers.issue("localhost");
    let start = |keys: &str| {
        Metrifold::start(&format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n{keys}\n\
             [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {:?}\n",
            place.path().join("store"),
            place.path().join("out")
        ))
    };
    let list = |program: &Metrifold, scheme: &str, options: &[&str]| {
        let port = program.ingest.port();
        let url = format!("{scheme}://localhost:{port}/api/metrics/v1/a");
        let words = [&["rules", "list", "--url", &url], options].concat();
        let output = cli(&words).output().unwrap();
        let said = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let secret = place.path().join("secret");
    fs::write(&secret, "topsecret\n").unwrap();
    let secret = secret.to_str().unwrap();
    let program = start("basic_auth = { username = \"ann\", password = \"topsecret\" }");
    // A tenant without rules is 404 to those who may know it.
    let is = |seen: (i32, String), status: &str| {
        assert!(
            seen.0 == 1 && seen.1.contains(status),
            "{status}: {}",
            seen.1
        );
    };
    is(list(&program, "http", &[]), "401");
    let user = ["--username", "ann", "--password-file", secret];
    is(list(&program, "http", &user), "404");
    let program = start("authorization = { credentials = \"topsecret\" }");
    is(list(&program, "http", &["--token-file", secret]), "404");
    let output = cli(&["rules", "list", "--url", "http://x:y@localhost/a"]).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("use --password-file"), "{said}");
    let file = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, mine) = (file(&servers.ca()), clients.issue("team-a"));
    is(
        list(&program, "http", &["--ca-file", &ca]),
        "not one of HTTPS",
    );
    let program = start(&format!(
        "tls = {{ cert_file = {:?}, key_file = {:?}, client_ca_file = {:?} }}",
        server.0,
        server.1,
        clients.ca()
    ));
    let (cert, key) = (file(&mine.0), file(&mine.1));
    let own = ["--ca-file", &ca, "--cert-file", &cert, "--key-file", &key];
    is(list(&program, "https", &own), "404");
    is(list(&program, "https", &own[..2]), "ertificate");
    is(list(&program, "https", &own[2..]), "ertificate");
    let output = cli(&["rules", "list", "--username", "ann"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}
