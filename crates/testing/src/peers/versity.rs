//! A real S3 server: Versity's gateway over a folder, which decides conditional writes under a lock.
//!
//! It reads an object's ETag and then its content, both by their path. Where the ETag is an attribute of
//! the file, content may so be newer than its ETag, never older: a conditional write then fails, and
//! nothing is lost. Where it is a file of its own, which is written before the content, old content may
//! come with a new ETag, which no real store does.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{XattrFlags, setxattr};
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
        let mut command = Command::new(built("versitygw"));
        command
            .arg(format!("--port={address}"))
            .arg(format!("--access={}", Self::ACCESS_KEY))
            .arg(format!("--secret={}", Self::SECRET_KEY))
            .args(["--health=/health", "--quiet", "posix"]);
        if !Self::reads_as_a_store_does(folder) {
            command.arg(format!("--sidecar={}", folder.join("metadata").display()));
        }
        command
            .arg(folder.join("data"))
            .current_dir(folder)
            .stdout(Stdio::null());
        let mut process = Process::spawn(&mut command);
        process.until_ready(address, "/health");
        process
    }

    /// Whether the folder's file system has attributes of files.
    fn reads_as_a_store_does(folder: &Path) -> bool {
        setxattr(folder, "user.test", b"1", XattrFlags::empty()).is_ok()
    }

    /// Whether it never gives out old content with a new ETag.
    pub fn is_consistent(&self) -> bool {
        Self::reads_as_a_store_does(self.folder.path())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The content of an object, as the server's folder has it.
    pub fn read(&self, key: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join("data/rules").join(key)).ok()
    }
}
