//! `relabel`: keeps, drops and rewrites series by rules, exactly as Prometheus relabels.
//!
//! Delivery: series that a rule drops are dropped on purpose and counted with the reason `relabel`;
//! all others pass. A batch that is empty after that, metadata included, ends here and counts as
//! delivered. Metadata of metric families passes unchanged.
//!
//! Limits: patterns are bounded in length, nesting and compiled size, a rules file in bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_base::keys::Keys;
use metrifold_base::{BuildError, Problems, keys};
use metrifold_engine::component::{
    BuildContext, BuildTransform, ComponentInfo, TransformConfig, TransformPorts,
};
use metrifold_engine::planes::metrics::{Metrics, Relabel, Transform};
use metrifold_expr::relabel::{Program, RuleConfig, Validation, file};
use metrifold_model::Kind;

keys! {
    /// `[transforms.clean] type = "relabel"`.
    #[derive(Debug)]
    pub struct RelabelConfig {
        /// Relabel rules, in the order in which they are applied. Exactly one of `rules` and `rules_file` must be set.
        rules: Option<Vec<RuleConfig>> = suggested([{ source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" }]),
        /// YAML file with relabeling rules in the format of Prometheus' configuration, at most 4 MiB.
        rules_file: Option<PathBuf> = unset("/etc/metrifold/relabel.yaml"),
        /// Valid label names: `utf8` (all that are not empty) or `legacy` (letters, digits and underscores).
        validation: Validation = default("utf8"),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Transform,
        name: "relabel",
        summary: "Keeps, drops and rewrites series by Prometheus' relabelling rules.",
        keys: RelabelConfig::ENTRIES,
    }
}

impl RelabelConfig {
    fn compile(&self, problems: &mut Problems) -> Option<Program> {
        match (&self.rules, &self.rules_file) {
            (Some(rules), None) => Program::compile(rules, self.validation, "rules", problems),
            (None, Some(path)) if problems.environment() => {
                file::load(path, self.validation, "rules_file", problems)
            }
            (None, Some(_)) => None,
            (None, None) => {
                let message = "either rules or rules_file is needed";
                problems.at("", message).help("add rules = [...]");
                None
            }
            (Some(_), Some(_)) => {
                let message = "rules and rules_file exclude each other";
                problems
                    .at("rules_file", message)
                    .help("remove one of them");
                None
            }
        }
    }
}

#[typetag::deserialize(name = "relabel")]
impl TransformConfig for RelabelConfig {
    fn ports(&self) -> TransformPorts<'_> {
        TransformPorts {
            metrics: Some(self),
            ..TransformPorts::default()
        }
    }

    fn files(&self) -> Vec<&Path> {
        self.rules_file.iter().map(PathBuf::as_path).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.compile(problems);
    }
}

impl BuildTransform<Metrics> for RelabelConfig {
    fn build(&self, _cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError> {
        Ok(Arc::new(self.make()?))
    }
}

impl RelabelConfig {
    pub(super) fn make(&self) -> Result<Relabel, BuildError> {
        let mut problems = Problems::new(true);
        match self.compile(&mut problems) {
            Some(program) => Ok(Relabel::from(program)),
            None => {
                let list = problems.into_list();
                let reasons: Vec<_> = list.iter().map(|p| p.message.as_str()).collect();
                let what = list.first().map_or("rules", |p| p.path.as_str());
                Err(BuildError::new(what, reasons.join("; ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metrifold_codec::Batch;
    use metrifold_model::Version;

    use super::super::testing::{apply, batch, labels, origin};
    use super::*;

    fn transform(text: &str) -> Relabel {
        toml::from_str::<RelabelConfig>(text)
            .unwrap()
            .make()
            .unwrap()
    }

    const DROP: &str = "rules = [{ source_labels = ['__name__'], regex = 'go_gc_.*', action = 'drop' }, { regex = 'pod', action = 'labeldrop' }]";

    #[test]
    fn dropped_series_are_counted_and_the_others_pass() {
        let series = [
            labels(&[("__name__", "go_gc_x"), ("pod", "p")]),
            labels(&[("__name__", "up"), ("pod", "p"), ("a", "b")]),
        ];
        let transform = transform(DROP);
        for _ in 0..2 {
            let (_, outcome) = apply(&transform, batch(&series, &["f"], origin())).unwrap();
            assert_eq!(outcome.dropped, [("relabel", 1)]);
            let left = labels(&[("__name__", "up"), ("a", "b")]);
            assert_eq!(outcome.emitted, [(0, None, vec![(left, 1)], 1)]);
        }
    }

    #[test]
    fn a_batch_that_is_dropped_whole_is_not_emitted() {
        let series = [labels(&[("__name__", "go_gc_x")])];
        let (_, outcome) = apply(&transform(DROP), batch(&series, &[], origin())).unwrap();
        assert_eq!(
            (outcome.emitted.len(), outcome.dropped),
            (0, vec![("relabel", 1)])
        );
        let (_, outcome) = apply(&transform(DROP), batch(&series, &["f"], origin())).unwrap();
        assert_eq!(outcome.emitted, [(0, None, vec![], 1)]);
    }

    #[test]
    fn a_batch_in_which_nothing_changes_keeps_its_body() {
        let mut whole = batch(&[labels(&[("__name__", "up")])], &[], origin());
        let body = whole.body(Version::V1).unwrap();
        let (mut batches, _) = apply(&transform(DROP), whole).unwrap();
        assert_eq!(
            batches[0].body(Version::V1).unwrap().as_ptr(),
            body.as_ptr()
        );
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_refused() {
        let limits = metrifold_codec::remote_write::Limits::default();
        let body = bytes::Bytes::from_static(b"\x05garbage");
        let batch = Batch::from_body(Version::V1, body, limits, Arc::new(origin()));
        assert!(apply(&transform(DROP), batch).is_err());
    }

    #[test]
    fn rules_come_from_exactly_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(
            &path,
            "- regex: a\n  action: labeldrop\n- action: hashmod\n",
        )
        .unwrap();
        let problems = |text: &str, environment| {
            let config: RelabelConfig = toml::from_str(text).unwrap();
            let mut problems = Problems::new(environment);
            TransformConfig::validate(&config, &mut problems);
            let list = problems.into_list();
            let texts = list
                .into_iter()
                .map(|p| format!("{}: {}", p.path, p.message));
            texts.collect::<Vec<_>>()
        };
        let file = format!("rules_file = {:?}", path.to_str().unwrap());
        assert_eq!(
            problems("", true),
            [": either rules or rules_file is needed"]
        );
        let both = format!("rules = []\n{file}");
        assert_eq!(
            problems(&both, true),
            ["rules_file: rules and rules_file exclude each other"]
        );
        assert_eq!(problems("rules = []", true), [""; 0]);
        let found = problems(&file, true);
        assert!(
            found[0].contains("rules.yaml:3: rules[1]: action hashmod needs"),
            "{found:?}"
        );
        assert_eq!(problems(&file, false), [""; 0]);
        std::fs::remove_file(&path).unwrap();
        assert!(problems(&file, true)[0].starts_with("rules_file: cannot read "));
    }
}
