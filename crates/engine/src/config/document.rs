//! Merges several files into one set of tables: parsing, variables, names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::keys::{Keys, each};
use metrifold_model::Kind;

use super::decode;
use super::diagnostic::Diagnostic;
use super::environment::{Environment, expand};
use super::files;
use super::globals::Read;
use super::path::{KeyPath, Step};
use super::secrets::{self, Redactions, Substituted};
use super::sections::{Divided, Sections};
use super::source::{Place, Run, SourceFile, Text};
use super::tables::{RootKeys, TableInfo};
use super::work::{Name, Work, count};

/// The most syntax errors of a file that are examined; nobody reads more.
const MAX_SYNTAX_ERRORS: usize = 100;

/// Note for text that looks like a variable.
const VARIABLES: &str = "write ${NAME} or ${NAME:-default}, with letters, digits and _ in the name and no digit first; \
     $${ is the text ${";

/// Note for escape errors, which regular expressions cause most often.
const ESCAPES: &str = "in double quotes a backslash starts an escape";

/// The merged content of all files.
#[derive(Default)]
pub(crate) struct Document<'i> {
    /// Single keys at the top.
    pub(crate) root: Vec<Global<'i>>,
    /// Tables at the top that are not components.
    pub(crate) tables: Vec<(&'static TableInfo, Global<'i>)>,
    pub(crate) components: Vec<Declared<'i>>,
    /// Tables that were read from sections.
    pub(crate) read: Vec<Read>,
    /// Whether a section has a table with errors, which have been reported.
    pub(crate) refused: bool,
    /// Places of the keys and tables that are not components, by their full names.
    pub(crate) names: HashMap<Name, Place>,
    /// Whether some text could not be read or parsed, so that any name may be missing.
    pub(crate) incomplete: bool,
    /// Secret values of each file.
    pub(crate) redactions: Vec<Redactions>,
    /// Texts of sections with further secret values.
    pub(crate) secret: Vec<&'i str>,
}

/// A single key or a table at the top of a file that is not a component.
#[derive(Debug)]
pub(crate) struct Global<'i> {
    pub(crate) name: Name,
    pub(crate) key: Spanned<Cow<'i, str>>,
    pub(crate) place: Place,
    pub(crate) value: Spanned<DeValue<'i>>,
    pub(crate) around: Around,
}

/// A component as declared in a file.
#[derive(Debug)]
pub(crate) struct Declared<'i> {
    pub(crate) kind: Kind,
    pub(crate) id: Arc<str>,
    /// Place of the component's name.
    pub(crate) place: Place,
    pub(crate) table: DeTable<'i>,
    pub(crate) around: Around,
    /// Whether an error of the component has been reported already.
    pub(crate) broken: bool,
    /// Whether an earlier component has the same name.
    pub(crate) duplicate: bool,
    /// Whether the value is a table.
    pub(crate) is_table: bool,
    /// Place of the key that names a listener, whose keys have been copied into the table.
    pub(crate) listener: Option<Place>,
}

/// The file that contains a table.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub(crate) file: Arc<SourceFile>,
    /// Keys that were removed from the table because their variables are not set.
    pub(crate) removed: Vec<KeyPath>,
}

impl Around {
    /// A place in the file.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place::new(&self.file, span)
    }
}

/// Parses and merges files. `divided` are those that can be read in sections.
pub(crate) fn merge<'i>(
    texts: &'i [Text],
    divided: &'i [Option<Divided<'i>>],
    sections: &mut Sections<'_, '_>,
    found: &mut Vec<Diagnostic>,
) -> Document<'i> {
    let mut document = Document::default();
    for (text, divided) in texts.iter().zip(divided) {
        if let Some(divided) = divided
            && merge_divided(&mut document, &text.name, divided, sections, found)
        {
            continue;
        }
        let file = (&text.name, text.input(), Vec::new());
        match parse(file, sections.environment, found) {
            Some(file) => add(&mut document, file, found),
            None => document.incomplete = true,
        }
    }
    find_duplicates(&mut document.components, found);
    document
}

