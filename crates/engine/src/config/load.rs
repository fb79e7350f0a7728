//! Loading: files in, a configuration or every error out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use toml::Spanned;
use toml::de::DeTable;

use metrifold_files::NamedFiles;
use metrifold_http::ListenerKeys;

use super::components::{self, AnyConfig, Node};
use super::decode;
use super::diagnostic::{self, Diagnostic, Severity};
use super::document;
use super::environment::Environment;
use super::graph::{self, OutputRef};
use super::listeners::Named;
use super::resources::{self, Claim};
use super::source::{self, Text};
use super::tables::TableInfo;
use super::{
    ApiConfig, Component, Config, Loaded, Places, TableConfig, Tables, globals, memory, queues,
    references,
};

/// How to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether files that the configuration names may be looked at.
    pub environment: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { environment: true }
    }
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The configuration, or every error, and the warnings among them, in the order of the files.
    pub outcome: Result<Loaded, Vec<Diagnostic>>,
    /// The files that components name, of a configuration with errors too, as far as they could
    /// be read from it.
    pub files: NamedFiles,
}

/// Loads the configuration from files, directories (their `*.toml`) and globs.
///
/// # Errors
///
/// Returns every error that it finds, and the warnings among them, in the order of the files.
pub fn load(
    patterns: &[String],
    environment: &dyn Environment,
    options: LoadOptions,
) -> Result<Loaded, Vec<Diagnostic>> {
    read(patterns, environment, options).outcome
}

/// The same, and tells which files it depends on, whatever came of it.
pub fn read(patterns: &[String], environment: &dyn Environment, options: LoadOptions) -> Reading {
    let mut found = Vec::new();
    let texts = source::read(patterns, &mut found);
    if texts.is_empty() && found.is_empty() {
        found.push(Diagnostic::error("no configuration file is named").with_help("use --config"));
    }
    assemble(&texts, environment, options, found)
}

/// The `[api]` of a configuration of which anything else may be wrong.
///
/// # Errors
///
/// Fails when no file says it; the errors are those that kept files from being read.
pub fn api_of(
    patterns: &[String],
    environment: &dyn Environment,
) -> Result<ApiConfig, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let texts = source::read(patterns, &mut found);
    let api = texts.iter().find_map(|text| {
        let table = document::table_of(text, ApiConfig::NAME, environment)?;
        decode::plain(table.clone()).ok().or_else(|| {
            let mut least = DeTable::default();
            let (key, value) = table.get_key_value("address")?;
            least.insert(key.clone(), value.clone());
            decode::plain(least).ok()
        })
    });
    api.ok_or(found)
}

/// Loads the configuration from one text; `name` stands in for the file's.
///
/// # Errors
///
/// Returns every error that it finds.
pub fn parse_str(
    name: &str,
    text: &str,
    environment: &dyn Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
    parse_texts(&[(name, text)], environment, LoadOptions::default())
}

