//! The file of additional endpoints: each becomes a sink, without the secrets in it.

use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use metrifold_base::read_text;

use super::notes::{Notes, table_name};
use super::{MAX_FILE, table};

/// The file, in the shape of the proposal or in the shipped one.
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
    http_client_config: Table,
}

/// Keys of a client's credentials. Beside one of them, a user and a password in the URL are not used.
const CREDENTIALS: [&str; 5] = [
    "authorization",
    "basic_auth",
    "bearer_token",
    "bearer_token_file",
    "oauth2",
];

/// The sinks for a file of additional endpoints, under names that are not `used`.
pub(super) fn sinks(
    file: &Path,
    used: &[&str],
    notes: &mut Notes,
) -> Result<Vec<(String, Table)>, String> {
    let shown = file.display();
    let text =
        read_text(file, MAX_FILE).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The parser's message would quote the file, secrets included.
    let parsed: Additional =
        serde_saphyr::from_str(&text).map_err(|_| format!("{shown} is not valid"))?;
    let mut sinks: Vec<(String, Table)> = Vec::new();
    let mut add = |wanted: &str, url: &str, client: Table, notes: &mut Notes| {
        let is_used = |name: &str| used.contains(&name) || sinks.iter().any(|(it, _)| it == name);
        let name = table_name(wanted, is_used);
        if name != wanted {
            notes.add(format!("the endpoint {wanted:?} is called {name}"));
        }
        let mut sink = table! {
            "type" => "remote_write",
            "inputs" => vec!["tenant"],
            "required" => false,
        };
        match CREDENTIALS.iter().any(|key| client.contains_key(*key)) {
            true => {
                let (plain, credentials) = without_credentials(url);
                sink.insert("endpoint".to_owned(), plain.into());
                if credentials {
                    notes.add(format!(
                        "the user in the url of {name} is not converted, as http_client_config has other credentials"
                    ));
                }
            }
            false => endpoint(&mut sink, "endpoint", url, &name, notes),
        }
        convert_client(client, &mut sink, &name, notes);
        sinks.push((name, sink));
    };
    match parsed {
        Additional::Proposed(proposed) => {
            for endpoint in proposed.endpoints {
                let tls = endpoint.tls_config.map(|tls| {
                    let values = [("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)];
                    let values = values.into_iter().filter_map(|(key, value)| {
                        let value = value?;
                        // The proposal leaves open whether it is a file or what stands in one.
                        let key = match value.contains("-----BEGIN") {
                            true => key.to_owned(),
                            false => format!("{key}_file"),
                        };
                        Some((key, value.into()))
                    });
                    ("tls_config".to_owned(), Table::from_iter(values).into())
                });
                let client = Table::from_iter(tls);
                add(&endpoint.name, &endpoint.url, client, notes);
            }
        }
        Additional::Shipped(endpoints) => {
            for endpoint in endpoints {
                let client = endpoint.http_client_config;
                add(&endpoint.name, &endpoint.url, client, notes);
            }
        }
    }
    Ok(sinks)
}

/// Sets a URL under `key`, and variables for the user and the password in it.
pub(super) fn endpoint(table: &mut Table, key: &str, url: &str, owner: &str, notes: &mut Notes) {
    let (plain, credentials) = without_credentials(url);
    table.insert(key.to_owned(), plain.into());
    if credentials {
        let (auth, kind) = match key {
            "proxy_url" => ("proxy_basic_auth", "proxy "),
            _ => ("basic_auth", ""),
        };
        let own = table! {
            "username" => notes.variable(owner, &format!("{kind}username")),
            "password" => notes.variable(owner, &format!("{kind}password")),
        };
        table.insert(auth.to_owned(), own.into());
    }
}

/// A URL without the user and the password in it, and whether there were any.
fn without_credentials(url: &str) -> (String, bool) {
    let begin = url.find("//").map_or(0, |at| at + 2);
    let (scheme, rest) = url.split_at(begin);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => (format!("{scheme}{host}{path}"), true),
        None => (url.to_owned(), false),
    }
}

/// Sets the keys of a client, which are those of Prometheus, in the table of a sink or of its `oauth2`.
fn convert_client(client: Table, table: &mut Table, owner: &str, notes: &mut Notes) {
    for (key, value) in client {
        match (key.as_str(), value) {
            ("basic_auth", Value::Table(own)) => {
                let keys = ["username", "password_file"];
                let own = kept(own, &key, &keys, &["password"], owner, notes);
                table.insert(key, own.into());
            }
            ("authorization", Value::Table(own)) => {
                let keys = ["type", "credentials_file"];
                let own = kept(own, &key, &keys, &["credentials"], owner, notes);
                table.insert(key, own.into());
            }
            ("bearer_token", Value::String(_)) => {
                let own = table! { "credentials" => notes.variable(owner, "credentials") };
                table.insert("authorization".to_owned(), own.into());
            }
            ("bearer_token_file", Value::String(file)) => {
                let own = table! { "credentials_file" => file };
                table.insert("authorization".to_owned(), own.into());
            }
            ("oauth2", Value::Table(own)) => {
                let own = oauth2(own, owner, notes);
                table.insert(key, own.into());
            }
            ("tls_config", Value::Table(own)) => {
                let own = tls(own, owner, notes);
                table.insert("tls".to_owned(), own.into());
            }
            ("proxy_url", Value::String(url)) => endpoint(table, &key, &url, owner, notes),
            // Bodies are never sent to a redirect's target, and HTTP/1.1 is the only version.
            ("follow_redirects" | "enable_http2", _) => {}
            _ => notes.add(format!("{key} of {owner} is not converted")),
        }
    }
}

/// The keys of a table that are known, with variables for its `secrets`.
fn kept(
    table: Table,
    of: &str,
    keys: &[&str],
    secrets: &[&str],
    owner: &str,
    notes: &mut Notes,
) -> Table {
    let mut kept = Table::new();
    for (key, value) in table {
        if secrets.contains(&&*key) {
            let secret = notes.variable(owner, &key);
            kept.insert(key, secret);
        } else if keys.contains(&&*key) {
            kept.insert(key, value);
        } else {
            notes.add(format!("{of}.{key} of {owner} is not converted"));
        }
    }
    kept
}

fn oauth2(mut own: Table, owner: &str, notes: &mut Notes) -> Table {
    const CLIENT: [&str; 2] = ["tls_config", "proxy_url"];
    let client = CLIENT.map(|key| Some((key.to_owned(), own.remove(key)?)));
    let params = own.remove("endpoint_params");
    let url = own.remove("token_url");
    let keys = ["client_id", "client_secret_file", "scopes", "audience"];
    let mut table = kept(own, "oauth2", &keys, &["client_secret"], owner, notes);
    if let Some(Value::String(url)) = url {
        let (url, credentials) = without_credentials(&url);
        table.insert("token_url".to_owned(), url.into());
        if credentials {
            notes.add(format!(
                "the user in oauth2.token_url of {owner} is not converted"
            ));
        }
    }
    if let Some(Value::Table(params)) = params {
        let secrets = params.keys().map(|key| {
            let secret = notes.variable(owner, key);
            (key.clone(), secret)
        });
        let secrets: Table = secrets.collect();
        table.insert("endpoint_params".to_owned(), secrets.into());
    }
    let client = client.into_iter().flatten().collect();
    convert_client(client, &mut table, &format!("{owner}-oauth2"), notes);
    table
}

/// TLS settings of a client. What stands in the file itself has to be put into files.
fn tls(own: Table, owner: &str, notes: &mut Notes) -> Table {
    let mut table = Table::new();
    for (key, value) in own {
        match key.as_str() {
            "ca" | "cert" | "key" => {
                let file = format!("/etc/metrifold/{owner}.{key}");
                notes.add(format!(
                    "write the {key} in tls_config of {owner} to {file}"
                ));
                table.insert(format!("{key}_file"), file.into());
            }
            "ca_file" | "cert_file" | "key_file" | "server_name" | "insecure_skip_verify" => {
                table.insert(key, value);
            }
            _ => notes.add(format!("tls_config.{key} of {owner} is not converted")),
        }
    }
    table
}
