//! `rules list`, `get`, `put`, `diff`, `delete`, `history` and `rollback`: a tenant's rules at an API.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, IF_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use tokio::runtime::Builder;

use metrifold_base::{BuildError, FileError, Period, read_text};
use metrifold_http::{ClientTls, install_crypto_provider};

use crate::cli::{EXIT_FAILURE, EXIT_OK, report};

/// Largest file that is sent.
const MAX_BYTES: u64 = 64 << 20;

/// Why an answer of success is not taken for one: the URL leads elsewhere.
const NOT_RULES: &str = "the answer is not that of the rules API: check the URL";

/// Largest file with a token or a password, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Which API is meant, and whose rules.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// The tenant's URL, in front of `/rules`
    #[arg(
        long,
        value_name = "URL",
        env = "METRIFOLD_RULES_URL",
        default_value = "http://127.0.0.1:8080/api/metrics/v1/default"
    )]
    url: Url,

    /// A file with the bearer token to authenticate with
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    token_file: Option<PathBuf>,

    /// The name of the user to authenticate as
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,

    /// A file with the user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,

    /// A PEM file with the authorities to verify the server with, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// A PEM file with the certificate to authenticate with
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,

    /// A PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,

    /// The name to verify the server's certificate against, instead of the URL's host
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// How long to wait for an answer
    #[arg(long, value_name = "PERIOD", default_value = "30s")]
    timeout: Period,
}

/// What a change depends on.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// Check the change, and do not make it
    #[arg(long)]
    dry_run: bool,

    /// Make the change only if the file's version is this one
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The file's name at the API; without it, all files are printed as one document
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// The version of it to print, by its ID in `history`
    #[arg(long, value_name = "ID", requires = "name")]
    version: Option<String>,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The file's name at the API
    #[arg(value_name = "NAME")]
    name: String,

    /// The file to send, or - for stdin
    #[arg(value_name = "FILE")]
    file: String,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The file's name at the API
    #[arg(value_name = "NAME")]
    name: String,

    /// The file to compare with, or - for stdin
    #[arg(value_name = "FILE")]
    file: String,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct NamedArgs {
    /// The file's name at the API
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The file's name at the API
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The file's name at the API
    #[arg(value_name = "NAME")]
    name: String,

    /// The version to go back to, as `history` names it
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    api: ApiArgs,
}

/// Lists the files with their groups, and the state of these in the rulers.
pub(super) fn list(args: &ApiArgs) -> Result<u8, u8> {
    let request = args.request(Method::GET, None, &[("status", "true")])?;
    let status = args.json(request, "files")?;
    let mut out = String::new();
    for file in status["files"].as_array().into_iter().flatten() {
        let stored = &file["stored"];
        let by = match stored["by"].as_str() {
            Some(by) if !by.is_empty() => format!("  by {by}"),
            _ => String::new(),
        };
        let (name, version) = (text(&file["file"]), text(&file["version"]));
        out += &format!("{name}  {}{by}  version {version}\n", date(&stored["at"]));
        for group in file["groups"].as_array().into_iter().flatten() {
            out += &format!("  {}\n", text(&group["group"]));
            let rulers = group["rulers"].as_array().map_or(&[][..], Vec::as_slice);
            if rulers.is_empty() {
                out += "    stored, and no ruler has said that it is loaded\n";
            }
            for ruler in rulers {
                let error = match &ruler["error"] {
                    Value::Null => String::new(),
                    error => format!(": {}", text(error)),
                };
                let (state, name) = (text(&ruler["state"]), text(&ruler["ruler"]));
                let last = match text(&ruler["last_evaluation"]) {
                    last if last.is_empty() => last,
                    last => format!(", evaluated at {last}"),
                };
                out += &format!("    {state} by {name}{last}{error}\n");
            }
        }
    }
    for reason in status["refused"].as_array().into_iter().flatten() {
        report::complain(&format!("newer rules are not delivered: {}", text(reason)));
    }
    for reason in status["unknown"].as_array().into_iter().flatten() {
        report::tell(&format!("not known: {}", text(reason)));
    }
    Ok(report::print(&out))
}