/// Reads the sections of a file and merges the rest of it. Does nothing and returns false if the file
/// must be read as a whole.
fn merge_divided<'i>(
    document: &mut Document<'i>,
    name: &Arc<str>,
    divided: &'i Divided<'i>,
    sections: &mut Sections<'_, '_>,
    found: &mut Vec<Diagnostic>,
) -> bool {
    let mut errors = Vec::new();
    let file = (name, &*divided.rest, divided.runs.clone());
    let Some(rest) = parse(file, sections.environment, &mut errors) else {
        return false;
    };
    if divided.is_continued_in(&rest.table) || divided.is_declared_in(&document.names) {
        return false;
    }
    let Some(read) = sections.read(divided, &mut errors) else {
        return false;
    };
    document.names.extend(divided.places());
    document.refused |= read.refused;
    document.read.extend(read.tables);
    document.redactions.extend(read.redactions);
    document.secret.extend(read.secret);
    found.append(&mut errors);
    add(document, rest, found);
    true
}

/// A parsed file, or some lines of it.
pub(super) struct Parsed<'i> {
    file: Arc<SourceFile>,
    table: DeTable<'i>,
    redactions: Redactions,
    removed: Vec<KeyPath>,
}

/// Parses lines of a file, which has this name.
pub(super) fn parse<'i>(
    (name, input, runs): (&Arc<str>, &'i str, Vec<Run>),
    environment: &dyn Environment,
    found: &mut Vec<Diagnostic>,
) -> Option<Parsed<'i>> {
    count(Work::Parsed, input.len());
    let (table, errors) = DeTable::parse_recoverable(input);
    let mut table = table.into_inner();
    if !errors.is_empty() {
        let masked = secrets::mask_lines(input);
        let file = Arc::new(SourceFile::of_lines(name, masked, runs));
        let mut last = None;
        for error in errors.into_iter().take(MAX_SYNTAX_ERRORS) {
            let place = Place::new(&file, error.span().unwrap_or_default());
            // Further errors on a line are mostly consequences of the first.
            if last.replace(place.line()) != Some(place.line()) {
                let message = error.message().lines().next().unwrap_or_default();
                let place_line = place.line();
                let mut diagnostic = Diagnostic::error(format!("not TOML: {message}")).at(place);
                if message.contains("escape") {
                    let line = input.lines().nth(place_line - 1);
                    let single = line.and_then(secrets::in_single_quotes);
                    let single = single.unwrap_or_else(|| "single quotes, '(\\d+)'".to_owned());
                    let help = format!("{ESCAPES}: use {single}, or write it twice");
                    diagnostic = diagnostic.with_help(help);
                }
                found.push(diagnostic);
            }
        }
        return None;
    }
    let masked = secrets::mask(input, &table);
    let file = Arc::new(SourceFile::of_lines(name, masked, runs));
    let mut expansion = Expansion {
        environment,
        substituted: Substituted::new(),
        removed: Vec::new(),
        unset: Vec::new(),
        malformed: Vec::new(),
    };
    expansion.table(&mut table, &KeyPath::default());
    for (name, span) in expansion.unset {
        let diagnostic = Diagnostic::error(format!("environment variable {name} is not set"));
        found.push(
            diagnostic
                .at(Place::new(&file, span))
                .with_help(format!("set it, or give a default: ${{{name}:-default}}")),
        );
    }
    for span in expansion.malformed {
        let diagnostic = Diagnostic::error("${ does not begin a variable");
        found.push(diagnostic.at(Place::new(&file, span)).with_help(VARIABLES));
    }
    Some(Parsed {
        file,
        redactions: Redactions::of(&table, &expansion.substituted),
        table,
        removed: expansion.removed,
    })
}

/// A table at the top of a file that may have errors elsewhere. Values with unset variables are
/// left out; the names of those variables are added to `unset`.
pub(crate) fn table_of<'i>(
    text: &'i Text,
    name: &str,
    environment: &dyn Environment,
    unset: &mut Vec<String>,
) -> Option<DeTable<'i>> {
    let (mut root, _) = DeTable::parse_recoverable(&text.text);
    let value = root.get_mut().remove(name)?;
    let DeValue::Table(mut table) = value.into_inner() else {
        return None;
    };
    let mut expansion = Expansion {
        environment,
        substituted: Substituted::new(),
        removed: Vec::new(),
        unset: Vec::new(),
        malformed: Vec::new(),
    };
    expansion.table(&mut table, &KeyPath::default());
    let info = TableInfo::all()
        .into_iter()
        .find(|info| info.name == name)?;
    files::resolve(&mut table, info.keys, &text.name);
    unset.extend(expansion.unset.into_iter().map(|(name, _)| name));
    Some(table)
}

