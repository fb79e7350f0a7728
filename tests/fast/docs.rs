//! The documentation of components, metrics, files and dependencies matches the code.
//!
//! Tables of keys are rendered from the components' own descriptions: `UPDATE_DOCS=1 cargo test
//! --test fast docs::` writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

// Linked for the components that it registers.
use metrifold as _;
use metrifold_base::KeyDefault;
use metrifold_base::keys::{self, Keys, Listed};
use metrifold_engine::component::{ComponentInfo, SinkConfig, SourceConfig, TransformConfig};
use metrifold_engine::config::{LoadOptions, RootKeys, TableInfo, TableType, parse_texts};
use metrifold_model::Kind;
use metrifold_telemetry::{Metric, Scope};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn components() -> Vec<&'static ComponentInfo> {
    let all: Vec<_> = crate::components::components().collect();
    assert!(all.len() >= 10, "{}", all.len());
    all
}

/// `docs/components/NAME.md`, or `NAME_KIND.md` where two kinds share a name.
fn page_of(info: &ComponentInfo) -> PathBuf {
    let same = components()
        .iter()
        .filter(|other| other.name == info.name)
        .count();
    let file = match same {
        1 => format!("{}.md", info.name),
        _ => format!("{}_{}.md", info.name, info.kind.as_str()),
    };
    Path::new("docs/components").join(file)
}

/// A default as the pages show it.
fn default_of(key: &Listed) -> String {
    match key.default {
        KeyDefault::Required(_) => "required".to_owned(),
        KeyDefault::Value(value) => format!("`{value}`"),
        KeyDefault::Unset(_) | KeyDefault::Suggested(_) | KeyDefault::Table | KeyDefault::Off => {
            String::new()
        }
    }
}

/// The keys of a component, with those of tables in lists.
fn keys_of(info: &ComponentInfo) -> Vec<Listed> {
    keys::list_nested(info.keys)
}

/// The table of keys, as a page shows it.
fn render(info: &ComponentInfo) -> String {
    rows(&keys_of(info))
}

fn rows(keys: &[Listed]) -> String {
    let rows: String = keys
        .iter()
        .map(|key| {
            let doc = key.doc.replace('|', "\\|");
            let default = default_of(key);
            let default = if default.is_empty() {
                ""
            } else {
                &format!("{default} ")
            };
            format!("| `{}` | {default}| {doc} |\n", key.name)
        })
        .collect();
    match rows.as_str() {
        "" => String::new(),
        rows => format!("| key | default | meaning |\n| --- | --- | --- |\n{rows}"),
    }
}

#[test]
fn every_component_has_a_page_and_every_page_a_component() {
    let pages: BTreeSet<_> = fs::read_dir(root().join("docs/components"))
        .unwrap()
        .map(|file| Path::new("docs/components").join(file.unwrap().file_name()))
        .collect();
    let expected: BTreeSet<_> = components().into_iter().map(page_of).collect();
    assert_eq!(pages, expected);
    for info in components() {
        let title = read(page_of(info)).lines().next().unwrap().to_lowercase();
        assert_eq!(title, format!("# {} `{}`", info.kind.as_str(), info.name));
    }
}

#[test]
fn the_rendered_tables_of_keys_are_up_to_date() {
    for info in components() {
        let page = page_of(info);
        let text = read(&page);
        let start = format!("<!-- keys: {} {} -->\n", info.kind.as_str(), info.name);
        let Some((before, rest)) = text.split_once(&start) else {
            continue; // written by hand, which the next test checks
        };
        let (table, after) = rest.split_once("<!-- end -->").expect("an end mark");
        let expected = render(info);
        if table != expected && std::env::var_os("UPDATE_DOCS").is_some() {
            let text = format!("{before}{start}{expected}<!-- end -->{after}");
            fs::write(root().join(&page), text).unwrap();
            continue;
        }
        assert_eq!(
            table,
            expected,
            "{}: run UPDATE_DOCS=1 cargo test --test fast docs::",
            page.display()
        );
    }
}

#[test]
fn every_page_names_every_key_with_its_default_and_no_other() {
    for info in components() {
        let page = page_of(info);
        let text = read(&page);
        let section = text.split("\n## Keys\n").nth(1).expect("a section on keys");
        let section = section.split("\n## ").next().unwrap();
        // A table of something else may follow.
        let table = section
            .lines()
            .skip_while(|line| !line.starts_with("| key |"));
        let rows: BTreeMap<&str, &str> = table
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0, line)))
            .collect();
        let keys = keys_of(info);
        let names: BTreeSet<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let named: BTreeSet<&str> = rows.keys().copied().collect();
        assert_eq!(named, names, "{}", page.display());
        for key in &keys {
            let default = default_of(key);
            let row = rows[key.name.as_str()];
            assert!(
                row.contains(&default),
                "{}: {row} lacks {default}",
                page.display()
            );
        }
    }
}

