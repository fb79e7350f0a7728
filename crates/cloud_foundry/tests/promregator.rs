//! Conversion of Promregator's configuration.

use metrifold_cloud_foundry::promregator::convert;

const KEY: &str = "mySecretKey";

/// A file that also holds keys of Prometheus.
const FILE: &str = r#"
global:
  scrape_interval: 15s
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["localhost:9090"]}]
cf:
  api_host: api.cf.example.org
  username: promregator
  password: '{cipher}d93dd725143e187804e4105a681706c1185c58f92086bf55aa830e61c0527060'
  skip-ssl-validation: true
  proxy: {host: 192.168.111.1, port: 8080}
  cache.timeout: {application: 300, resolver: 300}
  request:
    timeout.org: 60000
    rateLimit: 4.5
promregator:
  authenticator:
    type: basic
    basic: {username: u, password: "p$w"}
  targetAuthenticators:
    - id: xsuaa
      type: OAuth2XSUAABasic
      oauth2xsuaaBasic:
        tokenServiceURL: https://uaa.example.org/oauth/token
        client_id: scraper
        client_secret: ${XSUAA_SECRET:none}
        scopes: "a, b\tc\n"
  targets:
    - orgName: Prod
      spaceRegex: li.e
      applicationRegex: shop-\d+
      applicationName: ignored
      path: /actuator/prometheus
      kubernetesAnnotations: true
      preferredRouteRegex: ['.*\.inside']
    - orgName: ${ORG}
      protocol: http
      internalRoutePort: 9090
      authenticatorId: xsuaa
  defaultInternalRoutePort: 8081
  scraping: {maxProcessingTime: 4000, threads: 10}
  discovery: {hostname: here, auth: BASIC, ownMetricsEndpoint: false}
  surprise: 1
server.port: 9999
"#;

