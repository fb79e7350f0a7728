//! `convert mpp`: mpp's flags and variables as TOML.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use metrifold_base::Period;

use super::Converted;

/// mpp's flags, with the names of its variables.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MppArgs {
    /// File with one endpoint per line
    #[arg(long, env = "MPP_ENDPOINTS_FILE", value_name = "FILE")]
    endpoints_file: Option<PathBuf>,

    /// Kubeconfig of the cluster in which replicas are found
    #[arg(long, env = "MPP_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Service whose endpoints are the replicas; wins over --kube-pod-label-selector
    #[arg(long, env = "MPP_KUBE_SERVICE_NAME", value_name = "NAME")]
    kube_service_name: Option<String>,

    /// Labels of the pods that are the replicas
    #[arg(
        long,
        alias = "kube-pod-selector",
        env = "MPP_KUBE_POD_LABEL_SELECTOR",
        value_name = "SELECTOR"
    )]
    kube_pod_label_selector: Option<String>,

    /// Namespace of the service or of the pods
    #[arg(long, env = "MPP_KUBE_NAMESPACE", value_name = "NAME")]
    kube_namespace: Option<String>,

    /// Port of the replicas, by name or by number; by default the first TCP port
    #[arg(long, env = "MPP_KUBE_PORT", value_name = "PORT")]
    kube_port: Option<String>,

    /// Marathon in which replicas are found; several, separated by commas
    #[arg(long, env = "MPP_MARATHON_URL", value_name = "URL")]
    marathon_url: Option<String>,

    /// Marathon's applications whose tasks are the replicas, separated by commas
    #[arg(long, env = "MPP_MARATHON_APPS", value_name = "APPS")]
    marathon_apps: Option<String>,

    /// Principal secret to authenticate to Marathon with
    #[arg(
        long,
        env = "MPP_MARATHON_PRINCIPAL_SECRET",
        value_name = "JSON",
        hide_env_values = true
    )]
    marathon_principal_secret: Option<String>,

    /// URL for tokens for Marathon, instead of the one in the secret
    #[arg(long, env = "MPP_MARATHON_AUTH_ENDPOINT", value_name = "URL")]
    marathon_auth_endpoint: Option<String>,

    /// Do not verify certificates of https endpoints
    #[arg(long, short = 'k', env = "MPP_INSECURE_CERTS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOLEAN")]
    insecure: Option<String>,

    /// How replicas are chosen: single-most-data, random or minimum-history:DURATION
    #[arg(
        long,
        env = "MPP_ROUTING_STRATEGY",
        value_name = "STRATEGY",
        default_value = "single-most-data"
    )]
    routing_strategy: String,

    /// Time between two selections
    #[arg(
        long,
        env = "MPP_SELECTION_INTERVAL",
        value_name = "DURATION",
        default_value = "10s"
    )]
    selection_interval: String,

    /// Affinity of callers to replicas: cookies, sourceip, or both
    #[arg(
        long,
        env = "MPP_AFFINITY_OPTIONS",
        value_name = "LIST",
        default_value = "cookies"
    )]
    affinity_options: String,

    /// Port to listen on
    #[arg(long, env = "MPP_PORT", value_name = "PORT", default_value_t = 9090)]
    port: u16,

    /// Log more
    #[arg(long, short = 'V', env = "MPP_VERBOSE")]
    verbose: bool,
}

