//! 100,000 tenants: time to start, time to reload when one of them has changed, and memory, of the
//! whole product.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::gateway::{Running, free_port, peak, product, resident};

const TENANTS: usize = 100_000;
const RELOADS: usize = 5;
/// Age from which the times of a file show its changes, so that it need not be read again.
const SETTLED: Duration = Duration::from_secs(4);

/// A kind of configuration: writes 100,000 tenants to a folder, of which one is in the given version.
/// Returns the tables that the configuration has for them.
type Kind = fn(&Path, usize) -> String;

/// Prints the figures.
pub fn run() {
    println!(
        "\n{TENANTS} tenants\n{:<34} {:>12} {:>12} {:>16} {:>12} {:>12}",
        "", "ready in s", "MiB", "reload in s", "MiB", "peak MiB"
    );
    let kinds: [(&str, Kind); 3] = [
        ("a file of tokens each", tokens),
        ("the same, a role and a binding each", roles),
        ("tenants.yaml, rbac.yaml", observatorium),
    ];
    for (what, write) in kinds {
        measure(what, write);
    }
}

fn measure(what: &str, write: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("metrifold.toml");
    let [ingest, api] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let write = |version| {
        let tenants = write(dir.path(), version);
        let text = format!(
            "[api]\naddress = \"{api}\"\n\
             [sources.ingest]\ntype = \"remote_write\"\naddress = \"{ingest}\"\naccess = \"tenants\"\n\
             [sinks.out]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n{tenants}"
        );
        fs::write(&config, text).unwrap();
    };
    write(0);
    thread::sleep(SETTLED);
    let started = Instant::now();
    let child = Command::new(product())
        .args(["--log-level", "error", "-c"])
        .arg(&config)
        .args(["run", "--no-watch"])
        .stdout(Stdio::null())
        .spawn();
    let child = Running(child.unwrap());
    while !ask(api, "GET /-/ready").is_some_and(|answer| answer.contains(" 200 ")) {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "it is not ready"
        );
        thread::sleep(Duration::from_millis(10));
    }
    let (ready, at_rest) = (started.elapsed(), resident(child.0.id()));
    let mut took: Vec<Duration> = (1..=RELOADS)
        .map(|version| {
            write(version);
            let started = Instant::now();
            let answer = ask(api, "POST /-/reload").unwrap();
            let took = started.elapsed();
            assert!(answer.contains("applied: changed"), "{answer}");
            took
        })
        .collect();
    took.sort_unstable();
    println!(
        "{what:<34} {:>12.2} {at_rest:>12.0} {:>8.2}, {:>6.2} {:>12.0} {:>12.0}",
        ready.as_secs_f64(),
        took[RELOADS / 2].as_secs_f64(),
        took[RELOADS - 1].as_secs_f64(),
        resident(child.0.id()),
        peak(child.0.id()),
    );
}

fn ask(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Tenants with a token each, whose hash is in a file of its own.
fn tokens(folder: &Path, version: usize) -> String {
    let mut tables = String::new();
    for number in 0..TENANTS {
        let file = folder.join(format!("{number}.tokens"));
        if version == 0 || number == 0 {
            let line = format!("sha256:{:064x} agent-{number}\n", number * 1000 + version);
            fs::write(&file, line).unwrap();
        }
        let id = id(number, version);
        writeln!(
            tables,
            "[tenants.tenant-{number}]\nid = \"{id}\"\nbearer = {{ tokens_file = {file:?} }}"
        )
        .unwrap();
    }
    tables
}

/// The same, each with a role and a binding.
fn roles(folder: &Path, version: usize) -> String {
    let mut tables = tokens(folder, version);
    for number in 0..TENANTS {
        writeln!(
            tables,
            "[roles.tenant-{number}]\ntenants = [\"tenant-{number}\"]\npermissions = [\"read\", \"write\"]\n\
             [role_bindings.tenant-{number}]\nroles = [\"tenant-{number}\"]\n\
             subjects = [{{ name = \"agent-{number}\" }}]"
        )
        .unwrap();
    }
    tables
}

/// Tenants with tokens of a few issuers, and a role and a binding each, in Observatorium's files.
fn observatorium(folder: &Path, version: usize) -> String {
    let (mut tenants, mut roles, mut bindings) =
        ("tenants:\n".to_owned(), String::new(), String::new());
    for number in 0..TENANTS {
        let (id, issuer) = (id(number, version), number % 10);
        writeln!(
            tenants,
            "- name: tenant-{number}\n  id: {id}\n  oidc:\n    clientID: metrics\n    \
             issuerURL: https://127.0.0.1:1/{issuer}\n    usernameClaim: email"
        )
        .unwrap();
        writeln!(
            roles,
            "- name: tenant-{number}\n  resources: [metrics]\n  tenants: [tenant-{number}]\n  \
             permissions: [read, write]"
        )
        .unwrap();
        writeln!(
            bindings,
            "- name: tenant-{number}\n  roles: [tenant-{number}]\n  subjects:\n  - name: agent-{number}\n    \
             kind: user"
        )
        .unwrap();
    }
    let (tenants_file, rbac_file) = (folder.join("tenants.yaml"), folder.join("rbac.yaml"));
    fs::write(&tenants_file, tenants).unwrap();
    fs::write(
        &rbac_file,
        format!("roles:\n{roles}roleBindings:\n{bindings}"),
    )
    .unwrap();
    format!("[access]\ntenants_file = {tenants_file:?}\nrbac_file = {rbac_file:?}\n")
}

/// Id of a tenant, of which the first one's changes with the version.
fn id(number: usize, version: usize) -> String {
    let version = if number == 0 { version } else { 0 };
    format!("00000000-0000-4000-{version:04}-{number:012}")
}
