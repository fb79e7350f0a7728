//! Reading what stands at the top of the files: single keys, and tables that are no components.

use toml::de::{DeTable, DeValue};

use metrifold_base::Problems;
use metrifold_base::keys::{Keys, list};

use crate::component::Resource;

use super::components::fingerprints;
use super::decode::{self, Finding};
use super::diagnostic::Diagnostic;
use super::document::Global;
use super::path::{KeyPath, Step, Under};
use super::source::Place;
use super::tables::{RootKeys, Table, TableInfo};
use super::{NamedFiles, canonical, files};

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
        let message = global.around.redactions.apply(&finding.message);
        let span = path.locate(&whole, Under::Value);
        let mut diagnostic = Diagnostic::error(format!("`{}`: {message}", finding.path))
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
    files::resolve(&mut table, info.keys, around.file.name());
    let report = |finding: Finding, found: &mut Vec<Diagnostic>| {
        let message = finding.describe(&name, &around.redactions);
        let at = finding
            .span
            .map_or_else(|| place.clone(), |span| around.place(span));
        let mut diagnostic = Diagnostic::error(message).at(at);
        diagnostic.help = finding.help.map(|help| around.redactions.apply(&help));
        found.push(diagnostic);
    };
    let config = match info.read(table.clone(), around.removed.clone()) {
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
    let address = KeyPath::parse("address").locate(&table, Under::Value);
    let place = address.map_or(place, |span| around.place(span));
    sound.then(|| Read {
        name,
        place,
        resources: config.resources(),
        table: Table {
            config,
            effective: canonical::effective(&table),
            files,
        },
    })
}
