//! `generate`: a commented configuration of chosen components, wired and ready to be edited.

use std::collections::{BTreeSet, HashMap};

use clap::Args;

use metrifold_base::KeyDefault;
use metrifold_base::keys::{self, Keys, Listed};
use metrifold_discovery::ProviderInfo;
use metrifold_engine::component::ComponentInfo;
use metrifold_engine::config::{self, LoadOptions, RootKeys, TableInfo, Wiring};
use metrifold_model::{Kind, Signal};

use super::list::{self, wrap};
use super::{EXIT_USAGE, report};

const AFTER_HELP: &str = "\
Examples:
  # One source, one sink
  metrifold generate sources.remote_write sinks.thanos

  # The same as a pipe: stages are separated by colons, components of a stage by commas
  metrifold generate remote_write:tenant,relabel:remote_write,thanos > metrifold.toml

In a pipe, the kind goes without saying: the first stage has sources, the last one sinks, those \
between them transforms, which work one after the other. Where no source or sink is named, one is \
added. Required keys have an example as their value; the others are commented out and show their \
defaults.";

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

/// Components that share their inputs.
type Stage = Vec<&'static ComponentInfo>;

/// Builds the text of the configuration.
fn generate(names: &[String]) -> Result<String, String> {
    let mut stages = match names {
        [pipe] if pipe.contains(':') => pipe_stages(pipe)?,
        names => sorted_stages(names)?,
    };
    complete(&mut stages)?;
    let mut kinds: HashMap<&str, BTreeSet<Kind>> = HashMap::new();
    for info in stages.iter().flatten() {
        kinds.entry(info.name).or_default().insert(info.kind);
    }
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut addresses = BTreeSet::new();
    let mut inputs: Vec<String> = Vec::new();
    let mut tables = top(&mut addresses);
    for stage in stages {
        let mut outputs = Vec::new();
        for info in stage {
            let mut id = info.name.to_owned();
            if kinds.get(info.name).is_some_and(|kinds| kinds.len() > 1) {
                // Names are unique across kinds of components.
                id = format!("{id}_{}", info.kind.as_str());
            }
            let number = taken.entry(id.clone()).or_default();
            *number += 1;
            if *number > 1 {
                id = format!("{id}_{number}");
            }
            tables.push(table(info, &id, &inputs, &mut addresses));
            tables.extend(provider(info, &mut addresses).filter(|it| !tables.contains(it)));
            outputs.push(match wiring(info).named_outputs {
                true => format!("{id}.*"),
                false => id,
            });
        }
        inputs = outputs;
    }
    let text = tables.join("\n");
    let options = LoadOptions { environment: false };
    let found = config::parse_texts(&[("generated", &text)], &|_: &str| None, options);
    match found.err().and_then(|found| found.into_iter().next()) {
        Some(error) => Err(format!("these do not fit together: {}", error.message)),
        None => Ok(text),
    }
}

/// Adds a source or a sink if there is none, so that the configuration can run.
fn complete(stages: &mut Vec<Stage>) -> Result<(), String> {
    let mut signals = Signal::ALL.to_vec();
    for info in stages.iter().flatten() {
        let own = wiring(info).signals;
        signals.retain(|signal| own.contains(signal));
        if signals.is_empty() {
            let own: Vec<&str> = own.into_iter().map(Signal::as_str).collect();
            return Err(format!(
                "`{}` carries {}, which the types named before it do not carry",
                info.name,
                own.join(" and ")
            ));
        }
    }
    let fitting = |kind: Kind| {
        let mut infos = list::components();
        infos.retain(|info| info.kind == kind && wiring(info).signals.contains(&signals[0]));
        // Prefers a component without required keys: it works unchanged.
        infos.sort_by_key(|info| given(info).len());
        infos.into_iter().next()
    };
    let has = |kind: Kind| stages.iter().flatten().any(|info| info.kind == kind);
    let (source, sink) = (has(Kind::Source), has(Kind::Sink));
    if !source && let Some(info) = fitting(Kind::Source) {
        stages.insert(0, vec![info]);
    }
    if !sink && let Some(info) = fitting(Kind::Sink) {
        stages.push(vec![info]);
    }
    Ok(())
}

