//! Discovery of Cloud Foundry, in the whole program.

use std::fs;

use serde_json::Value;

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
