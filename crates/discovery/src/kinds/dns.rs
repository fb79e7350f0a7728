//! `dns`: targets that name servers know, as Prometheus' `dns_sd_configs`.
//!
//! Each name is a source of its own. A name that does not exist, or has no such record, is an
//! answer without targets; a server that fails to say so is a failure. A name that is not fully
//! qualified is tried with the search domains of the system, and does not exist only if that holds
//! for all of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::task::JoinSet;

use metrifold_base::keys::Keys;
use metrifold_base::{Address, BoxFuture, BuildError, Period, Problems, RunError, keys, words};

use crate::answer::{Failure, Reason};
use crate::labels::{ADDRESS, Labels};
use crate::limits::{LimitKeys, Limits, OnEmpty};
use crate::poll::{Polled, aside, poll};
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::Feed;

/// The most names of a provider.
const MAX_NAMES: usize = 1000;

keys! {
    /// `[discovery.NAME] type = "dns"`.
    #[derive(Clone, Debug)]
    pub struct DnsConfig {
        /// DNS names to query. A name that does not end with a dot is tried with the search domains of `/etc/resolv.conf`.
        names: Vec<String> = required(["_prometheus._tcp.example.org"]),
        /// Type of DNS record to query: `SRV`, `A`, `AAAA`, `MX` or `NS`.
        record_type: Record = default("SRV"),
        /// Port of the targets. Required unless `record_type` is `SRV`, whose records contain the port.
        port: Option<u16> = unset(9090),
        /// How often the names are queried.
        refresh_interval: Period = default("30s"),
        /// Name servers to query, in this order. By default, those of `/etc/resolv.conf`, which is read again for each refresh.
        servers: Vec<Address> = unset(["10.0.0.53:53"]),
        /// Maximum time for the answer of one name server.
        timeout: Period = default("5s"),
        limits: LimitKeys = include,
    }
}

words! {
    /// Types of records that can be requested.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Record {
        /// Servers of a service with their ports.
        Srv = "SRV",
        /// Addresses of IPv4.
        A = "A",
        /// Addresses of IPv6.
        Aaaa = "AAAA",
        /// Mail servers.
        Mx = "MX",
        /// Name servers.
        Ns = "NS",
    }
}

inventory::submit! {
    ProviderInfo {
        name: "dns",
        summary: "targets from DNS records, as with Prometheus' dns_sd_configs",
        keys: DnsConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "dns")]
impl ProviderConfig for DnsConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        self.limits.on_empty
    }

    fn question(&self) -> String {
        format!("{:?} {:?} {:?}", self.record_type, self.port, self.names)
    }

    fn validate(&self, problems: &mut Problems) {
        if self.names.is_empty() {
            problems.at("names", "must have at least one name");
        }
        if self.names.len() > MAX_NAMES {
            problems.at("names", format!("must be at most {MAX_NAMES}"));
        }
        for (at, name) in self.names.iter().enumerate() {
            if name.is_empty() || Name::from_utf8(name).is_err() {
                problems.at(format!("names[{at}]"), "is not a name that DNS can have");
            }
        }
        match (self.record_type, self.port) {
            (Record::Srv, _) => {}
            (_, None) => {
                let message = "a port is needed: only SRV records have one";
                problems.at("record_type", message).help("add port = 9090");
            }
            (_, Some(0)) => {
                problems.at("port", "must be from 1 to 65535");
            }
            (_, Some(_)) => {}
        }
        if self.refresh_interval < Period::millis(100) {
            problems.at("refresh_interval", "must be at least 100ms");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        self.limits.validate(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        Ok(Box::new(Dns(Arc::new(self.clone()))))
    }
}

struct Dns(Arc<DnsConfig>);

impl Provider for Dns {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        let interval = self.0.refresh_interval.0;
        poll(*self, interval, feed)
    }
}

impl Polled for Dns {
    fn ask<'a>(
        &'a mut self,
        feed: &'a Feed,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>> {
        Box::pin(async move {
            let config = self.0.clone();
            let asker = aside(move || Asker::new(config)).await?;
            let mut answers = Vec::new();
            match asker {
                Ok(asker) => {
                    let asker = Arc::new(asker);
                    let mut asked = JoinSet::new();
                    for name in &self.0.names {
                        let (asker, name) = (asker.clone(), Arc::<str>::from(name.as_str()));
                        asked.spawn(async move {
                            let answer = asker.ask(&name).await;
                            (name, answer)
                        });
                    }
                    while let Some(answer) = asked.join_next().await {
                        answers.push(answer.map_err(|error| RunError(error.to_string()))?);
                    }
                }
                Err(failure) => {
                    let names = self.0.names.iter().map(|name| Arc::from(name.as_str()));
                    answers.extend(names.map(|name| (name, Err(failure.clone()))));
                }
            }
            let feed = feed.clone();
            aside(move || feed.all(answers)).await
        })
    }
}