/// Substitutes the variables of a file.
struct Expansion<'e> {
    environment: &'e dyn Environment,
    substituted: Substituted,
    removed: Vec<KeyPath>,
    unset: Vec<(String, Range<usize>)>,
    malformed: Vec<Range<usize>>,
}

impl Expansion<'_> {
    fn table(&mut self, table: &mut DeTable<'_>, path: &KeyPath) {
        let mut gone = Vec::new();
        for (key, value) in table.iter_mut() {
            let path = path.join(key.get_ref());
            if !self.value(value, &path) {
                gone.push(key.get_ref().clone().into_owned());
                self.removed.push(path);
            }
        }
        for key in gone {
            table.remove(key.as_str());
        }
    }

    /// Substitutes the variables of a value; returns whether the value can stay.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, path: &KeyPath) -> bool {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => {
                let Some(expanded) = expand(text, self.environment) else {
                    return true;
                };
                for name in &expanded.unset {
                    self.unset.push((name.clone(), span.clone()));
                }
                if !expanded.values.is_empty() {
                    self.substituted.insert(span.start, expanded.values);
                }
                if expanded.malformed {
                    self.malformed.push(span);
                }
                *text = expanded.text.into();
                expanded.unset.is_empty() && !expanded.malformed
            }
            DeValue::Table(table) => {
                self.table(table, path);
                true
            }
            DeValue::Array(array) => {
                let mut gone = Vec::new();
                for (index, item) in array.iter_mut().enumerate() {
                    let mut path = path.clone();
                    path.0.push(Step::Index(index));
                    if !self.value(item, &path) {
                        gone.push(index);
                        self.removed.push(path);
                    }
                }
                if !gone.is_empty() {
                    let kept = array
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| !gone.contains(at));
                    *array = kept.map(|(_, value)| value.clone()).collect();
                }
                true
            }
            _ => true,
        }
    }
}

/// Adds what was parsed.
pub(super) fn add<'i>(
    document: &mut Document<'i>,
    parsed: Parsed<'i>,
    found: &mut Vec<Diagnostic>,
) {
    document.redactions.push(parsed.redactions);
    let around = |prefix: &[&str]| {
        let below = |path: &KeyPath| {
            let (before, rest) = path.0.split_at_checked(prefix.len())?;
            let same = before
                .iter()
                .zip(prefix)
                .all(|(step, name)| matches!(step, Step::Key(key) if key == name));
            (same && !rest.is_empty()).then(|| KeyPath(rest.to_vec()))
        };
        Around {
            file: Arc::clone(&parsed.file),
            removed: parsed.removed.iter().filter_map(below).collect(),
        }
    };
    for (key, value) in parsed.table {
        let place = Place::new(&parsed.file, key.span());
        let name = key.get_ref().clone().into_owned();
        let global =
            |name: &str, prefix: &[&str], key, value: Spanned<DeValue<'i>>, place| Global {
                name: name.into(),
                key,
                place,
                around: around(prefix),
                value,
            };
        if each(RootKeys::ENTRIES).iter().any(|key| key.name == name) {
            let global = global(&name, &[&name], key, value, place);
            if is_first(&mut document.names, &global, found) {
                document.root.push(global);
            }
            continue;
        }
        if let Some(info) = TableInfo::all().into_iter().find(|info| info.name == name) {
            if !info.named {
                let global = global(&name, &[&name], key, value, place);
                if is_first(&mut document.names, &global, found) {
                    document.tables.push((info, global));
                }
                continue;
            }
            let DeValue::Table(table) = value.into_inner() else {
                let message = format!("`{name}` is a table of tables");
                let help = format!("write {}", info.header());
                found.push(Diagnostic::error(message).at(place).with_help(help));
                continue;
            };
            for (id, value) in table {
                let place = Place::new(&parsed.file, id.span());
                let full = format!("{name}.{}", id.get_ref());
                if let Err(help) = check_name(id.get_ref()) {
                    let message = format!("`{}` cannot be a name under `{name}`", id.get_ref());
                    found.push(Diagnostic::error(message).at(place).with_help(help));
                    continue;
                }
                let own = id.get_ref().clone();
                let global = global(&full, &[&name, &own], id, value, place);
                if is_first(&mut document.names, &global, found) {
                    document.tables.push((info, global));
                }
            }
            continue;
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.table() == name) else {
            // The table may be meant to hold components, which are missing from the graph then.
            document.incomplete |= matches!(value.get_ref(), DeValue::Table(_));
            let known = top_level();
            let help = decode::choices(&name, &known, "known keys");
            let message = format!("unknown key `{name}` at the top of the file");
            found.push(Diagnostic::error(message).at(place).with_help(help));
            continue;
        };
        let DeValue::Table(table) = value.into_inner() else {
            document.incomplete = true;
            let message = format!("`{name}` is a table of components");
            let help = format!("write [{name}.NAME]");
            found.push(Diagnostic::error(message).at(place).with_help(help));
            continue;
        };
        for (id, value) in table {
            let declared = declare(kind, id, value, &parsed.file, &around, found);
            document.components.push(declared);
        }
    }
}