#[test]
fn the_page_on_the_configuration_names_every_key_and_table_at_the_top() {
    let page = read("docs/configuration.md");
    let section = page.split("\n## Keys at the top\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let (names, meaning) = line[1..].split_once(" | ").unwrap();
        for name in names.split('`').skip(1).step_by(2) {
            rows.insert(name.to_owned(), meaning);
        }
    }
    let mut expected: BTreeMap<String, KeyDefault> = Kind::ALL
        .map(|kind| (format!("{}.NAME", kind.table()), KeyDefault::Off))
        .into();
    let root = keys::each(RootKeys::ENTRIES).into_iter();
    expected.extend(root.map(|key| (key.name.to_owned(), key.default)));
    for info in TableInfo::all() {
        let prefix = info.header().replace(['[', ']'], "");
        if !(info.types)().is_empty() {
            // The page of its kind has a table of keys for each type.
            expected.insert(prefix.clone(), KeyDefault::Off);
        }
        let keys = keys::each(info.keys).into_iter();
        expected.extend(keys.map(|key| (format!("{prefix}.{}", key.name), key.default)));
    }
    assert!(rows.keys().eq(expected.keys()), "{rows:?} {expected:?}");
    for (name, default) in expected {
        if let KeyDefault::Value(value) = default {
            assert!(rows[&name].contains(value), "{name} lacks {value}");
        }
    }
}

#[test]
fn the_tables_of_tenants_have_their_keys_on_the_page_on_tenancy() {
    let page = "docs/tenancy.md";
    let mut text = read(page);
    for name in ["access", "tenants", "roles", "role_bindings"] {
        let info = TableInfo::all().into_iter().find(|info| info.name == name);
        let start = format!("<!-- keys: {name} -->\n");
        let parts = text.split_once(&start);
        let (before, rest) = parts.unwrap_or_else(|| panic!("no {start}"));
        let (table, after) = rest.split_once("<!-- end -->").expect("an end mark");
        let expected = rows(&keys::list_nested(info.unwrap().keys));
        if table != expected && std::env::var_os("UPDATE_DOCS").is_some() {
            text = format!("{before}{start}{expected}<!-- end -->{after}");
            fs::write(root().join(page), &text).unwrap();
            continue;
        }
        assert_eq!(
            table, expected,
            "{name}: run UPDATE_DOCS=1 cargo test --test fast docs::"
        );
    }
}

/// Types of providers, each with a section in docs/discovery.md.
fn providers() -> Vec<TableType> {
    let tables = TableInfo::all().into_iter();
    let types: Vec<_> = tables.flat_map(|table| (table.types)()).collect();
    assert!(types.len() >= 4, "{}", types.len());
    types
}

#[test]
fn every_provider_and_publishing_have_their_keys_on_the_page_on_discovery() {
    let page = "docs/discovery.md";
    let mut text = read(page);
    let publish = TableInfo::all().into_iter().find(|it| it.name == "publish");
    let publish = ("publish".to_owned(), publish.unwrap().keys);
    let types = providers().into_iter();
    let types = types.map(|it| (format!("discovery {}", it.name), it.keys));
    for (what, keys) in types.chain([publish]) {
        let start = format!("<!-- keys: {what} -->\n");
        let (before, rest) = text
            .split_once(&start)
            .unwrap_or_else(|| panic!("no {start}"));
        let (table, after) = rest.split_once("<!-- end -->").expect("an end mark");
        // Links in descriptions of keys are relative to a component's page, one folder below this
        // one.
        let expected = rows(&keys::list_nested(keys)).replace("](../", "](");
        if table != expected && std::env::var_os("UPDATE_DOCS").is_some() {
            text = format!("{before}{start}{expected}<!-- end -->{after}");
            fs::write(root().join(page), &text).unwrap();
            continue;
        }
        assert_eq!(
            table, expected,
            "{what}: run UPDATE_DOCS=1 cargo test --test fast docs::"
        );
    }
}

/// `Debug` output of a component with these keys.
fn decoded(info: &ComponentInfo, keys: Table) -> String {
    let tagged = Value::Table(Table::from_iter([(
        info.name.to_owned(),
        Value::Table(keys.clone()),
    )]));
    let shown = match info.kind {
        Kind::Source => Box::<dyn SourceConfig>::deserialize(tagged).map(|it| format!("{it:?}")),
        Kind::Transform => {
            Box::<dyn TransformConfig>::deserialize(tagged).map(|it| format!("{it:?}"))
        }
        Kind::Sink => Box::<dyn SinkConfig>::deserialize(tagged).map(|it| format!("{it:?}")),
    };
    shown.unwrap_or_else(|error| panic!("{}: {error} in {keys}", info.name))
}

