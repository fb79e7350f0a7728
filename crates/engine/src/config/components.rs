//! Validates declared components.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use metrifold_base::Problems;
use metrifold_files::NamedFiles;
use metrifold_model::{Kind, Signal};

use crate::component::{ComponentInfo, Resource, SinkConfig, SourceConfig, TransformConfig};

use super::canonical::Canonical;
use super::decode::{self, Failure, Finding};
use super::diagnostic::Diagnostic;
use super::document::{Around, Declared};
use super::path::{KeyPath, Step, Under};
use super::source::Place;
use super::states::States;
use super::{canonical, files, suggest, types};

/// A component that was read and is not connected yet.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) id: Arc<str>,
    pub(crate) place: Place,
    pub(crate) type_name: String,
    /// `None` if the component has errors of its own.
    pub(crate) config: Option<AnyConfig>,
    pub(crate) inputs: Vec<InputEntry>,
    /// Whether `inputs` itself has errors: missing inputs are then not reported.
    pub(crate) inputs_broken: bool,
    /// Resources that the component claims, each with the place of the key that names it.
    pub(crate) resources: Vec<(Resource, Place)>,
    pub(crate) effective: Canonical,
    pub(crate) files: NamedFiles,
    /// Place of the key that asks for a queue on disk.
    pub(crate) disk_queue: Option<Place>,
}

/// An element of `inputs`.
#[derive(Debug)]
pub(crate) struct InputEntry {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Configuration of a source, transform or sink.
#[derive(Clone, Debug)]
pub(crate) enum AnyConfig {
    Source(Arc<dyn SourceConfig>),
    Transform(Arc<dyn TransformConfig>),
    Sink(Arc<dyn SinkConfig>),
}

impl AnyConfig {
    /// Whether the signal can leave the component (a source) or enter it (a transform or sink).
    pub(crate) fn carries(&self, signal: Signal) -> bool {
        match self {
            Self::Source(config) => config.port().signal() == signal,
            Self::Transform(config) => config.ports().carries(signal),
            Self::Sink(config) => config.port().signal() == signal,
        }
    }

    /// Named outputs of the component.
    pub(crate) fn outputs(&self) -> Vec<String> {
        match self {
            Self::Transform(config) => config.outputs(),
            _ => Vec::new(),
        }
    }

    fn resources(&self) -> Vec<Resource> {
        match self {
            Self::Source(config) => config.resources(),
            Self::Transform(_) => Vec::new(),
            Self::Sink(config) => config.resources(),
        }
    }

    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Source(config) => config.files(),
            Self::Transform(config) => config.files(),
            Self::Sink(config) => config.files(),
        }
    }

    fn validate(&self, problems: &mut Problems) {
        match self {
            Self::Source(config) => config.validate(problems),
            Self::Transform(config) => config.validate(problems),
            Self::Sink(config) => config.validate(problems),
        }
    }
}