/// Prints a file, a version of it, or all files.
pub(super) fn get(args: &GetArgs) -> Result<u8, u8> {
    let query = args.version.iter().map(|id| ("version", id.as_str()));
    let query: Vec<_> = query.collect();
    let request = args
        .api
        .request(Method::GET, args.name.as_deref(), &query)?;
    Ok(report::print(&args.api.text(request)?))
}

/// Sends a file.
pub(super) fn put(args: &PutArgs) -> Result<u8, u8> {
    let body = read(&args.file)?;
    let request = args
        .change
        .request(&args.api, Method::PUT, &args.name, &[])?;
    let told = args.api.json(request.body(body), "version")?;
    args.change.tell(&args.file, &told)
}

/// Shows the lines in which a file differs from the one at the API; exits with 1 if any does.
pub(super) fn diff(args: &DiffArgs) -> Result<u8, u8> {
    let body = read(&args.file)?;
    let request = args.api.request(Method::GET, Some(&args.name), &[])?;
    let there = match args.api.send(request)? {
        (StatusCode::NOT_FOUND, _) => String::new(),
        (status, text) if status.is_success() => text,
        (status, text) => return Err(refused(status, &text)),
    };
    let here = String::from_utf8_lossy(&body);
    if there == here {
        return Ok(EXIT_OK);
    }
    let header = format!("--- {}\n+++ {}\n", args.name, args.file);
    let lines = difference(&there, &here);
    match report::print(&(header + &lines)) {
        EXIT_OK => Ok(EXIT_FAILURE),
        code => Ok(code),
    }
}

pub(super) fn delete(args: &DeleteArgs) -> Result<u8, u8> {
    let request = args
        .change
        .request(&args.api, Method::DELETE, &args.name, &[])?;
    match args.api.send(request)? {
        (StatusCode::NO_CONTENT, _) => {}
        (status, _) if status.is_success() => return Err(complain(NOT_RULES)),
        (status, text) => return Err(refused(status, &text)),
    }
    let what = match args.change.dry_run {
        true => "can be deleted",
        false => "deleted",
    };
    Ok(report::print(&format!("{what}: {}\n", args.name)))
}

pub(super) fn history(args: &NamedArgs) -> Result<u8, u8> {
    let query = [("history", "true")];
    let request = args.api.request(Method::GET, Some(&args.name), &query)?;
    let told = args.api.json(request, "versions")?;
    let mut out = String::new();
    for entry in told["versions"].as_array().into_iter().flatten() {
        let (id, action, by) = (
            text(&entry["id"]),
            text(&entry["action"]),
            text(&entry["by"]),
        );
        let version = match text(&entry["version"]) {
            version if version.is_empty() => version,
            version => format!("  version {version}"),
        };
        out += &format!("{id}  {}  {action}  {by}{version}\n", date(&entry["at"]));
    }
    Ok(report::print(&out))
}

pub(super) fn rollback(args: &RollbackArgs) -> Result<u8, u8> {
    let query = [("rollback", args.id.as_str())];
    let request = args
        .change
        .request(&args.api, Method::POST, &args.name, &query)?;
    let told = args.api.json(request, "version")?;
    args.change.tell(&args.name, &told)
}