/// The table at a path, made where it is absent; `[]` stands for the first item of a list.
fn table_at<'t>(table: &'t mut Table, path: &str) -> &'t mut Table {
    let steps = path.split('.').filter(|step| !step.is_empty());
    steps.fold(table, |table, step| {
        let empty = Value::Table(Table::new());
        let (key, absent) = match step.strip_suffix("[]") {
            Some(key) => (key, Value::Array(vec![empty])),
            None => (step, empty),
        };
        let below = match table.entry(key).or_insert(absent) {
            Value::Array(items) => &mut items[0],
            below => below,
        };
        below.as_table_mut().unwrap()
    })
}

/// Sets a key by its full name.
fn set(table: &mut Table, name: &str, text: &str) {
    let value = format!("x = {text}").parse::<Table>().unwrap()["x"].clone();
    let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
    table_at(table, path).insert(last.to_owned(), value);
}

/// The keys that must be present so that `wanted` is allowed.
fn needed(keys: &[Listed], wanted: &str) -> Table {
    let mut table = Table::new();
    for key in keys {
        if key.default == KeyDefault::Off && wanted.starts_with(&format!("{}.", key.name)) {
            set(&mut table, &key.name, "{}");
        }
        let (group, _) = key.name.rsplit_once('.').unwrap_or_default();
        let around = group.is_empty() || wanted.starts_with(&format!("{group}."));
        if key.needed && around {
            set(&mut table, &key.name, key.default.example().unwrap());
        }
    }
    if wanted.contains("[].") || wanted.contains(".NAME") {
        table_at(&mut table, wanted.rsplit_once('.').unwrap().0);
    }
    table
}

#[test]
fn what_a_page_calls_the_default_is_what_holds_when_the_key_is_absent() {
    let mut defaults = 0;
    for info in components() {
        let keys = keys_of(info);
        for key in &keys {
            let without = needed(&keys, &key.name);
            let mut with = without.clone();
            match key.default {
                KeyDefault::Value(text) => {
                    defaults += 1;
                    set(&mut with, &key.name, text);
                    let (given, absent) = (decoded(info, with), decoded(info, without));
                    assert_eq!(given, absent, "{} of {}", key.name, info.name);
                }
                KeyDefault::Required(text)
                | KeyDefault::Unset(text)
                | KeyDefault::Suggested(text) => {
                    // The key at least accepts the example.
                    set(&mut with, &key.name, text);
                    decoded(info, with);
                }
                KeyDefault::Table | KeyDefault::Off => {
                    decoded(info, without);
                }
            }
        }
    }
    assert!(defaults > 50, "{defaults}");
}

/// The documented table of metrics: names, each with its type and its labels.
fn table_of_metrics(page: &str) -> BTreeMap<&str, (&str, &str)> {
    let section = page.split("\n## Metrics\n").nth(1).expect("a section");
    let table = section
        .lines()
        .skip_while(|line| !line.starts_with("| metric |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let mut found = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        assert!(cells[4].len() > 5, "{name} means something");
        let before = found.insert(name, (cells[2], cells[3]));
        assert_eq!(before, None, "{name} twice");
    }
    found
}

#[test]
fn the_table_of_metrics_says_all_names_types_and_labels_and_no_other() {
    let page = read("docs/operations.md");
    let table = table_of_metrics(&page);
    let names: BTreeSet<&str> = Metric::ALL.iter().map(|it| it.describe().name).collect();
    assert!(table.keys().eq(&names), "{:?} {names:?}", table.keys());
    for metric in Metric::ALL {
        let it = metric.describe();
        let (kind, labels) = table[it.name];
        assert_eq!(kind, it.kind.as_str(), "{}", it.name);
        let quoted: Vec<_> = it.labels.iter().map(|label| format!("`{label}`")).collect();
        let expected = match (it.scope, quoted.join(", ")) {
            (Scope::Component, list) => list,
            (Scope::Process, list) if list.is_empty() => "none".to_owned(),
            (Scope::Process, list) => format!("only {list}"),
        };
        assert_eq!(labels, expected, "{}", it.name);
    }
}

#[test]
fn no_page_names_a_metric_that_there_is_not() {
    for path in pages() {
        let page = read(&path);
        for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let known = Metric::ALL.iter().any(|metric| {
                let name = metric.describe().name;
                word == name || word.strip_suffix("_bucket") == Some(name)
            });
            let is_metric = ["metrifold_", "process_"].iter().any(|prefix| {
                let rest = word.strip_prefix(prefix);
                // A word with this ending stands for several metrics.
                rest.is_some_and(|rest| rest.contains('_') && !rest.ends_with('_'))
            });
            assert!(
                known || !is_metric,
                "{}: {word} is no metric",
                path.display()
            );
        }
    }
}

