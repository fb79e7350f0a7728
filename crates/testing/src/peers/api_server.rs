//! A real API server of Kubernetes over Debian's etcd. Nothing runs pods and there are no controllers, so
//! that the cluster holds what a test writes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::built;
use crate::{Authority, Process, free_address};

pub struct ApiServer {
    process: Process,
    address: SocketAddr,
    authority: Authority,
    /// URL of etcd.
    store: String,
    _etcd: Process,
    /// The token of the only user, who may do everything.
    token: String,
    folder: TempDir,
}

impl ApiServer {
    #[track_caller]
    pub fn start(token: &str) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (clients, peers) = (free_address(), free_address());
        let mut etcd = Process::spawn(
            Command::new("etcd")
                .args(["--name=one", "--data-dir=etcd", "--log-level=error"])
                .arg(format!("--listen-client-urls=http://{clients}"))
                .arg(format!("--advertise-client-urls=http://{clients}"))
                .arg(format!("--listen-peer-urls=http://{peers}"))
                .arg(format!("--initial-advertise-peer-urls=http://{peers}"))
                .arg(format!("--initial-cluster=one=http://{peers}"))
                .current_dir(folder.path())
                .stdout(Stdio::null()),
        );
        etcd.until_ready(clients, "/health");
        let (address, store) = (free_address(), format!("http://{clients}"));
        authority.issue("apiserver");
        Self {
            process: Self::launch(address, &store, &authority, token, folder.path()),
            address,
            authority,
            store,
            _etcd: etcd,
            token: token.to_owned(),
            folder,
        }
    }

    /// Kills it, and starts it at the same address with the same objects. From then on, it accepts this
    /// token alone.
    #[track_caller]
    pub fn start_again(&mut self, token: &str) {
        self.process.kill();
        self.token = token.to_owned();
        let folder = self.folder.path();
        self.process = Self::launch(self.address, &self.store, &self.authority, token, folder);
    }

    #[track_caller]
    fn launch(
        address: SocketAddr,
        store: &str,
        authority: &Authority,
        token: &str,
        folder: &Path,
    ) -> Process {
        let certificate = authority.ca().with_file_name("apiserver.crt");
        let key = certificate.with_extension("key");
        let tokens = format!("{token},admin,admin,system:masters\n");
        std::fs::write(folder.join("tokens.csv"), tokens).unwrap();
        let flag = |name: &str, file: &Path| format!("--{name}={}", file.display());
        let mut process = Process::spawn(
            Command::new(built("kube-apiserver"))
                .arg(format!("--etcd-servers={store}"))
                .args(["--bind-address=127.0.0.1", "--cert-dir=certificates"])
                .arg(format!("--secure-port={}", address.port()))
                .arg(flag("tls-cert-file", &certificate))
                .arg(flag("tls-private-key-file", &key))
                .arg("--token-auth-file=tokens.csv")
                .args(["--authorization-mode=AlwaysAllow", "--v=0"])
                // Pods need no service account, which no controller would make.
                .arg("--disable-admission-plugins=ServiceAccount")
                .arg("--service-cluster-ip-range=10.96.0.0/16")
                .arg("--service-account-issuer=https://issuer.test")
                .arg(flag("service-account-key-file", &certificate))
                .arg(flag("service-account-signing-key-file", &key))
                .current_dir(folder)
                .stdout(Stdio::null()),
        );
        process.until("the API server is ready", || {
            let mut curl = curl(authority, address, token, "/readyz");
            (curl.output().unwrap().stdout == b"ok").then_some(())
        });
        process
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The authority that has signed its certificate.
    pub fn ca(&self) -> PathBuf {
        self.authority.ca()
    }

    /// Creates an object in a collection, such as `/api/v1/namespaces/a/pods`, with its status if it has
    /// one.
    #[track_caller]
    pub fn create(&self, collection: &str, object: &Value) {
        self.send("POST", "application/json", collection, object);
        let status = &object["status"];
        if !status.is_null() {
            let name = object["metadata"]["name"].as_str().unwrap();
            let path = format!("{collection}/{name}/status");
            let patch = json!({ "status": status });
            self.send("PATCH", "application/merge-patch+json", &path, &patch);
        }
    }

    /// Changes the given fields of an object.
    #[track_caller]
    pub fn change(&self, path: &str, fields: &Value) {
        self.send("PATCH", "application/merge-patch+json", path, fields);
    }

    /// Deletes an object at once.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        let options = json!({ "gracePeriodSeconds": 0 });
        self.send("DELETE", "application/json", path, &options);
    }

    /// The text of an answer, of whatever status.
    pub fn get(&self, path: &str) -> String {
        let mut curl = curl(&self.authority, self.address, &self.token, path);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    }

    #[track_caller]
    fn send(&self, method: &str, content_type: &str, path: &str, body: &Value) {
        let file = self.folder.path().join("body.json");
        std::fs::write(&file, body.to_string()).unwrap();
        let mut curl = curl(&self.authority, self.address, &self.token, path);
        curl.args(["--fail-with-body", "-X", method, "-H"]);
        curl.arg(format!("Content-Type: {content_type}"));
        curl.arg("--data-binary")
            .arg(format!("@{}", file.display()));
        let output = curl.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{method} {path} {body}: {said}");
    }
}

fn curl(authority: &Authority, address: SocketAddr, token: &str, path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--cacert"]);
    curl.arg(authority.ca());
    curl.arg("-H").arg(format!("Authorization: Bearer {token}"));
    curl.arg(format!("https://{address}{path}"));
    curl
}
