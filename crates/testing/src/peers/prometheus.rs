//! A Prometheus server: Debian's, or the one that `tests/peers` builds.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{QueryApi, built};
use crate::{Process, free_address};

/// A Prometheus server; dereferences to its [`QueryApi`].
pub struct Prometheus {
    pub process: Process,
    api: QueryApi,
    edition: Edition,
    folder: TempDir,
}

/// Version of Prometheus.
#[derive(Clone, Debug)]
enum Edition {
    Debian,
    /// Path of the program, and features to enable.
    Three(PathBuf, &'static str),
}

impl Prometheus {
    /// Starts Debian's version with a configuration, in which `SELF` is its own address. It
    /// receives remote write.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_edition(Edition::Debian, config)
    }

    /// Starts Prometheus 3, which receives remote write 2.0 as well.
    #[track_caller]
    pub fn start_3(config: &str) -> Self {
        Self::start_3_with("exemplar-storage,metadata-wal-records", config)
    }

    /// Starts Prometheus 3 with these features.
    #[track_caller]
    pub fn start_3_with(features: &'static str, config: &str) -> Self {
        Self::start_edition(Edition::Three(built("prometheus"), features), config)
    }

    #[track_caller]
    fn start_edition(edition: Edition, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = config.replace("SELF", &address.to_string());
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let mut prometheus = Self {
            process: edition.launch(address, folder.path()),
            api: QueryApi { address },
            edition,
            folder,
        };
        prometheus.process.until_ready(address, "/-/ready");
        prometheus
    }

    /// Starts it again at the same address, with its stored data.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = self.edition.launch(self.address, self.folder.path());
        self.process.until_ready(self.api.address, "/-/ready");
    }

    /// Starts it again at the same address, without its stored data.
    #[track_caller]
    pub fn start_empty(&mut self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.start_again();
    }

    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url())
    }
}

impl Edition {
    #[track_caller]
    fn launch(&self, address: SocketAddr, folder: &Path) -> Process {
        let (mut command, features) = match self {
            Self::Debian => (
                Command::new("prometheus"),
                "native-histograms,exemplar-storage",
            ),
            Self::Three(program, features) => (Command::new(program), *features),
        };
        if let Self::Three(..) = self {
            for message in ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] {
                let flag = "--web.remote-write-receiver.accepted-protobuf-messages";
                command.arg(format!("{flag}={message}"));
            }
        }
        Process::spawn(
            command
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .args([
                    "--web.enable-remote-write-receiver",
                    "--web.enable-lifecycle",
                ])
                .arg(format!("--enable-feature={features}"))
                .arg("--log.level=warn")
                .arg(format!("--web.listen-address={address}"))
                .current_dir(folder)
                .stdout(Stdio::null()),
        )
    }
}

impl Deref for Prometheus {
    type Target = QueryApi;

    fn deref(&self) -> &QueryApi {
        &self.api
    }
}