#[test]
fn every_metric_of_the_table_is_recorded_somewhere() {
    let mut folders = vec![root().join("src"), root().join("crates")];
    let mut sources = String::new();
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut words = BTreeSet::new();
    for (place, _) in sources.match_indices("Metric::") {
        let rest = &sources[place + "Metric::".len()..];
        words.insert(
            rest.split(|c: char| !c.is_ascii_alphanumeric())
                .next()
                .unwrap(),
        );
    }
    for metric in Metric::ALL {
        let variant = format!("{metric:?}");
        assert!(words.contains(&*variant), "nothing records {variant}");
    }
}

/// All pages of the documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(root().join(&folder)).unwrap() {
            let file = file.unwrap();
            let path = folder.join(file.file_name());
            if file.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The text without fenced blocks and code spans, in which brackets have other meanings.
fn prose(text: &str) -> String {
    let outside = text.split("```").step_by(2).collect::<String>();
    outside.split('`').step_by(2).collect()
}

/// The anchors of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let outside = text.split("```").step_by(2).collect::<String>();
    let headings = outside.lines().filter_map(|line| {
        let heading = line.strip_prefix('#')?.trim_start_matches('#');
        heading.strip_prefix(' ').map(str::to_owned)
    });
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for link in prose(&text).split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(root().join(&path).exists(), "{}: {target}", page.display());
            if !anchor.is_empty() {
                let known = anchors(&read(&path));
                assert!(
                    known.contains(anchor),
                    "{}: {target} of {known:?}",
                    page.display()
                );
            }
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn every_page_of_the_documentation_can_be_found_from_the_readme() {
    let mut found = BTreeSet::from([PathBuf::from("README.md")]);
    let mut todo = vec![PathBuf::from("README.md")];
    while let Some(page) = todo.pop() {
        let text = read(&page);
        for link in prose(&text).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            let path = page.parent().unwrap().join(target);
            let Ok(path) = root().join(path).canonicalize() else {
                continue;
            };
            let Ok(path) = path
                .strip_prefix(root().canonicalize().unwrap())
                .map(PathBuf::from)
            else {
                continue;
            };
            if path.extension().is_some_and(|e| e == "md") && found.insert(path.clone()) {
                todo.push(path);
            }
        }
    }
    for page in pages() {
        assert!(found.contains(&page), "no way leads to {}", page.display());
    }
}

#[test]
fn the_architecture_names_every_folder_and_file_at_the_top_of_the_sources() {
    let text = read("ARCHITECTURE.md");
    for file in fs::read_dir(root().join("src")).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let name = match file.file_type().unwrap().is_dir() {
            true => format!("`src/{name}/`"),
            // A folder is covered by the file with its name.
            false if file.path().with_extension("").is_dir() => continue,
            false => format!("`src/{name}`"),
        };
        assert!(text.contains(&name), "{name}");
    }
    for word in text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("src/"))
    {
        assert!(root().join(word).exists(), "{word}");
    }
}

#[test]
fn the_architecture_gives_a_reason_for_every_dependency_and_for_no_other() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let all = manifest["workspace"]["dependencies"].as_table().unwrap();
    let foreign = all.keys().filter(|name| !name.starts_with("metrifold-"));
    let expected: BTreeSet<String> = foreign.cloned().collect();
    let text = read("ARCHITECTURE.md");
    let section = text.split("\n## Dependencies\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap();
    let mut named = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let (crates, reason) = line[1..].split_once(" | ").unwrap();
        assert!(reason.trim_end_matches('|').trim().len() > 10, "{line}");
        for name in crates.split('`').skip(1).step_by(2) {
            assert!(named.insert(name.to_owned()), "{name} twice");
        }
    }
    assert_eq!(named, expected);
}

/// The configurations on a page.
fn configurations(text: &str) -> Vec<String> {
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_the_pages_show_of_configurations_is_right_as_far_as_it_goes() {
    // An excerpt of a configuration lacks the components around it.
    let around = ["has no source", "has no sink", "matches no component"];
    let mut shown = 0;
    for page in pages() {
        // Checked in tests/fast/config.rs, since that page also shows single keys.
        if page.ends_with("configuration.md") {
            continue;
        }
        let is_whole = page.ends_with("README.md");
        for text in configurations(&read(&page)) {
            shown += 1;
            let variables = |name: &str| Some(format!("value-of-{name}"));
            let options = LoadOptions { environment: false };
            let found = parse_texts(&[("shown.toml", &text)], &variables, options);
            for error in found.err().unwrap_or_default() {
                let message = error.message;
                let expected = !is_whole && around.iter().any(|what| message.contains(what));
                assert!(expected, "{}: {message}\n{text}", page.display());
            }
        }
    }
    assert!(shown >= 10, "{shown}");
}
