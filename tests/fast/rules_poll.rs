//! Polled rules of a backend, and a tenant's rules from the command line.

use std::fs;
use std::sync::{Arc, Mutex};

use metrifold_testing::{Does, Endpoint, Metrifold, Reply, Seen, cli, until_so};

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
    assert_eq!(rules_command(&["rollback", "alerts", &first]).0, 0);
    assert_eq!(rules_command(&["get", "alerts"]), (0, rules("one")));
    let (_, said) = rules_command(&["list"]);
    assert!(
        said.starts_with("alerts  ") && said.contains("\n  g\n"),
        "{said}"
    );
    fs::write(&file, "groups:\n- nam: x\n").unwrap();
    let (code, said) = rules_command(&["put", "alerts", path]);
    assert!(
        code == 1 && said.contains("2:3: groups[0]: unknown key"),
        "{said}"
    );
    assert_eq!(rules_command(&["delete", "alerts"]).0, 0);
    assert_eq!(rules_command(&["delete", "alerts"]).0, 1);
}