/// Resolver with the system's settings of this attempt.
struct Asker {
    config: Arc<DnsConfig>,
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl Asker {
    fn new(config: Arc<DnsConfig>) -> Result<Self, Failure> {
        let (servers, search, mut options) = match config.servers.as_slice() {
            [] => {
                let (system, options) = read_system_conf().map_err(|error| {
                    Failure::new(Reason::Unreadable, format!("/etc/resolv.conf: {error}"))
                })?;
                let mut search = system.search().to_vec();
                search.extend(system.domain().cloned().filter(|_| search.is_empty()));
                (system.name_servers().to_vec(), search, options)
            }
            servers => {
                let servers = servers.iter().map(|address| server(address.0));
                let system = read_system_conf().ok();
                let search = system.map(|(system, _)| system.search().to_vec());
                (
                    servers.collect(),
                    search.unwrap_or_default(),
                    ResolverOpts::default(),
                )
            }
        };
        options.timeout = config.timeout.0;
        let ndots = options.ndots;
        let resolver = resolver(servers, options)?;
        Ok(Self {
            config,
            resolver,
            search,
            ndots,
        })
    }

    /// The fully qualified names to try, in order.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, Failure> {
        let invalid = |error| Failure::new(Reason::Invalid, format!("{name}: {error}"));
        let mut own = Name::from_utf8(name).map_err(invalid)?;
        if own.is_fqdn() {
            return Ok(vec![own]);
        }
        let below = self.search.iter().map(|domain| {
            let name = own.clone().append_domain(domain);
            name.map_err(|error| Failure::new(Reason::Invalid, error))
        });
        let mut names: Vec<Name> = below.collect::<Result<_, _>>()?;
        let dots = name.matches('.').count();
        own.set_fqdn(true);
        match dots >= self.ndots {
            true => names.insert(0, own),
            false => names.push(own),
        }
        Ok(names)
    }

    async fn ask(&self, name: &str) -> Result<Vec<Labels>, Failure> {
        let kind = match self.config.record_type {
            Record::Srv => RecordType::SRV,
            Record::A => RecordType::A,
            Record::Aaaa => RecordType::AAAA,
            Record::Mx => RecordType::MX,
            Record::Ns => RecordType::NS,
        };
        let mut failed = None;
        for candidate in self.candidates(name)? {
            match self.resolver.lookup(candidate, kind).await {
                Ok(found) => {
                    let answers = found.answers().iter();
                    return Ok(answers
                        .filter_map(|record| self.target(name, &record.data))
                        .collect());
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                    // The name exists without such a record.
                    ResponseCode::NoError => return Ok(Vec::new()),
                    ResponseCode::NXDomain => {}
                    code => {
                        let text = format!("name server answered {code}");
                        failed = Some(Failure::new(Reason::Refused, text));
                    }
                },
                Err(error) => {
                    let reason = match error {
                        NetError::Dns(_) => Reason::Refused,
                        _ => Reason::Unreachable,
                    };
                    failed = Some(Failure::new(reason, error));
                }
            }
        }
        failed.map_or_else(|| Ok(Vec::new()), Err)
    }

    /// The target in a record. `None` for a record of another type.
    fn target(&self, name: &str, data: &RData) -> Option<Labels> {
        let port = self.config.port.unwrap_or_default();
        let mut labels = vec![("__meta_dns_name", name.to_owned())];
        let address = match data {
            RData::SRV(srv) => {
                let target = srv.target.to_utf8();
                let address = host_port(target.trim_end_matches('.'), srv.port);
                labels.push(("__meta_dns_srv_record_target", target));
                labels.push(("__meta_dns_srv_record_port", srv.port.to_string()));
                address
            }
            RData::MX(mx) => {
                let target = mx.exchange.to_utf8();
                let address = host_port(target.trim_end_matches('.'), port);
                labels.push(("__meta_dns_mx_record_target", target));
                address
            }
            RData::NS(ns) => {
                let target = ns.0.to_utf8();
                let address = host_port(target.trim_end_matches('.'), port);
                labels.push(("__meta_dns_ns_record_target", target));
                address
            }
            RData::A(a) => host_port(&a.0.to_string(), port),
            RData::AAAA(aaaa) => host_port(&aaaa.0.to_string(), port),
            // For example the CNAME on the way to an address.
            _ => return None,
        };
        labels.push((ADDRESS, address));
        Some(labels.into_iter().collect())
    }
}

/// A resolver that asks these servers in order.
fn resolver(
    servers: Vec<NameServerConfig>,
    mut options: ResolverOpts,
) -> Result<TokioResolver, Failure> {
    // No cache: an answer must be current.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
    let runtime = TokioRuntimeProvider::default();
    let builder = TokioResolver::builder_with_config(servers, runtime).with_options(options);
    builder
        .build()
        .map_err(|error| Failure::new(Reason::Unreachable, error))
}

/// Configured name servers, which resolve addresses.
pub struct NameServers(TokioResolver);

impl NameServers {
    /// Resolver over these servers; each has `timeout` to answer.
    ///
    /// # Errors
    ///
    /// Fails when the resolver cannot be built.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, Failure> {
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        let servers = servers.iter().map(|address| server(*address));
        resolver(servers.collect(), options).map(Self)
    }

    /// Addresses of a fully qualified name, of both families; empty if the name has none.
    ///
    /// # Errors
    ///
    /// Fails when the name does not exist, or no server answers.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Failure> {
        let failed =
            |reason, text: &dyn std::fmt::Display| Failure::new(reason, format!("{host}: {text}"));
        let mut name = Name::from_utf8(host).map_err(|error| failed(Reason::Invalid, &error))?;
        name.set_fqdn(true);
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.0.lookup(name.clone(), kind).await {
                Ok(found) => {
                    addresses.extend(found.answers().iter().filter_map(|it| match &it.data {
                        RData::A(a) => Some(IpAddr::V4(a.0)),
                        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                        _ => None,
                    }));
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                    if none.response_code == ResponseCode::NoError => {}
                Err(error) => return Err(failed(Reason::Unreachable, &error)),
            }
        }
        Ok(addresses)
    }
}

/// A name server at an address and port.
fn server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = connections.map(on_port).into();
    server
}

/// A host and a port; an IPv6 address gets brackets.
fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests;
