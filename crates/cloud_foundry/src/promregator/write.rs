//! Writes Promregator's keys as TOML, section by section.

mod values;

use std::collections::BTreeSet;

use toml::Value;

use metrifold_base::{Address, Endpoint};
use metrifold_regex::Regex;

use crate::provider::MAX_SELECTORS;

use super::document::Document;
use super::{Converted, Wrong, decrypt};
use values::{has_variable, is_variable};

/// Name of the provider and of the source.
const NAME: &str = "promregator";

/// Default of `scrape_interval`, in milliseconds.
const INTERVAL: u32 = 60_000;
/// Longest scrape interval, in milliseconds.
const LONGEST: u32 = 86_400_000;
/// No value may contain them; a secret that does was copied in a wrong way.
const CONTROL: &str = "contains a line break or a control character";
/// Number of Promregator's endpoints.
const ENDPOINTS: usize = 5;
/// Keys without a counterpart because they are not needed, each with the reason.
const NEEDLESS: [(&str, &str); 12] = [
    (
        "cf.cache",
        "a foundation is read in few large requests; see refresh_interval and metadata_interval",
    ),
    (
        "cf.request.backoff",
        "a failed refresh is tried again at the next refresh_interval",
    ),
    ("cf.connectionPool", "there are no pools to be sized"),
    ("cf.threadPool", "there are no threads to be sized"),
    ("cf.watchdog", "lost connections are always opened again"),
    (
        "promregator.scraping.threads",
        "scrapes do not occupy threads",
    ),
    (
        "promregator.discoverer",
        "metrics of removed instances are not kept",
    ),
    ("promregator.gc", "there is no garbage collector"),
    ("promregator.reactor", "there is no reactor"),
    (
        "promregator.workaround",
        "names are resolved for each connection",
    ),
    (
        "promregator.metrics.labelNamePrefix",
        "the metrics of the process have names of their own",
    ),
    (
        "promregator.metrics",
        "the metrics of the process and the durations of scrapes are always exposed",
    ),
];

pub(super) struct Writer<'a> {
    /// The keys that have not been converted.
    document: Document,
    /// All keys, to which values may refer.
    whole: Document,
    key: Option<&'a str>,
    /// Number of texts that have been resolved.
    references: usize,
    /// The authenticators by name, each with its place in the file. The first is for selectors that
    /// name none.
    authenticators: Vec<(String, String, Document)>,
    wrong: Vec<Wrong>,
    notes: Vec<String>,
    toml: String,
}

impl<'a> Writer<'a> {
    pub(super) fn new(document: Document, key: Option<&'a str>) -> Self {
        Self {
            whole: document.clone(),
            document,
            key,
            references: 0,
            authenticators: Vec::new(),
            wrong: Vec::new(),
            notes: Vec::new(),
            toml: String::new(),
        }
    }

    pub(super) fn write(mut self) -> Result<Converted, Vec<Wrong>> {
        if self.document.look("cf.api_host").is_none() {
            self.wrong(
                "cf.api_host",
                "is missing: is this a configuration of Promregator?",
            );
        }
        self.authenticators();
        self.foundation();
        self.targets();
        self.source();
        self.rest();
        if !self.wrong.is_empty() {
            return Err(self.wrong);
        }
        let mut toml = String::from("# Converted from a configuration of Promregator.\n");
        for note in &self.notes {
            toml.push_str(&format!("# {}\n", note.replace(char::is_control, " ")));
        }
        toml.push_str(&self.toml);
        Ok(Converted {
            toml,
            notes: self.notes,
        })
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        let (key, what) = (key.to_owned(), what.into());
        self.wrong.push(Wrong { key, what });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn header(&mut self, header: &str) {
        self.toml.push_str(&format!("\n{header}\n"));
    }

    /// Writes a key.
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.toml.push_str(&format!("{key} = {}\n", value.into()));
    }

