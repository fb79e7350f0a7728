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

/// What is refused here and accepted there, each with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("[{}]x", "what follows the list is passed over there"),
    ("[{}] []", "what follows the list is passed over there"),
    (
        "[{\"targets\":[\"\\ud83e\"]}]",
        "half a character is replaced there, and is an error here",
    ),
    (
        "[{\"targets\":[\"a\\ud83eb\"]}]",
        "half a character is replaced there, and is an error here",
    ),
    (
        "- targets: [a]\n  labels: {~: x}\n",
        "null is the empty name there, which no label has",
    ),
    (
        "- targets: [!!int 1]\n",
        "a target that is said to be a number is no address",
    ),
    (
        "- targets: [a]\n---\n- targets: [b]\n",
        "further documents are passed over there, and their targets are missed",
    ),
    (
        "- targets: [a]\n...\n- targets: [b]\n",
        "further documents are passed over there, and their targets are missed",
    ),
];

/// What is accepted here and refused there, each with the reason.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "[{\"targets\":[\"\\u0061\\n\\t\\\"\\\\\\/\"]}]",
        "the escape of a slash is YAML 1.2, which is as JSON has it",
    ),
    (
        "[{\"targets\":[\"\\ud83e\\udd80\"]}]",
        "a pair of escapes is one character, as in JSON",
    ),
    (
        "[{\"targets\":[\"a\u{fffd}b\"]}]",
        "the replacement character is a character",
    ),
    (
        "- targets: [\"a\u{fffd}b\"]\n",
        "the replacement character is a character",
    ),
    (
        "- targets: [a]\n  labels: &l {x: y}\n- targets: [b]\n  labels: {<<: *l, x: w}\n",
        "merging into labels says what is meant",
    ),
    (
        "- targets: [!!null x]\n",
        "null is no address, and such a target is left out",
    ),
    ("-\ttargets: [a]\n", "YAML 1.2 lets a tab follow the dash"),
];

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
        // JSON reads some of the same texts as Prometheus does.
        let listed = |list: &[(&str, &str)]| list.iter().any(|(text, _)| *text == case.text);
        let same = match &found {
            Ok(targets) if case.ok => *targets == case.targets,
            Ok(_) => case.yaml && listed(ACCEPTED),
            Err(_) => !case.ok || listed(REFUSED),
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
