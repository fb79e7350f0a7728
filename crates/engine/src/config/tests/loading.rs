use proptest::prelude::*;

use super::*;
use crate::config::secrets::{mask, mask_lines};
use crate::config::source;

fn loaded(texts: &[&str]) -> Loaded {
    load_texts(texts).unwrap_or_else(|found| {
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        panic!("{}", text.join("\n"))
    })
}

fn inputs(node: &Component<dyn SinkConfig>) -> Vec<String> {
    node.inputs.iter().map(ToString::to_string).collect()
}

#[test]
fn files_merge_into_one_graph_and_globs_are_expanded() {
    let a = "data_dir = '/x'\n[sources.in]\ntype = 'test_source'\naddress = '127.0.0.1:1'\n";
    let b = "[transforms.route]\ntype = 'test_transform'\ninputs = ['in']\nroutes = ['a', 'b']\n";
    let c = "[sinks.out]\ntype = 'test_sink'\ninputs = ['*', 'in', 'route.?']\n\
             endpoint = 'http://${HOST}:${PORT:-80}/'\n[api]\naddress = '127.0.0.1:2'\n";
    let loaded = loaded(&[a, b, c]);
    let warned: Vec<_> = loaded.warnings.iter().map(|it| &*it.message).collect();
    assert_eq!(
        warned,
        ["sinks.out gets data of `in` twice: through `in` and through `route.a`"]
    );
    let config = loaded.config;
    assert_eq!(config.data_dir, Some(PathBuf::from("/x")));
    assert_eq!(config.api().map(|api| api.address.0.port()), Some(2));
    assert_eq!(inputs(&config.sinks["out"]), ["in", "route.a", "route.b"]);
    let out = &config.sinks["out"];
    assert_eq!(out.type_name, "test_sink");
    assert_eq!(
        out.effective.text(),
        r#"{"endpoint" = "http://thanos:80/", "type" = "test_sink"}"#
    );
}

#[test]
fn a_table_that_is_absent_is_what_an_empty_one_is() {
    let absent = loaded(&[&around("")]).config;
    let empty = loaded(&[&around("[ledger]\n")]).config;
    assert_eq!(absent.ledger(), empty.ledger());
    // Equal to the default of the process before it has a configuration.
    assert_eq!(
        absent.ledger().tenants.0,
        metrifold_telemetry::LEDGER_TENANTS
    );
}

keys! {
    /// A table of which there may be several.
    #[derive(Debug)]
    struct Door {
        /// Where it is.
        address: Address = required("127.0.0.1:0"),
        /// What it opens with.
        key_file: Option<PathBuf> = unset("/k"),
    }
}

impl TableConfig for Door {
    const NAME: &'static str = "doors";

    fn validate(&self, problems: &mut Problems) {
        if self.address.0.port() == 13 {
            problems.at("address", "brings bad luck");
        }
    }

    fn files(&self) -> Vec<&std::path::Path> {
        self.key_file.iter().map(PathBuf::as_path).collect()
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Address(self.address.0)]
    }
}

inventory::submit! { TableInfo::named::<Door>("Exists in tests.") }