    /// Writes a URL that is made from a value at `path`.
    fn put_url(&mut self, path: &str, key: &str, url: String) {
        let mut filled = filled_in(&url);
        if url.starts_with("${") {
            // The variable may hold the scheme, and more.
            let behind = filled.strip_prefix("x://").unwrap_or(&filled);
            filled = format!("http://{behind}");
        }
        if let Err(what) = filled.parse::<Endpoint>() {
            self.wrong(path, format!("yields a URL that {what}"));
        }
        self.put(key, url);
    }

    /// Writes the URL of a proxy.
    fn put_proxy(&mut self, table: &str) {
        let path = format!("{table}.host");
        let host = self.filled(&path);
        let port = self.number::<u16>(&format!("{table}.port"));
        if let (Some(host), Some(port)) = (host, port) {
            self.put_url(&path, "proxy_url", format!("http://{host}:{port}"));
        }
    }

    /// Refuses a user name that basic authentication cannot send.
    fn check_username(&mut self, path: &str, username: &str) {
        if username.contains(':') {
            self.wrong(path, "contains a colon, which a user name cannot");
        }
    }

    /// Writes the provider: the platform and its user.
    fn foundation(&mut self) {
        self.header(&format!("[discovery.{NAME}]"));
        self.put("type", "cloud_foundry");
        let host = self.value("cf.api_host").unwrap_or_default();
        if host.contains("://") {
            self.wrong(
                "cf.api_host",
                "is a URL, which Promregator refuses: write a host",
            );
        } else if self.whole.look("cf.api_host").is_some() {
            self.put_url("cf.api_host", "api", format!("https://{host}"));
        }
        for key in ["username", "password"] {
            let path = format!("cf.{key}");
            let value = self.filled(&path).unwrap_or_else(|| {
                let variable = format!("CF_{}", key.to_uppercase());
                self.note(format!("{path} is missing: set {variable}."));
                format!("${{{variable}}}")
            });
            self.put(key, value);
        }
        if self.flag("cf.skipSslValidation") {
            self.put("tls.insecure_skip_verify", true);
            self.note(
                "cf.skipSslValidation is tls.insecure_skip_verify: tls.ca_file would be safe.",
            );
        }
        self.put_proxy("cf.proxy");
        let longest = ["org", "space", "appInSpace", "domain", "route", "process"]
            .into_iter()
            .filter_map(|kind| self.number::<u32>(&format!("cf.request.timeout.{kind}")))
            .max();
        if let Some(longest) = longest {
            // A page holds 5000 objects here, and 100 in Promregator.
            self.put("timeout", format!("{}ms", longest.max(20_000)));
        }
        if self.value("cf.request.rateLimit").is_some() {
            self.note("cf.request.rateLimit has no counterpart: requests keep to the rate limit that the platform announces; see rate_limit_share.");
        }
        // The shortest time of the cache decided how fast Promregator noticed scaling.
        if let Some(seconds) = self.number::<u32>("cf.cache.timeout.process") {
            self.note(format!("cf.cache.timeout.process was {seconds} s: processes are read every 15 s unless refresh_interval says otherwise."));
        }
    }

    /// Takes the authenticators, so that selectors can name them.
    fn authenticators(&mut self) {
        let named = self
            .document
            .tables("promregator.targetAuthenticators")
            .into_iter();
        let mut authenticators = Vec::new();
        let mut ids = BTreeSet::new();
        for (at, mut table) in named.enumerate() {
            let path = format!("promregator.targetAuthenticators[{at}]");
            let id = table.text("id").filter(|id| !id.is_empty());
            let id = id.and_then(|id| self.resolve(&format!("{path}.id"), &id));
            match id {
                Some(id) if has_variable(&id) => {
                    let what = "depends on a variable, which a name here cannot";
                    self.wrong(&format!("{path}.id"), what);
                }
                Some(id) if !ids.insert(id.clone()) => {
                    self.wrong(&path, format!("has the id {id:?}, as another one has"));
                }
                Some(id) => authenticators.push((id, path, table)),
                None => self.wrong(&path, "has no id"),
            }
        }
        let mut name = "default".to_owned();
        while ids.contains(&name) {
            name.push_str("_authenticator");
        }
        let path = "promregator.authenticator".to_owned();
        let table = self.document.table(&path);
        authenticators.insert(0, (name, path, table));
        self.authenticators = authenticators;
    }

