//! How much a provider may find, and what an empty answer means.

use metrifold_base::{Problems, Size, keys, words};

use super::answer::{Failure, Reason};
use super::labels::{Labels, Target};

keys! {
    /// Keys of every provider that asks somebody else.
    #[derive(Clone, Copy, Debug)]
    pub struct LimitKeys {
        /// What an answer without a target means after one that had some: `keep` takes it for a fault, so that the targets stay; `take` believes it.
        pub on_empty: OnEmpty = default("keep"),
        /// Most targets; an answer with more is refused, and what was known before stays.
        pub max_targets: usize = default(100000),
        /// Most bytes of an answer, or of all files together; a larger one is refused.
        pub max_answer_bytes: Size = default("64MiB"),
        /// Most labels of a target; an answer with more is refused.
        pub max_labels: usize = default(256),
        /// Most bytes of a label's name, and of its value; an answer with a longer one is refused.
        pub max_label_bytes: Size = default("16KiB"),
    }
}

words! {
    /// What an answer without a target means after one that had some.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum OnEmpty {
        /// It is a fault: the targets stay.
        #[default]
        Keep = "keep",
        /// There are none any more.
        Take = "take",
    }
}

/// How much a provider may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Targets.
    pub targets: usize,
    /// Bytes of an answer.
    pub answer_bytes: usize,
    /// Labels of a target.
    pub labels: usize,
    /// Bytes of a label's name, and of its value.
    pub label_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        LimitKeys::limits(&metrifold_base::keys::defaults())
    }
}

impl LimitKeys {
    /// The limits.
    pub fn limits(&self) -> Limits {
        Limits {
            targets: self.max_targets,
            answer_bytes: self.max_answer_bytes.bytes(),
            labels: self.max_labels,
            label_bytes: self.max_label_bytes.bytes(),
        }
    }

    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        for (key, number) in [
            ("max_targets", self.max_targets),
            ("max_labels", self.max_labels),
        ] {
            if number == 0 {
                problems.at(key, "must be at least 1");
            }
        }
        for (key, size) in [
            ("max_answer_bytes", self.max_answer_bytes),
            ("max_label_bytes", self.max_label_bytes),
        ] {
            if size == Size(0) {
                problems.at(key, "must be at least 1B");
            }
        }
    }
}

impl Limits {
    /// Checks the targets of a source.
    pub(crate) fn check(&self, targets: &[Target]) -> Result<(), Failure> {
        self.check_count(targets.len())?;
        targets.iter().try_for_each(|target| self.check_one(target))
    }

    /// Checks how many targets there are.
    pub(crate) fn check_count(&self, count: usize) -> Result<(), Failure> {
        match count > self.targets {
            true => {
                let text = format!("there are {count} targets: max_targets is {}", self.targets);
                Err(Failure::new(Reason::TooLarge, text))
            }
            false => Ok(()),
        }
    }

    fn check_one(&self, target: &Labels) -> Result<(), Failure> {
        let refused = |what: String, key: &str, limit: usize| {
            let address: String = target.address().chars().take(100).collect();
            let text = format!("target {address:?} has {what}: {key} is {limit}");
            Err(Failure::new(Reason::TooLarge, text))
        };
        if target.len() > self.labels {
            let what = format!("{} labels", target.len());
            return refused(what, "max_labels", self.labels);
        }
        for (name, value) in target.iter() {
            let longest = name.len().max(value.len());
            if longest > self.label_bytes {
                let what = format!("a label of {longest} bytes");
                return refused(what, "max_label_bytes", self.label_bytes);
            }
        }
        Ok(())
    }
}
