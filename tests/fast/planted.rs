//! Secrets planted in every value of every example, which is then broken in every way: nothing that
//! the program prints, serves or writes shows them.
//!
//! The suite of components (`tests/conformance/secrets.rs`) plants values of keys that are declared
//! secret. Here secrets are where users put them by mistake: in URLs, under misspelt keys, in place
//! of tables, in invalid TOML.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use metrifold_engine::config::{self, LoadOptions, unknown_keys};
use metrifold_model::Kind;
use metrifold_testing::edits::{file, post};
use metrifold_testing::{
    Authority, Endpoint, Metrifold, Reply, Seen, Sender, cli, fetch, free_address, run, until_so,
    up,
};

use crate::components::components;
use crate::examples::examples;

/// Part of every planted text.
const PLANTED: &str = "pl4nted";

/// A planted number.
const NUMBER: &str = "90314071";

/// TOML texts with a secret, which must not be shown anywhere in a URL.
const URLS: &[&str] = &[
    r#""http://user:pl4nted@host:1/?key=pl4nted#pl4nted""#,
    r#""https://pl4nted@host:99999/""#,
    r#""http://user:pl4nted/@[host/""#,
    r#""http://us er:pl4nted@:pl4nted@host?pl4nted""#,
    r#""tcp://user:pl4nted@host""#,
    r#""${SECRET}""#,
    r#""http://user:${SECRET}@host/""#,
    r#""${UNSET}${SECRET}""#,
];

/// Values that no key accepts: tables and lists with unknown keys.
const STRANGE: &[&str] = &[
    r#"["http://user:pl4nted@host/"]"#,
    r#"[["pl4nted"]]"#,
    r#"[{ unknown = "pl4nted" }]"#,
    r#"{ unknown = "pl4nted", password = 90314071 }"#,
    r#"{ password = ["pl4nted"] }"#,
    r#"["${SECRET}", 1.5]"#,
    r#"{ unknown = { token = "pl4nted" } }"#,
];

/// Invalid TOML in place of a value.
const BROKEN: &[&str] = &[
    r#""pl4nted"#,
    r#"'pl4nted"#,
    r#""\q http://user:pl4nted@host""#,
    r#""" "pl4nted""#,
    r#""x" pl4nted"#,
    r#"["pl4nted""#,
    r#"{ password = "pl4nted""#,
    "\"\"\"pl4nted\nmore = 1",
    "\"http://user:pl4nted@host\u{7}\"",
    r#"= "pl4nted""#,
    r#"http://user:pl4nted@host/"#,
    "",
];

/// Place of a value in a text, with the place of its key.
struct Place {
    key: Option<Range<usize>>,
    value: Range<usize>,
    /// Whether the value is a text or a list of texts.
    is_text: bool,
    is_secret: bool,
    /// The first character of a list or table.
    kind: Option<char>,
}

