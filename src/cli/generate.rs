//! `generate`: a commented configuration of chosen components, wired and ready to be edited.

use std::collections::{BTreeSet, HashMap};

use clap::Args;

use metrifold_base::KeyDefault;
use metrifold_engine::component::ComponentInfo;
use metrifold_engine::config;
use metrifold_model::Kind;

use super::list::{self, wrap};
use super::{EXIT_USAGE, report};

const AFTER_HELP: &str = "\
Examples:
  # One source, one sink
  metrifold generate sources.remote_write sinks.thanos

  # The same as a pipe: stages are separated by colons, components of a stage by commas
  metrifold generate remote_write:relabel:remote_write,thanos > metrifold.toml

In a pipe, the kind goes without saying: the first stage has sources, the last one sinks, those \
between them transforms. Required keys have an example as their value; the others are commented \
out and show their defaults.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct GenerateArgs {
    /// Component types, such as `sources.scrape`, or a pipe of them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn execute(args: &GenerateArgs) -> u8 {
    match generate(&args.names) {
        Ok(text) => report::print(&text),
        Err(error) => {
            report::complain(&error);
            EXIT_USAGE
        }
    }
}

/// Components that have the same inputs.
type Stage = Vec<&'static ComponentInfo>;

/// Writes the configuration.
fn generate(names: &[String]) -> Result<String, String> {
    let stages = match names {
        [pipe] if pipe.contains(':') => pipe_stages(pipe)?,
        names => sorted_stages(names)?,
    };
    let mut kinds: HashMap<&str, BTreeSet<Kind>> = HashMap::new();
    for info in stages.iter().flatten() {
        kinds.entry(info.name).or_default().insert(info.kind);
    }
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut inputs: Vec<String> = Vec::new();
    let mut tables = Vec::new();
    for stage in stages {
        let mut outputs = Vec::new();
        for info in stage {
            let mut id = info.name.to_owned();
            if kinds.get(info.name).is_some_and(|kinds| kinds.len() > 1) {
                // Names are unique across kinds.
                id = format!("{id}_{}", info.kind.as_str());
            }
            let number = taken.entry(id.clone()).or_default();
            *number += 1;
            if *number > 1 {
                id = format!("{id}_{number}");
            }
            tables.push(table(info, &id, &inputs));
            outputs.push(match has_named_outputs(info) {
                true => format!("{id}.*"),
                false => id,
            });
        }
        inputs = outputs;
    }
    Ok(tables.join("\n"))
}

/// Reads `a:b,c:d`.
fn pipe_stages(pipe: &str) -> Result<Vec<Stage>, String> {
    let count = pipe.split(':').count();
    let mut stages = Vec::new();
    for (at, stage) in pipe.split(':').enumerate() {
        let kind = match at {
            0 => Kind::Source,
            at if at + 1 == count => Kind::Sink,
            _ => Kind::Transform,
        };
        let mut chosen = Stage::new();
        for name in stage.split(',').map(str::trim) {
            let mut found = list::named(name);
            let known = !found.is_empty();
            found.retain(|info| info.kind == kind);
            match found.first() {
                Some(info) => chosen.push(*info),
                None if known => {
                    return Err(format!(
                        "`{name}` is no {}, which its place asks for",
                        kind.as_str()
                    ));
                }
                None => return Err(unknown(name)),
            }
        }
        stages.push(chosen);
    }
    Ok(stages)
}

/// Puts components in order: sources, one transform after the other, sinks.
fn sorted_stages(names: &[String]) -> Result<Vec<Stage>, String> {
    let mut chosen = Stage::new();
    for name in names
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::trim)
    {
        let found = list::named(name);
        match found[..] {
            [info] => chosen.push(info),
            [] if name.contains(':') => {
                return Err("a pipe is one argument, without further names".to_owned());
            }
            [] => return Err(unknown(name)),
            _ => {
                let full: Vec<String> = found
                    .iter()
                    .map(|info| format!("{}.{}", info.kind.table(), info.name))
                    .collect();
                return Err(format!(
                    "`{name}` is ambiguous: write {}",
                    full.join(" or ")
                ));
            }
        }
    }
    let of = |kind: Kind| chosen.iter().copied().filter(move |info| info.kind == kind);
    let mut stages = vec![of(Kind::Source).collect::<Stage>()];
    stages.extend(of(Kind::Transform).map(|info| vec![info]));
    stages.push(of(Kind::Sink).collect());
    stages.retain(|stage| !stage.is_empty());
    Ok(stages)
}

