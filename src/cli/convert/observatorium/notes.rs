//! Notes for the user of a converted configuration: facts to know, and steps to do by hand.

use std::collections::HashSet;

use toml::Value;

/// Notes, and the variables that take the places of secrets.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) lines: Vec<String>,
    variables: HashSet<String>,
}

impl Notes {
    pub(super) fn add(&mut self, note: impl Into<String>) {
        self.lines.push(note.into());
    }

    /// A reference to a variable of the environment, which takes the place of a secret of `owner`.
    pub(super) fn variable(&mut self, owner: &str, secret: &str) -> Value {
        let letter = |c: char| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_ascii_uppercase(),
            _ => '_',
        };
        let mut name: String = format!("{owner}_{secret}").chars().map(letter).collect();
        // No variable begins with a digit.
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            name.insert(0, '_');
        }
        let name = unused(&name, '_', |name| self.variables.contains(name));
        self.variables.insert(name.clone());
        self.add(format!(
            "set the variable {name} to the {secret} of {owner}"
        ));
        Value::from(format!("${{{name}}}"))
    }
}

/// `wanted` in the letters that the name of a table can have, and with a number if it `is_used`.
pub(super) fn table_name(wanted: &str, is_used: impl Fn(&str) -> bool) -> String {
    let letter = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
        _ => '-',
    };
    let name: String = wanted.chars().map(letter).collect();
    match name.is_empty() {
        true => unused("unnamed", '-', is_used),
        false => unused(&name, '-', is_used),
    }
}

/// `name`, with the first number behind it that makes it one that is not used.
fn unused(name: &str, separator: char, is_used: impl Fn(&str) -> bool) -> String {
    let mut candidate = name.to_owned();
    for number in 2_u64.. {
        if !is_used(&candidate) {
            break;
        }
        candidate = format!("{name}{separator}{number}");
    }
    candidate
}
