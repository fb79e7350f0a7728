//! `reload`: asks a running process for a reload, and waits for what comes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use reqwest::StatusCode;
use tokio::runtime::Builder;

use super::{EXIT_CONFIG, EXIT_FAILURE, Global, report};
use crate::api::RELOAD;
use crate::config::{self, LoadOptions, Period, ProcessEnvironment};
use crate::http::install_crypto_provider;

const AFTER_HELP: &str = "\
Examples:
  metrifold reload
  metrifold reload -c /etc/metrifold
  metrifold reload --address 10.0.0.7:8686

The admin address is that of the configuration (--config), unless --address names it. An edit \
that moves the admin address has to be applied with the old one. Exits with 0 when the \
configuration runs, with 78 when it is wrong, and with 1 when it could not be applied, such as for \
a port that is taken, or nobody answered.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReloadArgs {
    /// The admin address of the process, instead of the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,

    /// How long to wait for the outcome
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    timeout: Period,
}

fn parse_address(text: &str) -> Result<String, String> {
    let authority: Result<http::uri::Authority, _> = text.parse();
    match authority {
        Ok(name) if name.port_u16().is_some() && !name.host().is_empty() => Ok(text.to_owned()),
        _ => Err("write a host and a port, such as 127.0.0.1:8686".to_owned()),
    }
}

pub(super) fn execute(global: &Global, args: &ReloadArgs) -> u8 {
    let address = match &args.address {
        Some(address) => address.clone(),
        None => match configured(global) {
            Ok(address) => address,
            Err(code) => return code,
        },
    };
    match ask(&address, args.timeout) {
        Ok((StatusCode::OK, told)) => report::print(&told),
        Ok((status, told)) => {
            report::tell(&told);
            match status {
                StatusCode::UNPROCESSABLE_ENTITY => EXIT_CONFIG,
                StatusCode::CONFLICT => EXIT_FAILURE,
                status => {
                    report::complain(&format!("{address} answered {status}"));
                    EXIT_FAILURE
                }
            }
        }
        Err(error) => {
            report::complain(&format!("{address} cannot be asked: {error}"));
            EXIT_FAILURE
        }
    }
}

/// The admin address of the configuration, or the exit code.
fn configured(global: &Global) -> Result<String, u8> {
    // What it names is for the process to read, which may run as somebody else.
    let options = LoadOptions { environment: false };
    // Warnings are in the answer.
    let loaded = config::load(&global.config, &ProcessEnvironment, options).map_err(|found| {
        let code = report::refuse(&found);
        report::complain("nobody was asked to reload it: correct it, or ask with --address");
        code
    })?;
    let Some(api) = loaded.config.api else {
        report::complain("the configuration has no [api]: set its address, or send SIGHUP");
        return Err(EXIT_FAILURE);
    };
    if api.address.port() == 0 {
        report::complain("the configuration leaves the port of [api] open: use --address");
        return Err(EXIT_FAILURE);
    }
    Ok(reachable(api.address).to_string())
}

/// Where to reach what listens on an address: loopback, when that is all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Asks, and returns the status and the text of the answer.
fn ask(address: &str, timeout: Period) -> Result<(StatusCode, String), String> {
    // The client wants one, though it speaks plain HTTP here.
    install_crypto_provider();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder().no_proxy().timeout(timeout.0);
    let client = client.build().map_err(describe)?;
    runtime.block_on(async {
        let answer = client
            .post(format!("http://{address}{RELOAD}"))
            .send()
            .await
            .map_err(describe)?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(describe)?))
    })
}

/// The reasons behind an error, which alone says little.
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
