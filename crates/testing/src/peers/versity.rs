//! A real S3 server: Versity's gateway over a folder, which decides conditional writes under a lock.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::built;
use crate::{Process, free_address};

/// A server with one bucket, `rules`.
pub struct Versity {
    pub process: Process,
    address: SocketAddr,
    folder: TempDir,
}

impl Versity {
    pub const ACCESS_KEY: &str = "metrifold";
    pub const SECRET_KEY: &str = "s3-secret-key";

    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/rules")).unwrap();
        std::fs::create_dir(folder.path().join("metadata")).unwrap();
        let address = free_address();
        Self {
            process: Self::launch(address, folder.path()),
            address,
            folder,
        }
    }

    /// Starts it again, at the same address and with what it had stored.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Self::launch(self.address, self.folder.path());
    }

    #[track_caller]
    fn launch(address: SocketAddr, folder: &Path) -> Process {
        let mut process = Process::spawn(
            Command::new(built("versitygw"))
                .arg(format!("--port={address}"))
                .arg(format!("--access={}", Self::ACCESS_KEY))
                .arg(format!("--secret={}", Self::SECRET_KEY))
                .args(["--health=/health", "--quiet"])
                // Not every file system has attributes.
                .args([
                    "posix",
                    &format!("--sidecar={}", folder.join("metadata").display()),
                ])
                .arg(folder.join("data"))
                .current_dir(folder)
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/health");
        process
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The content of an object, as the server's folder has it.
    pub fn read(&self, key: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join("data/rules").join(key)).ok()
    }
}
