//! Measures the time of an access decision, and the memory of 100,000 tenants, each with a role and a
//! binding, of tables and of Observatorium's files.
//!
//! `cargo run --profile quick -p metrifold-access --example cost`; the argument `files` measures only the
//! latter.

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::json;
use sha2::{Digest, Sha256};

use metrifold_access::{
    AccessConfig, BindingConfig, Gate, RoleConfig, Settings, TenantConfig, TenantSettings, Tenants,
};
use metrifold_http::access::{Access, Head, Permission};

const TENANTS: usize = 100_000;
const REQUESTS: u32 = 200_000;
const ROUNDS: usize = 5;

fn main() {
    let folder = std::env::temp_dir().join(format!("metrifold-cost-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for tokens");
    files(&folder);
    if std::env::args().any(|argument| argument == "files") {
        return;
    }
    let hex = |token: &str| -> String {
        let digest = Sha256::digest(token.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let (issuer, token) = issuer();
    // Every hundredth tenant has its own tokens; the others share an issuer.
    let configs: Vec<(String, TenantConfig)> = (0..TENANTS)
        .map(|number| {
            let name = format!("tenant-{number:06}");
            let text = if number % 100 == 0 {
                let file = folder.join(&name);
                fs::write(&file, format!("sha256:{} agent\n", hex(&name)))
                    .expect("a file of tokens");
                format!("bearer = {{ tokens_file = {file:?} }}")
            } else {
                format!("oidc = {{ issuer = {issuer:?}, audience = \"metrics\" }}")
            };
            (name, toml::from_str(&text).expect("a tenant"))
        })
        .collect();
    let roles: Vec<(String, RoleConfig)> = configs
        .iter()
        .map(|(name, _)| {
            let text = format!("tenants = [\"{name}\"]\npermissions = [\"read\", \"write\"]");
            (name.clone(), toml::from_str(&text).expect("a role"))
        })
        .collect();
    let bindings: Vec<(String, BindingConfig)> = configs
        .iter()
        .map(|(name, _)| {
            let text = format!("roles = [\"{name}\"]\nsubjects = [{{ name = \"agent\" }}]");
            (name.clone(), toml::from_str(&text).expect("a binding"))
        })
        .collect();
    fn named<T>(all: &[(String, T)]) -> Vec<(&str, &T)> {
        all.iter().map(|(name, one)| (name.as_str(), one)).collect()
    }
    let tenants = configs
        .iter()
        .zip(0..)
        .map(|((name, config), print)| TenantSettings::of(name, config, Some(print)));
    let settings = Settings {
        tenants: tenants.collect(),
        roles: named(&roles),
        bindings: named(&bindings),
        ..Settings::default()
    };
    let before = resident();
    let started = Instant::now();
    let tenants = Tenants::build(&settings, None).unwrap_or_else(|errors| panic!("{errors:?}"));
    println!("{TENANTS} tenants built in {:?}", started.elapsed());
    println!("they take {} MiB", (resident() - before) >> 20);
    let started = Instant::now();
    let again =
        Tenants::build(&settings, Some(&tenants)).unwrap_or_else(|errors| panic!("{errors:?}"));
    println!("built again beside them in {:?}", started.elapsed());
    drop(tenants);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let gate = Gate::new();
    gate.set(Arc::new(again));
    let access = gate.access(|_| Permission::Write);
    for (what, tenant, token) in [
        (
            "token that is known by its hash",
            "tenant-000500",
            "tenant-000500",
        ),
        ("token of an issuer, seen before", "tenant-000501", &*token),
    ] {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}").parse().expect("a header");
        headers.insert(AUTHORIZATION, value);
        let params = [("tenant".into(), tenant.into())];
        let uri = Uri::from_static("/");
        let head = Head {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            params: &params,
            peer: ([127, 0, 0, 1], 1).into(),
            certificate: None,
            presented: &[],
        };
        // The first decision fetches the issuer's keys.
        let first = runtime.block_on(access.admit(head));
        first.expect("let in");
        let rounds = (0..ROUNDS).map(|_| round(&*access, head));
        let rounds: Vec<_> = rounds.map(|round| format!("{round:?}")).collect();
        println!(
            "a caller with a {what} is decided about in {}",
            rounds.join(", ")
        );
    }
    fs::remove_dir_all(&folder).expect("the folder is removed");
}

/// Measures the memory of tenants in Observatorium's files, and the time to build them again.
fn files(folder: &Path) {
    let [tenants_file, rbac_file] = ["tenants.yaml", "rbac.yaml"].map(|name| folder.join(name));
    let entries = |entry: &dyn Fn(usize) -> String| (0..TENANTS).map(entry).collect::<String>();
    let tenants = entries(&|number| {
        format!(
            "- name: tenant-{number}\n  id: 00000000-0000-4000-0000-{number:012}\n  oidc:\n    \
             clientID: metrics\n    issuerURL: https://127.0.0.1:1/{}\n",
            number % 10
        )
    });
    let roles = entries(&|number| {
        format!(
            "- name: tenant-{number}\n  resources: [metrics]\n  tenants: [tenant-{number}]\n  \
             permissions: [read, write]\n"
        )
    });
    let bindings = entries(&|number| {
        format!(
            "- name: tenant-{number}\n  roles: [tenant-{number}]\n  subjects:\n  - name: agent-{number}\n    \
             kind: user\n"
        )
    });
    let rbac = format!("roles:\n{roles}roleBindings:\n{bindings}");
    fs::write(&tenants_file, format!("tenants:\n{tenants}")).expect("a file of tenants");
    fs::write(&rbac_file, rbac).expect("a file of roles");
    let text = format!("tenants_file = {tenants_file:?}\nrbac_file = {rbac_file:?}");
    let before = resident();
    let mut built: Option<(AccessConfig, Tenants)> = None;
    for _ in 0..3 {
        let access: AccessConfig = toml::from_str(&text).expect("a table");
        if let Some((access_before, _)) = &built {
            access.take_over(access_before);
        }
        let started = Instant::now();
        let settings = Settings {
            access: access.clone(),
            ..Settings::default()
        };
        let tenants = Tenants::build(&settings, built.as_ref().map(|(_, tenants)| tenants));
        let tenants = tenants.unwrap_or_else(|errors| panic!("{errors:?}"));
        built = Some((access, tenants));
        let taken = (resident() - before) >> 20;
        let took = started.elapsed();
        println!("{TENANTS} tenants of files built in {took:?}; they take {taken} MiB");
    }
}

/// Measures the time of one decision.
fn round(access: &dyn Access, head: Head<'_>) -> std::time::Duration {
    let started = Instant::now();
    for _ in 0..REQUESTS {
        let caller = now(access.admit(head)).expect("let in");
        let pass = access
            .enter(&caller, head, Some(1000))
            .expect("within limits");
        drop(pass);
    }
    started.elapsed() / REQUESTS
}

/// Starts an issuer on loopback. Returns its URL and a token that it signed.
fn issuer() -> (String, String) {
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let found = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x }] });
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut first = String::new();
            stream.read_line(&mut first).expect("a request");
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).expect("a head");
            }
            let body = if first.contains("/keys") {
                &keys
            } else {
                &found
            };
            let body = body.to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n");
            let answer = format!("{head}connection: close\r\n\r\n{body}");
            let sent = stream.get_mut().write_all(answer.as_bytes());
            sent.expect("an answer is sent");
        }
    });
    let claims = json!({
        "iss": own, "aud": "metrics", "sub": "agent", "groups": ["agents"],
        "exp": get_current_timestamp() + 3600,
    });
    let key = EncodingKey::from_ed_der(&pair.serialize_der());
    let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token");
    (own, token)
}

/// Polls a future once; panics if it is pending.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Resident memory of the process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}
