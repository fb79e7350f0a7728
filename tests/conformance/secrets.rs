//! No secret of a component appears in a log, a page, an answer or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use metrifold_base::keys::{Listed, Shape};
use metrifold_model::Signal;
use metrifold_testing::edits::{file, post};
use metrifold_testing::{Reply, cli, run, until_so};

use crate::recipes::Recipe;
use crate::rig::{Place, Rig, well};
use crate::{each, info};

/// Part of every planted secret.
const PLANTED: &str = "pl4nted";

/// Pages that show state of the program.
const PAGES: [&str; 5] = [
    "/",
    "/metrics",
    "/api/v1/topology",
    "/api/v1/ledger",
    "/api/v1/dead-letters",
];

#[test]
fn secrets_are_shown_nowhere() {
    each(|recipe| {
        let groups = groups(&info(recipe).keys());
        if groups.is_empty() {
            return Err("it holds no secrets");
        }
        for keys in groups.values() {
            planted(recipe, keys);
        }
        Ok(())
    });
}

/// Keys with secrets and the keys required beside them, grouped by the top-level table that holds
/// them, since these tables exclude each other.
fn groups(keys: &[Listed]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut groups = BTreeMap::<String, Vec<(String, String)>>::new();
    for key in keys {
        let name = match key.shape {
            Shape::Secret => key.name.clone(),
            Shape::Map(Shape::Secret) => format!("{}.X-Planted", key.name),
            _ => continue,
        };
        let group = group(&key.name).to_owned();
        let secret = match &*name {
            // The value must be base64.
            "bucket.account_key" => format!("\"{PLANTED}{PLANTED}\"").replace("d\"", "dQ=\""),
            _ => format!("\"{PLANTED}-{name}\""),
        };
        groups.entry(group).or_default().push((name, secret));
    }
    for (group, planted) in &mut groups {
        let beside = keys.iter().filter(|key| is_beside(key, group));
        let nobody = metrifold_testing::nobody();
        let beside = beside.map(|key| {
            let example = key.default.example().unwrap();
            // Only loopback is contacted.
            let value = match example {
                _ if example.starts_with("\"http") => format!("{nobody:?}"),
                _ if key.name.ends_with(".address") => "\"127.0.0.1:0\"".to_owned(),
                _ => example.to_owned(),
            };
            (key.name.clone(), value)
        });
        let beside = beside.collect::<Vec<_>>();
        // Credentials for a proxy are refused without a proxy.
        let proxies: BTreeSet<_> = planted
            .iter()
            .filter_map(|(name, _)| Some(name.split_once("proxy_basic_auth.")?.0.to_owned()))
            .collect();
        let proxies = proxies.into_iter();
        planted.extend(proxies.map(|table| (format!("{table}proxy_url"), format!("{nobody:?}"))));
        planted.extend(beside);
    }
    groups
}

/// Whether a key is required with those of a group: as a key of its table, or of a table around it.
fn is_beside(key: &Listed, of: &str) -> bool {
    let Some((table, _)) = key.name.rsplit_once('.') else {
        return false;
    };
    key.needed && (group(&key.name) == of || of.starts_with(&format!("{table}.")))
}

/// The top-level table of a key, or the table of credentials in it, which may exclude others.
fn group(name: &str) -> &str {
    // Each belongs to another provider.
    if ["bucket.secret_access_key", "bucket.account_key"].contains(&name) {
        return name;
    }
    for ways in ["basic_auth.", "authorization."] {
        if let Some(at) = name.find(&format!(".{ways}")) {
            return &name[..at + ways.len()];
        }
    }
    name.split('.').next().unwrap()
}

fn planted(recipe: &'static Recipe, keys: &[(String, String)]) {
    let place = Place::new();
    let lines = keys
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"));
    let lines: String = lines.collect();
    let mut least = (recipe.keys)(&place);
    let mut lines = lines;
    if lines.contains("status_from.") && !lines.contains("status_from.urls") {
        lines += "status_from.urls = [\"http://127.0.0.1:1/{tenant}\"]\n";
    }
    // A source of rules has exactly one store, which is never contacted.
    for (table, asks) in [
        ("bucket", "endpoint"),
        ("backend", "url"),
        ("kubernetes", "api_server"),
    ] {
        if keys
            .iter()
            .any(|(name, _)| name.starts_with(&format!("{table}.")))
        {
            let kept = least.lines().filter(|line| !line.starts_with("directory"));
            least = kept.collect::<Vec<_>>().join("\n");
            if lines.contains("bucket.secret_access_key") {
                lines += "bucket.access_key_id = \"metrifold\"\n";
            }
            if lines.contains("bucket.account_key") {
                lines = lines.replace("s3://", "az://") + "bucket.account = \"metrifold\"\n";
            }
            let nobody = metrifold_testing::nobody();
            let named = format!("{table}.{asks} = ");
            if !lines.contains(&named) {
                lines += &format!("{named}{nobody:?}\n");
            }
        }
    }
    // Without a token nothing is sent, and no caller should wait for that.
    let around = match recipe.plane {
        Signal::Queries => "timeout = \"200ms\"",
        Signal::Rules => "",
        Signal::Metrics => "acknowledge_timeout = \"200ms\"",
    };
    let config = |more: &str| {
        place.config(
            recipe,
            &format!(
                "{least}
{lines}{more}"
            ),
            around,
        )
    };
    let (right, wrong) = (
        config(""),
        [
            config("nonsense = 1\n"),
            // A secret of the wrong type, and an unterminated one.
            config("")
                .replace(&format!("\"{PLANTED}"), &format!("[1, \"{PLANTED}"))
                .replace("\"\n", "\"]\n"),
            config("").replacen(&format!("\"{PLANTED}"), PLANTED, 1),
        ],
    );
    // The endpoint refuses, or fails.
    place.endpoint.now(|seen| match seen.order {
        0 => Reply::new(500).body("trouble"),
        1 => Reply::new(400).body("refused"),
        _ => well(seen),
    });
    let trace = ["--log-level", "trace"];
    let rig = Rig::run(place, recipe, &right, &trace, Stdio::null());
    for number in 1..=3 {
        rig.feeder().status(number);
    }
    let check = |what: &str, text: &str| {
        let shown = text.lines().find(|line| line.contains(PLANTED));
        assert_eq!(shown, None, "{what} shows a secret");
    };
    let show = || {
        for page in PAGES {
            check(page, &rig.get(page).text());
        }
    };
    show();
    for wrong in &wrong {
        std::fs::write(file(&rig), rig.complete(wrong)).unwrap();
        let answer = post(&rig);
        assert!(answer.status >= 400, "{}", answer.text());
        check("the answer to a reload", &answer.text());
        let path = file(&rig).display().to_string();
        let output = run(&mut cli(&["-c", &path, "validate"]));
        assert!(!output.status.success());
        for text in [output.stdout, output.stderr] {
            check("validate", &String::from_utf8(text).unwrap());
        }
        show();
    }
    until_so("the last reload is logged", || {
        rig.log().matches("configuration not reloaded").count() >= wrong.len()
    });
    check("the log", &rig.log());
}
