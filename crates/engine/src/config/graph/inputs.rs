//! Resolves the elements of `inputs` to outputs.

use std::collections::{HashMap, HashSet};

use metrifold_model::Kind;

use crate::config::components::InputEntry;
use crate::config::diagnostic::Diagnostic;
use crate::config::suggest;

use super::{Edge, Graph, Ports, full_name};

impl Graph<'_> {
    /// Turns the inputs of a node into edges.
    pub(super) fn resolve(&mut self, to: usize, found: &mut Vec<Diagnostic>) {
        let nodes = self.nodes;
        let node = &nodes[to];
        if node.inputs_broken {
            self.uncertain.insert(to);
        }
        if node.kind != Kind::Source && node.inputs.is_empty() && !node.inputs_broken {
            self.uncertain.insert(to);
            let message = format!("{} has no inputs", full_name(node));
            let senders = nodes
                .iter()
                .filter(|other| other.kind != Kind::Sink && other.id != node.id);
            let known = suggest::list(senders.map(|node| &*node.id));
            found.push(
                Diagnostic::error(message)
                    .at(node.place.clone())
                    .with_help(format!(
                        "add inputs = [\"NAME\"]; components that send: {known}"
                    )),
            );
        }
        let mut seen: HashMap<&str, &InputEntry> = HashMap::new();
        let mut wired: HashSet<(usize, Option<String>)> = HashSet::new();
        for (entry, input) in node.inputs.iter().enumerate() {
            if let Some(first) = seen.get(&*input.text) {
                let (name, input_name) = (full_name(node), &input.text);
                let message = format!("{name}: input `{input_name}` is listed twice");
                found.push(
                    Diagnostic::error(message)
                        .at(input.place.clone())
                        .with_related(first.place.clone(), "it is here first")
                        .with_help("remove one of them"),
                );
                continue;
            }
            seen.insert(&input.text, input);
            let is_glob = input.text.contains(['*', '?']);
            let resolved = if is_glob {
                self.glob(to, &input.text)
            } else {
                self.exact(&input.text)
            };
            match resolved {
                Ok(matches) => {
                    for (from, port) in matches {
                        // Globs may overlap, but an output is connected once.
                        if wired.insert((from, port.clone())) {
                            self.edges.push(Edge {
                                from,
                                port,
                                to,
                                entry,
                            });
                        }
                    }
                }
                Err(Unresolved::Uncertain) => {
                    self.uncertain.insert(to);
                }
                Err(Unresolved::Wrong { message, help }) => {
                    self.uncertain.insert(to);
                    let message = format!("{}: {message}", full_name(node));
                    let mut diagnostic = Diagnostic::error(message).at(input.place.clone());
                    diagnostic.help = Some(help);
                    found.push(diagnostic);
                }
            }
        }
    }

    fn exact(&self, text: &str) -> Result<Vec<(usize, Option<String>)>, Unresolved> {
        let (id, port) = match text.split_once('.') {
            Some((id, port)) => (id, Some(port)),
            None => (text, None),
        };
        let Some(&from) = self.index.get(id) else {
            let names = self.output_names();
            let help = match suggest::nearest(text, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "components that send: {}",
                    suggest::list(names.iter().map(String::as_str))
                ),
            };
            return Err(Unresolved::wrong(
                format!("input `{text}` matches no component"),
                help,
            ));
        };
        match (&self.ports[from], port) {
            (Ports::Unknown, _) => Err(Unresolved::Uncertain),
            (Ports::None, _) => Err(Unresolved::wrong(
                format!("input `{text}` is a sink"),
                "a sink sends nothing: name a source or a transform".to_owned(),
            )),
            (Ports::One, None) => Ok(vec![(from, None)]),
            (Ports::One, Some(_)) => Err(Unresolved::wrong(
                format!("input `{text}` does not exist: `{id}` has no named outputs"),
                format!("write \"{id}\""),
            )),
            (Ports::Named(names), None) => Err(Unresolved::wrong(
                format!("input `{text}` does not say which of its outputs is meant"),
                format!("outputs of `{id}`: {}", full_ports(id, names)),
            )),
            (Ports::Named(names), Some(port)) => {
                if names.iter().any(|name| name == port) {
                    return Ok(vec![(from, Some(port.to_owned()))]);
                }
                let help = match suggest::nearest(port, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{id}.{near}`?"),
                    None => format!("outputs of `{id}`: {}", full_ports(id, names)),
                };
                Err(Unresolved::wrong(
                    format!("input `{text}` does not exist: `{id}` has no output `{port}`"),
                    help,
                ))
            }
        }
    }

    /// Every output that matches, except those of the component itself.
    fn glob(&self, to: usize, pattern: &str) -> Result<Vec<(usize, Option<String>)>, Unresolved> {
        let mut matches = Vec::new();
        let mut uncertain = false;
        for (from, node) in self.nodes.iter().enumerate() {
            if from == to {
                continue;
            }
            match &self.ports[from] {
                Ports::None => {}
                // The component's named outputs are not known, and the glob may match one of them.
                Ports::Unknown => {
                    uncertain |= pattern.contains('.') || matches_glob(pattern, &node.id);
                }
                Ports::One if matches_glob(pattern, &node.id) => matches.push((from, None)),
                Ports::One => {}
                Ports::Named(names) => {
                    let names = names
                        .iter()
                        .filter(|name| matches_glob(pattern, &format!("{}.{name}", node.id)));
                    matches.extend(names.map(|name| (from, Some(name.clone()))));
                }
            }
        }
        if uncertain {
            Err(Unresolved::Uncertain)
        } else if matches.is_empty() {
            let names = self.output_names();
            Err(Unresolved::wrong(
                format!("input `{pattern}` matches nothing"),
                format!(
                    "components that send: {}",
                    suggest::list(names.iter().map(String::as_str))
                ),
            ))
        } else {
            Ok(matches)
        }
    }

    /// The names of all outputs.
    fn output_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (node, ports) in self.nodes.iter().zip(&self.ports) {
            match ports {
                Ports::None => {}
                Ports::Unknown | Ports::One => names.push(node.id.to_string()),
                Ports::Named(ports) => {
                    names.extend(ports.iter().map(|port| format!("{}.{port}", node.id)));
                }
            }
        }
        names
    }
}

/// Reason why an input has no edges.
enum Unresolved {
    /// The input names a component with errors of its own, which are reported there.
    Uncertain,
    Wrong {
        message: String,
        help: String,
    },
}

impl Unresolved {
    fn wrong(message: String, help: String) -> Self {
        Self::Wrong { message, help }
    }
}

fn full_ports(id: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{id}.{name}")).collect();
    suggest::list(names.iter().map(String::as_str))
}

/// Whether the pattern matches; `*` stands for any text and `?` for any character.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // Extend the last star by one character.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell_and_across_dots() {
        for (pattern, text) in [
            ("*", "a.b"),
            ("a*c", "abc"),
            ("a*c", "ac"),
            ("a?c", "abc"),
            ("*b*b", "abab"),
        ] {
            assert!(matches_glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abcd"), ("a?c", "ac"), ("", "a"), ("*b*b", "ab")] {
            assert!(!matches_glob(pattern, text), "{pattern} {text}");
        }
    }
}
