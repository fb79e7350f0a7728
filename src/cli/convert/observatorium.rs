//! `convert observatorium`: tenants, roles and endpoints of the Observatorium API as TOML.

mod additional;
mod flags;
mod notes;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use toml::{Table, Value};

use metrifold_access::config::{SubjectKind, SubjectOf};
use metrifold_access::observatorium::{self, ForeignTenants, RbacTables};
use metrifold_access::{TenantConfig, TenantSettings};

use super::Converted;
use additional::endpoint;
use flags::OtherFlags;
use notes::{Notes, table_name};

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

    /// The oldest version of TLS that it speaks
    #[arg(
        long = "tls.min-version",
        value_name = "VERSION",
        default_value = "VersionTLS13"
    )]
    min_version: MinVersion,

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

    /// Where rules are kept, such as rules-objstore
    #[arg(long = "metrics.rules.endpoint", value_name = "URL")]
    rules: Option<String>,

    /// Authorities that the certificates of these servers are verified with
    #[arg(long = "metrics.tls.ca-file", value_name = "FILE")]
    store_ca: Option<PathBuf>,

    /// Certificate that is shown to these servers
    #[arg(
        long = "metrics.tls.cert-file",
        value_name = "FILE",
        requires = "store_key"
    )]
    store_cert: Option<PathBuf>,

    /// The certificate's key
    #[arg(
        long = "metrics.tls.key-file",
        value_name = "FILE",
        id = "store_key",
        requires = "store_cert"
    )]
    store_key: Option<PathBuf>,

    /// Further endpoints that are written to: a list, or the proposal's `endpoints`
    #[arg(long = "metrics.additional.write.endpoint.config", value_name = "FILE")]
    additional: Option<PathBuf>,

    #[command(flatten)]
    others: OtherFlags,
}

/// Versions of TLS, as Go calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MinVersion {
    #[value(name = "VersionTLS10")]
    Tls10,
    #[value(name = "VersionTLS11")]
    Tls11,
    #[value(name = "VersionTLS12")]
    Tls12,
    #[value(name = "VersionTLS13")]
    Tls13,
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

use table;

pub(super) fn convert(args: &ObservatoriumArgs) -> Result<Converted, String> {
    let mut notes = Notes::default();
    let mut root = Table::new();
    root.insert(
        "api".to_owned(),
        table! { "address" => args.internal.as_str() }.into(),
    );
    let tenants = args.tenants.as_deref().map(observatorium::read_tenants);
    let tenants = tenants.transpose()?;
    let rbac = args.rbac.as_deref().map(observatorium::read_rbac);
    match (&tenants, rbac.transpose()?) {
        (Some(tenants), rbac) => access(tenants, rbac.as_ref(), &mut root, &mut notes)?,
        (None, rbac) => {
            notes.add(
                "without --tenants.config callers are not authenticated: put an authenticating proxy in front",
            );
            if rbac.is_some() {
                notes.add("--rbac.config has no effect without --tenants.config");
            }
        }
    }
    let listener = args.listener(tenants.as_ref(), &mut notes)?;
    root.insert(
        "listeners".to_owned(),
        table! { "public" => listener }.into(),
    );
    let inputs = args.components(tenants.as_ref(), &mut root, &mut notes)?;
    let mut transform = table! {
        "type" => "tenant", "inputs" => inputs, "label" => args.tenant_label.as_str(),
    };
    if tenants.is_none() {
        let from = vec![Value::from(table! { "path" => "tenant" })];
        transform.insert("from".to_owned(), from.into());
    }
    root.insert(
        "transforms".to_owned(),
        table! { TENANT => transform }.into(),
    );
    args.others.notes().for_each(|note| notes.add(note));
    let notes = notes.lines;
    let mut text = String::from("# Converted from the configuration of the Observatorium API.\n");
    for note in &notes {
        // A note is one line; writing to a `String` cannot fail.
        let _ = writeln!(text, "# Note: {note}");
    }
    let converted = toml::to_string(&root).map_err(|error| error.to_string())?;
    let _ = write!(text, "\n{converted}");
    Ok(Converted { text, notes })
}

/// Names of the components that are not additional endpoints.
const WRITE: &str = "write";
const READ: &str = "read";
const RULES: &str = "rules";
const TENANT: &str = "tenant";
const RECEIVE: &str = "thanos-receiver";
const QUERY: &str = "thanos-query";
const RULER: &str = "ruler";

/// The folder that the ruler has to read.
const RULER_PATH: &str = "/var/lib/metrifold/ruler";