/// Builds the configuration.
///
/// # Errors
///
/// Fails where mpp itself would refuse to start.
pub(super) fn convert(args: &MppArgs) -> Result<Converted, String> {
    let mut notes = Vec::new();
    let mut text = String::new();
    let mut providers = Vec::new();
    if let Some(file) = &args.endpoints_file {
        providers.push("endpoints");
        let file = quoted(&file.display().to_string());
        let _ = write!(
            text,
            "[discovery.endpoints]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{file}]\n\n"
        );
    }
    if args.kubeconfig.is_some()
        || args.kube_service_name.is_some()
        || args.kube_pod_label_selector.is_some()
    {
        providers.push("kubernetes");
        kubernetes(args, &mut text)?;
    }
    if let Some(url) = &args.marathon_url {
        providers.push("marathon");
        marathon(args, url, &mut text)?;
    }
    if providers.is_empty() {
        return Err(
            "name where replicas are found: --endpoints-file, --kube-service-name, \
                    --kube-pod-label-selector or --marathon-url"
                .to_owned(),
        );
    }
    let (strategy, history) = strategy(&args.routing_strategy)?;
    let interval = period("--selection-interval", &args.selection_interval)?;
    let affinity = affinity(&args.affinity_options)?;
    let port = args.port;
    let _ = write!(
        text,
        // mpp passes the user interface on.
        "[sources.queries]\ntype = \"prometheus_api\"\naddress = \"0.0.0.0:{port}\"\n\
         allow = [\"status\", \"ui\"]\n\n\
         [sinks.prometheis]\ntype = \"replica_router\"\ninputs = [\"queries\"]\n"
    );
    let names: Vec<String> = providers.iter().map(|name| quoted(name)).collect();
    match &names[..] {
        [one] => {
            let _ = writeln!(text, "discovery = {one}");
        }
        several => {
            let _ = writeln!(text, "discovery = [{}]", several.join(", "));
        }
    }
    let _ = writeln!(text, "strategy = \"{strategy}\"");
    if let Some(history) = history {
        let _ = writeln!(text, "minimum_history = \"{history}\"");
    }
    let _ = writeln!(text, "affinity = [{affinity}]");
    if affinity.contains("source_address") {
        let _ = writeln!(text, "trusted_hops = 1");
        let note = "X-Forwarded-For is trusted for one proxy in front (trusted_hops = 1): set the number of proxies";
        notes.push(note.to_owned());
    }
    let _ = writeln!(text, "probe.interval = \"{interval}\"");
    if insecure(args.insecure.as_deref())? {
        let _ = writeln!(text, "tls.insecure_skip_verify = true");
    }
    let _ = writeln!(
        text,
        "mpp = {{ address = \"0.0.0.0:{port}\", path = \"/mpp\" }}"
    );
    if args.verbose {
        notes.push("--verbose is --log-level debug of the run command".to_owned());
    }
    Ok(Converted { text, notes })
}

fn kubernetes(args: &MppArgs, text: &mut String) -> Result<(), String> {
    text.push_str("[discovery.kubernetes]\ntype = \"kubernetes\"\n");
    match (&args.kube_service_name, &args.kube_pod_label_selector) {
        // mpp prefers the service if both are named.
        (Some(service), _) => {
            let selector = quoted(&format!("kubernetes.io/service-name={service}"));
            // mpp uses ready addresses only.
            let _ = write!(
                text,
                "role = \"endpointslice\"\n\
                 selectors = [{{ role = \"endpointslice\", label = {selector} }}]\n\
                 only_ready = true\n"
            );
        }
        (None, Some(selector)) => {
            let _ = write!(
                text,
                "role = \"pod\"\nselectors = [{{ role = \"pod\", label = {} }}]\n",
                quoted(selector)
            );
        }
        (None, None) => {
            return Err(
                "--kubeconfig needs --kube-service-name or --kube-pod-label-selector".to_owned(),
            );
        }
    }
    if let Some(file) = &args.kubeconfig {
        let _ = writeln!(
            text,
            "kubeconfig_file = {}",
            quoted(&file.display().to_string())
        );
    }
    let namespace = args.kube_namespace.as_deref().unwrap_or("default");
    let _ = writeln!(text, "namespaces = [{}]", quoted(namespace));
    let port = args.kube_port.as_deref().unwrap_or("first_tcp");
    let _ = write!(text, "port = {}\n\n", quoted(port));
    Ok(())
}

