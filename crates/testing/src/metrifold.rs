//! The product as a process, with a configuration in a folder that ends with the test.

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

/// What the program logs when everything has been started.
const RUNS: &str = "metrifold runs";

/// A Metrifold under test. It is used as the [`Process`] that it is.
#[derive(Debug)]
pub struct Metrifold {
    process: Process,
    command: Command,
    folder: TempDir,
    /// What `INGEST` in the configuration stands for.
    pub ingest: SocketAddr,
    /// The admin address.
    pub api: SocketAddr,
    may_panic: bool,
}

impl Metrifold {
    /// Runs a configuration and waits until it runs. `INGEST` in it stands for an address of the
    /// test's, and an admin address is added.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with further arguments.
    #[track_caller]
    pub fn start_with(config: &str, arguments: &[&str]) -> Self {
        Self::spawn(config, arguments).started(config)
    }

    /// The same with a given standard output.
    #[track_caller]
    pub fn start_writing(config: &str, stdout: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        Self::spawn_from(folder, &file, config, &[], stdout).started(config)
    }

    /// The same from a shell that does something first, such as setting limits.
    #[track_caller]
    pub fn start_after(shell: &str, config: &str) -> Self {
        Self::spawn_after(shell, config).started(config)
    }

    /// The same without waiting.
    #[track_caller]
    pub fn spawn_after(shell: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        let mut command = Command::new("sh");
        let script = format!("{shell}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(program());
        Self::spawn_by(command, folder, &file, config, &[], Stdio::null())
    }

    /// The same without waiting.
    #[track_caller]
    pub fn spawn(config: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        Self::spawn_from(folder, &file, config, arguments, Stdio::null())
    }

    /// The same with a file that is written to, and perhaps read, in a place of its own.
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

    /// Waits until it runs `config`.
    #[track_caller]
    pub fn started(mut self, config: &str) -> Self {
        self.until_logged(RUNS);
        // Until its sources have started, the program answers 503. Of a source with TLS that cannot
        // be asked.
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

    /// Runs it once more after its end, with what the file holds now. Its log begins anew.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Process::spawn(&mut self.command);
        self.process.until_logged(RUNS);
    }

    /// The folder that ends with the test, and in which its configuration is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Another configuration for the same addresses.
    pub fn complete(&self, config: &str) -> String {
        complete(config, self.ingest, self.api)
    }

    /// The URL to which remote write is sent.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.ingest)
    }

    /// Lets a panic in the program pass.
    pub fn may_panic(&mut self) {
        self.may_panic = true;
    }

    /// A page of the admin address.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        fetch(self.api, path).unwrap_or_else(|error| {
            panic!("{path} of the admin address: {error}\n{}", self.log());
        })
    }

    /// The sum of all values of a metric whose labels hold all of these pairs.
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

/// Puts addresses into a configuration, and an admin address unless it has one (`API`).
fn complete(config: &str, ingest: SocketAddr, api: SocketAddr) -> String {
    let config = config.replace("INGEST", &ingest.to_string());
    if config.contains("[api]\n") {
        return config.replace("API", &api.to_string());
    }
    // Keys that stand before the first table have to stay there.
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