/// The lines in front of the components.
fn top(addresses: &mut BTreeSet<String>) -> Vec<String> {
    let mut root = String::new();
    for key in keys::list(RootKeys::ENTRIES) {
        root.push_str(&line(&key, addresses));
        root.push('\n');
    }
    let mut tables = vec![root.trim_end().to_owned() + "\n"];
    for info in TableInfo::all().iter().filter(|info| !info.named) {
        let mut table = format!("# {}\n[{}]\n", info.summary, info.name);
        for key in info.keys() {
            table.push_str(&line(&key, addresses));
        }
        tables.push(table);
    }
    tables
}

/// Parses a pipe such as `a:b,c:d`.
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
                        "`{name}` is not a {}, which is needed at its place",
                        kind.as_str()
                    ));
                }
                None => return Err(unknown(name)),
            }
        }
        match kind {
            // Chained: side by side, they would each pass on every batch.
            Kind::Transform => stages.extend(chosen.into_iter().map(|info| vec![info])),
            Kind::Source | Kind::Sink => stages.push(chosen),
        }
    }
    Ok(stages)
}

/// Orders components: sources, transforms one after the other, sinks.
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

/// Renders the table of a component.
fn table(
    info: &ComponentInfo,
    id: &str,
    inputs: &[String],
    addresses: &mut BTreeSet<String>,
) -> String {
    let mut out = format!("# {}\n", info.summary);
    out.push_str(&format!(
        "[{}.{id}]\ntype = \"{}\"\n",
        info.kind.table(),
        info.name
    ));
    if info.kind != Kind::Source {
        let quoted: Vec<String> = inputs.iter().map(|input| format!("{input:?}")).collect();
        out.push_str(&format!("inputs = [{}]\n", quoted.join(", ")));
    }
    for key in info.keys() {
        out.push_str(&line(&key, addresses));
    }
    out
}

/// Renders the provider that a component requires. The example of its key `discovery` names a type
/// of provider.
fn provider(info: &ComponentInfo, addresses: &mut BTreeSet<String>) -> Option<String> {
    let keys = info.keys();
    let key = keys.iter().find(|key| key.name == "discovery")?;
    let KeyDefault::Required(example) = key.default else {
        return None;
    };
    let name = example.trim_matches('"');
    let types = ProviderInfo::all();
    let provider = types.into_iter().find(|it| it.name == name)?;
    let mut out = format!(
        "# {}\n[discovery.{name}]\ntype = {example}\n",
        provider.summary
    );
    for key in provider.keys() {
        out.push_str(&line(&key, addresses));
    }
    Some(out)
}

/// Renders a key: active if it must be given, or else as a comment.
fn line(key: &Listed, addresses: &mut BTreeSet<String>) -> String {
    let mut out = String::from("\n");
    for line in wrap(key.doc, 96) {
        out.push_str(&format!("# {line}\n"));
    }
    out.push_str(&match key.default {
        KeyDefault::Required(example) if key.name == "address" => {
            format!("{} = {}\n", key.name, free(example, addresses))
        }
        KeyDefault::Required(example) | KeyDefault::Suggested(example) => {
            format!("{} = {}\n", key.name, on_one_line(example))
        }
        KeyDefault::Value(value) => format!("# {} = {}\n", key.name, on_one_line(value)),
        KeyDefault::Unset(example) => format!(
            "# Not set by default, for example:\n# {} = {}\n",
            key.name,
            on_one_line(example)
        ),
        KeyDefault::Table | KeyDefault::Off => String::new(),
    });
    out
}

