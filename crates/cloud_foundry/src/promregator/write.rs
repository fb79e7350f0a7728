//! Writes Promregator's keys as TOML, section by section.

use std::collections::BTreeSet;

use toml::Value;

use metrifold_expr::regex::Regex;

use super::document::Document;
use super::{Converted, Wrong, decrypt};

/// Name of the provider and of the source.
const NAME: &str = "promregator";

/// Default of `scrape_interval`, in milliseconds.
const INTERVAL: u32 = 60_000;

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
    document: Document,
    key: Option<&'a str>,
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
            document,
            key,
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
            toml.push_str(&format!("# {}\n", note.replace('\n', " ")));
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

    /// Takes a value, decrypted if it is encrypted, with its variables translated.
    fn value(&mut self, path: &str) -> Option<String> {
        let text = self.document.text(path)?;
        self.resolve(path, &text)
    }

    fn resolve(&mut self, path: &str, text: &str) -> Option<String> {
        if let Some(digits) = text.strip_prefix("{cipher}") {
            let plain = match self.key {
                Some(key) => decrypt(digits.trim(), key),
                None => Err("is encrypted: set ENCRYPT_KEY to the key".to_owned()),
            };
            return match plain {
                Ok(plain) => Some(plain.expose().replace('$', "$$")),
                Err(what) => {
                    self.wrong(path, what);
                    None
                }
            };
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            out.push_str(&before.replace('$', "$$"));
            let Some((inside, after)) = behind.split_once('}') else {
                self.wrong(path, "holds a ${ that is not closed");
                return None;
            };
            let (name, default) = match inside.split_once(':') {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let is_variable =
                !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            match (self.document.look(name), is_variable, default) {
                (Some(known), ..) if !known.contains("${") => {
                    out.push_str(&known.replace('$', "$$"));
                }
                (_, true, Some(default)) => out.push_str(&format!("${{{name}:-{default}}}")),
                (_, true, None) => out.push_str(&format!("${{{name}}}")),
                (_, false, Some(default)) => out.push_str(&default.replace('$', "$$")),
                (_, false, None) => {
                    self.wrong(
                        path,
                        format!("refers to {name:?}, which is not in the file"),
                    );
                }
            }
            rest = after;
        }
        out.push_str(&rest.replace('$', "$$"));
        Some(out)
    }

    fn flag(&mut self, path: &str) -> bool {
        let text = self.value(path).unwrap_or_default().to_lowercase();
        ["true", "yes", "on", "1"].contains(&&*text)
    }

    /// Takes a number; 0 counts as absent.
    fn number(&mut self, path: &str) -> Option<u32> {
        let text = self.value(path)?;
        match text.trim().parse::<u32>() {
            Ok(0) => None,
            Ok(number) => Some(number),
            Err(_) => {
                self.wrong(path, "is not a whole number");
                None
            }
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
        }
        self.put("api", format!("https://{host}"));
        let username = self.value("cf.username");
        self.put("username", username.unwrap_or("${CF_USERNAME}".to_owned()));
        let password = self.value("cf.password");
        self.put("password", password.unwrap_or("${CF_PASSWORD}".to_owned()));
        if self.flag("cf.skipSslValidation") {
            self.put("tls.insecure_skip_verify", true);
            self.note(
                "cf.skipSslValidation is tls.insecure_skip_verify: tls.ca_file would be safe.",
            );
        }
        let host = self.value("cf.proxy.host");
        let port = self.number("cf.proxy.port");
        if let (Some(host), Some(port)) = (host, port) {
            self.put("proxy_url", format!("http://{host}:{port}"));
        }
        let longest = ["org", "space", "appInSpace", "domain", "route", "process"]
            .into_iter()
            .filter_map(|kind| self.number(&format!("cf.request.timeout.{kind}")))
            .max();
        if let Some(longest) = longest {
            // A page holds 5000 objects here, and 100 in Promregator.
            self.put("timeout", format!("{}ms", longest.max(20_000)));
        }
        if self.value("cf.request.rateLimit").is_some() {
            self.note("cf.request.rateLimit has no counterpart: requests keep to the rate limit that the platform announces; see rate_limit_share.");
        }
        // The shortest time of the cache decided how fast Promregator noticed scaling.
        if let Some(seconds) = self.number("cf.cache.timeout.process") {
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
            match table.text("id") {
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
        let internal = self.number("promregator.defaultInternalRoutePort");
        let default = self.authenticators.first().and_then(|(name, _, table)| {
            let kind = table.look("type")?.to_lowercase();
            (!["", "none", "null"].contains(&&*kind)).then(|| name.clone())
        });
        let targets = self.document.tables("promregator.targets");
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
                if key.ends_with("_regex") && !text.contains("${") {
                    self.check(&path, &text.replace("$$", "$"));
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
            let annotations = target.text("kubernetesAnnotations");
            if annotations.is_some_and(|it| it.eq_ignore_ascii_case("true")) {
                self.put("annotations", "prometheus.io/");
                self.put("opt_in", true);
            }
            let mut patterns = Vec::new();
            for (number, pattern) in target.texts("preferredRouteRegex").into_iter().enumerate() {
                let path = format!("{at}.preferredRouteRegex[{number}]");
                self.check(&path, &pattern);
                patterns.extend(self.resolve(&path, &pattern));
            }
            if !patterns.is_empty() {
                self.put("preferred_routes", patterns);
            }
            let port = target.text("internalRoutePort");
            let port = port
                .and_then(|it| it.trim().parse().ok())
                .filter(|it| *it > 0);
            if let Some(port) = port.or(internal) {
                self.put("port", i64::from(port));
            }
            let id = target.text("authenticatorId");
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
            longest.map(|key| self.number(&format!("promregator.scraping.{key}")));
        let longest = longest.unwrap_or(5000);
        let timeout = read.map_or(longest, |read| read.min(longest));
        self.put("scrape_timeout", format!("{longest}ms"));
        if longest > INTERVAL {
            // The timeout must not exceed the interval.
            self.put("scrape_interval", format!("{longest}ms"));
        }
        if let Some(connect) = connect {
            self.put("connect_timeout", format!("{}ms", connect.min(longest)));
        }
        let host = self.value("promregator.scraping.proxy.host");
        let port = self.number("promregator.scraping.proxy.port");
        if let (Some(host), Some(port)) = (host, port) {
            self.put("proxy_url", format!("http://{host}:{port}"));
        }
        let authenticators = std::mem::take(&mut self.authenticators);
        for (at, (id, path, table)) in authenticators.into_iter().enumerate() {
            self.authenticator(&id, &path, table, at == 0);
        }
        self.face(timeout);
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
        let mut take = |this: &mut Self, theirs: &str| {
            let text = table.text(&format!("{group}.{theirs}"));
            let path = format!("{path}.{group}.{theirs}");
            match text {
                Some(text) => this.resolve(&path, &text),
                None => {
                    this.wrong(&path, "is missing");
                    None
                }
            }
        };
        match group {
            "basic" => {
                for key in ["username", "password"] {
                    values.push((key, take(self, key)));
                }
                self.header(&format!("{header}.basic_auth]"));
            }
            _ => {
                let is_certificate = group == "oauth2xsuaaCertificate";
                let place = match is_certificate {
                    true => "tokenServiceCertURL",
                    false => "tokenServiceURL",
                };
                values.push(("token_url", take(self, place)));
                values.push(("client_id", take(self, "client_id")));
                if !is_certificate {
                    values.push(("client_secret", take(self, "client_secret")));
                }
                self.header(&format!("{header}.oauth2]"));
            }
        }
        for (key, value) in values {
            if let Some(value) = value {
                self.put(key, value);
            }
        }
        let scopes = table.texts(&format!("{group}.scopes"));
        let scopes = scopes
            .iter()
            .flat_map(|it| it.split([',', ' ', '\t', '\n']));
        let scopes: Vec<String> = scopes
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect();
        if !scopes.is_empty() {
            self.put("scopes", scopes);
        }
        if group == "oauth2xsuaaCertificate" {
            self.put("tls.cert_file", format!("{id}.crt"));
            self.put("tls.key_file", format!("{id}.key"));
            self.note(format!("{path}: write client_certificates to {id}.crt and client_key to {id}.key, beside the configuration."));
        }
    }

    /// Writes the address of Promregator's paths.
    fn face(&mut self, timeout: u32) {
        let basic = ["discovery", "endpoint", "metrics", "cache.invalidate"].map(|place| {
            let kind = self.value(&format!("promregator.{place}.auth"));
            kind.is_some_and(|it| it.eq_ignore_ascii_case("basic"))
        });
        let username = self.value("promregator.authentication.basic.username");
        let password = self.value("promregator.authentication.basic.password");
        self.header(&format!("[sources.{NAME}.expose]"));
        let port = self.number("server.port").unwrap_or(8080);
        let address = self.value("server.address");
        let address = match address.as_deref() {
            None => "0.0.0.0".to_owned(),
            Some("localhost") => "127.0.0.1".to_owned(),
            Some(address) if address.contains(':') && !address.starts_with('[') => {
                format!("[{address}]")
            }
            Some(address) => address.to_owned(),
        };
        self.put("address", format!("{address}:{port}"));
        self.put("timeout", format!("{timeout}ms"));
        let host = self.value("promregator.discovery.hostname");
        let its_port = self.number("promregator.discovery.port");
        match (host, its_port) {
            (Some(host), its_port) => {
                let its_port = its_port.unwrap_or(port);
                self.put("discovery_address", format!("{host}:{its_port}"));
            }
            (None, Some(its_port)) => self.note(format!("promregator.discovery.port is {its_port}, without a hostname: discovery_address takes both.")),
            (None, None) => {}
        }
        let own = self.value("promregator.discovery.ownMetricsEndpoint");
        if own.is_some_and(|it| it.eq_ignore_ascii_case("false")) {
            self.put("own_metrics", false);
        }
        if basic.contains(&true) {
            let username = username.unwrap_or_else(|| NAME.to_owned());
            self.put("basic_auth.username", username);
            let password = password.unwrap_or_else(|| {
                self.note("promregator.authentication.basic.password is missing: set PROMREGATOR_PASSWORD, since no random password is made.");
                "${PROMREGATOR_PASSWORD}".to_owned()
            });
            self.put("basic_auth.password", password);
            if basic.contains(&false) {
                self.note("some of Promregator's paths asked for a password and some did not: here all do.");
            }
        }
        // Without push, batches go nowhere; a source without any sink would cause a warning.
        self.header("[sinks.nowhere]");
        self.put("type", "blackhole");
        self.put("inputs", vec![NAME]);
    }

    fn check(&mut self, path: &str, pattern: &str) {
        if let Err(error) = Regex::new(pattern) {
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

/// A name as the key of a TOML table.
fn quoted(name: &str) -> String {
    Value::from(name).to_string()
}
