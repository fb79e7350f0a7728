//! A store of rules in a bucket, shared by processes that are otherwise unconnected.

use std::fs;
use std::thread;

use tempfile::TempDir;

use metrifold_testing::{Answer, Metrifold, Reply, S3, Seen, request, until_so};

const PATH: &str = "/api/metrics/v1/team-a/rules";

/// Keys of the service's bucket.
fn bucket(s3: &S3) -> String {
    format!(
        "bucket = {{ url = \"s3://rules/metrifold\", endpoint = {:?}, access_key_id = \"id\", secret_access_key = \"s3-secret-key\", timeout = \"2s\" }}\npoll_interval = \"100ms\"\n",
        s3.url()
    )
}

/// A configuration that writes the rules of a source to a folder.
fn behind(source: &str, place: &TempDir, folder: &str) -> String {
    format!(
        "[sources.rules]\n{source}[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"rules\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"tenant\"]\npath = {:?}\n",
        place.path().join(folder)
    )
}

fn api(s3: &S3, place: &TempDir, folder: &str) -> Metrifold {
    let source = format!("type = \"rules_api\"\naddress = \"INGEST\"\n{}", bucket(s3));
    Metrifold::start(&behind(&source, place, folder))
}

fn send(program: &Metrifold, method: &str, path: &str, body: &str) -> Answer {
    request(method, program.ingest, path, &[], body.as_bytes()).unwrap()
}

fn rules(name: &str) -> String {
    format!("groups: [{{name: g, rules: [{{record: {name}, expr: up}}]}}]")
}

#[test]
fn what_one_process_writes_another_brings_to_its_ruler() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3::new("rules");
    let writer = api(&s3, &place, "writer");
    let poll = format!("type = \"rules_poll\"\n{}", bucket(&s3));
    let reader = Metrifold::start(&behind(&poll, &place, "reader"));
    let text = |folder: &str, tenant: &str| {
        let path = place
            .path()
            .join(folder)
            .join(format!("{tenant}~rules~.yaml"));
        fs::read_to_string(path).unwrap_or_default()
    };
    assert_eq!(send(&writer, "PUT", PATH, &rules("one")).status, 200);
    let stored = "metrifold/metrics/rules/team-a/rules.yaml";
    assert_eq!(s3.read(stored), Some(rules("one")));
    // A file named as Observatorium's rules-objstore names it.
    s3.write("metrifold/metrics/rules/team-b/rules.yaml", &rules("two"));
    for folder in ["writer", "reader"] {
        until_so("both have both", || {
            text(folder, "team-a").contains("up{tenant_id=\"team-a\"}")
                && text(folder, "team-b").contains("up{tenant_id=\"team-b\"}")
        });
    }
    // While the service fails, the rules that were read stay.
    s3.fail(|_: &Seen| Some(Reply::new(500).into()));
    let refused = send(&writer, "PUT", PATH, &rules("three"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        !refused.text().contains("s3-secret-key"),
        "{}",
        refused.text()
    );
    // Nor where the service is, which is for those who run it.
    let address = s3.url();
    let host = address.rsplit('/').next().unwrap();
    assert!(!refused.text().contains(host), "{}", refused.text());
    writer.until_logged("a request failed at the store of rules");
    reader.until_logged("rules could not be used");
    assert!(text("reader", "team-a").contains("record: one"));
    s3.recover();
    assert_eq!(send(&writer, "PUT", PATH, &rules("three")).status, 200);
    until_so("the change is there", || {
        text("reader", "team-a").contains("record: three")
    });
    assert_eq!(send(&writer, "DELETE", PATH, "").status, 204);
    assert_eq!(send(&writer, "GET", PATH, "").status, 404);
    until_so("it is gone", || text("reader", "team-a").is_empty());
    let file = format!("{PATH}/rules?history=true");
    let versions = send(&writer, "GET", &file, "").json();
    let actions: Vec<_> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["action"])
        .collect();
    assert_eq!(actions[0], "delete", "{versions}");
}

