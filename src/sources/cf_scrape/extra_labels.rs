//! `extra_labels`: facts about an instance as labels of its series.

use metrifold_base::words;
use metrifold_expr::relabel::{Action, RuleConfig};

words! {
    /// Properties of an instance that can become labels.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ExtraLabel {
        /// The type of the process.
        ProcessType = "process_type",
        /// The revision of the application that the process runs.
        Revision = "revision",
        /// Each label of the application.
        AppLabels = "app_labels",
    }
}

impl ExtraLabel {
    /// The rule over labels of targets that adds the label.
    pub(super) fn rule(self) -> RuleConfig {
        let copy = |from: &str, to: &str| RuleConfig {
            source_labels: Some(vec![from.to_owned()]),
            target_label: Some(to.to_owned()),
            ..RuleConfig::default()
        };
        match self {
            Self::ProcessType => copy("__meta_cf_process_type", "cf_process_type"),
            Self::Revision => copy("__meta_cf_revision_guid", "cf_revision_id"),
            Self::AppLabels => RuleConfig {
                regex: Some("__meta_cf_app_label_(.+)".to_owned()),
                replacement: Some("app_label_$1".to_owned()),
                action: Action::LabelMap,
                ..RuleConfig::default()
            },
        }
    }
}
