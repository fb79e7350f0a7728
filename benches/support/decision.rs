//! Time of a decision about a caller with a cached token: that of its hash, and a JWT of an issuer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::runtime::Builder;

use metrifold_access::{Gate, Settings, TenantConfig, TenantSettings, Tenants};
use metrifold_http::access::{Access, Head};
use metrifold_http::{Permission, install_crypto_provider};
use metrifold_testing::issuer::OpenIdIssuer;

const DECISIONS: u32 = 200_000;
const TENANTS: usize = 1000;

/// SHA-256 of `acme-token`.
const HASH: &str = "28daa606f54b368209e11244fd3d5612b41212e822258df22e55afe06a7bdae1";

/// Prints the times.
pub fn run() {
    install_crypto_provider();
    let (folder, issuer) = (
        tempfile::tempdir().unwrap(),
        OpenIdIssuer::start("jane", 3600),
    );
    let tenant = |number: usize| -> TenantConfig {
        let file = folder.path().join(format!("{number}.tokens"));
        let hash = match number {
            7 => HASH.to_owned(),
            number => format!("{number:064x}"),
        };
        std::fs::write(&file, format!("sha256:{hash} agent\n")).unwrap();
        toml::from_str(&format!(
            "bearer = {{ tokens_file = {file:?} }}\n\
             oidc = {{ issuer = {:?}, client_id = \"gateway\" }}\n\
             limits = {{ requests_per_second = 1000000000 }}\n",
            issuer.url()
        ))
        .unwrap()
    };
    let configs: Vec<(String, TenantConfig)> = (0..TENANTS)
        .map(|number| (format!("tenant-{number}"), tenant(number)))
        .collect();
    let tenants = configs.iter();
    let tenants = tenants.map(|(name, config)| TenantSettings::of(name, config, None));
    let settings = Settings {
        tenants: tenants.collect(),
        ..Settings::default()
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let gate = Gate::new();
        gate.set(Arc::new(Tenants::build(&settings, None).unwrap()));
        let access = gate.access(|_| Permission::Write);
        println!("\ndecisions, of {TENANTS} tenants with both proofs and a limit; goal: 5 us");
        for (what, token) in [
            ("token by its hash", "acme-token".to_owned()),
            ("JWT", issuer.token()),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            headers.insert("authorization", value);
            headers.insert("x-scope-orgid", HeaderValue::from_static("tenant-7"));
            headers.insert("user-agent", HeaderValue::from_static("Prometheus/3.0"));
            let uri = Uri::from_static("/api/v1/write");
            let head = Head {
                method: &Method::POST,
                uri: &uri,
                headers: &headers,
                params: &[],
                peer: ([127, 0, 0, 1], 1).into(),
                certificate: None,
                presented: &[],
            };
            decide(&*access, head).await;
            let started = Instant::now();
            for _ in 0..DECISIONS {
                decide(&*access, black_box(head)).await;
            }
            let each = started.elapsed() / DECISIONS;
            println!("{what:<20} {:>8.2} us", each.as_secs_f64() * 1e6);
        }
    });
}

async fn decide(access: &dyn Access, head: Head<'_>) {
    let caller = access.admit(head).await.unwrap();
    drop(access.enter(&caller, head, Some(1000)).unwrap());
    black_box(access.hidden());
}
