//! Prometheus v0.316's own reader of target files is the oracle: the verdicts of
//! `oracle/targets/golden.json` are its, and the targets that it read. To write them again, run
//! `go run . > golden.json` in that folder.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    yaml: bool,
    ok: bool,
    targets: Vec<BTreeMap<String, String>>,
}

/// What is refused here and not there, each with the reason.
const REFUSED: &[(&str, &str)] = &[];

fn read(case: &Case) -> Result<Vec<BTreeMap<String, String>>, String> {
    let groups = metrifold_discovery::verdict(case.text.as_bytes(), case.yaml)?;
    let mut targets = Vec::new();
    for (addresses, labels) in groups {
        for address in addresses {
            let mut target = labels.clone();
            target.insert("__address__".to_owned(), address);
            target.retain(|name, value| !value.is_empty() && name != "__meta_filepath");
            targets.push(target);
        }
    }
    targets.sort();
    Ok(targets)
}

#[test]
fn a_text_is_accepted_and_understood_as_by_prometheus() {
    let golden = include_str!("oracle/targets/golden.json");
    let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
    assert!(cases.len() > 200, "{}", cases.len());
    let (mut good, mut different) = (0, Vec::new());
    for mut case in cases {
        case.targets.sort();
        let found = read(&case);
        let known = REFUSED.iter().any(|(text, _)| *text == case.text);
        let same = match &found {
            Ok(targets) => case.ok && *targets == case.targets && !known,
            Err(_) => case.ok == known,
        };
        good += usize::from(case.ok && same);
        if !same {
            different.push(format!(
                "{} {:?}: {found:?}, and there {} {:?}",
                if case.yaml { "yaml" } else { "json" },
                case.text,
                case.ok,
                case.targets
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(good > 60, "{good}");
}
