//! Rules in a bucket of a real S3 server, which several processes share.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use metrifold_testing::peers::{Prometheus, Versity, now};
use metrifold_testing::{Answer, Metrifold, request, until_so};

const PATH: &str = "/api/metrics/v1/team-a/rules";

fn bucket(s3: &Versity) -> String {
    format!(
        "bucket = {{ url = \"s3://rules/metrifold\", endpoint = {:?}, access_key_id = {:?}, \
         secret_access_key = {:?}, timeout = \"10s\" }}\npoll_interval = \"200ms\"\n",
        s3.url(),
        Versity::ACCESS_KEY,
        Versity::SECRET_KEY
    )
}

/// Starts an API over the bucket, and writes the rules that it publishes to a folder.
fn api(s3: &Versity, place: &TempDir, folder: &str) -> Metrifold {
    Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\n{}\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {:?}\n",
        bucket(s3),
        place.path().join(folder)
    ))
}

fn send(program: &Metrifold, method: &str, path: &str, body: &str) -> Answer {
    request(method, program.ingest, path, &[], body.as_bytes()).unwrap()
}

fn rules(name: &str) -> String {
    format!("groups: [{{name: g, rules: [{{record: {name}, expr: vector(1)}}]}}]")
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn what_one_process_writes_to_s3_a_real_ruler_behind_another_evaluates() {
    let place = tempfile::tempdir().unwrap();
    let mut s3 = Versity::start();
    let files = place.path().join("out/*.yaml");
    let prometheus = Prometheus::start_3(&format!(
        "global: {{ evaluation_interval: 1s }}\nrule_files: [{files:?}]\n"
    ));
    let writer = api(&s3, &place, "writer");
    let reader = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\n{}\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"rules\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"tenant\"]\nrulers = [{{ url = {:?}, directory = {:?} }}]\n",
        bucket(&s3),
        prometheus.url(),
        place.path().join("out")
    ));
    assert_eq!(send(&writer, "PUT", PATH, &rules("one")).status, 200);
    let stored = "metrifold/metrics/rules/team-a/rules.yaml";
    assert_eq!(s3.read(stored), Some(rules("one")));
    let value = |name: &str| prometheus.value(&format!("{name}{{tenant_id=\"team-a\"}}"), now());
    until_so("it is evaluated", || value("one") == Some(1.0));
    // Without the service, the published rules stay, and a write that cannot be stored is refused.
    s3.process.kill();
    let refused = send(&writer, "PUT", PATH, &rules("two"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    reader.until_logged("rules could not be used");
    assert_eq!(value("one"), Some(1.0));
    s3.start_again();
    assert_eq!(send(&writer, "PUT", PATH, &rules("three")).status, 200);
    until_so("the change is evaluated", || value("three") == Some(1.0));
    assert_eq!(send(&writer, "DELETE", PATH, "").status, 204);
    assert_eq!(send(&writer, "GET", PATH, "").status, 404);
    until_so("it is gone", || {
        let folder = fs::read_dir(place.path().join("out")).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        !paths
            .into_iter()
            .any(|path| path.extension().is_some_and(|it| it == "yaml"))
    });
    let file = format!("{PATH}/rules?history=true");
    let versions = send(&writer, "GET", &file, "").json();
    let versions = versions["versions"].as_array().unwrap().iter();
    let actions: Vec<_> = versions.map(|it| it["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["delete", "put", "put"]);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn of_writers_that_race_in_two_processes_at_a_real_s3_server_none_loses_what_another_wrote() {
    const WRITERS: usize = 6;
    const GROUPS: usize = 10;
    let place = tempfile::tempdir().unwrap();
    let s3 = Versity::start();
    assert!(
        s3.is_consistent(),
        "files in the folder for temporary files must have attributes"
    );
    let programs = [api(&s3, &place, "a"), api(&s3, &place, "b")];
    assert_eq!(send(&programs[0], "PUT", PATH, "groups: []").status, 200);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let program = &programs[writer % 2];
            scope.spawn(move || {
                for at in 0..GROUPS {
                    let name = format!("w{writer}-{at}");
                    let path = format!("{PATH}/rules/{name}");
                    let body = format!("name: {name}\nrules: [{{record: r, expr: up}}]\n");
                    // A writer that loses every race gets an error, and tries again.
                    loop {
                        let answer = send(program, "PUT", &path, &body);
                        match answer.status {
                            200 => break,
                            503 => assert!(answer.text().contains("try again")),
                            _ => panic!("{} {}", answer.status, answer.text()),
                        }
                    }
                }
            });
        }
    });
    let names = |program: &Metrifold| -> BTreeSet<String> {
        let text = send(program, "GET", PATH, "").text();
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- name: "));
        names.map(str::to_owned).collect()
    };
    let all = (0..WRITERS).flat_map(|writer| (0..GROUPS).map(move |at| format!("w{writer}-{at}")));
    let all: BTreeSet<String> = all.collect();
    for program in &programs {
        assert_eq!(names(program), all);
    }

    // Of several changes of the same version, one succeeds.
    let version = send(&programs[0], "GET", PATH, "");
    let version = version.header("etag").unwrap().to_owned();
    let (won, start) = (AtomicUsize::new(0), Barrier::new(WRITERS));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (program, version, won, start) = (&programs[writer % 2], &version, &won, &start);
            scope.spawn(move || {
                start.wait();
                let body = rules(&format!("w{writer}"));
                let headers = [("if-match", version.as_str())];
                let answer = request("PUT", program.ingest, PATH, &headers, body.as_bytes());
                match answer.unwrap().status {
                    200 => won.fetch_add(1, Ordering::SeqCst),
                    412 => 0,
                    status => panic!("{status}"),
                };
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_writer_that_is_killed_leaves_whole_rules_and_what_it_answered_for() {
    let place = tempfile::tempdir().unwrap();
    let s3 = Versity::start();
    let mut writer = api(&s3, &place, "writer");
    let other = api(&s3, &place, "other");
    let number = || -> usize {
        let text = send(&other, "GET", PATH, "").text();
        let found = text.split("record_").nth(1).and_then(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        found.unwrap_or_else(|| panic!("torn: {text}"))
    };
    let mut last = 0;
    assert_eq!(send(&other, "PUT", PATH, &rules("record_0")).status, 200);
    for kill in 0..10 {
        let address = writer.ingest;
        let answered = AtomicUsize::new(last);
        thread::scope(|scope| {
            let answered = &answered;
            scope.spawn(move || {
                for at in last + 1.. {
                    let text = rules(&format!("record_{at}"));
                    match request("PUT", address, PATH, &[], text.as_bytes()) {
                        Ok(answer) if answer.status == 200 => answered.store(at, Ordering::SeqCst),
                        _ => return,
                    }
                }
            });
            until_so("it writes", || {
                answered.load(Ordering::SeqCst) > last + kill
            });
            writer.kill();
        });
        let answered = answered.into_inner();
        let found = number();
        assert!(
            found == answered || found == answered + 1,
            "{found} {answered}"
        );
        last = found;
        writer.start_again();
    }
}