    /// Writes the selectors.
    fn targets(&mut self) {
        let internal = self.number::<u16>("promregator.defaultInternalRoutePort");
        let default = self.authenticators.first().and_then(|(name, _, table)| {
            let kind = table.look("type")?.to_lowercase();
            (!["", "none", "null"].contains(&&*kind)).then(|| name.clone())
        });
        let targets = self.document.tables("promregator.targets");
        if targets.len() > MAX_SELECTORS {
            let what = format!("has more than {MAX_SELECTORS} entries");
            self.wrong("promregator.targets", what);
        }
        if targets.is_empty() {
            self.note(
                "promregator.targets is empty: all applications that the user may see are targets.",
            );
            self.header(&format!("[[discovery.{NAME}.select]]"));
            if let Some(name) = &default {
                self.put("authenticator", name.clone());
            }
        }
        for (at, mut target) in targets.into_iter().enumerate() {
            let at = format!("promregator.targets[{at}]");
            self.header(&format!("[[discovery.{NAME}.select]]"));
            for (theirs, ours) in [
                ("org", "organization"),
                ("space", "space"),
                ("application", "application"),
            ] {
                let name = target.text(&format!("{theirs}Name"));
                let regex = target.text(&format!("{theirs}Regex"));
                let named = (ours.to_owned(), format!("{at}.{theirs}Name"), name);
                let matched = (
                    format!("{ours}_regex"),
                    format!("{at}.{theirs}Regex"),
                    regex,
                );
                // The pattern takes precedence over the name.
                let (key, path, text) = match matched.2 {
                    Some(_) => matched,
                    None => named,
                };
                let Some(text) = text.and_then(|text| self.resolve(&path, &text)) else {
                    continue;
                };
                if key.ends_with("_regex") {
                    // As a selector compiles it.
                    self.check(&path, &format!("(?i:{text})"));
                }
                self.put(&key, text);
            }
            for (theirs, ours) in [("path", "path"), ("protocol", "protocol")] {
                let text = target.text(theirs);
                let text = text.and_then(|it| self.resolve(&format!("{at}.{theirs}"), &it));
                match (theirs, text.as_deref()) {
                    (_, None) => {}
                    ("protocol", Some(text)) if !["http", "https"].contains(&text) => {
                        self.wrong(&format!("{at}.protocol"), "is neither http nor https");
                    }
                    (_, Some(text)) => self.put(ours, text),
                }
            }
            let path = format!("{at}.kubernetesAnnotations");
            let annotations = target.text("kubernetesAnnotations");
            let annotations = annotations.and_then(|it| self.resolve(&path, &it));
            if annotations.is_some_and(|it| self.truth(&path, &it) == Some(true)) {
                self.put("annotations", "prometheus.io/");
                self.put("opt_in", true);
                // Promregator does not read them, and may scrape an application whose other port
                // no route leads to.
                let others = ["port", "scheme", "scrape_interval", "scrape_timeout"];
                self.put("ignore_annotations", others.to_vec());
            }
            let mut patterns = Vec::new();
            for (number, pattern) in target.texts("preferredRouteRegex").into_iter().enumerate() {
                let path = format!("{at}.preferredRouteRegex[{number}]");
                if let Some(pattern) = self.resolve(&path, &pattern) {
                    self.check(&path, &pattern);
                    patterns.push(pattern);
                }
            }
            if !patterns.is_empty() {
                self.put("preferred_routes", patterns);
            }
            let port = target.text("internalRoutePort");
            let path = format!("{at}.internalRoutePort");
            let port = port.and_then(|it| self.resolve(&path, &it));
            let port = port.and_then(|it| self.parse::<u16>(&path, &it));
            if let Some(port) = port.or(internal) {
                self.put("port", i64::from(port));
            }
            let id = target.text("authenticatorId").filter(|id| !id.is_empty());
            let id = id.and_then(|id| self.resolve(&format!("{at}.authenticatorId"), &id));
            if let Some(id) = &id
                && !self.authenticators.iter().skip(1).any(|it| it.0 == *id)
            {
                let what = format!("is {id:?}, which no targetAuthenticators declare");
                self.wrong(&format!("{at}.authenticatorId"), what);
            }
            if let Some(name) = id.or_else(|| default.clone()) {
                self.put("authenticator", name);
            }
            if target.text("overrideRouteAndPath").is_some() {
                let what = "has no counterpart: instances could not be told apart by it";
                self.wrong(&format!("{at}.overrideRouteAndPath"), what);
            }
            for path in target.rest() {
                self.note(format!("{at}.{path} has no counterpart."));
            }
        }
    }

