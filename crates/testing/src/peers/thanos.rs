//! A Thanos Receive, a Thanos Query for its data, and a Thanos Ruler.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{QueryApi, built};
use crate::{Process, free_address};

/// A Receive and a Query; dereferences to the Query's [`QueryApi`].
pub struct Thanos {
    pub receive: Process,
    addresses: Addresses,
    api: QueryApi,
    _query: Process,
    folder: TempDir,
}

/// Addresses of Receive.
#[derive(Clone, Copy)]
struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    write: SocketAddr,
    /// Not used, but its default is one fixed port for all.
    capnproto: SocketAddr,
}

/// External label of Receive, which Query requires.
const REPLICA: &str = "test_replica";

impl Thanos {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addresses = Addresses {
            http: free_address(),
            grpc: free_address(),
            write: free_address(),
            capnproto: free_address(),
        };
        let mut receive = addresses.launch(folder.path());
        receive.until_ready(addresses.http, "/-/ready");
        let (query, api) = query(addresses.grpc, folder.path());
        Self {
            receive,
            addresses,
            api,
            _query: query,
            folder,
        }
    }

    /// Starts Receive again at the same addresses, with its stored data.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.receive = self.addresses.launch(self.folder.path());
        self.receive.until_ready(self.addresses.http, "/-/ready");
    }

    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/receive", self.addresses.write)
    }
}

impl Addresses {
    #[track_caller]
    fn launch(self, folder: &Path) -> Process {
        let Self {
            http,
            grpc,
            write,
            capnproto,
        } = self;
        Process::spawn(
            Command::new(built("thanos"))
                .args(["receive", "--tsdb.path=data", "--log.level=warn"])
                .args(["--tsdb.max-exemplars=100000"])
                .args(["--http-grace-period=1s", "--grpc-grace-period=1s"])
                .arg(format!("--http-address={http}"))
                .arg(format!("--grpc-address={grpc}"))
                .arg(format!("--remote-write.address={write}"))
                .arg(format!("--receive.capnproto-address={capnproto}"))
                .arg(format!("--receive.local-endpoint={grpc}"))
                .arg(format!(
                    "--receive.hashrings=[{{\"endpoints\":[\"{grpc}\"]}}]"
                ))
                .arg(format!("--label={REPLICA}=\"a\""))
                .current_dir(folder)
                .stdout(Stdio::null()),
        )
    }
}

impl Deref for Thanos {
    type Target = QueryApi;

    fn deref(&self) -> &QueryApi {
        &self.api
    }
}

/// Starts a Query that shows what the store at an address holds.
#[track_caller]
fn query(store: SocketAddr, folder: &Path) -> (Process, QueryApi) {
    let api = QueryApi {
        address: free_address(),
    };
    let mut query = Process::spawn(
        Command::new(built("thanos"))
            .args(["query", "--log.level=warn"])
            .arg(format!("--http-address={}", api.address))
            .arg(format!("--grpc-address={}", free_address()))
            .arg(format!("--endpoint={store}"))
            .arg(format!("--query.replica-label={REPLICA}"))
            .current_dir(folder)
            .stdout(Stdio::null()),
    );
    query.until_ready(api.address, "/-/ready");
    (query, api)
}

/// A Thanos Ruler that evaluates every second.
pub struct ThanosRule {
    pub process: Process,
    address: SocketAddr,
    grpc: SocketAddr,
    folder: TempDir,
}

impl ThanosRule {
    /// Starts one with these rule files that queries `query`.
    #[track_caller]
    pub fn start(rule_files: &str, query: &QueryApi) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (address, grpc) = (free_address(), free_address());
        let mut process = Process::spawn(
            Command::new(built("thanos"))
                .args(["rule", "--data-dir=data", "--log.level=warn"])
                .args(["--eval-interval=1s", "--label=ruler=\"a\""])
                .arg(format!("--rule-file={rule_files}"))
                .arg(format!("--query={}", query.url()))
                .arg(format!("--http-address={address}"))
                .arg(format!("--grpc-address={grpc}"))
                .current_dir(folder.path())
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/-/ready");
        Self {
            process,
            address,
            grpc,
            folder,
        }
    }

    /// Starts a Query that shows what it has recorded.
    #[track_caller]
    pub fn query(&self) -> (Process, QueryApi) {
        query(self.grpc, self.folder.path())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
