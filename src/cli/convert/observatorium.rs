//! `convert observatorium`: tenants, roles and endpoints of the Observatorium API as TOML.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use toml::{Table, Value};

use metrifold_access::config::{SubjectKind, SubjectOf};
use metrifold_access::{TenantConfig, observatorium};
use metrifold_base::read_text;

use super::Converted;

#[derive(Debug, Args)]
pub(super) struct ObservatoriumArgs {
    /// Its tenants
    #[arg(long = "tenants.config", value_name = "FILE")]
    tenants: Option<PathBuf>,

    /// Its roles and bindings
    #[arg(long = "rbac.config", value_name = "FILE")]
    rbac: Option<PathBuf>,

    /// Where it listens for callers
    #[arg(long = "web.listen", value_name = "ADDRESS", default_value = ":8080")]
    listen: String,

    /// Where it shows metrics and health
    #[arg(
        long = "web.internal.listen",
        value_name = "ADDRESS",
        default_value = ":8081"
    )]
    internal: String,

    /// Its certificate
    #[arg(long = "tls.server.cert-file", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The certificate's key
    #[arg(long = "tls.server.key-file", value_name = "FILE", id = "key")]
    key: Option<PathBuf>,

    /// Thanos Receive
    #[arg(long = "metrics.write.endpoint", value_name = "URL")]
    write: Option<String>,

    /// Thanos Query
    #[arg(long = "metrics.read.endpoint", value_name = "URL")]
    read: Option<String>,

    /// Header that carries the tenant in requests to Thanos
    #[arg(
        long = "metrics.tenant-header",
        value_name = "NAME",
        default_value = "THANOS-TENANT"
    )]
    tenant_header: String,

    /// The label that holds the tenant
    #[arg(
        long = "metrics.tenant-label",
        value_name = "NAME",
        default_value = "tenant_id"
    )]
    tenant_label: String,

    /// Where rules are kept: not converted yet, since rules are served by a source of their own
    #[arg(long = "metrics.rules.endpoint", value_name = "URL")]
    rules: Option<String>,

    /// Further endpoints that are written to: a list, or the proposal's `endpoints`
    #[arg(long = "metrics.additional.write.endpoint.config", value_name = "FILE")]
    additional: Option<PathBuf>,
}

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// Path under which the Observatorium API serves a tenant's metrics.
const BASE: &str = "/api/metrics/v1/{tenant}";

macro_rules! table {
    ($($key:expr => $value:expr),* $(,)?) => {
        Table::from_iter([$((String::from($key), Value::from($value))),*])
    };
}

