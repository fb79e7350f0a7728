//! Reading what stands at the top of the files: single keys, and tables that are no components.

use toml::de::{DeTable, DeValue};

use metrifold_base::Problems;
use metrifold_base::keys::{Keys, list};
use metrifold_files::NamedFiles;

use crate::component::Resource;

use super::components::{fingerprints, take_type};
use super::decode::{self, Finding};
use super::diagnostic::Diagnostic;
use super::document::{Around, Global};
use super::path::{KeyPath, Step, Under};
use super::source::Place;
use super::tables::{RootKeys, Table, TableInfo, TableType};
use super::{canonical, files, suggest};

/// A table with what was found out about it.
pub(crate) struct Read {
    /// Its full name, such as `api` or `listeners.public`.
    pub(crate) name: String,
    pub(crate) table: Table,
    /// The place of its address, or else its own.
    pub(crate) place: Place,
    pub(crate) resources: Vec<Resource>,
}

/// Reads the keys that are no tables.
pub(crate) fn root(globals: &[Global<'_>], found: &mut Vec<Diagnostic>) -> Option<RootKeys> {
    let mut whole = DeTable::default();
    for global in globals {
        let mut one = DeTable::default();
        one.insert(global.key.clone(), global.value.clone());
        files::resolve(&mut one, RootKeys::ENTRIES, global.around.file.name());
        whole.extend(one);
    }
    let report = |finding: Finding, found: &mut Vec<Diagnostic>| {
        let path = KeyPath::parse(&finding.path);
        let Some(Step::Key(name)) = path.0.first() else {
            return;
        };
        let Some(global) = globals.iter().find(|global| global.name == *name) else {
            return;
        };
        let span = path.locate(&whole, Under::Value);
        let mut diagnostic = Diagnostic::error(format!("`{}`: {}", finding.path, finding.message))
            .at(span.map_or_else(|| global.place.clone(), |span| global.around.place(span)));
        diagnostic.help = finding.help;
        found.push(diagnostic);
    };
    let keys = list(RootKeys::ENTRIES);
    let read = &decode::plain::<RootKeys>;
    match decode::all_errors(whole.clone(), Vec::new(), &keys, read) {
        Ok(root) => {
            let mut problems = Problems::new(true);
            root.validate(&mut problems);
            let problems = problems.into_list();
            let sound = problems.is_empty();
            for problem in problems {
                report(Finding::from(problem), found);
            }
            sound.then_some(root)
        }
        Err(findings) => {
            for finding in findings {
                report(finding, found);
            }
            None
        }
    }
}

/// Reads a table.
pub(crate) fn table(
    info: &TableInfo,
    global: Global<'_>,
    environment: bool,
    named: &mut NamedFiles,
    found: &mut Vec<Diagnostic>,
) -> Option<Read> {
    let Global {
        name,
        place,
        value,
        around,
        ..
    } = global;
    let DeValue::Table(mut table) = value.into_inner() else {
        let message = format!("`{name}` is not a table");
        let help = format!("write [{name}]");
        found.push(Diagnostic::error(message).at(place).with_help(help));
        return None;
    };
    let effective = canonical::effective(&table);
    let of_type = match take_table_type(info, &name, &place, &mut table, &around, found) {
        Ok(of_type) => of_type,
        Err(()) => return None,
    };
    let (type_name, entries) = of_type.map_or(("", info.keys), |it| (it.name, it.keys));
    files::resolve(&mut table, entries, around.file.name());
    let report = |finding: Finding, found: &mut Vec<Diagnostic>| {
        let message = finding.describe(&name);
        let at = finding
            .span
            .map_or_else(|| place.clone(), |span| around.place(span));
        let mut diagnostic = Diagnostic::error(message).at(at);
        diagnostic.help = finding.help;
        found.push(diagnostic);
    };
    let removed = around.removed.clone();
    let config = match (info.read)(type_name, table.clone(), removed, &list(entries)) {
        Ok(config) => config,
        Err(findings) => {
            for finding in findings {
                report(finding, found);
            }
            return None;
        }
    };
    // Before they are read for good: what changes in between is then noticed as a change.
    let files = match environment {
        true => fingerprints(&config.files(), named),
        false => NamedFiles::new(),
    };
    let mut problems = Problems::new(environment);
    config.validate(&mut problems);
    let problems = problems.into_list();
    let sound = problems.is_empty();
    for problem in problems {
        let mut finding = Finding::from(problem);
        finding.span = KeyPath::parse(&finding.path).locate(&table, Under::Value);
        report(finding, found);
    }
    let address = ["address", "http_sd", "file"]
        .iter()
        .find_map(|key| KeyPath::parse(key).locate(&table, Under::Value));
    let place = address.map_or(place, |span| around.place(span));
    sound.then(|| Read {
        name,
        place,
        resources: config.resources(),
        table: Table {
            config,
            effective,
            files,
        },
    })
}

/// Takes the type of a table out of it; none where it has no types.
fn take_table_type(
    info: &TableInfo,
    name: &str,
    place: &Place,
    table: &mut DeTable<'_>,
    around: &Around,
    found: &mut Vec<Diagnostic>,
) -> Result<Option<TableType>, ()> {
    let types = (info.types)();
    if types.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = types.iter().map(|it| it.name).collect();
    let help = format!("types: {}", names.join(", "));
    let taken = take_type(&help, name, place, table, around, found);
    let (type_name, at) = taken.ok_or(())?;
    let known = types.into_iter().find(|it| it.name == type_name);
    if known.is_none() {
        let help = match suggest::meant(&type_name, &names) {
            _ if metrifold_discovery::BY_FEATURE.contains(&&*type_name) => format!(
                "this program was built without it: build with the feature `{type_name}`, which is on by default"
            ),
            Some(near) => format!("did you mean `{near}`?"),
            None => help,
        };
        let diagnostic = Diagnostic::error(format!("{name}: unknown type `{type_name}`"));
        found.push(diagnostic.at(at).with_help(help));
    }
    known.map(Some).ok_or(())
}
