use std::fs;

use proptest::prelude::*;

use super::*;
use crate::config::tests::{around, load_texts};
use crate::config::work::done;
use crate::config::{Config, LoadOptions, Loaded, ProcessEnvironment, read_beside};

/// A comment that keeps a file from being read in sections.
const WHOLE: &str = "# \"\"\"\n";

/// The tables of a result with their places, or its messages.
fn shown(result: &Result<Loaded, Vec<Diagnostic>>) -> Vec<String> {
    let messages = |found: &[Diagnostic]| -> Vec<String> {
        found.iter().map(|found| found.render(false)).collect()
    };
    match result {
        Ok(loaded) => {
            let tables = loaded.config.tables.0.iter();
            let tables = tables.map(|(name, table)| {
                let place = &loaded.places.tables[name];
                let at = (place.line(), place.column());
                format!("{name} {at:?} {:?} {:?}", table.effective, table.config)
            });
            tables.chain(messages(&loaded.warnings)).collect()
        }
        Err(found) => messages(found),
    }
}

/// Tenants, each with limits and a role of its own.
fn tenants(numbers: std::ops::Range<usize>) -> String {
    let tenant = |number| {
        format!(
            "[tenants.t{number}]\nid = 'id-{number}'\n\
             oidc = {{ issuer = 'https://x', audience = 'm' }}\n[tenants.t{number}.limits]\n\
             requests_per_second = {}\n[roles.r{number}]\ntenants = ['t{number}']\n\
             permissions = ['read']\n",
            number + 1
        )
    };
    numbers.map(tenant).collect()
}

/// Lines of which files are made that are read in sections, or whole, or are wrong.
const LINES: [&str; 30] = [
    "[tenants.a]",
    "  [tenants.a]  # note",
    "[tenants.b]",
    "[tenants.a.limits]",
    "[tenants.b.oidc]",
    "[tenants.'a']",
    "[ tenants.b ]",
    "[tenants]",
    "[[tenants.a]]",
    "[roles.r]",
    "[role_bindings.x]",
    "[[role_bindings.x.subjects]]",
    "[access]",
    "[ledger]",
    "[sources.other]",
    "trusted_header = { user = 'X-User', addresses = ['127.0.0.1'] }",
    "id = 'i'",
    "id = 'i' # '''",
    "id = \"${HOST}\"",
    "id = '${UNSET}'",
    "idd = 'secret'",
    "a.id = 'j'",
    "issuer = 'https://x'",
    "audience = 'm'",
    "requests_per_second = 0",
    "tenants = ['a',",
    "[\"b\"]",
    "]",
    "permissions = ['read']",
    "roles = ['r']",
];

proptest! {
    #[test]
    fn a_file_in_sections_is_what_it_is_as_a_whole(
        lines in prop::collection::vec(prop::sample::select(&LINES[..]), 0..14),
        end in prop::sample::select(&["\n", "\r\n"][..]),
    ) {
        let text: String = lines.iter().flat_map(|line| [*line, end]).collect();
        let text = around(&text);
        let whole = format!("{text}{WHOLE}");
        prop_assert_eq!(shown(&load_texts(&[&text])), shown(&load_texts(&[&whole])));
    }
}

#[test]
fn tables_of_sections_and_their_errors_are_those_of_the_whole_file() {
    let right = format!("{}[ledger]\ntenants = 7\n", tenants(0..3));
    let wrong = right
        .replace("'id-1'", "'a/b'")
        .replace("['read']", "['read', 'x']");
    let twice = format!("{right}[tenants.t1]\n");
    let secret = right.replace("'m'", "'m', password = 'hunter22'");
    let missing = right.replace("tenants = ['t2']", "tenants = ['t9']");
    for text in [&*right, &wrong, &twice, &secret, &missing] {
        let (all, whole) = (around(text), around(&format!("{text}{WHOLE}")));
        let found = shown(&load_texts(&[&all]));
        assert_eq!(found, shown(&load_texts(&[&whole])));
        assert!(!found.is_empty());
        assert!(!found.concat().contains("hunter22"), "{found:?}");
    }
    let found = load_texts(&[&around(&right), "[tenants.t2]\n"]).unwrap_err();
    assert_eq!(found[0].message, "`tenants.t2` is set twice");
}

#[test]
fn the_work_grows_as_the_configuration_does() {
    for rest in ["", WHOLE] {
        let mut before: Option<[usize; 3]> = None;
        for count in [50, 400] {
            let text = around(&format!("{}{rest}", tenants(0..count)));
            done();
            load_texts(&[&text]).unwrap();
            let work = done();
            assert!(work[0] <= text.len() + 1, "{work:?} of {}", text.len());
            // Each name may meet a few others that have its hash.
            let bounds = [usize::MAX, 2 * count + 1, 4 * count];
            assert!(
                work.iter().zip(bounds).all(|(work, most)| *work <= most),
                "{work:?}"
            );
            let each = work.map(|work| work / count);
            let before = before.get_or_insert(each.map(|each| each + each / 5 + 1));
            assert!(
                each.iter().zip(before).all(|(now, most)| now <= most),
                "{work:?}"
            );
        }
    }
}

