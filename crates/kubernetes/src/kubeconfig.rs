//! Reads kubeconfig files.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};

use metrifold_base::{Endpoint, Secret, read_text};
use metrifold_http::tls::Pem;
use metrifold_http::{Authorization, BasicAuth, ClientTls};

/// Largest kubeconfig, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A context of a kubeconfig, resolved.
pub(crate) struct Found {
    pub(crate) server: Uri,
    pub(crate) tls: ClientTls,
    /// Certificates and key embedded in the file.
    pub(crate) pem: Pem,
    pub(crate) proxy_url: Option<Endpoint>,
    pub(crate) basic_auth: Option<BasicAuth>,
    pub(crate) authorization: Option<Authorization>,
    /// Configuration of an exec plugin that prints a token; None if the context has none.
    pub(crate) helper: Option<kube::Config>,
    pub(crate) namespace: Option<String>,
}

/// Reads one context of a kubeconfig, the current one unless another is named.
pub(crate) fn read(file: &Path, context: Option<&str>) -> Result<Found, String> {
    let shown = file.display();
    let text =
        read_text(file, MAX_BYTES).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The parser's message may quote a key.
    let config = Kubeconfig::from_yaml(&text).map_err(|_| format!("{shown} is no kubeconfig"))?;
    let name = context.or(config.current_context.as_deref());
    let name = name.ok_or_else(|| format!("{shown} has no current-context: set context"))?;
    let context = config.contexts.iter().find(|it| it.name == name);
    let context = context.and_then(|it| it.context.as_ref());
    let context = context.ok_or_else(|| format!("{shown} has no context {name:?}"))?;
    let cluster = config.clusters.iter().find(|it| it.name == context.cluster);
    let cluster = cluster.and_then(|it| it.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| format!("{shown} has no cluster {:?}", context.cluster))?;
    let user = match &context.user {
        None => AuthInfo::default(),
        Some(user) => {
            let found = config.auth_infos.iter().find(|it| it.name == *user);
            let found = found.ok_or_else(|| format!("{shown} has no user {user:?}"))?;
            found.auth_info.clone().unwrap_or_default()
        }
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    assemble(cluster, &user, folder, context.namespace.clone())
        .map_err(|reason| format!("{shown}: {reason}"))
}

/// Returns the first fault of a context, if any.
pub(crate) fn check(file: &Path, context: Option<&str>) -> Result<(), String> {
    read(file, context).map(drop)
}

fn assemble(
    cluster: &Cluster,
    user: &AuthInfo,
    folder: &Path,
    namespace: Option<String>,
) -> Result<Found, String> {
    // Paths are relative to the kubeconfig.
    let path = |name: &Option<String>| name.as_ref().map(|name| folder.join(name));
    let unless = |file: Option<PathBuf>, inline: &Option<Vec<u8>>| match inline {
        Some(_) => None,
        None => file,
    };
    let server = cluster
        .server
        .as_deref()
        .ok_or("the cluster has no server")?;
    let server: Endpoint = server.parse().map_err(|error| format!("server: {error}"))?;
    let key = user.client_key_data.as_ref().map(expose);
    let pem = Pem {
        ca: decoded(
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
        )?,
        cert: decoded(
            "client-certificate-data",
            user.client_certificate_data.as_deref(),
        )?,
        key: decoded("client-key-data", key)?,
    };
    let tls = ClientTls {
        ca_file: unless(path(&cluster.certificate_authority), &pem.ca),
        cert_file: unless(path(&user.client_certificate), &pem.cert),
        key_file: unless(path(&user.client_key), &pem.key),
        server_name: cluster.tls_server_name.clone(),
        insecure_skip_verify: cluster.insecure_skip_tls_verify.unwrap_or(false),
    };
    let proxy_url = cluster.proxy_url.as_deref().filter(|url| !url.is_empty());
    let proxy_url = proxy_url.map(|url| url.parse::<Endpoint>());
    let proxy_url = proxy_url.transpose();
    if user.auth_provider.is_some() {
        return Err(
            "auth-provider is not supported any more: use exec, a token or a certificate"
                .to_owned(),
        );
    }
    if user.impersonate.is_some() {
        return Err("impersonation is not supported: give the user itself a role".to_owned());
    }
    let bearer = |credentials, credentials_file| Authorization {
        scheme: "Bearer".to_owned(),
        credentials,
        credentials_file,
    };
    let token = user
        .token
        .as_ref()
        .map(expose)
        .filter(|token| !token.is_empty());
    let authorization = match (token, path(&user.token_file)) {
        (Some(token), _) => Some(bearer(Some(Secret::new(token)), None)),
        (None, Some(file)) => Some(bearer(None, Some(file))),
        (None, None) => None,
    };
    let basic_auth = user.username.as_ref().filter(|_| authorization.is_none());
    let basic_auth = basic_auth.map(|username| BasicAuth {
        username: username.clone(),
        password: user.password.as_ref().map(|it| Secret::new(expose(it))),
        password_file: None,
    });
    let alone = authorization.is_none() && basic_auth.is_none();
    let helper = user.exec.as_ref().filter(|_| alone).map(|_| {
        let mut config = kube::Config::new(server.uri().clone());
        config.auth_info = user.clone();
        config
    });
    Ok(Found {
        server: server.uri().clone(),
        tls,
        pem,
        proxy_url: proxy_url.map_err(|error| format!("proxy-url: {error}"))?,
        basic_auth,
        authorization,
        helper,
        namespace,
    })
}

fn expose(secret: &SecretString) -> &str {
    secret.expose_secret()
}

/// Decodes the base64 of a field of the kubeconfig, such as `client-key-data`.
fn decoded(key: &str, text: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text: String = text.split_whitespace().collect();
    let decoded = STANDARD.decode(text);
    decoded
        .map(Some)
        .map_err(|_| format!("{key} is not base64"))
}
