//! Finds the admin address of a running process and sends requests to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use tokio::runtime::Builder;

use metrifold_base::Period;
use metrifold_engine::config;
use metrifold_engine::config::ProcessEnvironment;
use metrifold_http::{Authorization, BasicAuth, Credentials, install_crypto_provider};

use super::{EXIT_FAILURE, Global, report};

/// Which process is meant.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Admin address of the process; by default, that of the configuration
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// File with the token for `[api]`; by default, the credentials of the configuration
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The admin address of a running process, with credentials.
#[derive(Debug)]
pub(super) struct Process {
    address: String,
    credentials: Option<HeaderValue>,
}

/// Shows the address.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

fn parse_address(text: &str) -> Result<String, String> {
    let authority: Result<http::uri::Authority, _> = text.parse();
    match authority {
        Ok(name) if name.port_u16().is_some() && !name.host().is_empty() => Ok(text.to_owned()),
        _ => Err("write a host and a port, such as 127.0.0.1:8686".to_owned()),
    }
}

impl AdminArgs {
    /// Returns the process and the credentials for it, or an exit code.
    pub(super) fn find(&self, global: &Global) -> Result<Process, u8> {
        let (address, configured) = match &self.address {
            Some(address) => (address.clone(), (None, None)),
            None => configured(global)?,
        };
        let credentials = match (&self.token_file, configured) {
            (Some(file), _) => {
                let token = Authorization {
                    scheme: "Bearer".to_owned(),
                    credentials: None,
                    credentials_file: Some(file.clone()),
                };
                read(None, Some(&token)).map_err(|error| {
                    report::complain(&error);
                    EXIT_FAILURE
                })?
            }
            // Either kind of credentials is accepted.
            (None, (basic_auth, None)) => tried(basic_auth.as_ref(), None),
            (None, (_, authorization)) => tried(None, authorization.as_ref()),
        };
        Ok(Process {
            address,
            credentials,
        })
    }
}

/// Credentials from the configuration, if they can be read: their files may belong to the process's
/// user.
fn tried(
    basic_auth: Option<&BasicAuth>,
    authorization: Option<&Authorization>,
) -> Option<HeaderValue> {
    read(basic_auth, authorization).unwrap_or_else(|error| {
        report::complain(&format!(
            "sending the request without credentials: {error}; use --token-file"
        ));
        None
    })
}

fn read(
    basic_auth: Option<&BasicAuth>,
    authorization: Option<&Authorization>,
) -> Result<Option<HeaderValue>, String> {
    let credentials = Credentials::build(basic_auth, authorization, None);
    let credentials = credentials.map_err(|error| error.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let header = runtime.block_on(credentials.header());
    header.map_err(|error| error.to_string())
}

/// Credentials for the admin address, as the configuration states them.
type Configured = (Option<BasicAuth>, Option<Authorization>);

/// The configured admin address with its credentials, or an exit code.
fn configured(global: &Global) -> Result<(String, Configured), u8> {
    // Other errors in the configuration are no reason to refuse: the process reports them.
    let api = config::api_of(&global.config, &ProcessEnvironment).map_err(|found| {
        if found.is_empty() {
            report::complain(
                "no request was sent: the configuration has no [api] with an address: use --address",
            );
            return EXIT_FAILURE;
        }
        let code = report::refuse(&found);
        report::complain("no request was sent: correct the configuration, or use --address");
        code
    })?;
    if api.address.0.port() == 0 {
        report::complain(
            "the port of [api] is 0 in the configuration, so the actual one is unknown: use --address",
        );
        return Err(EXIT_FAILURE);
    }
    let address = reachable(api.address.0).to_string();
    Ok((address, (api.basic_auth, api.authorization)))
}

/// Address to connect to: loopback if the process listens on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Sends a request, and returns status and text of the answer.
pub(super) fn ask(
    process: &Process,
    method: Method,
    path_and_query: &str,
    body: String,
    timeout: Period,
) -> Result<(StatusCode, String), String> {
    // reqwest needs a provider even for plain HTTP.
    install_crypto_provider();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder().no_proxy().timeout(timeout.0);
    let client = client.build().map_err(describe)?;
    runtime.block_on(async {
        let url = format!("http://{process}{path_and_query}");
        let mut request = client.request(method, url).body(body);
        if let Some(credentials) = &process.credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let answer = request.send().await.map_err(describe)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(describe)?))
    })
}

/// An error with its sources, since its own message says little.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listens, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            let listens: SocketAddr = listens.parse().unwrap();
            assert_eq!(reachable(listens).to_string(), reached);
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:8686", "[::1]:8686", "metrifold.local:80"] {
            assert!(parse_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":1",
            "8686",
            "host",
            "host:",
            "host:x",
            "http://host:1",
            "host:1/path",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