#[test]
fn every_key_that_has_a_counterpart_is_converted() {
    let converted = convert(FILE, Some(KEY)).unwrap();
    let toml = &converted.toml;
    let table: toml::Table = toml.parse().unwrap();
    let cf = &table["discovery"]["promregator"];
    for (key, value) in [
        ("type", "cloud_foundry"),
        ("api", "https://api.cf.example.org"),
        ("username", "promregator"),
        ("password", "mysecret"),
        ("proxy_url", "http://192.168.111.1:8080"),
        ("timeout", "60000ms"),
    ] {
        assert_eq!(cf[key].as_str(), Some(value), "{key}");
    }
    assert_eq!(cf["tls"]["insecure_skip_verify"].as_bool(), Some(true));
    let first: toml::Table = r#"
        organization = "Prod"
        space_regex = "li.e"
        application_regex = 'shop-\d+'
        path = "/actuator/prometheus"
        annotations = "prometheus.io/"
        opt_in = true
        ignore_annotations = ["port", "scheme", "scrape_interval", "scrape_timeout"]
        preferred_routes = ['.*\.inside']
        port = 8081
        authenticator = "default"
    "#
    .parse()
    .unwrap();
    assert_eq!(cf["select"][0], first.into());
    let second: toml::Table = r#"
        organization = "${ORG}"
        protocol = "http"
        port = 9090
        authenticator = "xsuaa"
    "#
    .parse()
    .unwrap();
    assert_eq!(cf["select"][1], second.into());
    let source = &table["sources"]["promregator"];
    let default: toml::Table = "basic_auth = { username = 'u', password = 'p$$w' }"
        .parse()
        .unwrap();
    assert_eq!(source["authenticators"]["default"], default.into());
    let xsuaa: toml::Table = r#"
        oauth2 = { token_url = "https://uaa.example.org/oauth/token", client_id = "scraper", client_secret = "${XSUAA_SECRET:-none}", scopes = ["a", "b", "c"] }
    "#
    .parse()
    .unwrap();
    assert_eq!(source["authenticators"]["xsuaa"], xsuaa.into());
    let expose: toml::Table = r#"
        address = "0.0.0.0:9999"
        timeout = "4000ms"
        discovery_address = "here:9999"
        own_metrics = false
        without_auth = ["single_target_metrics", "metrics", "promregator_metrics", "cache_invalidate"]
        basic_auth = { username = "promregator", password = "${PROMREGATOR_PASSWORD}" }
    "#
    .parse()
    .unwrap();
    assert_eq!(source["expose"], expose.into());
    assert_eq!(source["push"].as_bool(), Some(false));
    let notes = converted.notes.join("\n");
    for note in [
        "cf.cache has no",
        "rateLimit",
        "promregator.surprise has no counterpart",
        "set PROMREGATOR_PASSWORD",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
    assert!(!notes.contains("scrape_configs"), "{notes}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let wrong = |text: &str, key| {
        let wrong = convert(text, key).unwrap_err();
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        wrong.join("\n")
    };
    assert!(wrong("global: {}", None).contains("cf.api_host: is missing"));
    assert!(wrong(FILE, None).contains("cf.password: is encrypted: set ENCRYPT_KEY"));
    assert!(wrong(FILE, Some("other")).contains("cf.password: cannot be decrypted"));
    let text = "cf: {api_host: 'https://x'}\npromregator:\n  targets:\n  - {orgRegex: '(?=x)', protocol: ftp}\n  - {overrideRouteAndPath: a/b}\n";
    let found = wrong(text, None);
    for part in [
        "api_host: is a URL",
        "targets[0].orgRegex",
        "targets[0].protocol",
        "targets[1].overrideRouteAndPath",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

/// The table of a file with these keys of Promregator, and its notes.
fn converted(keys: &str) -> (toml::Table, String) {
    let converted = convert(&format!("cf.api_host: api\n{keys}"), None).unwrap();
    let table = converted.toml.parse().unwrap();
    (table, converted.notes.join("\n"))
}

#[test]
fn the_paths_are_served_where_promregator_served_them() {
    for (given, expected) in [
        ("", "0.0.0.0:8080"),
        ("server.address: localhost", "127.0.0.1:8080"),
        ("server.address: 10.1.2.3", "10.1.2.3:8080"),
        ("server.address: '::1'", "[::1]:8080"),
        ("server.address: '${A}'", "${A}:8080"),
        ("server.address: '${A:}'", "${A:-}:8080"),
        ("server.address: '${A:10.1.2.3}'", "${A:-10.1.2.3}:8080"),
    ] {
        let (table, _) = converted(given);
        let address = &table["sources"]["promregator"]["expose"]["address"];
        assert_eq!(address.as_str(), Some(expected), "{given}");
    }
    let (_, notes) = converted("promregator.discovery.port: 81");
    assert!(notes.contains("discovery.port is 81"), "{notes}");
}

#[test]
fn a_long_timeout_lengthens_the_interval() {
    let interval = |keys: &str| {
        let (table, _) = converted(keys);
        let source = &table["sources"]["promregator"];
        source.get("scrape_interval").map(ToString::to_string)
    };
    let of = |millis: u32| format!("promregator.scraping.maxProcessingTime: {millis}");
    assert_eq!(interval(&of(60_000)), None);
    assert_eq!(interval(&of(90_000)).as_deref(), Some("\"90000ms\""));
}

#[test]
fn authenticators_keep_apart_and_those_that_nothing_declares_are_told() {
    let named = "promregator:\n  authenticator: {type: basic, basic: {username: global, password: p}}\n  targetAuthenticators:\n  - {id: default, type: basic, basic: {username: named, password: p}}\n  targets:\n  - {authenticatorId: default}\n  - {orgName: o}\n";
    let (table, _) = converted(named);
    let source = &table["sources"]["promregator"];
    for (at, user) in [(0, "named"), (1, "global")] {
        let select = &table["discovery"]["promregator"]["select"][at];
        let name = select["authenticator"].as_str().unwrap();
        let basic = &source["authenticators"][name]["basic_auth"];
        assert_eq!(basic["username"].as_str(), Some(user), "{name}");
    }
    let wrong = |keys: &str| {
        let wrong = convert(&format!("cf.api_host: api\n{keys}"), None).unwrap_err();
        wrong[0].to_string()
    };
    let unknown = wrong("promregator.targets: [{authenticatorId: x}]");
    assert!(
        unknown.contains("targets[0].authenticatorId: is \"x\""),
        "{unknown}"
    );
    let twice = wrong("promregator.targetAuthenticators: [{id: x}, {id: x}]");
    assert!(
        twice.contains("targetAuthenticators[1]: has the id"),
        "{twice}"
    );
}

#[test]
fn references_to_other_keys_are_followed() {
    let cipher = "{cipher}d93dd725143e187804e4105a681706c1185c58f92086bf55aa830e61c0527060";
    let text = format!(
        "cf: {{api_host: api, username: u, password: '${{my.secret}}'}}\nmy: {{secret: '{cipher}', loop: '${{my.loop}}'}}\n\
         promregator: {{authenticator: {{type: basic, basic: {{username: '${{cf.username}}', password: 'a${{cf.password}}'}}}}}}\n"
    );
    let table: toml::Table = convert(&text, Some(KEY)).unwrap().toml.parse().unwrap();
    let cf = &table["discovery"]["promregator"];
    assert_eq!(cf["password"].as_str(), Some("mysecret"));
    let basic = &table["sources"]["promregator"]["authenticators"]["default"]["basic_auth"];
    assert_eq!(basic["username"].as_str(), Some("u"));
    assert_eq!(basic["password"].as_str(), Some("amysecret"));
    let looping = text.replace("my.secret}", "my.loop}");
    let wrong = convert(&looping, Some(KEY)).unwrap_err();
    assert_eq!(wrong[0].key, "cf.password");
    assert!(wrong[0].what.starts_with("refers to itself"), "{wrong:?}");
    // A default that has variables itself cannot be written.
    let nested = text.replace("${my.secret}", "${A:${B}}");
    let wrong = convert(&nested, Some(KEY)).unwrap_err();
    assert!(wrong[0].what.contains("set A"), "{wrong:?}");
}

#[test]
fn each_path_asks_for_a_password_where_promregator_asked() {
    let expose = |keys: &str| {
        let (table, notes) = converted(keys);
        (table["sources"]["promregator"]["expose"].clone(), notes)
    };
    let (open, _) = expose("");
    assert!(open.get("basic_auth").is_none() && open.get("without_auth").is_none());
    let all = "promregator: {discovery.auth: BASIC, endpoint.auth: BASIC, metrics.auth: BASIC, cache.invalidate.auth: BASIC}";
    let (all, notes) = expose(all);
    assert!(all.get("basic_auth").is_some() && all.get("without_auth").is_none());
    assert!(notes.contains("set PROMREGATOR_PASSWORD"), "{notes}");
    let (some, _) = expose("promregator: {endpoint.auth: BASIC, discovery.auth: NONE}");
    let open = ["discovery", "promregator_metrics", "cache_invalidate"];
    let open = toml::Value::from(open.map(toml::Value::from).to_vec());
    assert_eq!(some["without_auth"], open);
}

#[test]
fn several_documents_are_refused_with_the_cause() {
    let wrong = convert("cf.api_host: a\n---\nspring.profiles: x\n", None).unwrap_err();
    assert!(wrong[0].what.contains("Spring's profiles"), "{wrong:?}");
}

#[test]
fn values_that_no_configuration_can_hold_are_told_with_their_keys() {
    for (keys, key, expected) in [
        ("cf.username: \"a\\nb\"", "cf.username", "a line break"),
        (
            "cf.proxy: {host: a b, port: 80}",
            "cf.proxy.host",
            "yields a URL",
        ),
        (
            "cf.proxy: {host: '${A:}}', port: 80}",
            "cf.proxy.host",
            "yields a URL",
        ),
        (
            "promregator.authenticator: {type: OAuth2XSUAABasic, oauth2xsuaaBasic: {tokenServiceURL: '${A:}}', client_id: c, client_secret: s}}",
            "promregator.authenticator.oauth2xsuaaBasic.tokenServiceURL",
            "yields a URL",
        ),
        (
            "cf.proxy: {host: a, port: 70000}",
            "cf.proxy.port",
            "16 bits",
        ),
        (
            "server.address: somewhere",
            "server.address",
            "is not an address",
        ),
    ] {
        let wrong = convert(&format!("cf.api_host: api\n{keys}\n"), None).unwrap_err();
        assert_eq!(wrong[0].key, key, "{wrong:?}");
        assert!(wrong[0].what.contains(expected), "{wrong:?}");
    }
    let (table, _) = converted("cf.proxy: {host: '${PROXY}', port: 80}");
    let proxy = &table["discovery"]["promregator"]["proxy_url"];
    assert_eq!(proxy.as_str(), Some("http://${PROXY}:80"));
    for url in ["${URL}", "${URL}/oauth/token", "${SCHEME}://uaa.example"] {
        let keys = format!(
            "promregator.authenticator: {{type: OAuth2XSUAABasic, oauth2xsuaaBasic: {{tokenServiceURL: '{url}', client_id: c, client_secret: s}}}}"
        );
        let (table, _) = converted(&keys);
        let authenticators = table["sources"]["promregator"]["authenticators"].as_table();
        let mut authenticators = authenticators.unwrap().values();
        let oauth2 = &authenticators.next().unwrap()["oauth2"];
        assert_eq!(oauth2["token_url"].as_str(), Some(url));
    }
}

#[test]
fn lists_and_truth_values_are_read_as_spring_reads_them() {
    let base = "cf: {api_host: api.example.org, username: u, password: p}\n";
    for text in [
        "promregator:\n  targets:\n  - {orgName: a, kubernetesAnnotations: on}\n  - {orgName: b, preferredRouteRegex: [x, y]}\n",
        "promregator.targets[0].orgName: a\npromregator.targets[0].kubernetesAnnotations: 'yes'\n\
         promregator.targets[1].orgName: b\npromregator.targets[1].preferredRouteRegex[0]: x\n\
         promregator.targets[1].preferredRouteRegex[1]: y\n",
        "promregator:\n  targets:\n    0: {orgName: a, kubernetesAnnotations: 1}\n    1: {orgName: b, preferredRouteRegex: 'x, y'}\n",
    ] {
        let converted = convert(&format!("{base}{text}"), None).unwrap();
        assert_eq!(converted.notes, [""; 0], "{text}");
        let table: toml::Table = converted.toml.parse().unwrap();
        let selectors = table["discovery"]["promregator"]["select"].as_array();
        let selectors = selectors.unwrap();
        assert_eq!(selectors.len(), 2, "{text}");
        assert_eq!(selectors[0]["organization"].as_str(), Some("a"));
        assert_eq!(selectors[0]["opt_in"].as_bool(), Some(true), "{text}");
        assert_eq!(selectors[1]["organization"].as_str(), Some("b"));
        let routes = selectors[1]["preferred_routes"].to_string();
        assert_eq!(routes, "[\"x\", \"y\"]", "{text}");
    }
    // A name that only YAML 1.1 takes for a truth value.
    let named = convert(
        &format!("{base}promregator.targets: [{{orgName: y, spaceName: n}}]\n"),
        None,
    );
    let named = named.unwrap().toml;
    assert!(
        named.contains("organization = \"y\"\nspace = \"n\""),
        "{named}"
    );
    for (text, what) in [
        (
            "maybe",
            "promregator.targets[0].kubernetesAnnotations: is neither",
        ),
        (
            "'${A:true}'",
            "promregator.targets[0].kubernetesAnnotations: depends on a variable",
        ),
    ] {
        let text = format!("{base}promregator.targets: [{{kubernetesAnnotations: {text}}}]\n");
        let wrong = convert(&text, None).unwrap_err();
        assert!(wrong[0].to_string().starts_with(what), "{}", wrong[0]);
    }
}

#[test]
fn targets_are_listed_with_the_address_and_protocol_that_promregator_has() {
    let base = "cf: {api_host: api.example.org, username: u, password: p}\n";
    for (keys, address, scheme, discovery) in [
        ("", "0.0.0.0:8080", None, None),
        (
            "promregator.discovery: {hostname: h.example, port: 443}\n",
            "0.0.0.0:8080",
            Some("https"),
            Some("h.example:443"),
        ),
        (
            "promregator.discovery: {hostname: h.example, port: 443, scheme: http}\n",
            "0.0.0.0:8080",
            Some("http"),
            Some("h.example:443"),
        ),
        (
            "promregator.discovery: {hostname: h.example, scheme: https}\nserver.port: '${PORT:9000}'\n",
            "0.0.0.0:${PORT:-9000}",
            Some("https"),
            Some("h.example:${PORT:-9000}"),
        ),
    ] {
        let converted = convert(&format!("{base}{keys}"), None).unwrap();
        let table: toml::Table = converted.toml.parse().unwrap();
        let expose = &table["sources"]["promregator"]["expose"];
        let get = |name: &str| expose.get(name).and_then(toml::Value::as_str);
        assert_eq!(get("address"), Some(address), "{keys}");
        assert_eq!(get("discovery_scheme"), scheme, "{keys}");
        assert_eq!(get("discovery_address"), discovery, "{keys}");
    }
    for (key, value) in [
        ("promregator.discovery.scheme", "ftp"),
        ("server.port", "'${PORT:}}'"),
        ("server.port", "'${PORT:none}'"),
        ("server.port", "'80${PORT}'"),
        ("server.address", "'${A:}}'"),
        ("server.address", "'${A:somewhere}'"),
        ("server.address", "'${A}${B}'"),
    ] {
        let wrong = convert(&format!("{base}{key}: {value}\n"), None).unwrap_err();
        assert_eq!(wrong[0].key, key, "{value}");
    }
}
