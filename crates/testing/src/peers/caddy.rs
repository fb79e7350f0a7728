//! Caddy as a gateway in front of replicas.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Process, free_address};

/// A Caddy that sends every request to the first available upstream.
pub struct Caddy {
    _process: Process,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Caddy {
    /// Starts it with further lines of configuration for the upstreams.
    #[track_caller]
    pub fn first_of(upstreams: &[&str], lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let upstreams = upstreams.join(" ");
        let config = format!(
            "{{\n admin off\n auto_https off\n}}\nhttp://{address} {{\n respond /caddy ok\n \
             reverse_proxy {upstreams} {{\n lb_policy first\n {lines}\n }}\n}}\n"
        );
        let file = folder.path().join("Caddyfile");
        std::fs::write(&file, config).unwrap();
        let mut process = Process::spawn(
            Command::new("caddy")
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(&file)
                .env("HOME", folder.path())
                .env("XDG_DATA_HOME", folder.path())
                .env("XDG_CONFIG_HOME", folder.path())
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/caddy");
        Self {
            _process: process,
            address,
            _folder: folder,
        }
    }
}