fn places(text: &str) -> Vec<Place> {
    fn table(table: &DeTable<'_>, secret: bool, found: &mut Vec<Place>) {
        for (key, item) in table.iter() {
            let name = key.get_ref();
            let secret = secret || matches!(&**name, "password" | "credentials" | "headers");
            value(item, Some(key.span()), secret, found);
        }
    }
    fn value(
        item: &Spanned<DeValue<'_>>,
        key: Option<Range<usize>>,
        is_secret: bool,
        found: &mut Vec<Place>,
    ) {
        found.push(Place {
            key,
            value: item.span(),
            is_text: match item.get_ref() {
                DeValue::String(_) => true,
                DeValue::Array(items) => items.first().is_some_and(|item| item.get_ref().is_str()),
                _ => false,
            },
            is_secret,
            kind: match item.get_ref() {
                DeValue::Table(_) => Some('{'),
                DeValue::Array(_) => Some('['),
                _ => None,
            },
        });
        match item.get_ref() {
            DeValue::Table(inner) => table(inner, is_secret, found),
            DeValue::Array(items) => items
                .iter()
                .for_each(|item| value(item, None, is_secret, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    table(DeTable::parse(text).unwrap().get_ref(), false, &mut found);
    // Tables, and lists of tables, with headers cannot be replaced by a value.
    let has_header = |place: &Place| {
        let begins = place.value.start == 0 || text[..place.value.start].ends_with('\n');
        let rest = &text[place.value.start..];
        let value = place.kind.is_none_or(|begin| rest.starts_with(begin));
        begins || !value
    };
    found.retain(|place| !has_header(place));
    found
}

fn replaced(text: &str, place: &Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..place.start], &text[place.end..])
}

/// All ways to break a text with a secret in it.
fn damaged(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for place in places(text) {
        let mut values: Vec<&str> = [URLS, STRANGE, BROKEN].concat();
        let (plain, number) = (format!("\"{PLANTED}\""), NUMBER.to_owned());
        // A plain word in place of a text may be shown, since the error quotes it.
        if !place.is_text || place.is_secret {
            values.extend([&*plain, "'''\npl4nted'''"]);
        }
        if place.is_secret {
            values.push(&number);
        }
        all.extend(values.iter().map(|with| replaced(text, &place.value, with)));
        if let Some(key) = place.key {
            let misspelt = replaced(text, &key, "unknwon");
            let moved = |at: usize| at + "unknwon".len() - key.len();
            let value = moved(place.value.start)..moved(place.value.end);
            for with in [&*plain, &number, "[\"pl4nted\"]", "{ a = \"pl4nted\" }"] {
                all.push(replaced(&misspelt, &value, with));
            }
            // In a comment on the same line as the error.
            let comment = format!("{plain} # password: {PLANTED}\n");
            all.push(replaced(&misspelt, &value, &comment));
            all.push(replaced(
                text,
                &(key.start..key.start),
                "password = \"pl4nted\"\n= ",
            ));
        }
    }
    // An unknown key at every level, beside secrets in their proper places.
    let everywhere = secret_everywhere(text);
    all.extend(unknown_keys(&everywhere).into_iter().map(|it| it.text));
    all
}

/// The text with every value that may be secret replaced; it stays valid.
fn secret_everywhere(text: &str) -> String {
    let mut text = text.to_owned();
    let mut places = places(&text);
    places.sort_by_key(|place| std::cmp::Reverse(place.value.start));
    for place in places
        .iter()
        .filter(|place| place.is_text && place.is_secret)
    {
        text = replaced(&text, &place.value, &format!("\"{PLANTED}\""));
    }
    text
}

fn environment(name: &str) -> Option<String> {
    (name == "SECRET").then(|| format!("{PLANTED}-variable"))
}

#[track_caller]
fn shows_nothing(what: &str, shown: &str, needles: &[String]) {
    let own = [PLANTED, NUMBER];
    let needles = needles.iter().map(|needle| &**needle).chain(own);
    for needle in needles {
        let line = shown.lines().find(|line| line.contains(needle));
        assert_eq!(line, None, "{what} shows {needle:?}");
    }
}

#[test]
fn errors_of_broken_examples_show_no_planted_secret() {
    let mut texts: Vec<_> = examples().into_iter().collect();
    texts.push(("every key".to_owned(), crate::config::everything()));
    let options = LoadOptions { environment: false };
    for (name, text) in texts {
        let mut damaged = damaged(&text);
        // Each kind of damage meets each kind of value at least once; not all combinations are
        // needed.
        let most = if text.len() > 10_000 { 30 } else { 100 };
        let step = damaged.len().div_ceil(most);
        damaged = damaged.into_iter().step_by(step).collect();
        let mut refused = 0;
        for damaged in &damaged {
            let found = config::parse_texts(&[("a.toml", damaged)], &environment, options);
            let found = match found {
                Ok(loaded) => loaded.warnings,
                Err(found) => {
                    refused += 1;
                    found
                }
            };
            for found in found {
                let shown = format!("{}{}", found.render(false), found.render(true));
                if shown.contains(PLANTED) || shown.contains(NUMBER) {
                    let lines = damaged.lines().filter(|line| line.contains(PLANTED));
                    panic!("{name}: {shown}\nfor {:?}", lines.collect::<Vec<_>>());
                }
            }
        }
        // Some of the damaged texts are valid.
        assert!(
            refused * 10 > damaged.len() * 8,
            "{name}: {refused} of {}",
            damaged.len()
        );
    }
}

/// An example that runs at reserved addresses, with secrets wherever it accepts them.
struct Planted {
    text: String,
    /// Name, address and path of each source.
    sources: Vec<(String, std::net::SocketAddr, String)>,
    endpoint: Endpoint,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Planted {
    fn new(text: &str) -> Self {
        let mut planted = Self {
            text: String::new(),
            sources: Vec::new(),
            endpoint: Endpoint::new(echo),
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
        };
        planted.authority.issue("tls");
        let mut table: Table = text.parse().unwrap();
        // The test adds its own.
        table.remove("api");
        for (name, value) in table.iter_mut() {
            if let Value::String(text) = value {
                *text = planted.path(text).unwrap_or_else(|| text.clone());
            }
            let kind = Kind::ALL.into_iter().find(|kind| kind.table() == name);
            let Value::Table(tables) = value else {
                continue;
            };
            for (id, value) in tables.iter_mut() {
                let Value::Table(keys) = value else { continue };
                planted.fit(keys);
                if keys.get("type").and_then(Value::as_str) == Some("prometheus") {
                    // This sink's endpoint takes no query.
                    keys.insert("endpoint".to_owned(), planted.endpoint.url_of("").into());
                }
                if let Some(kind) = kind {
                    plant(kind, keys);
                    planted.note(kind, id, keys);
                }
            }
        }
        planted.text = toml::to_string(&table).unwrap();
        planted
    }

    fn note(&mut self, kind: Kind, id: &str, keys: &Table) {
        let address = keys.get("address").and_then(Value::as_str);
        if let (Kind::Source, Some(address)) = (kind, address) {
            let path = keys
                .get("path")
                .and_then(Value::as_str)
                .unwrap_or("/api/v1/write");
            let path = path.replace("{tenant}", "team-a");
            let found = (id.to_owned(), address.parse().unwrap(), path);
            self.sources.push(found);
        }
    }

    /// The test's file or folder in place of one of the example's.
    fn path(&self, text: &str) -> Option<String> {
        let is_path = text.starts_with("/var/") || text.starts_with("/etc/");
        let path = PathBuf::from(text.trim_start_matches('/'));
        let name = path.file_name()?.to_str()?;
        let found = match name {
            _ if !is_path => return None,
            "tls.crt" | "tls.key" => self.authority.ca().with_file_name(name),
            name if name.ends_with(".crt") => self.authority.ca(),
            name => {
                let there = self.folder.path().join(&path);
                let is_secret = ["password", "token"].iter().any(|end| name.ends_with(end));
                std::fs::create_dir_all(there.parent().unwrap()).unwrap();
                if is_secret {
                    std::fs::write(&there, format!("{PLANTED}-file")).unwrap();
                }
                there
            }
        };
        Some(found.display().to_string())
    }

    /// Replaces addresses, files and URLs in a table by the test's.
    fn fit(&self, keys: &mut Table) {
        for (name, value) in keys.iter_mut() {
            let name = &**name;
            each_text(value, &mut |text| {
                if let Some(default) = text.strip_prefix("${") {
                    let default = default.split_once(":-").map(|(_, default)| default);
                    *text = default.unwrap().trim_end_matches('}').to_owned();
                }
                if let Some(path) = self.path(text) {
                    *text = path;
                } else if text.contains("://") {
                    *text = self.endpoint.url_of(&format!("/?token={PLANTED}-query"));
                } else if name == "address" {
                    *text = free_address().to_string();
                }
            });
        }
        if keys.get("type").and_then(Value::as_str) == Some("dns") {
            let nobody = Value::Array(vec![free_address().to_string().into()]);
            keys.insert("servers".to_owned(), nobody);
        }
    }
}

fn each_text(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, visit)),
        Value::Table(table) => table
            .iter_mut()
            .for_each(|(_, item)| each_text(item, visit)),
        _ => {}
    }
}

