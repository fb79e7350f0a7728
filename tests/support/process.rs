//! Child processes with a log, a readiness check and an end.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use super::http;

/// How long a process may take to become ready or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(100);

/// Looks until `look` yields something; panics with `what` when that takes longer than `limit`.
pub async fn wait<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{limit:?} were not enough: {what}"
        );
        sleep(LOOK).await;
    }
}

/// A port of 127.0.0.1 that the system says is free, and that no other caller was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if given.insert(port) {
            return port;
        }
    }
}

/// A child process. Dropping it kills it, and prints the end of its log if the test fails.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to a log in `folder`.
    pub fn start(program: &str, arguments: &[String], folder: &Path) -> Self {
        let name = Path::new(program).file_name().unwrap();
        let name = name.to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env_remove("METRIFOLD_CONFIG")
            .env_remove("METRIFOLD_LOG")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {program} ({error}): `make test` installs what this test needs"
                )
            });
        Self { name, child, log }
    }

    /// Waits until `url` answers 200.
    pub async fn ready(&mut self, url: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if http::try_get(url)
                .await
                .is_some_and(|reply| reply.status == 200)
            {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended at once ({status}):\n{}", self.name, self.log());
            }
            assert!(
                Instant::now() < deadline,
                "{} was not ready in {PATIENCE:?}:\n{}",
                self.name,
                self.log()
            );
            sleep(LOOK).await;
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(asked.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end in {PATIENCE:?}:\n{}",
                self.name,
                self.log()
            );
            sleep(LOOK).await;
        }
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of {}'s log\n{}", self.name, end.join("\n"));
        }
    }
}

/// Metrifold under test.
pub struct Metrifold {
    pub process: Process,
    /// `http://` and the address of the sources.
    pub ingest: String,
    /// `http://` and the admin address.
    pub api: String,
    folder: TempDir,
}

impl Metrifold {
    /// Runs a configuration, in which `{ingest}` is the address of the sources, and waits until
    /// it is ready.
    pub async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ingest = format!("127.0.0.1:{}", free_port());
        let api = format!("127.0.0.1:{}", free_port());
        let config = config.replace("{ingest}", &ingest);
        let config = format!("{config}\n[api]\naddress = \"{api}\"\n");
        fs::write(folder.path().join("metrifold.toml"), config).unwrap();
        let mut metrifold = Self {
            process: Self::launch(folder.path()),
            ingest: format!("http://{ingest}"),
            api: format!("http://{api}"),
            folder,
        };
        metrifold.ready().await;
        metrifold
    }

    fn launch(folder: &Path) -> Process {
        let arguments = ["run", "-c", "metrifold.toml"].map(str::to_owned);
        Process::start(env!("CARGO_BIN_EXE_metrifold"), &arguments, folder)
    }

    async fn ready(&mut self) {
        self.process.ready(&format!("{}/-/ready", self.api)).await;
    }

    /// Starts it again, on the same ports and with what it had stored.
    pub async fn start_again(&mut self) {
        self.process = Self::launch(self.folder.path());
        self.ready().await;
    }

    /// Its own metrics: the sum of the samples of `name` that have all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = http::get(&format!("{}/metrics", self.api)).await.text();
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        page.lines()
            .filter(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| wanted.iter().all(|label| line.contains(label.as_str())))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}
