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
use metrifold_http::{
    Authorization, BasicAuth, ClientTls, Credentials, install_crypto_provider, tls,
};

use super::{EXIT_FAILURE, Global, report};

/// Which process is meant.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Admin address of the process, after `https://` if it has TLS; by default, that of the configuration
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// PEM file with the certificate of the process, or with the authorities that signed it; by default, the system's
    #[arg(long, value_name = "FILE", requires = "address")]
    ca_file: Option<PathBuf>,

    /// File with the token for `[api]`; by default, the credentials of the configuration
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The admin address of a running process, with credentials.
#[derive(Debug)]
pub(super) struct Process {
    address: String,
    /// For `https`.
    tls: Option<tls::ClientConfig>,
    credentials: Option<HeaderValue>,
}

/// Shows the address.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

fn parse_address(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix(HTTPS).unwrap_or(text);
    let authority: Result<http::uri::Authority, _> = authority.parse();
    match authority {
        Ok(name) if name.port_u16().is_some() && !name.host().is_empty() => Ok(text.to_owned()),
        _ => Err("write a host and a port, such as 127.0.0.1:8686".to_owned()),
    }
}

impl AdminArgs {
    /// Returns the process and the credentials for it, or an exit code.
    pub(super) fn find(&self, global: &Global) -> Result<Process, u8> {
        let (address, tls, configured) = match &self.address {
            Some(address) => (address.clone(), self.tls(address)?, (None, None)),
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
            tls,
            credentials,
        })
    }

    /// TLS for the given address.
    fn tls(&self, address: &str) -> Result<Option<tls::ClientConfig>, u8> {
        if !address.starts_with(HTTPS) {
            return Ok(None);
        }
        let tls = ClientTls {
            ca_file: self.ca_file.clone(),
            ..ClientTls::default()
        };
        tls.config().map(Some).map_err(refused)
    }
}

/// In front of an address that has TLS.
const HTTPS: &str = "https://";

fn refused(error: impl fmt::Display) -> u8 {
    report::complain(&error.to_string());
    EXIT_FAILURE
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
fn configured(global: &Global) -> Result<(String, Option<tls::ClientConfig>, Configured), u8> {
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
    let address = reachable(api.address.0);
    // Its certificate is known, and need not be one for the address.
    let tls = api.tls.as_ref().map(|tls| tls::pinned(&tls.cert_file));
    let tls = tls.transpose().map_err(refused)?;
    let address = match tls {
        Some(_) => format!("{HTTPS}{address}"),
        None => address.to_string(),
    };
    Ok((address, tls, (api.basic_auth, api.authorization)))
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
    let client = match &process.tls {
        Some(tls) => client.tls_backend_preconfigured(tls.clone()),
        None => client,
    };
    let client = client.build().map_err(describe)?;
    runtime.block_on(async {
        let url = match process.tls {
            Some(_) => format!("{process}{path_and_query}"),
            None => format!("http://{process}{path_and_query}"),
        };
        let mut request = client.request(method, url).body(body);
        if let Some(credentials) = &process.credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let answer = request.send().await.map_err(describe)?;
        let status = answer.status();
        let text = answer.text().await.map_err(describe)?;
        Ok((
            status,
            if status.is_success() {
                text
            } else {
                reason(text)
            },
        ))
    })
}

/// The reason in an error of the API, or the text as it is.
fn reason(text: String) -> String {
    let error = serde_json::from_str::<serde_json::Value>(&text);
    let error = error
        .ok()
        .and_then(|error| Some(error.get("error")?.as_str()?.to_owned()));
    error.unwrap_or(text)
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
        for good in [
            "127.0.0.1:8686",
            "[::1]:8686",
            "metrifold.local:80",
            "https://[::1]:1",
        ] {
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
            "https://host",
            "host:1/path",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
