//! `graph`: the configuration as a drawing.

use std::fmt::Write;

use clap::{Args, ValueEnum};

use metrifold_engine::config::{Config, LoadOptions, OutputRef};
use metrifold_model::Kind;

use super::{Global, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold graph
  metrifold graph --format dot | dot -Tsvg > graph.svg
  metrifold graph --format mermaid >> README.md";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct GraphArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line per connection
    Text,
    /// Graphviz
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
}

pub(super) fn execute(global: &Global, args: &GraphArgs) -> u8 {
    // Files named in the configuration do not change its graph.
    match report::load(global, LoadOptions { environment: false }) {
        Ok(loaded) => report::print(&draw(&loaded.config, args.format)),
        Err(code) => code,
    }
}

fn draw(config: &Config, format: Format) -> String {
    match format {
        Format::Text => text(config),
        Format::Dot => dot(config),
        Format::Mermaid => mermaid(config),
    }
}

/// Kind, name and type of each component.
fn components(config: &Config) -> Vec<(Kind, &str, &str)> {
    let mut list = Vec::new();
    for (id, node) in &config.sources {
        list.push((Kind::Source, &**id, &*node.type_name));
    }
    for (id, node) in &config.transforms {
        list.push((Kind::Transform, &**id, &*node.type_name));
    }
    for (id, node) in &config.sinks {
        list.push((Kind::Sink, &**id, &*node.type_name));
    }
    list
}

/// Edges, sorted by the component that they lead to.
fn edges(config: &Config) -> Vec<(&OutputRef, &str)> {
    let transforms = config
        .transforms
        .iter()
        .map(|(id, node)| (id, &node.inputs));
    let sinks = config.sinks.iter().map(|(id, node)| (id, &node.inputs));
    transforms
        .chain(sinks)
        .flat_map(|(id, inputs)| inputs.iter().map(move |input| (input, &**id)))
        .collect()
}

fn text(config: &Config) -> String {
    let mut out = String::new();
    let components = components(config);
    let width = components
        .iter()
        .map(|(_, id, _)| id.len())
        .max()
        .unwrap_or_default();
    for (kind, id, type_name) in components {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{:<9}  {id:<width$}  {type_name}", kind.as_str());
    }
    out.push('\n');
    for (from, to) in edges(config) {
        let _ = writeln!(out, "{from} -> {to}");
    }
    out
}

// Names and types consist of letters, digits, `_` and `-`, so that they need no escaping.
fn dot(config: &Config) -> String {
    let mut out = String::from("digraph metrifold {\n  rankdir = LR;\n");
    for (kind, id, type_name) in components(config) {
        let shape = match kind {
            Kind::Source => "cds",
            Kind::Transform => "box",
            Kind::Sink => "cylinder",
        };
        let _ = writeln!(
            out,
            "  \"{id}\" [shape = {shape}, label = \"{id}\\n{type_name}\"];"
        );
    }
    for (from, to) in edges(config) {
        let label = match &from.output {
            Some(output) => format!(" [label = \"{output}\"]"),
            None => String::new(),
        };
        let _ = writeln!(out, "  \"{}\" -> \"{to}\"{label};", from.component);
    }
    out.push_str("}\n");
    out
}

fn mermaid(config: &Config) -> String {
    let mut out = String::from("flowchart LR\n");
    // The prefix keeps names apart from Mermaid's keywords, such as `end`.
    for (kind, id, type_name) in components(config) {
        let (open, close) = match kind {
            Kind::Source => ("([", "])"),
            Kind::Transform => ("[", "]"),
            Kind::Sink => ("[(", ")]"),
        };
        let _ = writeln!(out, "  c_{id}{open}\"{id}<br>{type_name}\"{close}");
    }
    for (from, to) in edges(config) {
        let arrow = match &from.output {
            Some(output) => format!("-- \"{output}\" -->"),
            None => "-->".to_owned(),
        };
        let _ = writeln!(out, "  c_{} {arrow} c_{to}", from.component);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
        [sources.in]
        type = 'internal_metrics'
        [transforms.route]
        type = 'route'
        inputs = ['in']
        routes = { a = 'up' }
        [sinks.out]
        type = 'blackhole'
        inputs = ['*', 'route.a', 'route.rest']
    ";

    fn drawn(format: Format) -> String {
        let loaded =
            metrifold_engine::config::parse_str("a.toml", CONFIG, &|_: &str| None).unwrap();
        draw(&loaded.config, format)
    }

    #[test]
    fn the_graph_is_drawn_in_every_format() {
        assert_eq!(
            drawn(Format::Text),
            "source     in     internal_metrics\n\
             transform  route  route\n\
             sink       out    blackhole\n\
             \n\
             in -> route\n\
             in -> out\n\
             route.a -> out\n\
             route.rest -> out\n"
        );
        let dot = drawn(Format::Dot);
        assert!(
            dot.contains("\"route\" -> \"out\" [label = \"a\"];"),
            "{dot}"
        );
        let mermaid = drawn(Format::Mermaid);
        assert!(mermaid.contains("c_route -- \"a\" --> c_out"), "{mermaid}");
    }
}
