//! Access to the admin address.
//!
//! Browsers are protected from foreign pages: a page whose host name was rebound to this address
//! cannot read anything, and a page of another origin cannot change anything.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

use metrifold_access::Gate;
use metrifold_base::BuildError;
use metrifold_engine::config::{ApiConfig, Config};
use metrifold_http::access::{Admission, Head};
use metrifold_http::{Access, Callers, Listen, Methods, Permission, Refusal, is_cross_site};
use metrifold_model::Caller;
use metrifold_model::{Rejection, RejectionKind};

/// The effect of an endpoint, which decides about access to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Answers probes and scrapes, under any host name.
    Probe,
    /// Shows the state of the process.
    Read,
    /// Shows a tenant its own data.
    Tenant,
    /// Changes something.
    Change,
}

/// Access rules from the configuration.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Rules {
    config: ApiConfig,
    /// Credentials that changes require, and reads from other machines. Without any, changes are for
    /// callers on this machine only.
    callers: Option<Callers>,
    /// Access by tenant, if it is configured.
    gate: Option<Gate>,
    /// Differs if the content of a file does, such as the certificate.
    print: Option<u64>,
}

/// Access check of one endpoint.
pub(super) struct Door {
    pub(super) guard: Guard,
    pub(super) rules: Arc<Rules>,
}

impl Rules {
    /// Builds the rules and reads their secrets.
    pub(super) fn build(config: &Config, gate: &Gate) -> Result<Option<Self>, BuildError> {
        match config.api() {
            None => Ok(None),
            Some(api) => Self::of(api, config.api_print(), gate).map(Some),
        }
    }

    fn of(config: &ApiConfig, print: Option<u64>, gate: &Gate) -> Result<Self, BuildError> {
        let (basic_auth, authorization) =
            (config.basic_auth.as_ref(), config.authorization.as_ref());
        let callers = match (basic_auth, authorization) {
            (None, None) => None,
            _ => Some(Callers::build(basic_auth, authorization)?),
        };
        Ok(Self {
            config: config.clone(),
            callers,
            gate: config.access.map(|_| gate.clone()),
            print,
        })
    }

    /// The admin address, for these methods of a path.
    pub(super) fn listen(&self, path: &str, methods: Methods) -> Listen {
        self.config.listen(path, methods)
    }

    /// Scheme of its URLs.
    pub(super) fn scheme(&self) -> &'static str {
        match &self.config.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    async fn admit(&self, guard: Guard, head: Head<'_>) -> Result<Caller, Refusal> {
        let anybody = Caller {
            identity: None,
            certificate: head.certificate.cloned(),
        };
        if guard == Guard::Probe {
            return Ok(anybody);
        }
        self.check_host(head.headers)?;
        if guard == Guard::Change && is_cross_site(head.headers) {
            let reason = "a page of another origin cannot change anything here";
            return Err(Rejection::new(RejectionKind::Forbidden, reason).into());
        }
        if let Some(gate) = &self.gate {
            let access = gate.access(match guard {
                Guard::Tenant => |_| Permission::Read,
                Guard::Probe | Guard::Read | Guard::Change => |_| Permission::Admin,
            });
            return access.admit(head).await;
        }
        let here = head.peer.ip().to_canonical().is_loopback();
        match (&self.callers, guard) {
            (_, Guard::Read | Guard::Tenant) if here || self.config.remote_reads => Ok(anybody),
            (Some(callers), _) => callers.identify(head.headers, head.certificate),
            (None, _) if here => Ok(anybody),
            (None, _) => {
                let reason = "only callers on this machine have access: set authorization under [api], or remote_reads = true for callers that only read";
                Err(Rejection::new(RejectionKind::Forbidden, reason).into())
            }
        }
    }

    /// Refuses a host name that is not configured: DNS rebinding may have led a browser here. An
    /// address as host is safe, since no name server can make a browser use one.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = headers.get(HOST).and_then(|value| value.to_str().ok());
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        if authority.is_some_and(|authority| self.goes_by(authority.host())) {
            return Ok(());
        }
        let named = host.unwrap_or_default();
        let reason = format!(
            "host {named:?} is not a name of this process: add it to hosts under [api], or use its address"
        );
        Err(Rejection::new(RejectionKind::Forbidden, reason).into())
    }

    fn goes_by(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.trim_end_matches('.');
        let names = self.config.hosts.iter().map(String::as_str);
        names
            .chain(["localhost"])
            .any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host))
    }
}

impl Access for Door {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(self.rules.admit(self.guard, head))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use metrifold_base::Secret;
    use metrifold_http::Authorization;

    use super::*;