impl ObservatoriumArgs {
    fn listener(
        &self,
        tenants: Option<&ForeignTenants>,
        notes: &mut Notes,
    ) -> Result<Table, String> {
        let mut listener = table! { "address" => self.listen.as_str() };
        let mut tenants = tenants.into_iter().flat_map(ForeignTenants::tenants);
        let certificates = tenants.any(|tenant| tenant.config.mtls.is_some());
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return match certificates {
                true => Err(
                    "tenants have certificates and the listener has none: give --tls.server.cert-file"
                        .to_owned(),
                ),
                false => Ok(listener),
            };
        };
        let min_version = match self.min_version {
            MinVersion::Tls13 => "1.3",
            MinVersion::Tls12 => "1.2",
            MinVersion::Tls10 | MinVersion::Tls11 => {
                notes.add("versions of TLS before 1.2 are not served");
                "1.2"
            }
        };
        let mut tls = table! {
            "cert_file" => path(cert), "key_file" => path(key), "min_version" => min_version,
        };
        if certificates {
            tls.insert("client_auth".to_owned(), "tenants".into());
        }
        listener.insert("tls".to_owned(), tls.into());
        Ok(listener)
    }

    /// Adds the sources and the sinks. Returns the names of the sources.
    fn components(
        &self,
        tenants: Option<&ForeignTenants>,
        root: &mut Table,
        notes: &mut Notes,
    ) -> Result<Vec<&'static str>, String> {
        let source = |kind: &str, path: String| {
            let mut source = table! { "type" => kind, "listener" => "public", "path" => path };
            if tenants.is_some() {
                source.insert("access".to_owned(), "tenants".into());
            }
            source
        };
        let mut sources = Table::new();
        let mut sinks = Table::new();
        if let Some(url) = &self.write {
            let mut sink = table! {
                "type" => "thanos",
                "inputs" => vec![TENANT],
                "tenant_header" => self.tenant_header.as_str(),
            };
            let url = format!("{}/api/v1/receive", url.trim_end_matches('/'));
            endpoint(&mut sink, "endpoint", &url, RECEIVE, notes);
            self.add_tls(&mut sink, &url);
            sinks.insert(RECEIVE.to_owned(), sink.into());
        }
        if let Some(file) = &self.additional {
            let used = [WRITE, READ, RULES, TENANT, RECEIVE, QUERY, RULER];
            let additional = additional::sinks(file, &used, notes)?.into_iter();
            sinks.extend(additional.map(|(name, sink)| (name, sink.into())));
        }
        let mut inputs = Vec::new();
        if !sinks.is_empty() {
            inputs.push(WRITE);
            let source = source("remote_write", format!("{BASE}/api/v1/receive"));
            sources.insert(WRITE.to_owned(), source.into());
        }
        if let Some(url) = &self.read {
            inputs.push(READ);
            let mut source = source("prometheus_api", BASE.to_owned());
            let tenants = tenants.into_iter().flat_map(ForeignTenants::tenants);
            let mut oidc = tenants.filter_map(|tenant| tenant.config.oidc.as_ref());
            if oidc.any(|oidc| oidc.login.is_some()) {
                source.insert("login".to_owned(), true.into());
            }
            sources.insert(READ.to_owned(), source.into());
            let mut sink = table! {
                "type" => "prometheus",
                "inputs" => vec![TENANT],
                "tenant_header" => self.tenant_header.as_str(),
            };
            endpoint(&mut sink, "endpoint", url, QUERY, notes);
            self.add_tls(&mut sink, url);
            sinks.insert(QUERY.to_owned(), sink.into());
        }
        if let Some(url) = &self.rules {
            inputs.push(RULES);
            let mut source = source("rules_api", BASE.to_owned());
            source.insert("thanos".to_owned(), true.into());
            let mut backend = Table::new();
            let url = format!("{}/api/v1/rules", url.trim_end_matches('/'));
            endpoint(&mut backend, "url", &url, RULES, notes);
            self.add_tls(&mut backend, &url);
            if let Some(tenants) = tenants {
                let tenants = tenants.tenants();
                let ids: Vec<Value> = tenants.map(|it| (*it.membership.tenant).into()).collect();
                backend.insert("tenants".to_owned(), ids.into());
            }
            source.insert("backend".to_owned(), backend.into());
            sources.insert(RULES.to_owned(), source.into());
            let sink = table! {
                "type" => "rules_directory", "inputs" => vec![TENANT], "path" => RULER_PATH,
            };
            sinks.insert(RULER.to_owned(), sink.into());
            notes.add(format!(
                "the rules backend keeps rules as tenants write them: have the ruler load those in {RULER_PATH}, which are restricted to the tenant's own series"
            ));
            let mut tenants = tenants.into_iter().flat_map(ForeignTenants::tenants);
            if tenants.any(|it| it.membership.tenant != it.membership.name) {
                notes.add(
                    "rules are kept by the ids of tenants, and those of the Observatorium API by their names: write the present rules again",
                );
            }
        }
        if inputs.is_empty() {
            return Err(
                "there is nothing to convert: give --metrics.write.endpoint, --metrics.read.endpoint or --metrics.rules.endpoint"
                    .to_owned(),
            );
        }
        root.insert("sources".to_owned(), sources.into());
        root.insert("sinks".to_owned(), sinks.into());
        Ok(inputs)
    }

    /// Adds the TLS settings for Thanos and the rules backend, if the URL is of TLS.
    fn add_tls(&self, table: &mut Table, url: &str) {
        let files = [
            ("ca_file", &self.store_ca),
            ("cert_file", &self.store_cert),
            ("key_file", &self.store_key),
        ];
        let files = files.into_iter();
        let files = files.filter_map(|(key, file)| {
            let file = path(file.as_ref()?);
            Some((key.to_owned(), Value::from(file)))
        });
        let tls: Table = files.collect();
        if !tls.is_empty() && url.starts_with("https:") {
            table.insert("tls".to_owned(), tls.into());
        }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Adds the tables of tenants, roles and bindings.
fn access(
    tenants: &ForeignTenants,
    rbac: Option<&RbacTables>,
    root: &mut Table,
    notes: &mut Notes,
) -> Result<(), String> {
    let mut tables = Table::new();
    for settings in tenants.tenants() {
        let name = &*settings.membership.name;
        if table_name(name, |_| false) != name {
            return Err(format!(
                "tenant {name:?}: a table cannot have this name: set `tenants_file` under [access] instead of converting the tenants"
            ));
        }
        tables.insert(name.to_owned(), tenant(&settings, notes).into());
    }
    for (name, note) in tenants.notes() {
        notes.add(format!("tenant {name:?}: {note}"));
    }
    let Some((rbac_roles, rbac_bindings)) = rbac else {
        notes.add(
            "without --rbac.config every authenticated caller of a tenant may read, write and change rules there",
        );
        root.insert("tenants".to_owned(), tables.into());
        return Ok(());
    };
    let mut roles = Table::new();
    let mut names = HashMap::new();
    for (name, role) in rbac_roles {
        let table = table_name(name, |name| roles.contains_key(name));
        if table != *name {
            notes.add(format!("the role {name:?} is called {table}"));
        }
        let known = |tenant: &&String| {
            let known = tables.contains_key(&**tenant);
            if !known {
                notes.add(format!("role {name:?}: there is no tenant {tenant:?}"));
            }
            known
        };
        let of: Vec<String> = role.tenants.iter().filter(known).cloned().collect();
        let permissions: Vec<&str> = role.permissions.iter().map(|it| it.as_str()).collect();
        let role = table! {
            "resources" => role.resources.clone(), "tenants" => of, "permissions" => permissions,
        };
        roles.insert(table.clone(), role.into());
        names.insert(name.as_str(), table);
    }
    let mut bindings = Table::new();
    for (number, binding) in (1..).zip(rbac_bindings) {
        let known = |role: &String| {
            let table = names.get(role.as_str()).cloned();
            if table.is_none() {
                notes.add(format!("binding {number}: there is no role {role:?}"));
            }
            table
        };
        let of: Vec<String> = binding.roles.iter().filter_map(known).collect();
        let subjects = binding.subjects.iter().map(|subject| {
            let kind = match subject.kind {
                SubjectKind::User => "user",
                SubjectKind::Group => "group",
            };
            Value::from(table! { "name" => subject.name.as_str(), "kind" => kind })
        });
        let binding = table! { "roles" => of, "subjects" => subjects.collect::<Vec<_>>() };
        bindings.insert(format!("binding-{number}"), binding.into());
    }
    if roles.is_empty() {
        // Without any role, callers have all permissions.
        let nothing =
            table! { "tenants" => Vec::<String>::new(), "permissions" => Vec::<String>::new() };
        roles.insert("nothing".to_owned(), nothing.into());
        notes.add("there are no roles: the role `nothing` keeps callers without permissions");
    }
    root.insert("tenants".to_owned(), tables.into());
    root.insert("roles".to_owned(), roles.into());
    root.insert("role_bindings".to_owned(), bindings.into());
    Ok(())
}

fn tenant(settings: &TenantSettings<'_>, notes: &mut Notes) -> Table {
    let (name, tenant): (_, &TenantConfig) = (&*settings.membership.name, settings.config);
    let mut table = table! { "id" => &*settings.membership.tenant };
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
        if oidc.allow_http {
            own.insert("allow_http".to_owned(), true.into());
        }
        if let Some(config) = &oidc.login {
            let mut login = table! {
                "external_url" => config.external_url.as_str(), "scopes" => config.scopes.clone(),
            };
            if config.client_secret.is_some() {
                let secret = notes.variable(name, "client_secret");
                login.insert("client_secret".to_owned(), secret);
            }
            own.insert("login".to_owned(), login.into());
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
    if let Some(limits) = &tenant.limits {
        let keys = [
            ("requests_per_second", limits.keys().requests_per_second),
            ("requests_burst", limits.keys().requests_burst),
        ];
        let keys = keys.into_iter();
        // Values of Observatorium's file are smaller than those of TOML.
        let keys = keys.filter_map(|(key, value)| {
            let value = i64::try_from(value?).ok()?;
            Some((key.to_owned(), Value::from(value)))
        });
        table.insert("limits".to_owned(), Table::from_iter(keys).into());
    }
    table
}