    /// Writes the source, with Promregator's paths.
    fn source(&mut self) {
        self.header(&format!("[sources.{NAME}]"));
        self.put("type", "cf_scrape");
        self.put("discovery", NAME);
        // The programs that pull decide when to scrape.
        self.put("push", false);
        let longest = [
            "maxProcessingTime",
            "connectionTimeout",
            "socketReadTimeout",
        ];
        let [longest, connect, read] =
            longest.map(|key| self.number::<u32>(&format!("promregator.scraping.{key}")));
        let longest = longest.unwrap_or(5000);
        if longest > LONGEST {
            let what = "is longer than a day";
            self.wrong("promregator.scraping.maxProcessingTime", what);
        }
        let timeout = read.map_or(longest, |read| read.min(longest));
        self.put("scrape_timeout", format!("{longest}ms"));
        if longest > INTERVAL {
            // The timeout must not exceed the interval.
            self.put("scrape_interval", format!("{longest}ms"));
        }
        if let Some(connect) = connect {
            self.put("connect_timeout", format!("{}ms", connect.min(longest)));
        }
        self.put_proxy("promregator.scraping.proxy");
        let authenticators = std::mem::take(&mut self.authenticators);
        for (at, (id, path, table)) in authenticators.into_iter().enumerate() {
            self.authenticator(&id, &path, table, at == 0);
        }
        self.face(timeout);
        self.sink();
    }