#[test]
fn of_writers_that_race_in_two_processes_at_a_bucket_none_loses_what_another_wrote() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3::new("rules");
    let programs = [api(&s3, &place, "a"), api(&s3, &place, "b")];
    assert_eq!(send(&programs[0], "PUT", PATH, "groups: []").status, 200);
    thread::scope(|scope| {
        for writer in 0..4 {
            let program = &programs[writer % 2];
            scope.spawn(move || {
                for at in 0..5 {
                    let name = format!("w{writer}-{at}");
                    let path = format!("{PATH}/rules/{name}");
                    let body = format!("name: {name}\nrules: [{{record: r, expr: up}}]\n");
                    let answer = send(program, "PUT", &path, &body);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    let text = send(&programs[1], "GET", PATH, "").text();
    assert_eq!(text.matches("name: w").count(), 20, "{text}");
}

#[test]
fn a_list_of_all_rules_is_not_empty_because_the_store_does_not_answer() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3::new("rules");
    s3.write("metrifold/metrics/rules/team-a/rules.yaml", &rules("one"));
    s3.fail(|_: &Seen| Some(Reply::new(503).into()));
    let source = format!(
        "type = \"rules_api\"\naddress = \"INGEST\"\nbackend_path = \"/api/v1/rules\"\n{}",
        bucket(&s3)
    );
    let program = Metrifold::start(&behind(&source, &place, "out"));
    program.until_logged("the store of rules could not be read");
    let all = || send(&program, "GET", "/api/v1/rules", "");
    let unread = all();
    assert_eq!(unread.status, 503, "{}", unread.text());
    assert!(unread.header("retry-after").is_some());
    s3.recover();
    until_so("the store is read", || all().status == 200);
    assert!(all().text().contains("team-a/g"), "{}", all().text());
}

#[test]
fn an_object_that_is_too_large_can_be_replaced_and_removed() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3::new("rules");
    let source = format!(
        "type = \"rules_api\"\naddress = \"INGEST\"\nmax_body_bytes = \"1KiB\"\n{}",
        bucket(&s3)
    );
    let program = Metrifold::start(&behind(&source, &place, "out"));
    let key = "metrifold/metrics/rules/team-a/rules.yaml";
    let large = format!("{}\n# {}\n", rules("large"), "x".repeat(2000));
    s3.write(key, &large);
    let read = send(&program, "GET", PATH, "");
    assert_eq!(read.status, 500, "{}", read.text());
    let made = send(&program, "PUT", PATH, &rules("one"));
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(s3.read(key), Some(rules("one")));
    s3.write(key, &large);
    let removed = send(&program, "DELETE", PATH, "");
    assert_eq!(removed.status, 204, "{}", removed.text());
    assert_eq!(send(&program, "GET", PATH, "").status, 404);
}

#[test]
fn the_names_that_a_tenants_files_have_had_in_a_bucket_are_bounded() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3::new("rules");
    let source = format!(
        "type = \"rules_api\"\naddress = \"INGEST\"\nmax_names_per_tenant = 2\nremoved_files = 1\n{}",
        bucket(&s3)
    );
    let program = Metrifold::start(&behind(&source, &place, "out"));
    let put = |name: &str| send(&program, "PUT", &format!("{PATH}/{name}"), &rules("r"));
    for name in ["one", "two"] {
        assert_eq!(put(name).status, 200);
        let removed = send(&program, "DELETE", &format!("{PATH}/{name}"), "");
        assert_eq!(removed.status, 204);
    }
    let further = put("three");
    assert!(
        further.status == 413 && further.text().contains("max_names_per_tenant is 2"),
        "{}",
        further.text()
    );
    let has_history = |name: &str| {
        let path = format!("{PATH}/{name}?history=true");
        send(&program, "GET", &path, "").status == 200
    };
    assert_eq!(["one", "two"].map(has_history), [false, true]);
    // Names of removed files are free.
    assert_eq!(put("one").status, 200);
}

#[test]
fn a_bucket_that_is_not_described_is_an_error_at_its_keys() {
    let check = |bucket: &str| {
        let place = tempfile::tempdir().unwrap();
        let config = behind(
            &format!("type = \"rules_poll\"\nbucket = {{ {bucket} }}\n"),
            &place,
            "out",
        );
        let path = place.path().join("metrifold.toml");
        fs::write(&path, config).unwrap();
        let words = ["--config", path.to_str().unwrap(), "validate"];
        let output = metrifold_testing::cli(&words).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (valid, said) = check("url = \"gs://rules\"");
    assert!(valid, "{said}");
    for (bucket, why) in [
        ("url = \"rules\"", "write s3://BUCKET"),
        ("url = \"s3://rules\", account = \"x\"", "is a key of Azure"),
        (
            "url = \"s3://rules\", access_key_id = \"x\"",
            "needs secret_access_key",
        ),
        (
            "url = \"s3://rules\", secret_access_key = \"x\"",
            "needs access_key_id",
        ),
        ("url = \"az://rules\", timeout = \"1ms\"", "at least 100ms"),
        (
            "url = \"az://rules\", service_account_file = \"/x\"",
            "is a key of Google",
        ),
    ] {
        let (valid, said) = check(bucket);
        assert!(!valid && said.contains(why), "{bucket}: {said}");
    }
}
