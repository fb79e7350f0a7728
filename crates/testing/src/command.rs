//! Runs commands to their end: the product's command line, or a single test in a process of its
//! own.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::wait::Deadline;

/// Environment variable of a process that runs a single test.
const ALONE: &str = "METRIFOLD_TEST_ALONE";

/// The built program; Cargo passes its path to integration tests and benchmarks.
pub(crate) fn program() -> PathBuf {
    // A test binary started by hand finds it two folders up.
    std::env::var_os("CARGO_BIN_EXE_metrifold").map_or_else(
        || {
            let this = std::env::current_exe().unwrap();
            this.ancestors().nth(2).unwrap().join("metrifold")
        },
        PathBuf::from,
    )
}

/// The product's command line, with a clean environment.
pub fn cli(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .env_remove("METRIFOLD_CONFIG")
        .env_remove("METRIFOLD_LOG");
    command
}

/// Runs a command to its end and returns its output.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.stdin(Stdio::null()).spawn().unwrap();
    fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        })
    }
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let deadline = Deadline::new(&format!("{command:?} ends"));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if deadline.left().is_zero() {
            let _ = child.kill();
            let _ = child.wait();
        }
        deadline.pause();
    };
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// Runs a test in a process of its own, where process-wide counts are not disturbed by other tests.
/// `name` is the full name of the test.
#[track_caller]
pub fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1");
    let output = run(&mut command);
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{name} is no test: {out}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_to_its_end() {
        let mut command = Command::new("sh");
        let output = run(command.args(["-c", "echo out; echo err >&2; exit 7"]));
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn a_test_can_be_alone_in_its_process() {
        let before = std::process::id();
        alone("command::tests::a_test_can_be_alone_in_its_process", || {
            let parent = std::os::unix::process::parent_id();
            assert_ne!(parent, before);
        });
        let name = "command::tests::there_is_no_such_test";
        let none = std::panic::catch_unwind(|| alone(name, || ()));
        // In the process for this test, any closure runs.
        assert_eq!(none.is_err(), std::env::var_os(ALONE).is_none());
    }
}
