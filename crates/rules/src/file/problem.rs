//! Problems of a file, with position, key and remedy.

use std::fmt;

use crate::yaml::Place;

/// An error in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: u64,
    /// The column, counted from 1.
    pub column: u64,
    /// Path of the key, such as `groups[0].rules[2].for`; empty for the whole file.
    pub key: String,
    /// The error, and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Path of a key, rendered only for a problem.
#[derive(Clone, Copy)]
pub(super) enum Key<'a> {
    File,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl<'a> Key<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    pub(super) fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Field(Self::File, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Collects at most `max` problems, and counts the rest.
pub(super) struct Problems {
    list: Vec<Problem>,
    max: usize,
    more: usize,
}

impl Problems {
    pub(super) fn new(max: usize) -> Self {
        Self {
            list: Vec::new(),
            max: max.max(1),
            more: 0,
        }
    }

    pub(super) fn push(&mut self, place: Place, key: &Key<'_>, message: impl Into<String>) {
        if self.list.len() == self.max {
            self.more += 1;
            return;
        }
        self.list.push(Self::problem(place, key, message));
    }

    pub(super) fn problem(place: Place, key: &Key<'_>, message: impl Into<String>) -> Problem {
        Problem {
            line: place.line,
            column: place.column,
            key: key.to_string(),
            message: message.into(),
        }
    }

    /// The problems, sorted by line; if there were too many, the last one says how many are left out.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.list
            .sort_by_key(|problem| (problem.line, problem.column));
        if let Some(last) = self.list.last().filter(|_| self.more > 0) {
            self.list.push(Problem {
                line: last.line,
                column: last.column,
                key: String::new(),
                message: format!("{} more problems: mend these first", self.more),
            });
        }
        self.list
    }
}
