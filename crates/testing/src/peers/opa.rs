//! A real Open Policy Agent.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::built;
use crate::Process;

/// Starts an agent with a policy file, and waits until it is healthy.
#[track_caller]
pub fn opa(address: SocketAddr, policy: &Path) -> Process {
    let mut command = Command::new(built("opa"));
    command
        .args([
            "run",
            "--server",
            "--disable-telemetry",
            "--log-level",
            "error",
        ])
        .args(["--addr", &address.to_string()])
        .arg(policy)
        .stdout(Stdio::null());
    let mut process = Process::spawn(&mut command);
    process.until_ready(address, "/health");
    process
}