fn marathon(args: &MppArgs, url: &str, text: &mut String) -> Result<(), String> {
    let list = |text: &str| -> String {
        let parts = text.split(',').map(|part| quoted(part.trim()));
        parts.collect::<Vec<_>>().join(", ")
    };
    let apps = args
        .marathon_apps
        .as_deref()
        .filter(|apps| !apps.is_empty());
    let apps = apps.ok_or("--marathon-url needs --marathon-apps")?;
    let _ = write!(
        text,
        "[discovery.marathon]\ntype = \"marathon\"\nservers = [{}]\napps = [{}]\n",
        list(url),
        list(apps)
    );
    // mpp uses the first port of a task.
    text.push_str("port_index = 0\n");
    if args.marathon_principal_secret.is_some() {
        // The secret is not printed: the configuration reads mpp's variable.
        text.push_str("principal_secret = \"${MPP_MARATHON_PRINCIPAL_SECRET}\"\n");
        // Without a secret, mpp does not log in.
        if let Some(endpoint) = &args.marathon_auth_endpoint {
            let _ = writeln!(text, "auth_endpoint = {}", quoted(endpoint));
        }
    }
    if insecure(args.insecure.as_deref())? {
        text.push_str("tls.insecure_skip_verify = true\n");
    }
    text.push('\n');
    Ok(())
}

/// The strategy's name here, and the history that a replica must have. mpp's README and its code
/// differ in some names.
fn strategy(text: &str) -> Result<(&'static str, Option<Period>), String> {
    let (name, parameter) = match text.split_once(':') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (text, None),
    };
    match (name, parameter) {
        ("single-most-data", None) => Ok(("most_data", None)),
        ("random" | "random-sticky", None) => Ok(("random", None)),
        ("minimum-history" | "minimum-history-sticky", Some(history)) => {
            let history = period("--routing-strategy", history)?;
            Ok(("minimum_history", Some(history)))
        }
        ("minimum-history" | "minimum-history-sticky", None) => {
            Err(format!("{text} needs a duration: {text}:1h"))
        }
        _ => Err(format!(
            "{text:?} is not a strategy of mpp: single-most-data, random or minimum-history:DURATION"
        )),
    }
}

fn affinity(text: &str) -> Result<String, String> {
    let mut found = Vec::new();
    for option in text.split(',').map(str::trim) {
        let name = match option {
            "cookies" | "cookie" => "\"cookie\"",
            "sourceip" => "\"source_address\"",
            _ => {
                return Err(format!(
                    "{option:?} is not an affinity of mpp: cookies or sourceip"
                ));
            }
        };
        if !found.contains(&name) {
            found.push(name);
        }
    }
    // mpp tries the cookie first, whatever the order.
    found.sort_unstable();
    Ok(found.join(", "))
}

/// Parses a boolean as mpp's flag library does.
fn insecure(text: Option<&str>) -> Result<bool, String> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "0" | "f" | "false") => Ok(false),
        Some("1" | "t" | "true") => Ok(true),
        Some(other) => Err(format!("--insecure={other} is neither true nor false")),
    }
}

/// Parses a duration as Go writes it, such as `1.5h`, `90s` or `1h0m0s`; mostly a fraction or a mix
/// of units.
fn period(flag: &str, text: &str) -> Result<Period, String> {
    let wrong = || format!("{flag}: {text:?} is not a duration of Go, such as 10s or 1h30m");
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 6e4),
        ("h", 3.6e6),
    ];
    let mut millis = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let behind = &rest[end..];
        let end = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &behind[..end]);
        millis += number * unit.ok_or_else(wrong)?.1;
        rest = &behind[end..];
    }
    match millis.round() as u64 {
        0 => Err(wrong()),
        millis => Ok(Period::millis(millis)),
    }
}