impl ChangeArgs {
    /// A request for the change of a file.
    fn request(
        &self,
        api: &ApiArgs,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, u8> {
        let dry_run = self.dry_run.then_some(("dry_run", "true"));
        let query: Vec<_> = query.iter().copied().chain(dry_run).collect();
        let request = api.request(method, Some(name), &query)?;
        Ok(match &self.if_version {
            Some(version) => request.header(IF_MATCH, format!("\"{version}\"")),
            None => request,
        })
    }

    /// Prints the answer to a change of a file, with warnings about its text.
    fn tell(&self, text_of: &str, told: &Value) -> Result<u8, u8> {
        for warning in told["warnings"].as_array().into_iter().flatten() {
            report::tell(&format!("{text_of}:{}", text(warning)));
        }
        let what = match (told["changed"] == true, self.dry_run) {
            (false, _) => "unchanged",
            (true, true) => "valid, and not stored",
            (true, false) => "stored",
        };
        let version = text(&told["version"]);
        Ok(report::print(&format!("{what}: version {version}\n")))
    }
}

impl ApiArgs {
    /// A request for one file of the tenant, or for all of them.
    fn request(
        &self,
        method: Method,
        name: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, u8> {
        // In a URL, these are not a file's name: what was meant for one file would concern all.
        if let Some(name @ ("" | "." | "..")) = name {
            return Err(complain(&format!("{name:?} is not the name of a file")));
        }
        // reqwest needs a provider even for plain HTTP.
        install_crypto_provider();
        let mut url = self.url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().push("rules").extend(name);
            }
            Err(()) => return Err(complain("the URL has no path")),
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client()?.request(method, url);
        request = request.header(ACCEPT, "application/yaml");
        if let Some(file) = &self.token_file {
            let token = secret(file)?;
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let (Some(name), Some(file)) = (&self.username, &self.password_file) {
            request = request.basic_auth(name, Some(secret(file)?));
        }
        Ok(request)
    }

    fn client(&self) -> Result<reqwest::Client, u8> {
        if self.url.password().is_some() {
            return Err(complain(
                "the URL contains a password, which other users can see: use --password-file",
            ));
        }
        let tls = ClientTls {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            server_name: self.server_name.clone(),
            insecure_skip_verify: false,
        };
        if self.url.scheme() != "https" && tls != ClientTls::default() {
            return Err(complain(
                "the URL is not one of HTTPS, and options of TLS are given",
            ));
        }
        let mut client = reqwest::Client::builder();
        if self.url.scheme() == "https" {
            let tls = tls.config();
            let wrong = |error: BuildError| complain(&format!("{}: {}", error.what, error.reason));
            client = client.tls_backend_preconfigured(tls.map_err(wrong)?);
        }
        let client = client
            // A redirected change would be sent as a GET.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(self.timeout.0)
            .build();
        client.map_err(|error| complain(&error.to_string()))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, String), u8> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| complain(&error.to_string()))?;
        let answered = runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        });
        answered.map_err(|error| {
            let mut reason = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                reason = format!("{reason}: {cause}");
                source = cause.source();
            }
            complain(&reason)
        })
    }

    fn text(&self, request: reqwest::RequestBuilder) -> Result<String, u8> {
        match self.send(request)? {
            (status, text) if status.is_success() => Ok(text),
            (status, text) => Err(refused(status, &text)),
        }
    }

    /// An answer of JSON that has a key.
    fn json(&self, request: reqwest::RequestBuilder, key: &str) -> Result<Value, u8> {
        let told: Value = serde_json::from_str(&self.text(request)?).unwrap_or_default();
        match told[key].is_null() {
            true => Err(complain(NOT_RULES)),
            false => Ok(told),
        }
    }
}