/// Adds all secrets that a component accepts.
fn plant(kind: Kind, keys: &mut Table) {
    let name = keys["type"].as_str().unwrap().to_owned();
    let info = components().find(|info| info.kind == kind && info.name == name);
    let known = info.unwrap().keys();
    let knows = |name: &str| known.iter().any(|key| key.name == name);
    let has = ["basic_auth", "authorization"]
        .iter()
        .any(|it| keys.contains_key(*it));
    if knows("basic_auth.password") && !has {
        let pair = [("username", "user"), ("password", "pl4nted-password")];
        keys.insert("basic_auth".to_owned(), table(&pair));
    }
    if let Some(Value::Table(auth)) = keys.get_mut("basic_auth")
        && auth.contains_key("password")
    {
        auth.insert("username".to_owned(), "user".into());
        auth.insert("password".to_owned(), "pl4nted-password".into());
    }
    if knows("headers") {
        keys.insert(
            "headers".to_owned(),
            table(&[("X-Planted", "pl4nted-header")]),
        );
    }
}

fn table(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()));
    Value::Table(pairs.collect())
}

/// An endpoint that echoes requests in its answers, and fails in turn.
fn echo(seen: &Seen) -> Reply {
    let headers = seen.headers.iter();
    let mut body: String = headers
        .map(|(name, value)| format!("{name}: {value}; "))
        .collect();
    body.push_str(&format!("path={} json={:?}", seen.path, body));
    match seen.order % 4 {
        0 => Reply::new(400).body(body),
        1 => Reply::new(401).body(body),
        2 => Reply::new(500).header("x-echo", &seen.path).body(body),
        _ => Reply::new(204),
    }
}

/// Pages that show state of the program.
const PAGES: [&str; 6] = [
    "/",
    "/metrics",
    "/api/v1/topology",
    "/api/v1/discovery",
    "/api/v1/ledger",
    "/api/v1/dead-letters",
];

/// Components that an example may have to be run here: those that get data by requests. The suite
/// of components covers all others.
const FED: [&str; 13] = [
    "blackhole",
    "console",
    "internal_metrics",
    "prometheus",
    "prometheus_api",
    "prometheus_exporter",
    "relabel",
    "remote_write",
    "route",
    "rules_directory",
    "rules_file",
    "tenant",
    "thanos",
];