/// Text as a TOML string, with dollars escaped so that none begins a variable.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace('$', "$$")).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use metrifold_engine::config::{LoadOptions, load};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: MppArgs,
    }

    fn converted(line: &str) -> Result<String, String> {
        let words = std::iter::once("mpp").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        convert(&line.args).map(|converted| converted.text)
    }

    /// The one variable that the output refers to.
    fn variables(name: &str) -> Option<String> {
        let secret = r#"{"uid":"u","login_endpoint":"https://auth/login","password":"p"}"#;
        (name == "MPP_MARATHON_PRINCIPAL_SECRET").then(|| secret.to_owned())
    }

    /// Checks that the output for a command line has these lines and is a valid configuration.
    #[track_caller]
    fn expect(line: &str, lines: &[&str]) {
        let text = converted(line).unwrap();
        for expected in lines {
            assert!(
                text.lines().any(|line| line == *expected),
                "{expected}:\n{text}"
            );
        }
        // Builds without this kind of discovery can only check that the text is TOML.
        if cfg!(not(feature = "kubernetes")) && text.contains("type = \"kubernetes\"") {
            text.parse::<toml::Table>().unwrap();
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        std::fs::write(&file, &text).unwrap();
        let options = LoadOptions { environment: false };
        let loaded = load(&[file.display().to_string()], &variables, options);
        if let Err(found) = loaded {
            let found: Vec<String> = found.iter().map(|found| found.render(false)).collect();
            panic!("{}\n{text}", found.join("\n"));
        }
    }

    const FILE: &str = "--endpoints-file /etc/mpp/endpoints";

    #[test]
    fn endpoints_file() {
        let lines = [
            "files = [\"/etc/mpp/endpoints\"]",
            "discovery = \"endpoints\"",
            "format = \"lines\"",
            "allow = [\"status\", \"ui\"]",
        ];
        expect(FILE, &lines);
        expect("--endpoints-file /etc/$x/a", &["files = [\"/etc/$$x/a\"]"]);
        let error = converted("").unwrap_err();
        assert!(error.contains("--endpoints-file"), "{error}");
    }

    #[test]
    fn routing_strategy() {
        for (strategy, lines) in [
            ("", &["strategy = \"most_data\""][..]),
            (
                "--routing-strategy single-most-data",
                &["strategy = \"most_data\""],
            ),
            ("--routing-strategy random", &["strategy = \"random\""]),
            (
                "--routing-strategy random-sticky",
                &["strategy = \"random\""],
            ),
            (
                "--routing-strategy minimum-history:1.5h",
                &[
                    "strategy = \"minimum_history\"",
                    "minimum_history = \"1h30m\"",
                ],
            ),
        ] {
            expect(&format!("{FILE} {strategy}"), lines);
        }
        for wrong in [
            "first",
            "minimum-history",
            "minimum-history:x",
            "minimum-history:",
            "random:1h",
        ] {
            assert!(
                converted(&format!("{FILE} --routing-strategy {wrong}")).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn selection_interval() {
        expect(FILE, &["probe.interval = \"10s\""]);
        expect(
            &format!("{FILE} --selection-interval 1m30s"),
            &["probe.interval = \"1m30s\""],
        );
        for wrong in ["10", "0s", "s", "1.2.3s", "1d"] {
            assert!(
                converted(&format!("{FILE} --selection-interval {wrong}")).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn affinity_options() {
        expect(FILE, &["affinity = [\"cookie\"]"]);
        let lines = ["affinity = [\"source_address\"]", "trusted_hops = 1"];
        expect(&format!("{FILE} --affinity-options sourceip"), &lines);
        let both = format!("{FILE} --affinity-options sourceip,cookies");
        expect(&both, &["affinity = [\"cookie\", \"source_address\"]"]);
        assert!(converted(&format!("{FILE} --affinity-options dashboard")).is_err());
    }

    #[test]
    fn port() {
        let lines = [
            "address = \"0.0.0.0:9090\"",
            "mpp = { address = \"0.0.0.0:9090\", path = \"/mpp\" }",
        ];
        expect(FILE, &lines);
        expect(
            &format!("{FILE} --port 8080"),
            &["address = \"0.0.0.0:8080\""],
        );
    }

    #[test]
    fn insecure_is_a_word_in_mpp_s_code_and_a_flag_in_its_documentation() {
        let line = "tls.insecure_skip_verify = true";
        for insecure in ["--insecure", "-k", "--insecure true", "--insecure=1"] {
            expect(&format!("{FILE} {insecure}"), &[line]);
        }
        assert!(
            !converted(&format!("{FILE} --insecure=false"))
                .unwrap()
                .contains(line)
        );
        assert!(converted(&format!("{FILE} --insecure=perhaps")).is_err());
    }

    #[test]
    fn verbose() {
        let words = format!("mpp {FILE} --verbose");
        let line = Line::try_parse_from(words.split(' ')).unwrap();
        assert!(convert(&line.args).unwrap().notes[0].contains("--log-level debug"));
        assert!(Line::try_parse_from(format!("mpp {FILE} -V").split(' ')).is_ok());
    }

    const KUBE: &str = "--kubeconfig /etc/kube --kube-service-name prom";

    #[test]
    fn kubeconfig() {
        expect(
            KUBE,
            &[
                "kubeconfig_file = \"/etc/kube\"",
                "discovery = \"kubernetes\"",
            ],
        );
        let error = converted("--kubeconfig /etc/kube").unwrap_err();
        assert!(error.contains("--kube-service-name"), "{error}");
    }

    #[test]
    fn kube_service_name_wins_over_the_pods() {
        let line = format!("{KUBE} --kube-pod-label-selector app=prometheus");
        let lines = [
            "role = \"endpointslice\"",
            "selectors = [{ role = \"endpointslice\", label = \"kubernetes.io/service-name=prom\" }]",
            "only_ready = true",
        ];
        expect(&line, &lines);
    }

    #[test]
    fn kube_pod_label_selector() {
        let lines = [
            "role = \"pod\"",
            "selectors = [{ role = \"pod\", label = \"app=prometheus,tier=a\" }]",
        ];
        expect("--kube-pod-label-selector app=prometheus,tier=a", &lines);
        // As mpp's README has it.
        expect("--kube-pod-selector app=prometheus,tier=a", &lines);
    }

    #[test]
    fn kube_namespace() {
        expect(KUBE, &["namespaces = [\"default\"]"]);
        expect(
            &format!("{KUBE} --kube-namespace mon"),
            &["namespaces = [\"mon\"]"],
        );
    }

    #[test]
    fn kube_port_by_name_or_number() {
        for port in ["web", "9090"] {
            expect(
                &format!("{KUBE} --kube-port {port}"),
                &[&format!("port = \"{port}\"")],
            );
        }
        expect(KUBE, &["port = \"first_tcp\""]);
    }

    const MARATHON: &str = "--marathon-url http://m1:8080,http://m2:8080 --marathon-apps /prom,/b";

    #[test]
    fn marathon_url() {
        expect(
            MARATHON,
            &["servers = [\"http://m1:8080\", \"http://m2:8080\"]"],
        );
        let error = converted("--marathon-url http://m1:8080").unwrap_err();
        assert!(error.contains("--marathon-apps"), "{error}");
    }

    #[test]
    fn marathon_apps() {
        expect(MARATHON, &["apps = [\"/prom\", \"/b\"]", "port_index = 0"]);
    }

    #[test]
    fn marathon_principal_secret_is_not_printed() {
        let line = format!("{MARATHON} --marathon-principal-secret hidden-word");
        expect(
            &line,
            &["principal_secret = \"${MPP_MARATHON_PRINCIPAL_SECRET}\""],
        );
        assert!(!converted(&line).unwrap().contains("hidden-word"));
    }

    #[test]
    fn marathon_auth_endpoint() {
        let line = format!(
            "{MARATHON} --marathon-principal-secret x --marathon-auth-endpoint https://auth/login"
        );
        expect(&line, &["auth_endpoint = \"https://auth/login\""]);
    }

    #[test]
    fn several_places_are_one_list_in_mpp_s_order() {
        let line = format!("{MARATHON} {KUBE} {FILE}");
        expect(
            &line,
            &["discovery = [\"endpoints\", \"kubernetes\", \"marathon\"]"],
        );
    }

    #[test]
    fn each_variable_is_a_flag_s() {
        use clap::CommandFactory;
        let command = Line::command();
        let names = command
            .get_arguments()
            .filter_map(|it| it.get_env()?.to_str());
        let names: Vec<&str> = names.collect();
        assert_eq!(names.len(), command.get_arguments().count());
        assert!(
            names.iter().all(|name| name.starts_with("MPP_")),
            "{names:?}"
        );
    }
}
