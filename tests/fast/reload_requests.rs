//! Reloads on request, by command and by signal. The program runs as a child process that does not
//! watch files, so that only the test reloads it.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use metrifold_testing::config::{blackhole, smallest};
use metrifold_testing::edits::*;
use metrifold_testing::{
    Authority, Does, Endpoint, Metrifold, Reply, Sender, body, cli, free_address, one, run, until,
    until_so,
};

/// `metrifold reload` with the child's configuration.
fn command(child: &Metrifold, arguments: &[&str]) -> Output {
    let mut command = cli(&["-c"]);
    run(command.arg(file(child)).arg("reload").args(arguments))
}

#[test]
fn requests_are_answered_with_the_outcome() {
    let child = unwatched(&smallest(""));
    let unchanged = "unchanged: the files match the running configuration";
    post_expecting(&child, 200, unchanged);
    // A comment changes only the hash.
    let before = topology(&child)["config_hash"].clone();
    edit(&child, &smallest("# a comment"));
    post_expecting(&child, 200, unchanged);
    assert_ne!(topology(&child)["config_hash"], before);

    edit(&child, &smallest(&blackhole("a")));
    post_expecting(&child, 200, "applied: added sinks.a");
    edit(
        &child,
        &smallest(
            "[transforms.unused]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{ value = \"t\" }]",
        ),
    );
    let text = post(&child).text();
    assert!(
        text.starts_with("warning: nothing consumes `unused`"),
        "{text}"
    );

    edit(
        &child,
        &smallest("[sinks.b]\ntype = \"blackhole\"\ninputs = [\"x\"]\nkey = 1"),
    );
    let text = post_expecting(&child, 422, "refused: 2 errors, nothing was changed");
    let validate = run(cli(&["validate", "-c"]).arg(file(&child)));
    let validate = String::from_utf8(validate.stderr).unwrap();
    let errors = text.rsplit_once("refused").unwrap().0;
    assert!(validate.starts_with(errors), "{validate}\n---\n{errors}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let moved = smallest(&blackhole("b")).replace("INGEST", &address.to_string());
    edit(&child, &moved);
    let text = post_expecting(&child, 409, "refused: 1 error, nothing was changed");
    assert!(
        text.contains("ingest") && text.contains(&address.to_string()),
        "{text}"
    );
    assert!(text.contains("metrifold.toml:3:10"), "{text}");
    assert!(!runs(&child, "b"));
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
    drop(taken);
    post_expecting(
        &child,
        200,
        "applied: added sinks.b; changed sources.ingest; removed transforms.unused",
    );
    assert_eq!(
        Sender::new(address).write(&body(&[one("up", 2)])).status,
        204
    );

    let answer = child.get("/-/reload");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(
        Sender::new(child.api).post("/metrics", &[], b"").status,
        405
    );
    assert_eq!(reloads(&child, "refused"), 2.0);
}

#[test]
fn everybody_who_asks_is_answered_by_a_reload_that_read_the_files_afterwards() {
    let child = unwatched(&smallest(""));
    for round in 0..5 {
        let name = format!("round{round}");
        edit(&child, &smallest(&blackhole(&name)));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let answer = post(&child);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert!(runs(&child, &name), "{name}");
                });
            }
        });
    }
    assert_eq!(reloads(&child, "applied"), 5.0);
}

