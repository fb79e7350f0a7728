//! Limits on what a provider may find, and the meaning of an empty answer.

use metrifold_base::{Problems, Size, keys, words};

use super::answer::{Failure, Reason};
use super::labels::{Labels, Target};

keys! {
    /// Keys of all providers whose targets come from elsewhere.
    #[derive(Clone, Copy, Debug)]
    pub struct LimitKeys {
        /// Treatment of an answer without targets when there were some before: `keep` treats it as a failure and keeps the known targets, `take` removes them.
        pub on_empty: OnEmpty = default("keep"),
        /// Maximum number of targets. An answer with more is rejected, and the known targets are kept.
        pub max_targets: usize = default(100000),
        /// Maximum size of an answer, or of all files together. A larger one is rejected, and the known targets are kept.
        pub max_answer_bytes: Size = default("64MiB"),
        /// Maximum number of labels of a target. An answer that exceeds it is rejected.
        pub max_labels: usize = default(256),
        /// Maximum length of a label name, and of a label value. An answer that exceeds it is rejected.
        pub max_label_bytes: Size = default("16KiB"),
    }
}

words! {
    /// Treatment of an answer without targets after one that had some.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum OnEmpty {
        /// The answer counts as a failure: the targets stay.
        #[default]
        Keep = "keep",
        /// The answer counts: the targets go.
        Take = "take",
    }
}

/// Limits on what a provider may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most targets of a provider.
    pub targets: usize,
    /// Most bytes of an answer.
    pub answer_bytes: usize,
    /// Most labels of a target.
    pub labels: usize,
    /// Most bytes of a label's name, and of its value.
    pub label_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        LimitKeys::limits(&metrifold_base::keys::defaults())
    }
}

impl LimitKeys {
    /// The limits that the keys set.
    pub fn limits(&self) -> Limits {
        Limits {
            targets: self.max_targets,
            answer_bytes: self.max_answer_bytes.bytes(),
            labels: self.max_labels,
            label_bytes: self.max_label_bytes.bytes(),
        }
    }

    /// Reports limits of zero, at their keys.
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
    /// Checks the targets of one source: their number, and the labels of each.
    pub(crate) fn check(&self, targets: &[Target]) -> Result<(), Failure> {
        self.check_count(targets.len())?;
        targets.iter().try_for_each(|target| self.check_one(target))
    }

    /// Checks the number of targets.
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