/// Reads and validates a component.
pub(crate) fn check(
    declared: Declared<'_>,
    environment: bool,
    states: &mut States<'_>,
    found: &mut Vec<Diagnostic>,
) -> Node {
    let Declared {
        kind,
        id,
        place,
        mut table,
        around,
        broken,
        listener,
        ..
    } = declared;
    let before = found.len();
    let name = format!("{}.{id}", kind.table());
    let effective = canonical::effective(&table);
    let inputs = take_inputs(kind, &name, &mut table, &around, found);
    let inputs_broken =
        found.len() > before || around.removed.iter().any(|path| is_key(path, "inputs"));
    // Wrong inputs do not change the signal that the component sends.
    let before = found.len();
    let type_name = take_type(
        &types::type_list(kind),
        &name,
        &place,
        &mut table,
        &around,
        found,
    );
    let report = |finding: Finding, found: &mut Vec<Diagnostic>| {
        let message = finding.describe(&name);
        let at = finding
            .span
            .map_or_else(|| place.clone(), |span| around.place(span));
        let mut diagnostic = Diagnostic::error(message).at(at);
        diagnostic.help = finding.help;
        found.push(diagnostic);
    };
    let mut config = None;
    if let Some((type_name, type_place)) = &type_name {
        if let Some(info) = info(kind, type_name) {
            files::resolve(&mut table, info.keys, around.file.name());
        }
        match read(kind, type_name, &table, &around) {
            Ok(read) => config = Some(read),
            Err(None) => found.push(unknown_type(kind, &name, type_name).at(type_place.clone())),
            Err(Some(findings)) => {
                for finding in findings {
                    report(finding, found);
                }
            }
        }
    }
    // Read before the component opens the files, so that a change in between is noticed later.
    let files = match &config {
        Some(config) if environment => states.of_all(config.files()),
        _ => NamedFiles::new(),
    };
    if let Some(config) = &config {
        let mut problems = Problems::new(environment);
        config.validate(&mut problems);
        for problem in problems.into_list() {
            let mut finding = Finding::from(problem);
            finding.span = KeyPath::parse(&finding.path).locate(&table, Under::Value);
            report(finding, found);
        }
    }
    let resources = match &config {
        Some(config) => {
            let span = ["address", "listen", "path"]
                .iter()
                .find_map(|key| KeyPath::parse(key).locate(&table, Under::Value));
            // The keys of a named listener may be in another file.
            let at = listener
                .unwrap_or_else(|| span.map_or_else(|| place.clone(), |span| around.place(span)));
            let resources = config.resources().into_iter();
            resources.map(|resource| (resource, at.clone())).collect()
        }
        None => Vec::new(),
    };
    let disk_queue = match &config {
        Some(AnyConfig::Sink(sink))
            if sink.metrics().is_some_and(|sink| sink.queue().is_disk()) =>
        {
            let span = KeyPath::parse("queue.type").locate(&table, Under::Value);
            Some(span.map_or_else(|| place.clone(), |span| around.place(span)))
        }
        _ => None,
    };
    let failed = broken || found.len() > before;
    Node {
        kind,
        id,
        place,
        type_name: type_name.map(|(name, _)| name).unwrap_or_default(),
        config: config.filter(|_| !failed),
        inputs,
        inputs_broken,
        resources,
        effective,
        files,
        disk_queue,
    }
}

/// A node for a declaration that is not a table: only its name is known.
pub(crate) fn stand_in(declared: Declared<'_>) -> Node {
    Node {
        kind: declared.kind,
        id: declared.id,
        place: declared.place,
        type_name: String::new(),
        config: None,
        inputs: Vec::new(),
        inputs_broken: true,
        resources: Vec::new(),
        effective: canonical::effective(&DeTable::default()),
        files: NamedFiles::new(),
        disk_queue: None,
    }
}

fn is_key(path: &KeyPath, key: &str) -> bool {
    matches!(path.0.first(), Some(Step::Key(first)) if first == key)
}

/// Takes `inputs` out of the table.
fn take_inputs(
    kind: Kind,
    name: &str,
    table: &mut DeTable<'_>,
    around: &Around,
    found: &mut Vec<Diagnostic>,
) -> Vec<InputEntry> {
    let key = table.get_key_value("inputs").map(|(key, _)| key.span());
    let (Some(key), Some(value)) = (key, table.remove("inputs")) else {
        return Vec::new();
    };
    if kind == Kind::Source {
        found.push(
            Diagnostic::error(format!("{name}: unknown key `inputs`"))
                .at(around.place(key))
                .with_help("a source has no inputs: remove the key"),
        );
        return Vec::new();
    }
    let span = value.span();
    let DeValue::Array(array) = value.into_inner() else {
        found.push(
            Diagnostic::error(format!("{name}: inputs is not an array of names"))
                .at(around.place(span))
                .with_help("write inputs = [\"NAME\"]"),
        );
        return Vec::new();
    };
    let mut inputs = Vec::new();
    for item in array {
        let place = around.place(item.span());
        match item.into_inner() {
            DeValue::String(text) => inputs.push(InputEntry {
                text: text.into_owned(),
                place,
            }),
            _ => found.push(
                Diagnostic::error(format!("{name}: an input is the name of a component"))
                    .at(place)
                    .with_help("put the name in quotes"),
            ),
        }
    }
    inputs
}