    /// Writes the credentials for applications with this name.
    fn authenticator(&mut self, id: &str, path: &str, mut table: Document, is_default: bool) {
        let kind = table.text("type").unwrap_or_default().to_lowercase();
        let group = match kind.as_str() {
            "" | "none" | "null" if is_default => return,
            "" | "none" | "null" => {
                self.header(&format!("[sources.{NAME}.authenticators.{}]", quoted(id)));
                return;
            }
            "basic" => "basic",
            "oauth2xsuaabasic" => "oauth2xsuaaBasic",
            "oauth2xsuaacertificate" => "oauth2xsuaaCertificate",
            _ => {
                let what = format!(
                    "is {kind:?}: it is none, basic, OAuth2XSUAABasic or OAuth2XSUAACertificate"
                );
                return self.wrong(&format!("{path}.type"), what);
            }
        };
        let header = format!("[sources.{NAME}.authenticators.{}", quoted(id));
        let mut values = Vec::new();
        let at = |theirs: &str| format!("{path}.{group}.{theirs}");
        let mut take = |this: &mut Self, theirs: &str| {
            let text = table.text(&format!("{group}.{theirs}"));
            match text {
                Some(text) if !text.is_empty() => this.resolve(&at(theirs), &text),
                _ => {
                    this.wrong(&at(theirs), "is missing");
                    None
                }
            }
        };
        match group {
            "basic" => {
                for key in ["username", "password"] {
                    values.push((key, key, take(self, key)));
                }
                if let Some((.., Some(username))) = values.first() {
                    self.check_username(&at("username"), username);
                }
                self.header(&format!("{header}.basic_auth]"));
            }
            _ => {
                let is_certificate = group == "oauth2xsuaaCertificate";
                let place = match is_certificate {
                    true => "tokenServiceCertURL",
                    false => "tokenServiceURL",
                };
                values.push(("token_url", place, take(self, place)));
                values.push(("client_id", "client_id", take(self, "client_id")));
                if !is_certificate {
                    values.push((
                        "client_secret",
                        "client_secret",
                        take(self, "client_secret"),
                    ));
                }
                self.header(&format!("{header}.oauth2]"));
            }
        }
        for (key, place, value) in values {
            match value {
                Some(url) if key == "token_url" => self.put_url(&at(place), key, url),
                Some(value) => self.put(key, value),
                None => {}
            }
        }
        let mut scopes = Vec::new();
        for text in table.texts(&format!("{group}.scopes")) {
            let parts = text.split([',', ' ', '\t', '\n', '\r']);
            for part in parts.filter(|it| !it.is_empty()) {
                let part = self.resolve(&at("scopes"), part).unwrap_or_default();
                let parts = part.split([',', ' ']).filter(|it| !it.is_empty());
                scopes.extend(parts.map(str::to_owned));
            }
        }
        if !scopes.is_empty() {
            self.put("scopes", scopes);
        }
        if group == "oauth2xsuaaCertificate" {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let file = id.replace(|c| !plain(c), "_");
            self.put("tls.cert_file", format!("{file}.crt"));
            self.put("tls.key_file", format!("{file}.key"));
            self.note(format!("{path}: write client_certificates to {file}.crt and client_key to {file}.key, beside the configuration."));
        }
    }

    /// Writes the address of Promregator's paths.
    fn face(&mut self, timeout: u32) {
        self.header(&format!("[sources.{NAME}.expose]"));
        let port = self.filled("server.port");
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        let port = port.and_then(|port| match is_variable(&port, is_port) {
            // The platform may choose it, and pass it as a variable.
            true => Some(port),
            false => Some(self.parse::<u16>("server.port", &port)?.to_string()),
        });
        let port = port.unwrap_or_else(|| "8080".to_owned());
        let address = self.filled("server.address");
        let address = match address.as_deref() {
            None => "0.0.0.0".to_owned(),
            Some("localhost") => "127.0.0.1".to_owned(),
            Some(address) => bracketed(address),
        };
        let with_port = |address: &str| format!("{address}:8080").parse::<Address>();
        if !is_variable(&address, |default| with_port(default).is_ok())
            && let Err(what) = with_port(&address)
        {
            self.wrong("server.address", what);
        }
        self.put("address", format!("{address}:{port}"));
        self.put("timeout", format!("{timeout}ms"));
        let host = self.filled("promregator.discovery.hostname");
        let its_port = self.number::<u16>("promregator.discovery.port");
        match (host, its_port) {
            (Some(host), its_port) => {
                let its_port = its_port.map_or(port, |it| it.to_string());
                if host.contains(['/', ' ']) {
                    self.wrong("promregator.discovery.hostname", "is not a name of a host");
                }
                let host = bracketed(&host);
                self.put("discovery_address", format!("{host}:{its_port}"));
            }
            (None, Some(its_port)) => self.note(format!("promregator.discovery.port is {its_port}, without a hostname: discovery_address takes both.")),
            (None, None) => {}
        }
        let scheme = self.filled("promregator.discovery.scheme");
        match scheme.as_deref() {
            // Promregator takes this port for one of HTTPS.
            None if its_port == Some(443) => self.put("discovery_scheme", "https"),
            None => {}
            Some(scheme) if ["http", "https"].contains(&scheme) => {
                self.put("discovery_scheme", scheme);
            }
            Some(_) => {
                let what = "is neither http nor https";
                self.wrong("promregator.discovery.scheme", what);
            }
        }
        let path = "promregator.discovery.ownMetricsEndpoint";
        let own = self.value(path);
        if own.is_some_and(|it| self.truth(path, &it) == Some(false)) {
            self.put("own_metrics", false);
        }
        self.face_auth();
    }

