//! The product as a process, with its configuration in a temporary folder.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::address::free_address;
use crate::command::program;
use crate::http::{Answer, fetch};
use crate::process::Process;

/// The program's log line after everything has started.
const RUNS: &str = "metrifold runs";

/// A Metrifold under test; dereferences to its [`Process`].
#[derive(Debug)]
pub struct Metrifold {
    process: Process,
    command: Command,
    folder: TempDir,
    /// Address that replaces `INGEST` in the configuration.
    pub ingest: SocketAddr,
    /// The admin address.
    pub api: SocketAddr,
    may_panic: bool,
}

impl Metrifold {
    /// Starts a configuration and waits until it runs. `INGEST` in it is replaced by a reserved
    /// address, and an admin address is added.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// As [`start`](Self::start), with further arguments.
    #[track_caller]
    pub fn start_with(config: &str, arguments: &[&str]) -> Self {
        Self::spawn(config, arguments).started(config)
    }

    /// As [`start`](Self::start), with a given standard output.
    #[track_caller]
    pub fn start_writing(config: &str, stdout: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        Self::spawn_from(folder, &file, config, &[], stdout).started(config)
    }

    /// As [`start`](Self::start), from a shell that runs a command first, such as one that sets
    /// limits.
    #[track_caller]
    pub fn start_after(shell: &str, config: &str) -> Self {
        Self::spawn_after(shell, config).started(config)
    }

    /// As [`start_after`](Self::start_after), without waiting.
    #[track_caller]
    pub fn spawn_after(shell: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        let mut command = Command::new("sh");
        let script = format!("{shell}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program());
        Self::spawn_by(command, folder, &file, config, &[], Stdio::null())
    }

    /// As [`start_with`](Self::start_with), without waiting.
    #[track_caller]
    pub fn spawn(config: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        Self::spawn_from(folder, &file, config, arguments, Stdio::null())
    }

    /// As [`spawn`](Self::spawn), with the configuration in a given file, and a given standard
    /// output.
    #[track_caller]
    pub fn spawn_from(
        folder: TempDir,
        file: &Path,
        config: &str,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Self {
        let command = Command::new(program());
        Self::spawn_by(command, folder, file, config, arguments, stdout)
    }

    #[track_caller]
    fn spawn_by(
        mut command: Command,
        folder: TempDir,
        file: &Path,
        config: &str,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Self {
        let (ingest, api) = (free_address(), free_address());
        std::fs::write(file, complete(config, ingest, api)).unwrap();
        if !arguments.contains(&"-c") {
            command.args([OsStr::new("-c"), file.as_os_str()]);
        }
        command
            .args(["run", "--threads", "2"])
            .args(arguments)
            .env_remove("METRIFOLD_LOG")
            .env_remove("METRIFOLD_CONFIG")
            .env("NO_COLOR", "1")
            .stdout(stdout);
        Self {
            process: Process::spawn(&mut command),
            command,
            folder,
            ingest,
            api,
            may_panic: false,
        }
    }

    /// Waits until the program runs `config`.
    #[track_caller]
    pub fn started(mut self, config: &str) -> Self {
        self.until_logged(RUNS);
        // The program answers 503 until its sources have started, which cannot be checked for a
        // source with TLS.
        if config.contains("\"INGEST\"") && !config.contains("cert_file") {
            let lines = config.lines().map(str::trim);
            let paths = lines.filter_map(|line| line.strip_prefix("path = "));
            let paths: Vec<_> = paths
                .map(|path| path.replace(['"', '{', '}'], ""))
                .collect();
            for path in paths.iter().map(|path| &**path).chain(["/api/v1/write"]) {
                let ingest = self.ingest;
                self.process.until("sources are served", || {
                    let answer = fetch(ingest, path).ok();
                    answer.filter(|answer| answer.status != 503)
                });
            }
        }
        self
    }

    /// Starts the program again after its end, with the present content of the file. Its log starts
    /// anew.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Process::spawn(&mut self.command);
        self.process.until_logged(RUNS);
    }

    /// The temporary folder that holds the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Completes another configuration with the same addresses.
    pub fn complete(&self, config: &str) -> String {
        complete(config, self.ingest, self.api)
    }

    /// URL of the endpoint for remote write.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.ingest)
    }

    /// Accepts panics in the program's log.
    pub fn may_panic(&mut self) {
        self.may_panic = true;
    }

    /// Gets a page of the admin address.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        fetch(self.api, path).unwrap_or_else(|error| {
            panic!("{path} of the admin address: {error}\n{}", self.log());
        })
    }

    /// Sum of a metric over all series that have these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.get("/metrics").text();
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let lines = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let fits = found == name && pairs.iter().all(|pair| rest.contains(pair));
            fits.then(|| value.parse::<f64>().unwrap())
        });
        lines.sum()
    }
}

impl Deref for Metrifold {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Metrifold {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Replaces the placeholders for addresses, and adds an admin address unless the configuration has
/// one (`API`).
fn complete(config: &str, ingest: SocketAddr, api: SocketAddr) -> String {
    let config = config.replace("INGEST", &ingest.to_string());
    if config.contains("[api]\n") {
        return config.replace("API", &api.to_string());
    }
    // Keys in front of the first table must stay there.
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let lines = config.split_inclusive('\n');
    let top: usize = lines.take_while(|line| !is_table(line)).map(str::len).sum();
    let (top, rest) = config.split_at(top);
    format!("{top}[api]\naddress = \"{api}\"\n{rest}")
}

impl Drop for Metrifold {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.may_panic {
            let log = self.log();
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}