/// Removes `type` from the table and returns it; `help` lists the known types.
pub(crate) fn take_type(
    help: &str,
    name: &str,
    place: &Place,
    table: &mut DeTable<'_>,
    around: &Around,
    found: &mut Vec<Diagnostic>,
) -> Option<(String, Place)> {
    let Some(value) = table.remove("type") else {
        if !around.removed.iter().any(|path| is_key(path, "type")) {
            found.push(
                Diagnostic::error(format!("{name} has no type"))
                    .at(place.clone())
                    .with_help(format!("add type = \"...\"; {help}")),
            );
        }
        return None;
    };
    let at = around.place(value.span());
    match value.into_inner() {
        DeValue::String(text) => Some((text.into_owned(), at)),
        _ => {
            found.push(
                Diagnostic::error(format!("{name}: type is not a string"))
                    .at(at)
                    .with_help(help),
            );
            None
        }
    }
}

/// Reads the table as a component of the kind; `Err(None)` if the type does not exist.
fn read(
    kind: Kind,
    type_name: &str,
    table: &DeTable<'_>,
    around: &Around,
) -> Result<AnyConfig, Option<Vec<Finding>>> {
    let read = |table: DeTable<'_>| decode_as(kind, type_name, table);
    if let Err(failure) = read(table.clone())
        && failure.unknown_type
    {
        return Err(None);
    }
    let keys = info(kind, type_name).map_or(&[][..], |info| info.keys);
    decode::all_errors(table, &around.removed, keys, &read).map_err(Some)
}

/// The registered description of a type.
pub(crate) fn info(kind: Kind, type_name: &str) -> Option<&'static ComponentInfo> {
    inventory::iter::<ComponentInfo>
        .into_iter()
        .find(|info| info.kind == kind && info.name == type_name)
}

fn unknown_type(kind: Kind, name: &str, type_name: &str) -> Diagnostic {
    let others = types::kinds_of(type_name);
    let help = match (
        suggest::meant(type_name, &types::type_names(kind)),
        others.first(),
    ) {
        (_, Some(other)) => format!(
            "it is a {} type: declare it under [{}.NAME]",
            other.as_str(),
            other.table()
        ),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => types::type_list(kind),
    };
    let message = format!("{name}: unknown {} type `{type_name}`", kind.as_str());
    Diagnostic::error(message).with_help(help)
}

/// Ways in which a component can be connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Signals that the component sends (a source) or takes.
    pub signals: Vec<Signal>,
    /// Whether the component's outputs have names.
    pub named_outputs: bool,
}

/// The ways in which a component with these keys can be connected; none if the keys cannot be read.
pub fn wiring(kind: Kind, type_name: &str, keys: &str) -> Wiring {
    let Ok(table) = DeTable::parse(keys) else {
        return Wiring::default();
    };
    match decode_as(kind, type_name, table.into_inner()) {
        Ok(config) => Wiring {
            signals: Signal::ALL
                .into_iter()
                .filter(|signal| config.carries(*signal))
                .collect(),
            named_outputs: !config.outputs().is_empty(),
        },
        Err(_) => Wiring::default(),
    }
}

/// Reads a table as a component of the kind.
fn decode_as(kind: Kind, type_name: &str, table: DeTable<'_>) -> Result<AnyConfig, Failure> {
    match kind {
        Kind::Source => decode::component::<Box<dyn SourceConfig>>(type_name, table)
            .map(|config| AnyConfig::Source(config.into())),
        Kind::Transform => decode::component::<Box<dyn TransformConfig>>(type_name, table)
            .map(|config| AnyConfig::Transform(config.into())),
        Kind::Sink => decode::component::<Box<dyn SinkConfig>>(type_name, table)
            .map(|config| AnyConfig::Sink(config.into())),
    }
}