#[test]
fn a_registered_table_is_read_checked_and_compared_without_being_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k");
    std::fs::write(&file, "one").unwrap();
    let front = format!("[doors.front]\naddress = ':1000'\nkey_file = {file:?}\n");
    let back = "[doors.back]\naddress = ':1001'\n";
    let load = |texts: &[&str]| {
        let mut all = vec![around("")];
        all.extend(texts.iter().map(|text| (*text).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        loaded(&all).config
    };
    let both = load(&[&front, back]);
    let names: Vec<_> = both.tables.named::<Door>().map(|(name, _)| name).collect();
    assert_eq!(names, ["back", "front"]);
    assert!(both.files().contains_key(&*file));
    let changes =
        |old: &Config, new: &Config| crate::topology::Changes::between(old, new).to_string();
    assert_eq!(changes(&both, &load(&[back, &front])), "nothing changed");
    assert_eq!(changes(&both, &load(&[back])), "removed doors.front");
    let moved = back.replace("1001", "1002");
    assert_eq!(
        changes(&both, &load(&[&moved, &front])),
        "changed doors.back"
    );
    std::fs::write(&file, "two").unwrap();
    assert_eq!(
        changes(&both, &load(&[back, &front])),
        "changed doors.front"
    );
    for (wrong, message) in [
        (
            "[doors.a]\naddress = ':13'\n",
            "doors.a.address: brings bad luck",
        ),
        ("[doors.a]\n", "doors.a: key `address` is missing"),
        (
            "[doors.a]\nadress = ':1'\n",
            "doors.a: unknown key `adress`",
        ),
        (
            "[doors.'a b']\naddress = ':1'\n",
            "`a b` cannot be a name under `doors`",
        ),
        ("[doors]\na = 1\n", "`doors.a` is not a table"),
        ("doors = 1\n", "`doors` is a table of tables"),
        (back, "`doors.back` is set twice"),
        (
            "[doors.a]\naddress = ':1001'\n",
            "doors.a: address 0.0.0.0:1001",
        ),
    ] {
        let found = load_texts(&[&around(""), back, wrong]).unwrap_err();
        assert!(
            found[0].message.starts_with(message),
            "{}",
            found[0].message
        );
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

#[test]
fn a_change_shows_in_the_hash_and_in_the_table_that_changed_only() {
    let text = around("");
    let first = loaded(&[&text]).config;
    let second = loaded(&[&text.replace("http://x", "http://y")]).config;
    let spaced = loaded(&[&text.replace(" = ", "=")]).config;
    assert_ne!(first.hash, second.hash);
    assert_eq!(
        first.sources["in"].effective,
        second.sources["in"].effective
    );
    assert_ne!(first.sinks["out"].effective, second.sinks["out"].effective);
    assert_eq!(first.sinks["out"].effective, spaced.sinks["out"].effective);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_no_place() {
    let text = around("colour = 1\n");
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(printed(&[&text]), printed(&[&windows]));
    assert!(printed(&[&windows]).contains("a.toml:8:1"));
}

#[test]
fn an_incomplete_configuration_says_nothing_of_the_graph() {
    let found = printed(&[
        &around("[sinks.b]\ntype = 'test_sink'\nendpoint = 'http://x'\ninputs = ['other']\n"),
        "x =",
    ]);
    assert_eq!(found.matches("error").count(), 1, "{found}");
}

#[test]
fn a_missing_key_is_shown_with_an_example() {
    let found = printed(&[&around("[sinks.b]\ntype = 'test_sink'\ninputs = ['in']\n")]);
    assert!(
        found.contains("sinks.b: key `endpoint` is missing"),
        "{found}"
    );
    assert!(
        found.contains("= help: add endpoint = \"http://localhost/\""),
        "{found}"
    );
}

#[test]
fn an_unknown_key_is_refused_on_its_line_wherever_it_stands() {
    let text = around(
        "queue = { max_bytes = '1MiB' }\n[transforms.t]\ntype = 'test_transform'\n\
         inputs = ['in']\nrules = [{ regex = 'a' }]\n[[transforms.u.rules]]\nregex = 'b'\n\
         [transforms.u]\ntype = 'test_transform'\ninputs = ['in']\n[api]\naddress = '127.0.0.1:9'\n",
    );
    loaded(&[&text]);
    let mutations = unknown_keys(&text);
    assert_eq!(mutations.len(), 9);
    for mutation in mutations {
        let found = load_texts(&[&mutation.text]).unwrap_err();
        let errors: Vec<_> = found
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].message.contains("unknown key"), "{}", errors[0]);
        let line = errors[0].place.as_ref().map(Place::line);
        assert_eq!(line, Some(mutation.line), "{}", mutation.text);
    }
}

#[test]
fn long_chains_and_deep_nesting_are_no_danger() {
    let mut text = around("");
    for n in 0..5_000 {
        let input = if n == 0 {
            "in".to_owned()
        } else {
            format!("t{}", n - 1)
        };
        text.push_str(&format!(
            "[transforms.t{n}]\ntype = 'test_transform'\ninputs = ['{input}']\n"
        ));
    }
    assert_eq!(loaded(&[&text]).warnings.len(), 1);
    let cycle = text.replace(
        "inputs = ['in']\n[transforms.t1]",
        "inputs = ['t4999']\n[transforms.t1]",
    );
    assert!(printed(&[&cycle]).contains("inputs form a cycle: t0 -> t1 -> "));
    for deep in [
        "[".repeat(50_000),
        format!("x = {}", "[".repeat(50_000)),
        "{a=".repeat(50_000),
    ] {
        assert!(load_texts(&[&deep]).is_err());
        assert!(load_texts(&[&format!("x = {deep}")]).is_err());
    }
    let dotted = format!("{} = 1", vec!["a"; 50_000].join("."));
    assert!(load_texts(&[&dotted]).is_err());
}

#[test]
fn colour_is_there_on_request_only() {
    let found = load_texts(&["x = 1"]).unwrap_err();
    assert!(found[0].render(true).contains('\u{1b}'));
    assert!(!found[0].render(false).contains('\u{1b}'));
    // A name in the text cannot bring colours of its own.
    let found = load_texts(&["\"\\u001b[31mx\" = 1"]).unwrap_err();
    assert!(
        !found
            .iter()
            .any(|found| found.render(false).contains('\u{1b}'))
    );
}

/// Pieces of nearly correct configurations.
fn nearly_right() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[sources.in]\n",
        "[sinks.out]\n",
        "[transforms.t]\n",
        "[[transforms.t.rules]]\n",
        "[api]\n",
        "type = 'test_source'\n",
        "type = 'test_sink'\n",
        "type = 'test_transform'\n",
        "\n",
        "é",
        "inputs = ['in', '*', 't.a']\n",
        "inputs = ['t', 'out', 't']\n",
        "inputs = 3\n",
        "'",
        "\"",
        "address = '127.0.0.1:1'\n",
        "address = '${X}'\n",
        "endpoint = 'http://x'\n",
        "a.b.c = 1\n",
        "password = '${TOKEN}'\n",
        "queue = { type = 'x', max_bytes = 1 }\n",
        "regex = '('\n",
        "routes = ['a', 1, {}]\n",
        "headers = { a = 1, b = '' }\n",
        "= ",
        "{",
        "}",
        "[",
        "]",
        "\r\n",
        "rules = [{}, { regex = 1 }, 3, { regexp = 'é' }]\n",
        "data_dir = 1\n",
        "$$ ${A:-é}",
        "\u{feff}",
        "queue = 3\n",
        "queue.max_bytes = '1s'\n",
        "password = \"\"\"\né${TOKEN}\n\"\"\"\n",
    ]);
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn nearly_right_text_never_panics(text in nearly_right(), other in nearly_right()) {
        printed(&[&text, &other]);
        // Masking keeps the positions of the original text.
        prop_assert_eq!(mask_lines(&text).len(), text.len());
        let (table, _) = toml::de::DeTable::parse_recoverable(&text);
        prop_assert_eq!(mask(&text, table.get_ref()).len(), text.len());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}", bytes: Vec<u8>) {
        printed(&[&text]);
        prop_assert_eq!(mask_lines(&text).len(), text.len());
        unknown_keys(&text);
        if let Ok(text) = source::from_bytes("x".to_owned(), bytes) {
            printed(&[&text.text]);
        }
    }
}