pub(super) fn convert(args: &ObservatoriumArgs) -> Result<Converted, String> {
    let mut notes = Vec::new();
    let mut root = Table::new();
    root.insert(
        "api".to_owned(),
        table! { "address" => args.internal.as_str() }.into(),
    );
    let mut listener = table! { "address" => args.listen.as_str() };
    let mut certificates = false;
    if let Some(file) = &args.tenants {
        let tenants = observatorium::read_tenants(file)?;
        let mut any = tenants.tenants();
        certificates = any.any(|tenant| tenant.config.mtls.is_some());
        let tenants = tenants.tenants();
        let tenants = tenants.map(|it| (it.name.to_owned(), tenant(it.config).into()));
        root.insert("tenants".to_owned(), Table::from_iter(tenants).into());
    }
    if let Some(file) = &args.rbac {
        let rbac = observatorium::read_rbac(file)?;
        let roles = rbac.roles().map(|(name, role)| {
            let permissions: Vec<&str> = role.permissions.iter().map(|it| it.as_str()).collect();
            let role = table! {
                "resources" => role.resources.clone(),
                "tenants" => role.tenants.clone(),
                "permissions" => permissions,
            };
            (name.to_owned(), role.into())
        });
        root.insert("roles".to_owned(), Table::from_iter(roles).into());
        let bindings = (1..).zip(rbac.bindings()).map(|(number, binding)| {
            let subjects = binding.subjects.iter().map(|subject| {
                let kind = match subject.kind {
                    SubjectKind::User => "user",
                    SubjectKind::Group => "group",
                };
                Value::from(table! { "name" => subject.name.as_str(), "kind" => kind })
            });
            let binding = table! {
                "roles" => binding.roles.clone(),
                "subjects" => subjects.collect::<Vec<_>>(),
            };
            (format!("binding-{number}"), binding.into())
        });
        root.insert(
            "role_bindings".to_owned(),
            Table::from_iter(bindings).into(),
        );
    }
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let mut tls = table! { "cert_file" => path(cert), "key_file" => path(key), "min_version" => "1.3" };
            if certificates {
                tls.insert("client_auth".to_owned(), "tenants".into());
            }
            listener.insert("tls".to_owned(), tls.into());
        }
        _ if certificates => {
            return Err(
                "tenants have certificates and the listener has none: give --tls.server.cert-file"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if args.tenants.is_none() {
        notes.push(
            "without --tenants.config callers are not authenticated: put an authenticating proxy in front"
                .to_owned(),
        );
    }
    let mut sources = Table::new();
    let mut sinks = Table::new();
    let mut inputs = Vec::new();
    let access = args.tenants.is_some();
    let source = |kind: &str, path: String| {
        let mut source = table! { "type" => kind, "listener" => "public", "path" => path };
        if access {
            source.insert("access".to_owned(), "tenants".into());
        }
        Value::from(source)
    };
    let mut writes = Vec::new();
    if let Some(endpoint) = &args.write {
        let endpoint = format!("{}/api/v1/receive", endpoint.trim_end_matches('/'));
        let sink = table! {
            "type" => "thanos",
            "inputs" => vec!["tenant"],
            "endpoint" => endpoint,
            "tenant_header" => args.tenant_header.as_str(),
        };
        writes.push(("thanos-receiver".to_owned(), sink));
    }
    if let Some(file) = &args.additional {
        writes.extend(additional(file, &mut notes)?);
    }
    if !writes.is_empty() {
        inputs.push("write");
        sources.insert(
            "write".to_owned(),
            source("remote_write", format!("{BASE}/api/v1/receive")),
        );
    }
    for (name, sink) in writes {
        if sinks.insert(name.clone(), sink.into()).is_some() {
            return Err(format!("two endpoints are called {name:?}"));
        }
    }
    if let Some(endpoint) = &args.read {
        inputs.push("read");
        sources.insert("read".to_owned(), source("prometheus_api", BASE.to_owned()));
        let sink = table! {
            "type" => "prometheus",
            "inputs" => vec!["tenant"],
            "endpoint" => endpoint.as_str(),
        };
        sinks.insert("thanos-query".to_owned(), sink.into());
    }
    if inputs.is_empty() {
        return Err(
            "there is nothing to convert: give --metrics.write.endpoint or --metrics.read.endpoint"
                .to_owned(),
        );
    }
    if let Some(rules) = &args.rules {
        notes.push(format!(
            "rules at {rules} are not converted: see the sources and sinks of rules"
        ));
    }
    let mut transform = table! {
        "type" => "tenant", "inputs" => inputs, "label" => args.tenant_label.as_str(),
    };
    if !access {
        let from = vec![Value::from(table! { "path" => "tenant" })];
        transform.insert("from".to_owned(), from.into());
    }
    root.insert(
        "listeners".to_owned(),
        table! { "public" => listener }.into(),
    );
    root.insert("sources".to_owned(), sources.into());
    root.insert(
        "transforms".to_owned(),
        table! { "tenant" => transform }.into(),
    );
    root.insert("sinks".to_owned(), sinks.into());
    let mut text = String::from("# Converted from the configuration of the Observatorium API.\n");
    for note in &notes {
        // A note is one line; writing to a `String` cannot fail.
        let _ = writeln!(text, "# Note: {note}");
    }
    let converted = toml::to_string(&root).map_err(|error| error.to_string())?;
    let _ = write!(text, "\n{converted}");
    Ok(Converted { text, notes })
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn tenant(tenant: &TenantConfig) -> Table {
    let mut table = Table::new();
    if let Some(id) = &tenant.id {
        table.insert("id".to_owned(), id.as_str().into());
    }
    if let Some(oidc) = &tenant.oidc {
        let mut own = table! {
            "issuer" => oidc.issuer.as_str(),
            "client_id" => oidc.client_id.clone().unwrap_or_default(),
            "username_claim" => oidc.username_claim.as_str(),
            "groups_claim" => oidc.groups_claim.as_str(),
        };
        if let Some(file) = &oidc.tls.ca_file {
            own.insert("tls".to_owned(), table! { "ca_file" => path(file) }.into());
        }
        table.insert("oidc".to_owned(), own.into());
    }
    if let Some(mtls) = &tenant.mtls {
        let subject = match mtls.subject {
            SubjectOf::Any => "any",
            SubjectOf::Email => "email",
            SubjectOf::Uri => "uri",
            SubjectOf::Dns => "dns",
            SubjectOf::Ip => "ip",
            SubjectOf::CommonName => "common_name",
        };
        let own = table! { "ca_file" => path(&mtls.ca_file), "subject" => subject };
        table.insert("mtls".to_owned(), own.into());
    }
    if let Some(opa) = &tenant.opa {
        let own = table! { "url" => opa.url.uri().to_string() };
        table.insert("opa".to_owned(), own.into());
    }
    if tenant.kubernetes.is_some() {
        table.insert("kubernetes".to_owned(), Table::new().into());
    }
    table
}

/// The file of additional endpoints, in the shape of the proposal or in the shipped one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Additional {
    Shipped(Vec<Shipped>),
    Proposed(Proposed),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposed {
    /// The proposal misspells the key.
    #[serde(alias = "endpints")]
    endpoints: Vec<ProposedEndpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ProposedEndpoint {
    name: String,
    url: String,
    tls_config: Option<ProposedTls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposedTls {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shipped {
    name: String,
    url: String,
    #[serde(default)]
    http_client_config: Option<ClientConfig>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientConfig {
    basic_auth: Option<Table>,
    authorization: Option<Table>,
    oauth2: Option<Table>,
    bearer_token: Option<String>,
    bearer_token_file: Option<String>,
    proxy_url: Option<String>,
    tls_config: Option<Table>,
    follow_redirects: Option<bool>,
    enable_http2: Option<bool>,
}

/// The sinks for a file of additional endpoints.
fn additional(file: &Path, notes: &mut Vec<String>) -> Result<Vec<(String, Table)>, String> {
    let shown = file.display();
    let text =
        read_text(file, MAX_FILE).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The parser's message would quote the file, secrets included.
    let parsed: Additional =
        serde_saphyr::from_str(&text).map_err(|_| format!("{shown} is not valid"))?;
    let sink = |url: &str| {
        table! {
            "type" => "remote_write",
            "inputs" => vec!["tenant"],
            "endpoint" => url,
            "required" => false,
        }
    };
    match parsed {
        Additional::Proposed(proposed) => {
            let sinks = proposed.endpoints.into_iter().map(|endpoint| {
                let mut sink = sink(&endpoint.url);
                if let Some(tls) = endpoint.tls_config {
                    let files = [
                        ("ca_file", tls.ca),
                        ("cert_file", tls.cert),
                        ("key_file", tls.key),
                    ];
                    let files = files.into_iter();
                    let files =
                        files.filter_map(|(key, file)| Some((key.to_owned(), file?.into())));
                    sink.insert("tls".to_owned(), Table::from_iter(files).into());
                }
                (endpoint.name, sink)
            });
            Ok(sinks.collect())
        }
        Additional::Shipped(endpoints) => {
            let mut sinks = Vec::new();
            for endpoint in endpoints {
                let mut sink = sink(&endpoint.url);
                let client = endpoint.http_client_config.unwrap_or_default();
                client.into_sink(&mut sink, &endpoint.name, notes);
                sinks.push((endpoint.name, sink));
            }
            Ok(sinks)
        }
    }
}

impl ClientConfig {
    fn into_sink(self, sink: &mut Table, name: &str, notes: &mut Vec<String>) {
        let mut secret = |key: &str| {
            let letter = |c: char| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            };
            let variable: String = format!("{name}_{key}").chars().map(letter).collect();
            notes.push(format!(
                "set the variable {variable} to the {key} of endpoint {name}"
            ));
            Value::from(format!("${{{variable}}}"))
        };
        let mut hide = |mut table: Table, key: &str| {
            if table.contains_key(key) {
                table.insert(key.to_owned(), secret(key));
            }
            Value::from(table)
        };
        if let Some(table) = self.basic_auth {
            sink.insert("basic_auth".to_owned(), hide(table, "password"));
        }
        if let Some(table) = self.authorization {
            sink.insert("authorization".to_owned(), hide(table, "credentials"));
        }
        if let Some(table) = self.oauth2 {
            sink.insert("oauth2".to_owned(), hide(table, "client_secret"));
        }
        if let Some(token) = self.bearer_token {
            let table = table! { "credentials" => token };
            sink.insert("authorization".to_owned(), hide(table, "credentials"));
        }
        if let Some(file) = self.bearer_token_file {
            let table = table! { "credentials_file" => file };
            sink.insert("authorization".to_owned(), table.into());
        }
        if let Some(url) = self.proxy_url {
            sink.insert("proxy_url".to_owned(), url.into());
        }
        if let Some(table) = self.tls_config {
            sink.insert("tls".to_owned(), table.into());
        }
        // Bodies are never sent to a redirect's target, and HTTP/1.1 is the only version.
        let _ = (self.follow_redirects, self.enable_http2);
    }
}