/// Adds a component's name and table, whether or not they are valid.
fn declare<'i>(
    kind: Kind,
    id: Spanned<Cow<'i, str>>,
    value: Spanned<DeValue<'i>>,
    file: &Arc<SourceFile>,
    around: &dyn Fn(&[&str]) -> Around,
    found: &mut Vec<Diagnostic>,
) -> Declared<'i> {
    let name = kind.table();
    let place = Place::new(file, id.span());
    let id = id.into_inner();
    let bad_name = check_name(&id).err();
    if let Some(help) = bad_name {
        let message = format!("`{id}` cannot be the name of a {}", kind.as_str());
        found.push(Diagnostic::error(message).at(place.clone()).with_help(help));
    }
    let (table, is_table) = match value.into_inner() {
        DeValue::Table(table) => (table, true),
        _ => (DeTable::default(), false),
    };
    if !is_table {
        let message = format!("{name}.{id} is not a table");
        let help = format!("write [{name}.{id}] and its keys below");
        found.push(Diagnostic::error(message).at(place.clone()).with_help(help));
    }
    let around = around(&[name, &id]);
    Declared {
        kind,
        id: id.into(),
        place,
        broken: bad_name.is_some() || !is_table || !around.removed.is_empty(),
        duplicate: false,
        is_table,
        listener: None,
        table,
        around,
    }
}

/// The keys that a file may have at its top.
fn top_level() -> Vec<&'static str> {
    let root = each(RootKeys::ENTRIES).into_iter().map(|key| key.name);
    let tables = TableInfo::all().into_iter().map(|info| info.name);
    let kinds = Kind::ALL.into_iter().map(Kind::table);
    root.chain(tables).chain(kinds).collect()
}

/// Whether no earlier key has the same name. If so, the name is noted.
fn is_first(
    names: &mut HashMap<Name, Place>,
    global: &Global<'_>,
    found: &mut Vec<Diagnostic>,
) -> bool {
    let Some(first) = names.get(&global.name) else {
        names.insert(global.name.clone(), global.place.clone());
        return true;
    };
    found.push(
        Diagnostic::error(format!("`{}` is set twice", global.name))
            .at(global.place.clone())
            .with_related(first.clone(), "it is set here first")
            .with_help("keep it in one file"),
    );
    false
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("give it a name of letters, digits, `_` and `-`")
    } else if name.contains('.') {
        Err("a dot separates a component from its output: use `_` or `-`")
    } else if name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    {
        Ok(())
    } else {
        Err("use letters, digits, `_` and `-` only")
    }
}

fn find_duplicates(components: &mut [Declared<'_>], found: &mut Vec<Diagnostic>) {
    let mut first: BTreeMap<Arc<str>, (Kind, Place)> = BTreeMap::new();
    for component in components {
        let (kind, id) = (component.kind, &component.id);
        if let Some((first_kind, place)) = first.get(id) {
            component.duplicate = true;
            found.push(
                Diagnostic::error(format!("the name `{id}` is used twice"))
                    .at(component.place.clone())
                    .with_related(
                        place.clone(),
                        format!("it is the name of a {} here", first_kind.as_str()),
                    )
                    .with_help("names are unique across sources, transforms, sinks and files"),
            );
        } else {
            first.insert(Arc::clone(id), (kind, component.place.clone()));
        }
    }
}