    /// Writes the credentials that Promregator's paths ask for, and the endpoints that ask for none.
    fn face_auth(&mut self) {
        let username = self.filled("promregator.authentication.basic.username");
        let password = self.filled("promregator.authentication.basic.password");
        let mut open: Vec<&str> = Vec::new();
        for (place, endpoints) in [
            ("discovery", &["discovery"][..]),
            ("endpoint", &["single_target_metrics", "metrics"]),
            ("metrics", &["promregator_metrics"]),
            ("cache.invalidate", &["cache_invalidate"]),
        ] {
            let kind = self.value(&format!("promregator.{place}.auth"));
            if !kind.is_some_and(|it| it.eq_ignore_ascii_case("basic")) {
                open.extend(endpoints);
            }
        }
        if open.len() == ENDPOINTS {
            return;
        }
        if !open.is_empty() {
            self.put("without_auth", open);
        }
        let username = username.unwrap_or_else(|| NAME.to_owned());
        self.check_username("promregator.authentication.basic.username", &username);
        self.put("basic_auth.username", username);
        let password = password.unwrap_or_else(|| {
            self.note("promregator.authentication.basic.password is missing: set PROMREGATOR_PASSWORD, since no random password is made.");
            "${PROMREGATOR_PASSWORD}".to_owned()
        });
        self.put("basic_auth.password", password);
    }

    /// Writes a sink: without push, batches go nowhere, and a source without any sink would cause a
    /// warning.
    fn sink(&mut self) {
        self.header("[sinks.nowhere]");
        self.put("type", "blackhole");
        self.put("inputs", vec![NAME]);
    }

    /// Checks a pattern, unless it depends on variables.
    fn check(&mut self, path: &str, pattern: &str) {
        if !has_variable(pattern)
            && let Err(error) = Regex::new(&pattern.replace("$$", "$"))
        {
            self.wrong(path, format!("{error}: write it in the syntax of Go"));
        }
    }

    /// Notes the keys that were not converted.
    fn rest(&mut self) {
        let mut needless = BTreeSet::new();
        for table in ["cf", "promregator"] {
            let rest = self.document.table(table).rest().into_iter();
            let rest: Vec<_> = rest.map(|path| format!("{table}.{path}")).collect();
            for path in rest {
                let folded = |it: &str| it.to_lowercase().replace(['-', '_'], "");
                let why = NEEDLESS.iter().find(|(key, _)| {
                    folded(&path)
                        .strip_prefix(&folded(key))
                        .is_some_and(|it| it.is_empty() || it.starts_with('.'))
                });
                match why {
                    Some((key, why)) => {
                        if needless.insert(*key) {
                            self.note(format!("{key} has no counterpart: {why}."));
                        }
                    }
                    None => self.note(format!("{path} has no counterpart.")),
                }
            }
        }
    }
}

/// A resolved name as the key of a TOML table, in which a dollar sign is nothing special.
fn quoted(name: &str) -> String {
    let name = name.replace("$$", "$");
    // A string of JSON is one of TOML: both escape quotes and control characters alike.
    serde_json::Value::from(name)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

/// A resolved text with `x` in place of each variable.
fn filled_in(text: &str) -> String {
    // No value holds control characters: one stands for a dollar sign.
    let text = text.replace("$$", "\u{1}");
    let mut parts = text.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('x');
        out.push_str(part.split_once('}').map_or("", |(_, behind)| behind));
    }
    out.replace('\u{1}', "$")
}

/// A host as part of an address.
fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') && !has_variable(host) {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}
