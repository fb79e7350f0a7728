//! Child processes that end with the test, with their logs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use crate::http::fetch;
use crate::wait::{Deadline, until};

/// Number of log lines shown when the test fails.
const SHOWN: usize = 60;

/// A child process. Dropping it kills it, and prints the end of its log if the test has failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// Standard error of a process.
#[derive(Debug, Default)]
struct Log {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn read(&self, from: impl std::io::Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.written.lock().unwrap().lines.push(line);
            self.changed.notify_all();
        }
        self.written.lock().unwrap().ended = true;
        self.changed.notify_all();
    }
}

impl Process {
    /// Starts a command with its standard error as log. The command decides about standard output.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {name} ({error}): `make test` installs what tests need")
        });
        let log = Arc::<Log>::default();
        let (stderr, kept) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || kept.read(stderr));
        Self {
            name,
            child,
            log,
            reader: Some(reader),
        }
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.log.written.lock().unwrap().lines.join("\n")
    }

    /// Waits until the log contains a text. Panics if the process ends without it.
    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        let deadline = Deadline::new(&format!("{} logs {text:?}", self.name));
        let mut written = self.log.written.lock().unwrap();
        let mut looked = 0;
        loop {
            if written.lines[looked..].iter().any(|it| it.contains(text)) {
                return;
            }
            looked = written.lines.len();
            if written.ended {
                drop(written);
                panic!("{} ended without {text:?}:\n{}", self.name, self.log());
            }
            (written, _) = self
                .log
                .changed
                .wait_timeout(written, deadline.left())
                .unwrap();
            deadline.check();
        }
    }

    /// Polls `look` until it returns something. Panics if the process ends before.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        until(what, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let (name, log) = (&self.name, self.log());
                panic!("{name} ended ({status}) while it was awaited that {what}:\n{log}");
            }
            look()
        })
    }

    /// Waits until a page answers 200.
    #[track_caller]
    pub fn until_ready(&mut self, address: SocketAddr, path: &str) {
        let what = format!("{} is ready", self.name);
        self.until(&what, || {
            fetch(address, path)
                .ok()
                .filter(|answer| answer.status == 200)
        });
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Takes its standard output, which the command must have piped.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Whether the process has a handler for a signal number, according to the kernel.
    pub fn catches(&self, signal: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    /// Sends a signal, such as `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end and the end of its log.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = until(&what, || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Sends SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Number of entries in a directory of `/proc/<pid>`, such as `fd`.
    pub fn listed(&self, directory: &str) -> usize {
        let directory = format!("/proc/{}/{directory}", self.id());
        std::fs::read_dir(directory).unwrap().count()
    }

    /// Value of a line of `/proc/<pid>/status` in KiB, such as `VmHWM`.
    pub fn memory(&self, key: &str) -> u64 {
        let file = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- the end of {}'s log\n{}", self.name, end.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::wait::PATIENCE;

    fn shell(script: &str) -> Process {
        Process::spawn(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_log_is_awaited_and_kept() {
        let mut process = shell("echo first >&2; echo second >&2; exit 3");
        process.until_logged("second");
        assert_eq!(process.wait().code(), Some(3));
        assert_eq!(process.log(), "first\nsecond");
    }

    #[test]
    fn nobody_waits_for_a_process_that_has_ended() {
        let started = Instant::now();
        let logged = std::panic::catch_unwind(|| shell("exit 3").until_logged("never"));
        let seen = std::panic::catch_unwind(|| shell("exit 3").until("it is so", || None::<()>));
        assert!(logged.is_err() && seen.is_err());
        assert!(started.elapsed() < PATIENCE);
    }

    #[test]
    fn a_process_ends_with_its_owner() {
        let process = shell("exec sleep 600");
        let directory = format!("/proc/{}", process.id());
        assert!(std::fs::read_dir(&directory).is_ok());
        drop(process);
        assert!(std::fs::read_dir(&directory).is_err());
    }
}
