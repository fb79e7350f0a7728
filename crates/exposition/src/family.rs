//! Metadata of a family, collected from the lines before its samples until the next family begins.

use metrifold_codec::MetricType;

use crate::page::{Family, Receiver};

/// The family whose metadata is being read.
#[derive(Debug, Default)]
pub(crate) struct Described {
    name: String,
    kind: Option<MetricType>,
    help: String,
    unit: String,
}

impl Described {
    pub(crate) fn kind(&mut self, name: &str, kind: MetricType, receiver: &mut impl Receiver) {
        self.turn_to(name, receiver);
        self.kind = Some(kind);
    }

    pub(crate) fn unit(&mut self, name: &str, unit: &str, receiver: &mut impl Receiver) {
        self.turn_to(name, receiver);
        self.unit.clear();
        self.unit.push_str(unit);
    }

    /// The buffer for the help text of a family.
    pub(crate) fn help(&mut self, name: &str, receiver: &mut impl Receiver) -> &mut String {
        self.turn_to(name, receiver);
        self.help.clear();
        &mut self.help
    }

    fn turn_to(&mut self, name: &str, receiver: &mut impl Receiver) {
        if self.name != name {
            self.finish(receiver);
            self.name.clear();
            self.name.push_str(name);
        }
    }

    /// Passes the collected metadata on, and clears it.
    pub(crate) fn finish(&mut self, receiver: &mut impl Receiver) {
        if !self.name.is_empty() {
            receiver.family(Family {
                name: &self.name,
                kind: self.kind.unwrap_or(MetricType::Unknown),
                help: &self.help,
                unit: &self.unit,
            });
        }
        self.name.clear();
        self.kind = None;
        self.help.clear();
        self.unit.clear();
    }
}