fn unknown(name: &str) -> String {
    format!("there is no component type `{name}`: see metrifold list")
}

/// Writes a component's table.
fn table(info: &ComponentInfo, id: &str, inputs: &[String]) -> String {
    let mut out = format!("# {}\n", info.summary);
    out.push_str(&format!(
        "[{}.{id}]\ntype = \"{}\"\n",
        info.kind.table(),
        info.name
    ));
    if info.kind != Kind::Source {
        let quoted: Vec<String> = inputs.iter().map(|input| format!("{input:?}")).collect();
        if quoted.is_empty() {
            out.push_str("# The names of the components that it takes from.\n");
        }
        out.push_str(&format!("inputs = [{}]\n", quoted.join(", ")));
    }
    for key in info.keys() {
        if matches!(key.name.as_str(), "type" | "inputs") {
            continue;
        }
        out.push('\n');
        for line in wrap(key.doc, 96) {
            out.push_str(&format!("# {line}\n"));
        }
        let line = match key.default {
            KeyDefault::Required(example) => format!("{} = {example}\n", key.name),
            KeyDefault::Value(value) => format!("# {} = {value}\n", key.name),
            KeyDefault::Unset(example) => format!(
                "# Not set by default, for example:\n# {} = {example}\n",
                key.name
            ),
            KeyDefault::Table | KeyDefault::Off => String::new(),
        };
        out.push_str(&line);
    }
    out
}

fn has_named_outputs(info: &ComponentInfo) -> bool {
    if info.kind != Kind::Transform {
        return false;
    }
    let required: Vec<String> = info
        .keys()
        .iter()
        .filter_map(|key| match key.default {
            KeyDefault::Required(example) => Some(format!("{} = {example}\n", key.name)),
            _ => None,
        })
        .collect();
    config::has_named_outputs(info.name, &required.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(names: &[&str]) -> Result<String, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        generate(&names)
    }

    #[test]
    fn what_is_generated_is_valid_and_wired() {
        for names in [
            &["internal_metrics", "blackhole", "tenant", "tenant"][..],
            &["internal_metrics:tenant:tenant:blackhole"],
        ] {
            let text = generated(names).unwrap();
            let loaded = config::parse_str("a.toml", &text, &|_: &str| None).unwrap();
            let config = loaded.config;
            assert_eq!(&*config.sinks["blackhole"].inputs[0].component, "tenant_2");
            assert_eq!(config.transforms.len(), 2);
            assert_eq!(loaded.warnings, []);
        }
    }

    #[test]
    fn what_may_be_absent_is_a_comment() {
        let text = generated(&["transforms.relabel"]).unwrap();
        for key in list::named("transforms.relabel")[0].keys() {
            let (start, text_of) = match key.default {
                KeyDefault::Required(text) => ("\n", text),
                KeyDefault::Value(text) => ("\n# ", text),
                _ => continue,
            };
            let line = format!("{start}{} = {text_of}\n", key.name);
            assert!(text.contains(&line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn a_component_is_written_under_its_name() {
        let text = generated(&["sinks.blackhole"]).unwrap();
        assert_eq!(
            text,
            "# Takes everything and keeps nothing.\n[sinks.blackhole]\ntype = \"blackhole\"\n\
             # The names of the components that it takes from.\ninputs = []\n"
        );
    }

    #[test]
    fn names_that_fit_nowhere_are_refused() {
        let error = |names: &[&str]| generated(names).unwrap_err();
        assert!(error(&["blackhole:blackhole"]).contains("is no source"));
        assert!(error(&["nothing"]).contains("there is no component type `nothing`"));
        assert!(
            error(&["internal_metrics:blackhole", "blackhole"]).contains("a pipe is one argument")
        );
    }

    #[test]
    fn the_keys_of_every_component_are_toml() {
        for info in list::components() {
            for key in info.keys() {
                let Some(text) = key.default.example() else {
                    continue;
                };
                let line = format!("{} = {text}", key.name);
                assert!(
                    toml::de::DeTable::parse(&line).is_ok(),
                    "{}: {line}",
                    info.name
                );
            }
        }
    }
}
