//! Reads the top of the files: single keys, and tables that are not components.

use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use metrifold_base::Problems;
use metrifold_base::keys::Keys;

use crate::component::Resource;

use super::components::take_type;
use super::decode::{self, Finding};
use super::diagnostic::Diagnostic;
use super::document::{Around, Global};
use super::path::{KeyPath, Step, Under};
use super::source::Place;
use super::states::{Named, States};
use super::tables::{RootKeys, Table, TableInfo, TableType};
use super::work::{Work, count};
use super::{canonical, files, suggest};

/// A table that was read, with the data for later checks.
pub(crate) struct Read {
    /// Full name, such as `api` or `listeners.public`.
    pub(crate) name: Arc<str>,
    pub(crate) table: Arc<Table>,
    /// Place of the table's address if it has one, else of its name.
    pub(crate) place: Place,
    pub(crate) resources: Vec<Resource>,
}

impl Read {
    /// The table, whose section may have values that must not appear in messages.
    pub(crate) fn with_secrets(mut self, secret: bool) -> Self {
        if let Some(own) = Arc::get_mut(&mut self.table) {
            own.secret = secret;
        }
        self
    }
}

/// Reads the single keys.
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
        let Some(global) = globals.iter().find(|global| *global.name == **name) else {
            return;
        };
        let span = path.locate(&whole, Under::Value);
        let mut diagnostic = Diagnostic::error(format!("`{}`: {}", finding.path, finding.message))
            .at(span.map_or_else(|| global.place.clone(), |span| global.around.place(span)));
        diagnostic.help = finding.help;
        found.push(diagnostic);
    };
    let read = &decode::plain::<RootKeys>;
    match decode::all_errors(&whole, &[], RootKeys::ENTRIES, read) {
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
    states: &mut States<'_>,
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
    count(Work::Decoded, 1);
    let effective = canonical::effective(&table).print();
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
    let config = match (info.read)(type_name, &table, &around.removed, entries) {
        Ok(config) => config,
        Err(findings) => {
            for finding in findings {
                report(finding, found);
            }
            return None;
        }
    };
    if let Some(before) = states.before.and_then(|before| before.0.get(&*name)) {
        config.take_over(&*before.config);
    }
    // Read before the files are opened for use, so that a change in between is noticed later.
    let files = match environment {
        true => {
            let mut all: Vec<_> = states.of_all(config.files());
            // These are read to find the further ones.
            let further = config.further_files();
            all.extend(states.of_all::<Vec<_>>(further.iter().map(PathBuf::as_path)));
            all.into()
        }
        false => Named::default(),
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
        name: name.0,
        place,
        resources: config.resources(),
        table: Arc::new(Table {
            config,
            effective,
            text: None,
            secret: false,
            files,
        }),
    })
}

/// Removes a table's `type` and returns it; `None` if the table has no types.
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
