//! An OpenID Connect issuer: npm's oidc-provider.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::built;
use crate::{Process, request};

/// An issuer that gives clients tokens for their secrets.
pub struct Issuer {
    address: SocketAddr,
    _process: Process,
}

impl Issuer {
    /// Starts one that signs tokens with a new key for `algorithm`; they are valid for `seconds`.
    #[track_caller]
    pub fn start(address: SocketAddr, algorithm: &str, seconds: u64) -> Self {
        let mut process = Process::spawn(
            Command::new("node")
                .arg(built("issuer").join("issuer.mjs"))
                .args([
                    address.port().to_string(),
                    algorithm.to_owned(),
                    seconds.to_string(),
                ])
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/.well-known/openid-configuration");
        Self {
            address,
            _process: process,
        }
    }

    /// Gets a token for a client and an audience.
    #[track_caller]
    pub fn token(&self, client: &str, audience: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={client}-secret\
             &scope=write&resource=urn:{audience}"
        );
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = request("POST", self.address, "/token", &headers, form.as_bytes()).unwrap();
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        token.unwrap_or_else(|| panic!("{}", answer.text()))
    }
}