/// The watcher may be faster than the one who has edited the file.
#[test]
fn the_command_tells_of_a_reload_that_came_before_it() {
    let child = Metrifold::start(&smallest(""));
    edit(&child, &smallest(&blackhole("a")));
    until_runs(&child, "a");
    let output = command(&child, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let (before, after) = text.split_once('\n').unwrap();
    assert!(
        before.starts_with("applied shortly before, triggered by a ")
            && before.ends_with(": added sinks.a"),
        "{text}"
    );
    assert!(after.starts_with("unchanged"), "{text}");
}

#[test]
fn the_command_has_exit_codes() {
    let child = unwatched(&smallest(""));
    let run = |arguments: &[&str]| {
        let output = command(&child, arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    edit(&child, &smallest(&blackhole("a")));
    let (code, out, err) = run(&[]);
    assert_eq!(
        (code, &*out),
        (Some(0), "applied: added sinks.a\n"),
        "{err}"
    );

    let address = child.api.to_string();
    edit(&child, &smallest("[sinks.b]"));
    for arguments in [&[][..], &["--address", &address]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*out), (Some(78), ""), "{err}");
        assert!(err.contains("sinks.b has no type"), "{err}");
    }
    // The process was asked both times: it judges the configuration.
    assert_eq!(reloads(&child, "refused"), 2.0);
    // Its address is found in a file with any fault.
    let faults = [
        "[sinks.c",
        "[sinks.c]\ntype = 1",
        "surplus = 1",
        "[sinks.c]\ntype = \"${NOBODY_HAS_SET_THIS}\"",
        "[sinks.c]\ntype = \"blackhole\"\n[sinks.c]\ntype = \"blackhole\"",
    ];
    for (asked, fault) in (3u32..).zip(faults) {
        edit(&child, &smallest(fault));
        let (code, out, err) = run(&[]);
        assert_eq!((code, &*out), (Some(78), ""), "{fault}: {err}");
        assert_eq!(
            reloads(&child, "refused"),
            f64::from(asked),
            "{fault}: {err}"
        );
        let ledger = metrifold_testing::run(cli(&["-c"]).arg(file(&child)).arg("ledger"));
        assert_eq!(ledger.status.code(), Some(0), "{fault}: {ledger:?}");
    }

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let moved = smallest("").replace("INGEST", &taken.local_addr().unwrap().to_string());
    edit(&child, &moved);
    let (code, _, err) = run(&[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot listen"), "{err}");

    let nobody = free_address().to_string();
    let (code, _, err) = run(&["--address", &nobody]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot reach"), "{err}");
}

#[test]
fn a_hangup_reloads_without_watching_too() {
    let child = unwatched(&smallest(""));
    edit(&child, &smallest(&blackhole("a")));
    child.signal("HUP");
    until_runs(&child, "a");
    assert_eq!(topology(&child)["last_reload"]["trigger"], "signal");
    assert_eq!(reloads(&child, "applied"), 1.0);
}

#[test]
fn what_only_a_start_can_set_is_refused_at_its_place() {
    let child = unwatched(&smallest(""));
    let text = child.complete(&smallest(""));
    fs::write(file(&child), format!("data_dir = \"/tmp/x\"\n{text}")).unwrap();
    let answer = post_expecting(&child, 422, "refused: 1 error, nothing was changed");
    assert!(answer.contains("`data_dir` cannot be changed"), "{answer}");
    assert!(answer.contains("metrifold.toml:1:"), "{answer}");
}

#[test]
fn the_admin_address_moves_comes_and_goes() {
    let child = unwatched(&smallest(""));
    let (old, new) = (child.api, free_address());
    let text = child.complete(&smallest(""));
    let moved = text.replace(&old.to_string(), &new.to_string());
    fs::write(file(&child), &moved).unwrap();
    post_expecting(&child, 200, "applied: changed api");
    let page = metrifold_testing::fetch(new, "/-/ready").unwrap();
    assert_eq!(page.status, 200);
    until_so("the old address is closed", || {
        TcpListener::bind(old).is_ok()
    });

    // The address is taken: the reload is refused, and the admin address stays where it was.
    let taken = TcpListener::bind(old).unwrap();
    fs::write(file(&child), &text).unwrap();
    let answer = Sender::new(new).post("/-/reload", &[], b"");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("api: "), "{}", answer.text());
    drop(taken);

    fs::write(
        file(&child),
        smallest("").replace("INGEST", &child.ingest.to_string()),
    )
    .unwrap();
    let answer = Sender::new(new).post("/-/reload", &[], b"");
    assert_eq!(answer.text(), "applied: removed api");
    until_so("it is closed", || TcpListener::bind(new).is_ok());
    fs::write(file(&child), &text).unwrap();
    child.signal("HUP");
    until_so("it is there again", || {
        metrifold_testing::fetch(old, "/").is_ok()
    });
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
}

#[test]
fn nothing_that_asks_for_a_reload_disturbs_the_end() {
    let endpoint = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let text = smallest("").replace(
        "type = \"blackhole\"",
        &format!(
            "type = \"remote_write\"\nrequired = false\nendpoint = \"{}\"",
            endpoint.url()
        ),
    );
    let mut child = Metrifold::start(&text);
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
    until_so("the request hangs", || !endpoint.seen().is_empty());
    child.signal("TERM");
    until_so("it shuts down", || child.log().contains("shutting down"));
    edit(&child, &smallest(&blackhole("late")));
    child.signal("HUP");
    let answer = until("it is answered", || {
        let answer = post(&child);
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(answer.text(), "shutting down");
    endpoint.release();
    assert_eq!(child.wait().code(), Some(0));
}

#[test]
fn a_hangup_during_the_start_is_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrifold.toml");
    // Building many components keeps the process starting when the signal comes.
    let sinks: Vec<String> = (0..300).map(|at| blackhole(&format!("sink{at}"))).collect();
    let text = smallest(&sinks.concat());
    let mut child = Metrifold::spawn_from(folder, &path, &text, &[], Stdio::null());
    until_so("the signal would be caught", || child.catches(1));
    child.signal("HUP");
    until_so("it runs", || child.log().contains("metrifold runs"));
    child.signal("TERM");
    assert_eq!(child.wait().code(), Some(0));
}

#[test]
fn a_hangup_is_harmless_from_the_first_work_of_any_command() {
    // The schema is longer than a pipe holds, so the program cannot end before it is read.
    let mut child = cli(&["schema"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "HUP", &id]).status();
    assert!(sent.unwrap().success());
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    assert!(
        text.len() > 128 << 10,
        "{} bytes fit into a pipe",
        text.len()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn no_file_that_a_key_names_can_block_the_start_or_take_all_memory() {
    let folder = tempfile::tempdir().unwrap();
    let [pipe, endless, huge] = ["pipe", "endless", "huge"].map(|name| folder.path().join(name));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    fs::File::create(&huge).unwrap().set_len(8 << 30).unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.issue("localhost");
    let (cert, key) = (cert.display(), key.display());
    let source = |keys: &str| {
        smallest("").replace(
            "address = \"INGEST\"",
            &format!("address = \"INGEST\"\n{keys}"),
        )
    };
    let tls = |keys: &str| {
        source(&format!(
            "tls = {{ cert_file = \"{cert}\", key_file = \"{key}\", {keys} }}"
        ))
    };
    let sink = |keys: &str| {
        smallest(&format!(
            "[sinks.far]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\nendpoint = \"https://127.0.0.1:1/\"\n{keys}\n"
        ))
    };
    let tenants = |keys: &str| source("access = \"tenants\"") + &format!("[tenants.t]\n{keys}\n");
    let configs = [
        source(&format!(
            "tls = {{ cert_file = \"FILE\", key_file = \"{key}\" }}"
        )),
        source(&format!(
            "tls = {{ cert_file = \"{cert}\", key_file = \"FILE\" }}"
        )),
        tls("client_ca_file = \"FILE\""),
        tls(&format!(
            "client_ca_file = \"{cert}\", client_crl_file = \"FILE\""
        )),
        source("basic_auth = { username = \"u\", password_file = \"FILE\" }"),
        source("authorization = { credentials_file = \"FILE\" }"),
        sink("tls = { ca_file = \"FILE\" }"),
        sink(&format!(
            "tls = {{ cert_file = \"FILE\", key_file = \"{key}\" }}"
        )),
        sink(&format!(
            "tls = {{ cert_file = \"{cert}\", key_file = \"FILE\" }}"
        )),
        sink("basic_auth = { username = \"u\", password_file = \"FILE\" }"),
        sink(
            "oauth2 = { client_id = \"u\", client_secret_file = \"FILE\", token_url = \"http://127.0.0.1:1/\" }",
        ),
        tenants("bearer = { tokens_file = \"FILE\" }"),
        tenants("basic = { web_config_file = \"FILE\" }"),
        tenants("mtls = { ca_file = \"FILE\" }"),
        smallest(
            "[transforms.t]\ntype = \"relabel\"\ninputs = [\"ingest\"]\nrules_file = \"FILE\"\n[sinks.more]\ntype = \"blackhole\"\ninputs = [\"t\"]",
        ),
        smallest(
            "[transforms.t]\ntype = \"limit\"\ninputs = [\"ingest\"]\ntenants_file = \"FILE\"\n[sinks.more]\ntype = \"blackhole\"\ninputs = [\"t\"]",
        ),
    ];
    let config = folder.path().join("metrifold.toml");
    for text in configs {
        for (file, told) in [
            (&pipe, "not a regular file"),
            (&endless, "not a regular file"),
            (&huge, " large"),
        ] {
            let text = text.replace("FILE", file.to_str().unwrap());
            fs::write(&config, text.replace("INGEST", "127.0.0.1:0")).unwrap();
            // The command itself fails after a while, as does what needs more memory than this.
            let limited = format!("ulimit -v 4000000; exec \"$0\" -c {} run", config.display());
            let program = cli(&[]).get_program().to_owned();
            let output = run(Command::new("sh").args(["-c", &limited]).arg(program));
            let log = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{text}\n{log}");
            assert!(log.contains(told), "{text}\n{log}");
        }
    }
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_at_once_and_reloading_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let output = run(cli(&["-c"]).arg(&pipe).arg("run"));
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("it is not a regular file"), "{told}");

    let child = unwatched(&smallest(""));
    fs::remove_file(file(&child)).unwrap();
    fs::rename(&pipe, file(&child)).unwrap();
    let told = post_expecting(&child, 422, "refused: 1 error, nothing was changed");
    assert!(told.contains("it is not a regular file"), "{told}");
    fs::remove_file(file(&child)).unwrap();
    edit(&child, &smallest(&blackhole("a")));
    post_expecting(&child, 200, "applied: added sinks.a");
}
