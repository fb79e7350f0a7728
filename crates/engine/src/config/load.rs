//! Loads a configuration from files, or returns every error.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::keys::Keys;
use metrifold_files::NamedFiles;
use metrifold_http::ListenerKeys;

use super::components::{self, AnyConfig, Node};
use super::decode;
use super::diagnostic::{self, Diagnostic, Severity};
use super::document;
use super::environment::Environment;
use super::graph::{self, OutputRef};
use super::listeners::{self, Named};
use super::resources::{self, Claim};
use super::secrets::Redactions;
use super::sections::{self, Sections};
use super::source::{self, Text};
use super::states::States;
use super::tables::TableInfo;
use super::{
    ApiConfig, Component, Config, Loaded, Places, TableConfig, Tables, access, files, globals,
    memory, queues, references,
};

/// Options of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether the files that the configuration names may be read.
    pub environment: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { environment: true }
    }
}

/// Result of reading the configuration.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The configuration, or every error and warning in the order of the files.
    pub outcome: Result<Loaded, Vec<Diagnostic>>,
    /// Files that components name. Of an invalid configuration, those that could be determined.
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

/// Loads the configuration, and returns the files that it depends on even if the load fails.
pub fn read(patterns: &[String], environment: &dyn Environment, options: LoadOptions) -> Reading {
    read_beside(patterns, environment, options, None)
}

/// Like [`read`], and takes over unchanged parts of the running configuration. Beside it are the
/// states of the files that it names, which were taken just before.
pub fn read_beside(
    patterns: &[String],
    environment: &dyn Environment,
    options: LoadOptions,
    running: Option<(&Config, &NamedFiles)>,
) -> Reading {
    let mut found = Vec::new();
    let texts = source::read(patterns, &mut found);
    if texts.is_empty() && found.is_empty() {
        found.push(Diagnostic::error("no configuration file is named").with_help("use --config"));
    }
    assemble(&texts, environment, options, running, found)
}

/// The `[api]` table of a configuration that may have errors elsewhere.
///
/// # Errors
///
/// Fails if no file has a usable one; the errors are those of files that could not be read, and of
/// variables that it needs.
pub fn api_of(
    patterns: &[String],
    environment: &dyn Environment,
) -> Result<ApiConfig, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let texts = source::read(patterns, &mut found);
    let mut unset = Vec::new();
    let api = texts.iter().find_map(|text| {
        let mut table = document::table_of(text, ApiConfig::NAME, environment, &mut unset)?;
        listeners::resolve_silently(&mut table, |name| {
            texts.iter().find_map(|text| {
                let mut all =
                    document::table_of(text, ListenerKeys::NAME, environment, &mut unset)?;
                let DeValue::Table(mut one) = all.remove(name)?.into_inner() else {
                    return None;
                };
                files::resolve(&mut one, ListenerKeys::ENTRIES, &text.name);
                Some(one)
            })
        });
        decode::plain(table.clone()).ok().or_else(|| {
            let mut least = DeTable::default();
            let (key, value) = table.get_key_value("address")?;
            least.insert(key.clone(), value.clone());
            decode::plain(least).ok()
        })
    });
    api.ok_or_else(|| {
        found.extend(unset.into_iter().map(|name| {
            let message = format!("[api]: environment variable {name} is not set");
            Diagnostic::error(message).with_help("set it for this command as well")
        }));
        found
    })
}

/// Loads the configuration from one text; `name` is shown as the file's name.
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
            name: (*name).into(),
            text: (*text).to_owned(),
        })
        .collect();
    assemble(&texts, environment, options, None, Vec::new()).outcome
}

fn assemble(
    texts: &[Text],
    environment: &dyn Environment,
    options: LoadOptions,
    running: Option<(&Config, &NamedFiles)>,
    found: Vec<Diagnostic>,
) -> Reading {
    let mut states = States::beside(running);
    let outcome = check(texts, environment, options, &mut states, found);
    let files = states.named;
    Reading { outcome, files }
}

fn check(
    texts: &[Text],
    environment: &dyn Environment,
    options: LoadOptions,
    states: &mut States<'_>,
    mut found: Vec<Diagnostic>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let unread = !found.is_empty();
    let divided = sections::divide(texts);
    let mut sections = Sections {
        environment,
        files: options.environment,
        states,
    };
    let mut document = document::merge(texts, &divided, &mut sections, &mut found);
    let mut redactions = std::mem::take(&mut document.redactions);
    let root_place = |name: &str| {
        let global = document.root.iter().find(|global| *global.name == *name)?;
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
    // Listeners are read first: tables and components that name one take over its keys.
    let named = |(info, _): &(&'static TableInfo, _)| info.name == ListenerKeys::NAME;
    let (first, others): (Vec<_>, Vec<_>) = document.tables.into_iter().partition(named);
    let mut tables = Vec::new();
    for (info, global) in first {
        let read = globals::table(info, global, options.environment, states, &mut found);
        tables.extend(read);
    }
    listeners.keep(&tables);
    tables.extend(document.read);
    let mut whole = !document.refused;
    for (info, mut global) in others {
        let right = listeners.resolve_table(info, &mut global, &mut found);
        let read = globals::table(info, global, options.environment, states, &mut found);
        let read = read.filter(|_| right);
        whole &= read.is_some();
        tables.extend(read);
    }
    // What was refused may be what another table names.
    if !incomplete && whole {
        access::check(&tables, options.environment, &mut found);
    }
    let mut nodes = Vec::new();
    for mut declared in document.components {
        listeners.resolve(&mut declared, &mut found);
        let duplicate = declared.duplicate;
        // A declaration that is not a table has been reported; its name is still known to the
        // graph.
        let node = match declared.is_table {
            true => components::check(declared, options.environment, states, &mut found),
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
            let text = format!("sinks.{id}: a queue on disk needs data_dir, which is not set");
            let diagnostic = Diagnostic::error(text).at(place);
            let help = "add data_dir = \"/var/lib/metrifold\" at the top of the file";
            found.push(diagnostic.with_help(help));
        }
    }
    check_resources(&nodes, &tables, &mut found);
    let memory = memory::check(&nodes, &root, &limit_places, &mut found);
    // Discovery works without a graph. While components may be missing, errors of the graph would
    // be unreliable.
    let finds = tables
        .iter()
        .any(|read| read.name.starts_with("discovery."));
    let inputs = match incomplete || (nodes.is_empty() && finds) {
        true => Vec::new(),
        false => graph::check(&nodes, &mut found),
    };
    diagnostic::sort(&mut found);
    if !found.is_empty() {
        // Those of sections that were read, or taken over, without an error are not known yet.
        redactions.extend(
            document
                .secret
                .iter()
                .copied()
                .filter_map(Redactions::of_text),
        );
    }
    // Masks secret values in all parts of all messages, whoever wrote them.
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
            .map(|read| (Arc::clone(&read.name), read.place.clone()))
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
                owner: read.name.to_string(),
                resource,
                place: &read.place,
            });
        }
    }
    resources::check(&claims, found);
}

/// Hash of the files' content, the same in every process.
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
        // Without errors, every node has a configuration.
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
