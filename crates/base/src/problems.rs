//! Problems that validation finds, each at the key that has to change.

use std::fmt;

/// Collects the problems of one component. Paths are relative to the component's table.
#[derive(Debug)]
pub struct Problems {
    environment: bool,
    list: Vec<Problem>,
}

/// A problem that the user has to fix in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key: `tls.ca_file`, `rules[2].regex`, or empty for the component itself.
    pub path: String,
    /// What is wrong, lowercase, without a full stop.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

impl Problems {
    /// A collector; `environment` says whether validation may read files.
    pub fn new(environment: bool) -> Self {
        Self {
            environment,
            list: Vec::new(),
        }
    }

    /// Whether validation may read files: not with `validate --no-environment`.
    pub fn environment(&self) -> bool {
        self.environment
    }

    /// Adds a problem at a key.
    pub fn at(&mut self, path: impl fmt::Display, message: impl fmt::Display) -> &mut Problem {
        self.list.push(Problem {
            path: path.to_string(),
            message: message.to_string(),
            help: None,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Runs `report` and puts `table` in front of the paths of the problems that it adds.
    pub fn within(&mut self, table: &str, report: impl FnOnce(&mut Self)) {
        let before = self.list.len();
        report(self);
        for problem in self.list.iter_mut().skip(before) {
            problem.path = match problem.path.is_empty() {
                true => table.to_owned(),
                false => format!("{table}.{}", problem.path),
            };
        }
    }

    /// All problems, in the order in which they were added.
    pub fn into_list(self) -> Vec<Problem> {
        self.list
    }
}

impl Problem {
    /// Adds how to fix the problem.
    pub fn help(&mut self, help: impl fmt::Display) {
        self.help = Some(help.to_string());
    }
}