fn is_fed(text: &str) -> bool {
    let table: Table = text.parse().unwrap();
    // The tests of access plant credentials of tenants.
    if table.contains_key("tenants") {
        return false;
    }
    let tables = Kind::ALL
        .iter()
        .filter_map(|kind| table.get(kind.table())?.as_table());
    let mut components = tables.flat_map(Table::values);
    components.all(|component| FED.contains(&component["type"].as_str().unwrap()))
}

#[test]
fn nothing_that_runs_shows_a_planted_secret() {
    let run: Vec<_> = examples()
        .into_iter()
        .filter(|(_, text)| is_fed(text))
        .collect();
    assert!(run.len() >= 8, "{}", run.len());
    for (name, text) in run {
        // Fixed names would make programs that run beside each other collide.
        let planted = Planted::new(&text);
        let running = Metrifold::start_with(&planted.text, &["--log-level", "trace", "--no-watch"]);
        feed(&planted);
        let of_endpoint = |endpoint: &Endpoint| -> Vec<String> {
            let seen = endpoint.seen();
            let told = seen.iter().filter_map(|seen| seen.header("authorization"));
            let told = told.filter_map(|value| value.split(' ').nth(1));
            told.map(str::to_owned).collect()
        };
        // Sources that require certificates are skipped.
        let sends = planted.text.contains("endpoint") && !planted.text.contains("client_ca_file");
        if sends {
            until_so("the endpoint is sent something", || {
                planted.endpoint.count() > 2
            });
        }
        let check = |what: &str, shown: &str| {
            shows_nothing(
                &format!("{name}: {what}"),
                shown,
                &of_endpoint(&planted.endpoint),
            );
        };
        let show = || {
            for page in PAGES {
                check(page, &running.get(page).text());
            }
        };
        show();
        let broken = damaged(&secret_everywhere(&planted.text));
        let step = broken.len() / 6;
        let mut refused = 0;
        for broken in broken.iter().step_by(step.max(1)) {
            std::fs::write(file(&running), running.complete(broken)).unwrap();
            let answer = post(&running);
            refused += usize::from(answer.status >= 400);
            check("the answer to a reload", &answer.text());
            command(&running, &["validate"], &check);
        }
        assert!(refused > 3, "{name}: {refused}");
        show();
        std::fs::write(file(&running), running.complete(&planted.text)).unwrap();
        let address = running.api.to_string();
        for arguments in [
            &["validate"][..],
            &["graph"],
            &["queues", "list"],
            &["ledger", "--address", &address],
            &["dead-letters", "list", "--address", &address],
            &["reload", "--address", &address],
        ] {
            command(&running, arguments, &check);
        }
        check("the log", &running.log());
        assert!(
            !sends || !of_endpoint(&planted.endpoint).is_empty(),
            "{name}"
        );
        written(planted.folder.path(), &check);
    }
}

fn command(running: &Metrifold, arguments: &[&str], check: &dyn Fn(&str, &str)) {
    let path = file(running).display().to_string();
    let output = run(cli(&["-c", &path]).args(arguments).env("SECRET", PLANTED));
    for text in [output.stdout, output.stderr] {
        check(&arguments.join(" "), &String::from_utf8_lossy(&text));
    }
}

/// Sends to all sources, with right and with wrong passwords.
fn feed(planted: &Planted) {
    for (_, address, path) in &planted.sources {
        // "user:pl4nted-password", and "pl4nted:wrong".
        for credentials in ["dXNlcjpwbDRudGVkLXBhc3N3b3Jk", "cGw0bnRlZDp3cm9uZw=="] {
            let header = ("authorization", &*format!("Basic {credentials}"));
            for time in 1..=3 {
                let mut sender = Sender::new(*address);
                let _ = sender.try_post(path, &[header, ("THANOS-TENANT", "a")], &up(time));
            }
        }
        for value in ["dXNlcjpwbDRudGVkLXBhc3N3b3Jk", "cGw0bnRlZDp3cm9uZw=="] {
            let header = ("authorization", &*format!("Basic {value}"));
            // With a tenant, an unknown parameter is refused.
            for parameter in [format!("&token={PLANTED}"), String::new()] {
                let path = format!("{path}/api/v1/query?query=up{parameter}");
                for _ in 1..=3 {
                    let _ = Sender::new(*address).try_post(&path, &[header], b"");
                }
            }
        }
        let _ = fetch(*address, &format!("{path}?token={PLANTED}"));
    }
}

/// Files in the data folder, and files published for others.
fn written(folder: &Path, check: &dyn Fn(&str, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(&path, check);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if !bytes.starts_with(PLANTED.as_bytes()) {
            check(
                &path.display().to_string(),
                &String::from_utf8_lossy(&bytes),
            );
        }
    }
}
