//! Writes, which check a request's rules as a whole before storing any of them.
//!
//! What is wrong with a request by itself is told first, then whether its condition holds, and last
//! what depends on the tenant's other files: a caller who lost a race learns of it, and one whose
//! rules are wrong learns that whatever the condition says (RFC 9110 section 13.2.1).

use std::sync::Arc;

use metrifold_model::{Rejection, RejectionKind, Tenant};
use metrifold_rules::store::{Action, Place, StoreError, Wanted};
use metrifold_rules::{Group, Lint, Problem, RuleFile, StoredFile, TenantRules, Version, Warning};

use super::{Api, Asked, Files, Made, change};
use crate::sources::rules_api::document;
use crate::sources::rules_api::reply::{Failure, invalid};

/// A file to write.
pub(in crate::sources::rules_api) struct NewFile<'n> {
    pub(in crate::sources::rules_api) name: &'n str,
    pub(in crate::sources::rules_api) text: &'n [u8],
    pub(in crate::sources::rules_api) file: Arc<StoredFile>,
    /// Whether all of its rules were [admitted](Api::admit), and not just those that are new.
    pub(in crate::sources::rules_api) is_admitted: bool,
    /// The condition on the present file of this name.
    pub(in crate::sources::rules_api) wanted: Wanted,
    pub(in crate::sources::rules_api) action: Action,
}

impl Api {
    /// Parses a request body as a rule file.
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
        // An ignored key is an error here, since a writer must learn that a part of the rules is lost.
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

    /// Parses a request body as one group.
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

    /// Checks that the transforms behind this source accept a file.
    pub(in crate::sources::rules_api) fn admit(
        &self,
        asked: &Asked,
        name: &str,
        file: RuleFile,
    ) -> Result<Arc<StoredFile>, Failure> {
        let file = Arc::new(StoredFile::new(file));
        let rules = Arc::new(TenantRules::new([(Arc::from(name), file.clone())]));
        self.out.check(&Tenant::from(&*asked.tenant), &rules)?;
        Ok(file)
    }

    /// Writes a file whose new rules were [admitted](Self::admit), if its condition holds and the tenant's
    /// limits allow it. `files` are all present files of the tenant.
    pub(in crate::sources::rules_api) fn write(
        &self,
        asked: &Asked,
        new: NewFile<'_>,
        mut files: Files,
    ) -> Result<Made, Failure> {
        let current = files.remove(new.name).map(|kept| kept.text.version);
        if !new.wanted.holds(current) {
            return Err(StoreError::Precondition { current }.into());
        }
        self.check_bounds(new.text, new.file.file(), &files)?;
        let place = Place::new(&*asked.tenant, new.name);
        if current.is_none() {
            let names = self.shared.store.names_with(&place)?;
            let most = self.shared.config.max_names_per_tenant;
            check_bound("max_names_per_tenant", "names of files", names, most)?;
        }
        let is_alone = new.is_admitted && files.is_empty();
        let held_up = match is_alone {
            true => None,
            false => self.held_up(asked, new.name, new.file, files),
        };
        let (version, changed) = if asked.parameters.dry_run {
            let version = Version::of(new.text);
            (version, current != Some(version))
        } else {
            let change = change(asked, new.action);
            let made = self
                .shared
                .store
                .put(&place, new.text, &new.wanted, change)?;
            self.shared.touch(&asked.tenant);
            made
        };
        Ok(Made {
            version,
            changed,
            warnings: Vec::new(),
            held_up,
        })
    }

    /// Why the transforms behind this source would not pass a file on together with the tenant's
    /// others. That is no reason to refuse it: if two files or groups are at fault, each must be mendable
    /// alone.
    fn held_up(
        &self,
        asked: &Asked,
        name: &str,
        file: Arc<StoredFile>,
        others: Files,
    ) -> Option<String> {
        let sound = others.into_iter().filter_map(|(name, kept)| {
            let file = StoredFile::new(kept.file?);
            Some((Arc::from(name), Arc::new(file)))
        });
        let files = sound.chain([(Arc::from(name), file)]);
        let rules = Arc::new(TenantRules::new(files));
        let refused = self
            .out
            .check(&Tenant::from(&*asked.tenant), &rules)
            .err()?;
        Some(format!(
            "the rules are not delivered before others of the tenant are corrected: {}",
            refused.reason
        ))
    }

    /// Removes a file, if its condition holds.
    pub(in crate::sources::rules_api) fn remove(
        &self,
        asked: &Asked,
        name: &str,
        wanted: &Wanted,
    ) -> Result<Made, Failure> {
        let place = Place::new(&*asked.tenant, name);
        if asked.parameters.dry_run {
            let current = Some(self.found(&place)?.version);
            if !wanted.holds(current) {
                return Err(StoreError::Precondition { current }.into());
            }
        } else {
            let change = change(asked, Action::Delete);
            self.shared.store.delete(&place, wanted, change)?;
            self.shared.touch(&asked.tenant);
        }
        Ok(Made {
            version: Version::of(b""),
            changed: true,
            warnings: Vec::new(),
            held_up: None,
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
            check_bound(key, what, count, most)?;
        }
        Ok(())
    }
}

fn check_bound(key: &str, what: &str, count: usize, most: usize) -> Result<(), Failure> {
    if count <= most {
        return Ok(());
    }
    let reason = format!("the tenant would have {count} {what}: {key} is {most}");
    Err(Rejection::new(RejectionKind::TooLarge, reason).into())
}
