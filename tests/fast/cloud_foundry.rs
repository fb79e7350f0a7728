//! Discovery of Cloud Foundry, in the whole program.

use std::cell::Cell;
use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

use metrifold_cloud_foundry::promregator::convert;
use metrifold_engine::config::{LoadOptions, parse_texts};
use metrifold_testing::{CloudFoundry, Metrifold, cli, free_address, get, run, until_so};

fn provider(foundation: &CloudFoundry, keys: &str) -> String {
    format!(
        "[discovery.cf]\ntype = \"cloud_foundry\"\napi = {:?}\nusername = \"admin\"\n\
         password = \"geheim\"\nrefresh_interval = \"100ms\"\n{keys}\n",
        foundation.api()
    )
}

/// Addresses in an `http_sd` list, with the numbers of instances.
fn listed(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let groups = list.as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> = groups
        .iter()
        .flat_map(|group| {
            let number = group["labels"]["cf_instance_number"].as_str().unwrap();
            let targets = group["targets"].as_array().unwrap().iter();
            targets.map(move |target| format!("{} {number}", target.as_str().unwrap()))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_foundation_is_published_and_followed_and_a_restart_finds_it_down() {
    let foundation = CloudFoundry::new();
    let app = foundation.push("o/s/inner", &["inner.apps.inside"], 2);
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("cf.json"), folder.path().join("data"));
    let lists = free_address();
    let config = format!(
        "data_dir = {data:?}\n{}\n[publish.cf]\ndiscovery = \"cf\"\nfile = {file:?}\n\
         http_sd = {{ address = \"{lists}\", path = \"/cf\" }}\n",
        provider(&foundation, "")
    );
    let child = Metrifold::start(&config);
    let is = |expected: &[&str]| {
        until_so(&format!("{expected:?} is published"), || {
            listed(&get(&format!("http://{lists}/cf")).text()) == expected
                && listed(&fs::read_to_string(&file).unwrap_or_default()) == expected
        });
    };
    let two = ["0.inner.apps.inside:8080 0", "1.inner.apps.inside:8080 1"];
    is(&two);
    foundation.state().process(&app).scale(3);
    is(&[two[0], two[1], "2.inner.apps.inside:8080 2"]);
    foundation.state().process(&app).set(1, "CRASHED");
    is(&[two[0], "2.inner.apps.inside:8080 2"]);
    let found = child.get("/api/v1/discovery?provider=cf").json();
    let left_out = &found["providers"][0]["left_out"];
    assert_eq!(left_out[0]["what"], "o/s/inner web 1");
    assert_eq!(left_out[0]["why"], "it is crashed");
    foundation.state().process(&app).set(1, "RUNNING");
    foundation.state().process(&app).scale(2);
    is(&two);
    let kept = data.join("discovery/cf.json");
    until_so("the targets are on disk", || {
        fs::read_to_string(&kept).is_ok_and(|it| it.contains("1.inner") && !it.contains("2.inner"))
    });
    drop(child);

    foundation.state().manner.down = true;
    fs::remove_file(&file).unwrap();
    let child = Metrifold::start(&config);
    is(&two);
    let found = child.get("/api/v1/discovery?provider=cf").json();
    assert_eq!(found["providers"][0]["stale"], true);
    let page = child.get("/").text();
    assert!(!page.contains("geheim"));
}

#[test]
fn discover_says_what_is_found_and_what_is_left_out() {
    let foundation = CloudFoundry::new();
    foundation.push("o/s/shop", &["shop.example.org"], 1);
    foundation.push("o/s/lost", &[], 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    fs::write(&file, provider(&foundation, "")).unwrap();
    let file = file.to_str().unwrap();
    let output = run(&mut cli(&["-c", file, "discover", "cf"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.contains("app_name=\"shop\""), "{found}");
    assert!(
        said.contains("left out: o/s/lost web: no route leads to it"),
        "{said}"
    );
    foundation.state().manner.blind = true;
    let output = run(&mut cli(&[
        "-c", file, "discover", "cf", "--format", "json",
    ]));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["left_out"][0]["why"], "no application matches it");
}

#[test]
fn what_promregator_was_told_is_converted_and_valid() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("promregator.yml");
    let ours = folder.path().join("cf.toml");
    let text = "global: {scrape_interval: 15s}\n\
                cf:\n  api_host: api.cf.example.org\n  username: u\n  password: '{cipher}d93dd725143e187804e4105a681706c1185c58f92086bf55aa830e61c0527060'\n\
                promregator:\n  targets:\n  - {orgName: o, applicationRegex: 'a\\d+', path: /x}\n";
    fs::write(&theirs, text).unwrap();
    let theirs = theirs.to_str().unwrap();
    let mut command = cli(&["convert", "promregator", theirs]);
    let output = run(command
        .env_remove("ENCRYPT_KEY")
        .env_remove("ENCRYPT_KEY_FILE"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("cf.password: is encrypted: set ENCRYPT_KEY"),
        "{said}"
    );
    let mut command = cli(&["convert", "promregator", theirs]);
    let output = run(command.env("ENCRYPT_KEY", "mySecretKey"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let toml = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(toml.contains("password = \"mysecret\""), "{toml}");
    fs::write(&ours, &toml).unwrap();
    let output = run(&mut cli(&[
        "validate",
        "--deny-warnings",
        ours.to_str().unwrap(),
    ]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{toml}");
}

/// Keys of Promregator with values that it takes.
type Keys = &'static [(&'static str, &'static [&'static str])];

const KEYS: Keys = &[
    (
        "cf.api_host",
        &["api.cf.example", "${API}", "${API:api.cf.example}"],
    ),
    (
        "cf.username",
        &["u", "a:b", "u$1", "${CF_USER}", "${cf.password}"],
    ),
    ("cf.password", &["p", "p$w${", "${SECRET:x}", "$${x}"]),
    ("cf.skipSslValidation", &["true", "false"]),
    ("cf.proxy.host", &["proxy", "10.0.0.1", "${PROXY}"]),
    ("cf.proxy.port", &["80", "0", "65535"]),
    ("cf.request.timeout.org", &["2500", "4294967295"]),
    ("cf.request.rateLimit", &["4.5"]),
    ("cf.cache.timeout.process", &["300"]),
    ("promregator.defaultInternalRoutePort", &["8081"]),
    (
        "promregator.scraping.maxProcessingTime",
        &["5000", "90000", "86400000"],
    ),
    (
        "promregator.scraping.connectionTimeout",
        &["1", "5000", "100000"],
    ),
    (
        "promregator.scraping.socketReadTimeout",
        &["1", "5000", "100000"],
    ),
    ("promregator.scraping.proxy.host", &["proxy"]),
    ("promregator.scraping.proxy.port", &["8080"]),
    ("promregator.discovery.auth", &["BASIC", "NONE"]),
    ("promregator.endpoint.auth", &["BASIC", "none"]),
    ("promregator.metrics.auth", &["BASIC"]),
    ("promregator.cache.invalidate.auth", &["basic"]),
    (
        "promregator.authentication.basic.username",
        &["u", "${cf.username}"],
    ),
    ("promregator.authentication.basic.password", &["p", "$p"]),
    (
        "promregator.discovery.hostname",
        &["here", "::1", "${HOST}"],
    ),
    ("promregator.discovery.port", &["81"]),
    ("promregator.discovery.ownMetricsEndpoint", &["false"]),
    ("server.port", &["9999", "0"]),
    (
        "server.address",
        &["localhost", "10.1.2.3", "::1", "${ADDRESS}"],
    ),
];

const TARGET: Keys = &[
    ("orgName", &["o", "${ORG}", "a,b", "$"]),
    (
        "orgRegex",
        &["o.*", "(?x) o # an organization", "${ORG:o.*}", "a$"],
    ),
    ("spaceName", &["s"]),
    ("spaceRegex", &["s|t"]),
    ("applicationName", &["a"]),
    ("applicationRegex", &["a\\d+"]),
    ("path", &["/x", "x", "/${PATH_OF_ALL}", "/x?a=$b"]),
    ("protocol", &["http", "https"]),
    ("kubernetesAnnotations", &["true", "false"]),
    (
        "preferredRouteRegex",
        &[".*", "a\\.b", "${ROUTE}", "[a-c]$"],
    ),
    ("internalRoutePort", &["9090", "0"]),
    ("authenticatorId", &["default", "a b", "a.b", "x\"y", "$"]),
    ("surprise", &["1"]),
];

const AUTHENTICATOR: Keys = &[
    (
        "type",
        &[
            "basic",
            "OAuth2XSUAABasic",
            "none",
            "BASIC",
            "OAuth2XSUAACertificate",
        ],
    ),
    ("basic.username", &["u"]),
    ("basic.password", &["p", "p$"]),
    (
        "oauth2xsuaaBasic.tokenServiceURL",
        &["https://uaa.example/oauth/token", "${URL}"],
    ),
    ("oauth2xsuaaBasic.client_id", &["c"]),
    ("oauth2xsuaaBasic.client_secret", &["s"]),
    ("oauth2xsuaaBasic.scopes", &["a, b", "$x", "${SCOPES}"]),
    (
        "oauth2xsuaaCertificate.tokenServiceCertURL",
        &["https://uaa.example/oauth/token"],
    ),
    ("oauth2xsuaaCertificate.client_id", &["c"]),
];

/// Values that fit few keys.
const ODD: [&str; 26] = [
    "",
    " ",
    "a b",
    "\n",
    "\u{7f}",
    "\u{1}",
    "é",
    "\"",
    "'",
    "\\",
    "$",
    "$$",
    "${",
    "}",
    "(",
    "[",
    "-1",
    "70000",
    "4294967296",
    "https://x",
    "a/b",
    "a@b",
    "${cf.proxy.host}",
    "${loop}",
    "${A:${B:c}}",
    "${A:}}",
];

type Picks = Vec<(Index, Index, u8)>;

/// A table in which each pick sets a key, one in 20 to an odd value. The first keys are always set.
fn table(keys: Keys, always: usize, picks: &Picks) -> Map<String, Value> {
    let mut table = Map::new();
    for (key, values) in &keys[..always] {
        table.insert((*key).to_owned(), values[0].into());
    }
    for (key, value, odd) in picks {
        let (key, values) = keys[key.index(keys.len())];
        let value = match odd % 20 {
            0 => ODD[value.index(ODD.len())],
            _ => values[value.index(values.len())],
        };
        table.insert(key.to_owned(), value.into());
    }
    table
}

/// What is converted at all is valid, whatever the file holds.
#[test]
fn whatever_is_converted_from_promregator_is_valid() {
    let picks = |most| prop::collection::vec(any::<(Index, Index, u8)>(), 0..most);
    let files = (
        picks(12),
        prop::collection::vec(picks(6), 0..3),
        prop::collection::vec(picks(4), 0..6),
        picks(2),
    );
    let converted = Cell::new(0);
    proptest!(ProptestConfig::with_cases(1000), |((top, targets, named, global) in files)| {
        let mut file = table(KEYS, 1, &top);
        file.insert("loop".to_owned(), "x${loop}".into());
        // A variable may be a port. That the one of the proxy holds none, nobody can know.
        if file.get("server.port") == Some(&json!("${cf.proxy.host}")) {
            file.remove("server.port");
        }
        let targets = targets.iter().map(|it| Value::Object(table(TARGET, 0, it)));
        file.insert("promregator.targets".to_owned(), targets.collect());
        let ids = ["default", "a b", "a.b", "x\"y", "$"];
        let named = named.iter().zip(ids).map(|(it, id)| {
            let mut named = table(AUTHENTICATOR, AUTHENTICATOR.len(), it);
            named.insert("id".to_owned(), id.into());
            Value::Object(named)
        });
        file.insert("promregator.targetAuthenticators".to_owned(), named.collect());
        let global = table(AUTHENTICATOR, AUTHENTICATOR.len(), &global);
        file.insert("promregator.authenticator".to_owned(), json!(global));
        let text = Value::Object(file).to_string();
        let Ok(found) = convert(&text, None) else { return Ok(()) };
        converted.set(converted.get() + 1);
        let options = LoadOptions { environment: false };
        let variable = |_: &str| Some("127.0.0.1".to_owned());
        let url = |name: &str| match name {
            "URL" => Some("https://uaa.example".to_owned()),
            name => variable(name),
        };
        let loaded = parse_texts(&[("cf.toml", &found.toml)], &url, options);
        let wrong = loaded.err().map(|found| format!("{found:?}"));
        prop_assert_eq!(wrong, None, "{}\n{}", text, found.toml);
    });
    assert!(converted.get() >= 80, "{}", converted.get());
}
