//! A user with a real browser: Debian's Chromium.

use std::process::Command;

use serde_json::Value;

use super::built;
use crate::run;

/// Name and password of the user that logs in.
pub(super) const USER: [&str; 2] = ["jane", "jane-password"];

/// Opens a page of a gateway, logs in at Keycloak, reads the page, logs out and opens the page again.
/// Returns the observations, whose keys `tests/peers/chromium/login.mjs` describes.
#[track_caller]
pub fn log_in_and_out(page: &str, logout: &str, issuer: &str) -> Value {
    let mut command = Command::new("node");
    let script = built("chromium").join("login.mjs");
    command.arg(script).args([page, logout, issuer]).args(USER);
    let output = run(&mut command);
    let observed = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&observed).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {observed}\n{errors}")
    })
}
