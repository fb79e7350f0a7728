//! What was sent, checked as a whole before anything of it is stored.

use std::sync::Arc;

use metrifold_model::{Rejection, RejectionKind, Tenant};
use metrifold_rules::store::{Action, Place, StoreError, Wanted};
use metrifold_rules::{Group, Lint, Problem, RuleFile, StoredFile, TenantRules, Version, Warning};

use super::{Api, Asked, Files, Made, change};
use crate::sources::rules_api::document;
use crate::sources::rules_api::reply::{Failure, invalid};

impl Api {
    /// Reads what was sent as a file.
    pub(in crate::sources::rules_api) fn parse(
        &self,
        body: &[u8],
    ) -> Result<(RuleFile, Vec<Warning>), Failure> {
        let parsed = RuleFile::parse(body, &self.shared.checks()).map_err(Failure::Problems)?;
        if !parsed.has_groups {
            return Err(invalid(
                "body has no `groups`: write `groups: []` to have none, or use DELETE",
            ));
        }
        // Nothing that was sent may be lost without a word.
        let ignored = |warning: &Warning| warning.lint == Lint::Ignored;
        let (ignored, warnings): (Vec<_>, Vec<_>) = parsed.warnings.into_iter().partition(ignored);
        match ignored.is_empty() {
            true => Ok((parsed.file, warnings)),
            false => {
                let problems = ignored.into_iter().map(|warning| warning.problem);
                Err(Failure::Problems(problems.collect()))
            }
        }
    }

    /// Reads what was sent as one group.
    pub(in crate::sources::rules_api) fn parse_group(
        &self,
        body: &[u8],
    ) -> Result<(Group, Vec<Warning>), Failure> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(invalid("body is not UTF-8"));
        };
        let placed = |problem: Problem| Problem {
            line: problem.line.saturating_sub(1).max(1),
            column: problem.column.saturating_sub(4).max(1),
            key: problem
                .key
                .trim_start_matches("groups[0]")
                .trim_start_matches('.')
                .to_owned(),
            ..problem
        };
        let (file, warnings) = match self.parse(document::wrap_group(text).as_bytes()) {
            Err(Failure::Problems(problems)) => {
                let problems = problems.into_iter().map(placed);
                return Err(Failure::Problems(problems.collect()));
            }
            parsed => parsed?,
        };
        let warnings = warnings.into_iter().map(|warning| Warning {
            problem: placed(warning.problem),
            ..warning
        });
        let mut groups = file.groups.into_iter();
        match (groups.next(), groups.next()) {
            (Some(group), None) => Ok((group, warnings.collect())),
            _ => Err(invalid("body is not one group")),
        }
    }

    /// Writes a file, once its tenant's bounds and the transforms behind allow it.
    #[expect(clippy::too_many_arguments, reason = "each of them is of another kind")]
    pub(in crate::sources::rules_api) fn write(
        &self,
        asked: &Asked,
        name: &str,
        text: &[u8],
        file: RuleFile,
        wanted: &Wanted,
        action: Action,
        others: Files,
    ) -> Result<Made, Failure> {
        self.check_bounds(text, &file, &others)?;
        let sound = others
            .into_iter()
            .filter_map(|(name, kept)| Some((name, kept.file?)));
        let files = sound
            .chain([(name.to_owned(), file)])
            .map(|(name, file)| (Arc::from(name), Arc::new(StoredFile::new(file))));
        let rules = Arc::new(TenantRules::new(files));
        self.out.check(&Tenant::from(&*asked.tenant), &rules)?;
        let place = Place::new(&*asked.tenant, name);
        let (version, changed) = if asked.parameters.dry_run {
            let current = self.shared.store.get(&place)?.map(|text| text.version);
            if !wanted.holds(current) {
                return Err(StoreError::Precondition { current }.into());
            }
            let version = Version::of(text);
            (version, current != Some(version))
        } else {
            let made = self
                .shared
                .store
                .put(&place, text, wanted, change(asked, action))?;
            self.shared.touch(&asked.tenant);
            made
        };
        Ok(Made {
            version,
            changed,
            warnings: Vec::new(),
        })
    }

    fn check_bounds(&self, text: &[u8], file: &RuleFile, others: &Files) -> Result<(), Failure> {
        let config = &self.shared.config;
        let count = |of: fn(&RuleFile) -> usize| {
            let others = others.values().filter_map(|kept| kept.file.as_ref());
            others.map(of).sum::<usize>() + of(file)
        };
        let bytes = others
            .values()
            .map(|kept| kept.text.text.len())
            .sum::<usize>()
            + text.len();
        for (key, what, count, most) in [
            (
                "max_files_per_tenant",
                "files",
                others.len() + 1,
                config.max_files_per_tenant,
            ),
            (
                "max_groups_per_tenant",
                "groups",
                count(|file| file.groups.len()),
                config.max_groups_per_tenant,
            ),
            (
                "max_rules_per_tenant",
                "rules",
                count(RuleFile::rules),
                config.max_rules_per_tenant,
            ),
            (
                "max_bytes_per_tenant",
                "bytes",
                bytes,
                config.max_bytes_per_tenant.bytes(),
            ),
        ] {
            if count > most {
                let reason = format!("the tenant would have {count} {what}: {key} is {most}");
                return Err(Rejection::new(RejectionKind::TooLarge, reason).into());
            }
        }
        Ok(())
    }
}