/// Loads the configuration from several named texts.
///
/// # Errors
///
/// Returns every error that it finds.
pub fn parse_texts(
    texts: &[(&str, &str)],
    environment: &dyn Environment,
    options: LoadOptions,
) -> Result<Loaded, Vec<Diagnostic>> {
    let texts: Vec<Text> = texts
        .iter()
        .map(|(name, text)| Text {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    assemble(&texts, environment, options, Vec::new()).outcome
}

fn assemble(
    texts: &[Text],
    environment: &dyn Environment,
    options: LoadOptions,
    found: Vec<Diagnostic>,
) -> Reading {
    let mut files = NamedFiles::new();
    let outcome = check(texts, environment, options, &mut files, found);
    Reading { outcome, files }
}

fn check(
    texts: &[Text],
    environment: &dyn Environment,
    options: LoadOptions,
    files: &mut NamedFiles,
    mut found: Vec<Diagnostic>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let unread = !found.is_empty();
    let document = document::merge(texts, environment, &mut found);
    let redactions = document.redactions.clone();
    let root_place = |name: &str| {
        let global = document.root.iter().find(|global| global.name == name)?;
        Some(global.around.place(Spanned::span(&global.value)))
    };
    let data_dir_place = root_place("data_dir");
    let limit_places = memory::Places {
        limit: root_place("memory_limit"),
        in_flight: root_place("max_in_flight_bytes"),
    };
    let root = globals::root(&document.root, &mut found).unwrap_or_default();
    let mut listeners = Named::declared(&document.tables);
    let incomplete = unread || document.incomplete;
    if !incomplete {
        references::check(&document, &mut found);
    }
    // Listeners come first: what names one has its keys.
    let named = |(info, _): &(&'static TableInfo, _)| info.name == ListenerKeys::NAME;
    let (first, others): (Vec<_>, Vec<_>) = document.tables.into_iter().partition(named);
    let mut tables = Vec::new();
    for (info, global) in first {
        let read = globals::table(info, global, options.environment, files, &mut found);
        tables.extend(read);
    }
    listeners.keep(&tables);
    for (info, mut global) in others {
        let right = listeners.resolve_table(info, &mut global, &mut found);
        let read = globals::table(info, global, options.environment, files, &mut found);
        tables.extend(read.filter(|_| right));
    }
    let mut nodes = Vec::new();
    for mut declared in document.components {
        listeners.resolve(&mut declared, &mut found);
        let duplicate = declared.duplicate;
        // What is no table was reported; its name is known all the same.
        let node = match declared.is_table {
            true => components::check(declared, options.environment, files, &mut found),
            false => components::stand_in(declared),
        };
        if !duplicate {
            nodes.push(node);
        }
    }
    if !incomplete {
        listeners.warn_of_unused(&mut found);
    }
    if root.data_dir.is_none() && data_dir_place.is_none() && !incomplete {
        let named = |node: &Node| Some((node.id.clone(), node.disk_queue.clone()?));
        for (id, place) in nodes.iter().filter_map(named) {
            let text =
                format!("sinks.{id}: a queue on disk needs a place, and there is no data_dir");
            let diagnostic = Diagnostic::error(text).at(place);
            let help = "add data_dir = \"/var/lib/metrifold\" at the top of the file";
            found.push(diagnostic.with_help(help));
        }
    }
    check_resources(&nodes, &tables, &mut found);
    let memory = memory::check(&nodes, &root, &limit_places, &mut found);
    // Targets are found and published without a graph. While names may be missing, whatever is said
    // about the graph may be wrong.
    let finds = tables
        .iter()
        .any(|read| read.name.starts_with("discovery."));
    let inputs = match incomplete || (nodes.is_empty() && finds) {
        true => Vec::new(),
        false => graph::check(&nodes, &mut found),
    };
    diagnostic::sort(&mut found);
    // Whoever wrote a message, in whichever part of it: no value that may be secret is in it.
    for diagnostic in &mut found {
        for redactions in &redactions {
            diagnostic.redact(redactions);
        }
    }
    if incomplete || found.iter().any(|found| found.severity == Severity::Error) {
        return Err(found);
    }
    let names = nodes
        .iter()
        .map(|node| (node.id.clone(), node.place.clone()));
    let places = Places {
        data_dir: data_dir_place,
        tables: tables
            .iter()
            .map(|read| (read.name.clone(), read.place.clone()))
            .collect(),
        components: names.collect(),
    };
    let mut config = Config {
        data_dir: root.data_dir,
        memory,
        tables: Tables(
            tables
                .into_iter()
                .map(|read| (read.name, read.table))
                .collect(),
        ),
        sources: BTreeMap::new(),
        transforms: BTreeMap::new(),
        sinks: BTreeMap::new(),
        hash: hash(texts),
    };
    for (node, inputs) in nodes.into_iter().zip(inputs) {
        config.insert(node, inputs);
    }
    if options.environment {
        found.extend(queues::warnings(&config));
    }
    Ok(Loaded {
        config,
        warnings: found,
        places,
    })
}

fn check_resources(nodes: &[Node], tables: &[globals::Read], found: &mut Vec<Diagnostic>) {
    let mut claims = Vec::new();
    for node in nodes {
        for (resource, place) in &node.resources {
            claims.push(Claim {
                owner: format!("{}.{}", node.kind.table(), node.id),
                resource,
                place,
            });
        }
    }
    for read in tables {
        for resource in &read.resources {
            claims.push(Claim {
                owner: read.name.clone(),
                resource,
                place: &read.place,
            });
        }
    }
    resources::check(&claims, found);
}

/// A hash of what the files hold, the same in every run.
fn hash(texts: &[Text]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        hasher.write_usize(text.text.len());
        hasher.write(text.text.as_bytes());
    }
    hasher.finish()
}

impl Config {
    fn insert(&mut self, node: Node, inputs: Vec<OutputRef>) {
        let Node {
            id,
            type_name,
            effective,
            files,
            config,
            ..
        } = node;
        macro_rules! component {
            ($config:ident) => {
                Component {
                    config: $config,
                    type_name,
                    inputs,
                    effective,
                    files,
                }
            };
        }
        // Without errors, every node has its configuration.
        match config {
            Some(AnyConfig::Source(config)) => {
                self.sources.insert(id, component!(config));
            }
            Some(AnyConfig::Transform(config)) => {
                self.transforms.insert(id, component!(config));
            }
            Some(AnyConfig::Sink(config)) => {
                self.sinks.insert(id, component!(config));
            }
            None => {}
        }
    }
}
