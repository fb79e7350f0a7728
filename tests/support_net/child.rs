//! The program as a child process, killed when the test is done with it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::{free_address, sender, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_metrifold");

pub struct Child {
    command: Command,
    child: std::process::Child,
    stderr: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    folder: TempDir,
    /// Where the source `ingest` of [`Child::start`] listens.
    pub ingest: SocketAddr,
    /// The admin address.
    pub api: SocketAddr,
    may_panic: bool,
}

impl Child {
    /// Runs a configuration and waits until it runs. `INGEST` in it stands for a free address,
    /// and an admin address is added.
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
        Self::spawn_writing(config, &[], stdout).started(config)
    }

    /// The same from a shell that does something first, such as setting limits.
    #[track_caller]
    pub fn start_after(shell: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{shell}; exec \"$0\" \"$@\""))
            .arg(PROGRAM);
        Self::spawn_by(command, folder, &file, config, &[], Stdio::null()).started(config)
    }

    /// Waits until it runs `config`.
    #[track_caller]
    pub fn started(mut self, config: &str) -> Self {
        let child = &mut self;
        until("the program runs", || {
            assert_eq!(child.child.try_wait().unwrap(), None, "{}", child.stderr());
            child.stderr().contains("metrifold runs").then_some(())
        });
        // Until its sources have started, the program answers 503.
        let paths = config
            .lines()
            .filter_map(|line| line.strip_prefix("path = "));
        let paths: Vec<_> = paths.map(|path| path.replace('"', "")).collect();
        for path in paths.iter().map(|path| &**path).chain(["/api/v1/write"]) {
            if config.contains("\"INGEST\"") && !config.contains("cert_file") {
                until("sources are served", || {
                    let answer = sender::fetch(child.ingest, &path.replace(['{', '}'], ""));
                    answer.ok().filter(|answer| answer.status != 503)
                });
            }
        }
        self
    }

    /// The same without waiting.
    pub fn spawn(config: &str, arguments: &[&str]) -> Self {
        Self::spawn_writing(config, arguments, Stdio::null())
    }

    /// The same with a given standard output.
    pub fn spawn_writing(config: &str, arguments: &[&str], stdout: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        Self::spawn_from(folder, &file, config, arguments, stdout)
    }

    /// The same with a file that is written to, and perhaps read, in a place of its own.
    pub fn spawn_from(
        folder: TempDir,
        file: &Path,
        config: &str,
        arguments: &[&str],
        stdout: Stdio,
    ) -> Self {
        let command = Command::new(PROGRAM);
        Self::spawn_by(command, folder, file, config, arguments, stdout)
    }

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
        let named = match arguments.iter().position(|argument| *argument == "-c") {
            Some(_) => Vec::new(),
            None => vec![OsStr::new("-c"), file.as_os_str()],
        };
        command
            .args(named)
            .args(["run", "--threads", "2"])
            .args(arguments)
            .env_remove("METRIFOLD_LOG")
            .env_remove("METRIFOLD_CONFIG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let stderr: Arc<Mutex<Vec<String>>> = Arc::default();
        let (child, reader) = launch(&mut command, &stderr);
        Self {
            command,
            child,
            stderr,
            reader: Some(reader),
            folder,
            ingest,
            api,
            may_panic: false,
        }
    }

    /// The folder that ends with the test, and in which its configuration is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Another configuration for the same addresses.
    pub fn complete(&self, config: &str) -> String {
        complete(config, self.ingest, self.api)
    }

    /// Lets a panic in the child pass.
    pub fn may_panic(&mut self) {
        self.may_panic = true;
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// What it has logged.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end and all of its log.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = until("the program ends", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Runs it once more after its end, with what the file holds now.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.stderr.lock().unwrap().clear();
        let (child, reader) = launch(&mut self.command, &self.stderr);
        (self.child, self.reader) = (child, Some(reader));
        until("the program runs", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.stderr());
            self.stderr().contains("metrifold runs").then_some(())
        });
    }

    /// A page of the admin address.
    #[track_caller]
    pub fn get(&self, path: &str) -> sender::Answer {
        sender::fetch(self.api, path).unwrap()
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

    /// How many entries a directory of `/proc/<pid>` has, such as `fd`.
    pub fn listed(&self, directory: &str) -> usize {
        let directory = format!("/proc/{}/{directory}", self.child.id());
        std::fs::read_dir(directory).unwrap().count()
    }

    /// A line of `/proc/<pid>/status` in KiB, such as `VmHWM`.
    pub fn memory(&self, key: &str) -> u64 {
        let file = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Starts a program, whose log is kept.
fn launch(
    command: &mut Command,
    stderr: &Arc<Mutex<Vec<String>>>,
) -> (std::process::Child, JoinHandle<()>) {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let kept = stderr.clone();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    (child, reader)
}

fn complete(config: &str, ingest: SocketAddr, api: SocketAddr) -> String {
    let config = config.replace("INGEST", &ingest.to_string());
    // What stands at the top has to stay there.
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let lines = config.split_inclusive('\n');
    let top: usize = lines.take_while(|line| !is_table(line)).map(str::len).sum();
    let (top, rest) = config.split_at(top);
    format!("{top}[api]\naddress = \"{api}\"\n{rest}")
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the program:\n{}", self.stderr());
        } else if !self.may_panic {
            assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
        }
    }
}