/// The secret in a file.
fn secret(file: &Path) -> Result<String, u8> {
    let text = read_text(file, MAX_SECRET)
        .map_err(|error| complain(&format!("cannot read {}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

fn complain(reason: &str) -> u8 {
    report::complain(reason);
    EXIT_FAILURE
}

/// Prints why the API refuses, with every place in the file.
fn refused(status: StatusCode, text: &str) -> u8 {
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    let problems = told["problems"].as_array();
    for problem in problems.into_iter().flatten() {
        let (key, message) = (self::text(&problem["key"]), self::text(&problem["message"]));
        let (line, column) = (&problem["line"], &problem["column"]);
        // What concerns the whole file has no key.
        let key = match key.is_empty() {
            true => key,
            false => format!("{key}: "),
        };
        report::tell(&format!("{line}:{column}: {key}{message}"));
    }
    match told["error"].as_str() {
        Some(_) if problems.is_some() => complain(&format!("the API answered {status}")),
        Some(reason) => complain(&format!(
            "the API answered {status}: {}",
            report::plain(reason)
        )),
        None => complain(&format!("the API answered {status}")),
    }
}

fn read(file: &str) -> Result<Vec<u8>, u8> {
    let read = match file {
        "-" => {
            let mut text = Vec::new();
            let mut stdin = io::stdin().lock().take(MAX_BYTES + 1);
            match stdin.read_to_end(&mut text) {
                // What was cut off would be missing without a word.
                Ok(read) if read as u64 > MAX_BYTES => {
                    Err(FileError::TooLarge(MAX_BYTES).to_string())
                }
                Ok(_) => Ok(text),
                Err(error) => Err(error.to_string()),
            }
        }
        file => {
            let read = metrifold_base::read_file(file.as_ref(), MAX_BYTES);
            read.map_err(|error| error.to_string())
        }
    };
    read.map_err(|reason| complain(&format!("cannot read {file}: {reason}")))
}

/// A string of an answer, safe for a terminal.
fn text(value: &Value) -> String {
    report::plain(value.as_str().unwrap_or_default())
}

fn date(millis: &Value) -> String {
    let millis = millis.as_u64().unwrap_or_default();
    // The last year with four digits.
    const YEAR_10000: u64 = 253_402_300_800_000;
    match millis {
        0 => "unknown".to_owned(),
        millis if millis < YEAR_10000 => {
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis))
        }
        millis => millis.to_string(),
    }
}

/// Lines that differ, each run of them under the number of its first line.
fn difference(old: &str, new: &str) -> String {
    // With their ends, which differ where the files were written on different systems.
    let old: Vec<_> = old.split_inclusive('\n').collect();
    let new: Vec<_> = new.split_inclusive('\n').collect();
    let (mut at, mut to) = (0, 0);
    let mut out = String::new();
    while at < old.len() || to < new.len() {
        if at < old.len() && old.get(at) == new.get(to) {
            (at, to) = (at + 1, to + 1);
            continue;
        }
        let (removed, added) = run(&old[at..], &new[to..]);
        out += &format!("@@ line {} @@\n", at + 1);
        let removed = old[at..].iter().take(removed).map(|line| ('-', line));
        let added = new[to..].iter().take(added).map(|line| ('+', line));
        for (sign, line) in removed.chain(added) {
            match sign {
                '-' => at += 1,
                _ => to += 1,
            }
            let end = match line.ends_with('\n') {
                true => "",
                false => "\n\\ no newline at the end of the file\n",
            };
            out += &format!("{sign}{line}{end}");
        }
    }
    out
}

/// How many lines of each text come before the nearest line that they have in common.
fn run(old: &[&str], new: &[&str]) -> (usize, usize) {
    /// Most lines that are looked through, as each is compared with each.
    const MOST: usize = 2000;
    for both in 1..=(old.len() + new.len()).min(MOST) {
        let within = both.saturating_sub(new.len())..=both.min(old.len());
        for removed in within {
            let added = both - removed;
            if old
                .get(removed)
                .is_some_and(|line| new.get(added) == Some(line))
            {
                return (removed, added);
            }
        }
    }
    (old.len(), new.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_differ_are_shown() {
        for (old, new, shown) in [
            (
                "a\nb\nc\nd\n",
                "a\nx\ny\nd\n",
                "@@ line 2 @@\n-b\n-c\n+x\n+y\n",
            ),
            ("a\n", "a\nb\n", "@@ line 2 @@\n+b\n"),
            ("a\na\n", "a\n", "@@ line 2 @@\n-a\n"),
            ("", "a\n", "@@ line 1 @@\n+a\n"),
            ("a\n", "", "@@ line 1 @@\n-a\n"),
            (
                "a\nb\nc\n",
                "x\nb\nc\ny\n",
                "@@ line 1 @@\n-a\n+x\n@@ line 4 @@\n+y\n",
            ),
            ("a\nb\n", "a\r\nb\n", "@@ line 1 @@\n-a\n+a\r\n"),
            (
                "a\n",
                "a",
                "@@ line 1 @@\n-a\n+a\n\\ no newline at the end of the file\n",
            ),
            (
                "a\nb",
                "",
                "@@ line 1 @@\n-a\n-b\n\\ no newline at the end of the file\n",
            ),
            ("", "", ""),
        ] {
            assert_eq!(difference(old, new), shown, "{old:?} {new:?}");
        }
        // Two files without a line in common, too long to compare each line with each.
        let (old, new) = ("a\n".repeat(100_000), "b\n".repeat(100_000));
        assert_eq!(difference(&old, &new).lines().count(), 200_001);
    }
}