/// Joins an example that `stringify!` has broken into lines.
fn on_one_line(example: &str) -> String {
    example.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The example's address, with the port raised until it is free.
fn free(example: &str, addresses: &mut BTreeSet<String>) -> String {
    let mut address = example.to_owned();
    while !addresses.insert(address.clone()) {
        let parts = address.trim_matches('"').rsplit_once(':');
        let next = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = next else { break };
        address = format!("\"{host}:{}\"", port.wrapping_add(1));
    }
    address
}

/// The keys that a first configuration sets, as TOML.
fn given(info: &ComponentInfo) -> Vec<String> {
    let keys = info.keys();
    let given = keys.iter().filter_map(|key| match key.default {
        KeyDefault::Required(example) | KeyDefault::Suggested(example) => {
            Some(format!("{} = {example}\n", key.name))
        }
        _ => None,
    });
    given.collect()
}

fn wiring(info: &ComponentInfo) -> Wiring {
    config::wiring(info.kind, info.name, &given(info).concat())
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
    fn every_component_alone_makes_a_configuration_without_warnings() {
        for info in list::components() {
            let name = format!("{}.{}", info.kind.table(), info.name);
            let text = generated(&[&name]).unwrap();
            let options = LoadOptions { environment: false };
            let texts = [("a.toml", &*text)];
            let loaded = config::parse_texts(&texts, &|_: &str| None, options).unwrap();
            assert_eq!(loaded.warnings, [], "{text}");
            assert!(loaded.config.api().is_some());
        }
    }

    #[test]
    fn every_pipe_of_what_fits_together_makes_a_configuration_without_warnings() {
        let of = |kind: Kind| {
            let infos = list::components().into_iter();
            infos
                .filter(move |info| info.kind == kind)
                .map(|info| info.name)
        };
        let mut between: Vec<String> = of(Kind::Transform).map(|name| format!("{name}:")).collect();
        between.extend([String::new(), "tenant,relabel:".to_owned()]);
        let mut made = 0;
        for source in of(Kind::Source) {
            for sink in of(Kind::Sink) {
                for between in &between {
                    let pipe = format!("{source}:{between}{sink}");
                    // Components of different signals are refused.
                    let Ok(text) = generated(&[&pipe]) else {
                        continue;
                    };
                    made += 1;
                    let options = LoadOptions { environment: false };
                    let texts = [("a.toml", &*text)];
                    let loaded = config::parse_texts(&texts, &|_: &str| None, options).unwrap();
                    assert_eq!(loaded.warnings, [], "{pipe}: {text}");
                    assert!(loaded.config.api().is_some(), "{pipe}");
                }
            }
        }
        assert!(made >= 50, "{made}");
    }

    #[test]
    fn transforms_of_one_stage_work_one_after_the_other() {
        let text = generated(&["remote_write:tenant,relabel:thanos"]).unwrap();
        let loaded = config::parse_str("a.toml", &text, &|_: &str| None).unwrap();
        assert_eq!(loaded.warnings, []);
        let config = loaded.config;
        let inputs = |inputs: &[config::OutputRef]| inputs[0].to_string();
        assert_eq!(inputs(&config.transforms["tenant"].inputs), "remote_write");
        assert_eq!(inputs(&config.transforms["relabel"].inputs), "tenant");
        assert_eq!(inputs(&config.sinks["thanos"].inputs), "relabel");
    }

    #[test]
    fn components_of_one_type_listen_on_ports_of_their_own() {
        let text = generated(&["remote_write,remote_write:blackhole"]).unwrap();
        assert!(text.contains("\naddress = \"0.0.0.0:9201\"\n"), "{text}");
        assert!(text.contains("\naddress = \"0.0.0.0:9202\"\n"), "{text}");
    }

    #[test]
    fn names_that_fit_nowhere_are_refused() {
        let error = |names: &[&str]| generated(names).unwrap_err();
        assert!(error(&["blackhole:blackhole"]).contains("is not a source"));
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