    fn config(hosts: &[&str], token: Option<&str>) -> ApiConfig {
        let mut config: ApiConfig = toml::from_str("address = \"127.0.0.1:0\"").unwrap();
        config.hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        config.authorization = token.map(|token| Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Some(Secret::new(token)),
            credentials_file: None,
        });
        config
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    fn ask(config: &ApiConfig, guard: Guard, headers: &[(&str, &str)]) -> u16 {
        ask_from([127, 0, 0, 1].into(), config, guard, headers)
    }

    fn ask_from(peer: IpAddr, config: &ApiConfig, guard: Guard, headers: &[(&str, &str)]) -> u16 {
        let pairs = headers.iter().map(|(name, value)| {
            let name: http::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let headers: HeaderMap = pairs.collect();
        let head = Head {
            method: &Method::GET,
            uri: &http::Uri::from_static("/"),
            headers: &headers,
            params: &[],
            peer: (peer, 1).into(),
            certificate: None,
            presented: &[],
        };
        let rules = Rules::of(config, None, &Gate::new()).unwrap();
        let admitted = runtime().block_on(rules.admit(guard, head));
        admitted.map_or_else(|refusal| refusal.answer().status().as_u16(), |_| 200)
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_its_own_and_no_others() {
        let config = config(&["Metrics.example."], None);
        for own in [
            "127.0.0.1:8686",
            "10.0.0.7",
            "[::1]:8686",
            "localhost:8686",
            "LOCALHOST",
            "metrics.example:8686",
            "metrics.example.",
        ] {
            let host = [("host", own)];
            assert_eq!(ask(&config, Guard::Read, &host), 200, "{own}");
            assert_eq!(ask(&config, Guard::Change, &host), 200, "{own}");
        }
        for foreign in [
            "rebound.example:8686",
            "127.0.0.1.rebound.example",
            "localhost.rebound.example",
            "notmetrics.example",
            "user@rebound.example",
            "",
        ] {
            let host = [("host", foreign)];
            assert_eq!(ask(&config, Guard::Read, &host), 403, "{foreign}");
            assert_eq!(ask(&config, Guard::Change, &host), 403, "{foreign}");
            assert_eq!(ask(&config, Guard::Probe, &host), 200, "{foreign}");
        }
    }

    #[test]
    fn pages_of_another_origin_change_nothing() {
        let config = config(&[], None);
        let ask = |guard, headers: &[(&str, &str)]| {
            let all = [&[("host", "localhost:8686")], headers].concat();
            ask(&config, guard, &all)
        };
        for own in [&[][..], &[("origin", "http://localhost:8686")]] {
            assert_eq!(ask(Guard::Change, own), 200, "{own:?}");
        }
        for foreign in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://localhost")],
            &[("origin", "null")],
            &[("origin", "")],
            &[
                ("origin", "http://localhost:8686"),
                ("origin", "http://evil.example"),
            ],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(ask(Guard::Change, foreign), 403, "{foreign:?}");
            assert_eq!(ask(Guard::Read, foreign), 200, "{foreign:?}");
        }
    }

    #[test]
    fn where_a_token_is_configured_changes_need_it_and_nothing_else_does() {
        let config = config(&[], Some("t0ken"));
        let with = |guard, token| ask(&config, guard, &[("host", "localhost"), token]);
        let none = ("accept", "*/*");
        let good = ("authorization", "Bearer t0ken");
        assert_eq!(with(Guard::Change, none), 401);
        assert_eq!(with(Guard::Change, ("authorization", "Bearer other")), 401);
        assert_eq!(with(Guard::Change, good), 200);
        assert_eq!(with(Guard::Read, none), 200);
        assert_eq!(with(Guard::Probe, none), 200);
    }

    #[test]
    fn callers_from_elsewhere_need_what_is_configured_for_them() {
        let host = ("host", "10.0.0.7");
        let good = ("authorization", "Bearer t0ken");
        let far = |config: &ApiConfig, guard, headers: &[(&str, &str)]| {
            ask_from([10, 0, 0, 9].into(), config, guard, headers)
        };
        let closed = config(&[], None);
        for (guard, status) in [
            (Guard::Probe, 200),
            (Guard::Read, 403),
            (Guard::Change, 403),
        ] {
            assert_eq!(far(&closed, guard, &[host]), status, "{guard:?}");
        }
        let mut open = closed;
        open.remote_reads = true;
        assert_eq!(far(&open, Guard::Read, &[host]), 200);
        assert_eq!(far(&open, Guard::Change, &[host]), 403);
        let token = config(&[], Some("t0ken"));
        for guard in [Guard::Read, Guard::Change] {
            assert_eq!(far(&token, guard, &[host]), 401, "{guard:?}");
            assert_eq!(far(&token, guard, &[host, good]), 200, "{guard:?}");
        }
    }
}
