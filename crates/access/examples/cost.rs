//! Measures the time of deciding about a caller, and the memory of 100,000 tenants.
//!
//! `cargo run --release -p metrifold-access --example cost`

use std::fs;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};

use metrifold_access::{Gate, Settings, TenantConfig, Tenants};
use metrifold_http::access::{Head, Permission};

const TENANTS: usize = 100_000;
const REQUESTS: usize = 200_000;

fn main() {
    let folder = std::env::temp_dir().join(format!("metrifold-cost-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for tokens");
    let hex = |token: &str| -> String {
        let digest = Sha256::digest(token.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    // Ten of a thousand tenants each have tokens of their own; the others share an issuer.
    let configs: Vec<(String, TenantConfig)> = (0..TENANTS)
        .map(|number| {
            let name = format!("tenant-{number:06}");
            let text = if number % 100 == 0 {
                let file = folder.join(&name);
                fs::write(&file, format!("sha256:{} agent\n", hex(&name)))
                    .expect("a file of tokens");
                format!("bearer = {{ tokens_file = {file:?} }}")
            } else {
                "oidc = { issuer = \"http://127.0.0.1:9/issuer\", audience = \"metrics\" }"
                    .to_owned()
            };
            (name, toml::from_str(&text).expect("a tenant"))
        })
        .collect();
    let settings = Settings {
        tenants: configs
            .iter()
            .map(|(name, config)| (name.as_str(), config))
            .collect(),
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
    let name = "tenant-000500";
    let mut headers = HeaderMap::new();
    headers.insert(
        AUTHORIZATION,
        format!("Bearer {name}").parse().expect("a header"),
    );
    let params = [("tenant".into(), name.into())];
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
    let started = Instant::now();
    for _ in 0..REQUESTS {
        let caller = now(access.admit(head)).expect("let in");
        let pass = access.enter(&caller, head).expect("within limits");
        drop(pass);
    }
    let each = started.elapsed() / REQUESTS as u32;
    println!("a caller with a token is decided about in {each:?}");
    fs::remove_dir_all(&folder).expect("the folder is removed");
}

/// What a future yields that has nothing to wait for.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// The memory of the process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}