#[test]
fn a_reload_takes_over_all_but_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let tokens = |name: &str, digit: &str| {
        fs::write(file(name), format!("sha256:{} agent\n", digit.repeat(64))).unwrap();
    };
    tokens("a", "1");
    tokens("b", "1");
    let own = |name: &str| {
        let file = file(name);
        format!("[tenants.{name}]\nbearer = {{ tokens_file = {file:?} }}\n")
    };
    let patterns = [file("m.toml").display().to_string()];
    let read = |text: &str, before: Option<&Config>| {
        fs::write(file("m.toml"), around(text)).unwrap();
        let states = before.map(|config| {
            let states = config.files().into_iter();
            let states = states.map(|(path, state)| (path.clone(), state.again(&path)));
            states.collect()
        });
        let environment = |name: &str| match name {
            "HOST" | "VARIABLE" => Some("value".to_owned()),
            _ => None,
        };
        let (options, running) = (LoadOptions::default(), before.zip(states.as_ref()));
        done();
        let read = read_beside(&patterns, &environment, options, running);
        (read.outcome, done()[1], read.files.len())
    };
    let right = |text: &str, before: Option<&Config>| {
        let (outcome, decoded, files) = read(text, before);
        let loaded = outcome.unwrap_or_else(|found| panic!("{found:?}"));
        (loaded.config, decoded, files)
    };
    let changes =
        |old: &Config, new: &Config| crate::topology::Changes::between(old, new).to_string();
    let many = tenants(0..20);
    let (first, decoded, files) = right(&format!("{many}{}{}", own("a"), own("b")), None);
    assert_eq!((decoded, files), (42, 2));
    // The same, in another order, and one more table.
    let text = format!("[ledger]\ntenants = 3\n{}{many}{}", own("b"), own("a"));
    let (moved, decoded, files) = right(&text, Some(&first));
    assert_eq!((decoded, files), (1, 2));
    assert_eq!(changes(&first, &moved), "added ledger");
    let table = |config: &Config| config.tables.0["tenants.t7"].clone();
    assert!(Arc::ptr_eq(&table(&first), &table(&moved)));
    // One text and one file have changed; the ledger is always read.
    tokens("b", "2");
    let text = text.replace("'id-7'", "'id-seven'");
    let (changed, decoded, _) = right(&text, Some(&moved));
    assert_eq!(decoded, 3);
    assert_eq!(changes(&moved, &changed), "changed tenants.b, tenants.t7");
    // A table with a variable is decoded again at each reload.
    let text = text.replace("'id-8'", "'${VARIABLE}'");
    let (variable, ..) = right(&text, Some(&changed));
    let (_, decoded, _) = right(&text, Some(&variable));
    assert_eq!(decoded, 2);
    // A file that is wrong now is found, though the text is the same.
    fs::write(file("a"), "no hash").unwrap();
    let found = read(&text, Some(&variable)).0.unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    let message = &found[0].message;
    assert!(
        message.starts_with("tenants.a.bearer.tokens_file: "),
        "{message}"
    );
    assert_eq!(found[0].place.as_ref().unwrap().file(), patterns[0]);
    let environment = ProcessEnvironment;
    assert!(
        read_beside(&[], &environment, LoadOptions::default(), None)
            .outcome
            .is_err()
    );
}

#[test]
fn secrets_of_tables_that_a_reload_takes_over_appear_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let patterns = [file.display().to_string()];
    let read = |role: &str, before: Option<&Config>| {
        let text = format!(
            "[tenants.a]\noidc = {{ issuer = 'https://x', client_id = 'm', login = {{ external_url = 'https://m', client_secret = 'Hush-4711' }} }}\n\
             [roles.r]\ntenants = ['{role}']\npermissions = ['read']\n"
        );
        fs::write(&file, around(&text)).unwrap();
        let states = Default::default();
        let running = before.map(|config| (config, &states));
        done();
        let options = LoadOptions::default();
        let outcome = read_beside(&patterns, &ProcessEnvironment, options, running).outcome;
        (outcome, done()[1])
    };
    let first = read("a", None).0.unwrap().config;
    for before in [None, Some(&first)] {
        let (outcome, decoded) = read("Hush-4711", before);
        let found = outcome.unwrap_err();
        assert_eq!(decoded, 2 - usize::from(before.is_some()));
        assert_eq!(found[0].message, "roles.r: there is no tenant `***`");
        assert!(!format!("{found:?}").contains("Hush"), "{found:?}");
    }
}

#[test]
fn tables_of_sections_name_no_other_tables() {
    for info in TableInfo::all().into_iter().filter(|info| info.many) {
        let keys = metrifold_base::keys::list_nested(info.keys);
        let own = keys.iter().map(|key| key.name.rsplit('.').next().unwrap());
        let found: Vec<&str> = own
            .filter(|name| ["listener", "discovery"].contains(name))
            .collect();
        assert!(found.is_empty() && info.named, "{} {found:?}", info.name);
    }
}
