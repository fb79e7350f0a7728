//! Names of files: one level, safe in any folder, and reversible.
//!
//! `team-a~alerts.yaml` is the file `alerts.yaml` of the tenant `team-a`; a file of no tenant has
//! its name alone. Letters, digits, `_`, `-` and `.` stand for themselves, a `.` at the start of
//! either and all other bytes as `%` with two hexadecimal digits. A file that does not end in `.yaml` or
//! `.yml` has `~.yaml` appended, so that one pattern finds all. Two names that differ only in case
//! have their capitals escaped. A name that would be longer than [`MAX_NAME`] is cut and ends in
//! `~~` and a hash; the version's manifest has its tenant and file.

use std::collections::{BTreeMap, HashMap};

use crate::{RuleSet, StoredFile, Version};

/// Maximum length of a name, in bytes; longer ones are cut. File systems allow 255.
const MAX_NAME: usize = 200;
/// Number of bytes that a cut name keeps of the original.
const KEPT: usize = 100;
/// Suffix for file names without a YAML extension.
const SUFFIX: &str = "~.yaml";

/// A file to be written to the folder.
pub(super) struct Wanted<'a> {
    pub(super) tenant: &'a str,
    pub(super) file: &'a str,
    stored: &'a StoredFile,
}

impl Wanted<'_> {
    pub(super) fn version(&self) -> Version {
        self.stored.version()
    }

    pub(super) fn stored(&self) -> &StoredFile {
        self.stored
    }

    /// The text of the file with its version.
    pub(super) fn text(&self) -> (String, Version) {
        self.stored.text()
    }
}

/// Maps the files of a set to their names in the folder.
pub(super) fn plan(set: &RuleSet) -> BTreeMap<String, Wanted<'_>> {
    let all = set.iter().flat_map(|(tenant, rules)| {
        rules.files().map(move |(file, stored)| Wanted {
            tenant,
            file,
            stored,
        })
    });
    let names: Vec<_> = all
        .map(|wanted| (encode(wanted.tenant, wanted.file, false), wanted))
        .collect();
    let mut folded: HashMap<String, usize> = HashMap::new();
    for (name, _) in &names {
        *folded.entry(name.to_ascii_lowercase()).or_default() += 1;
    }
    let rename = |(name, wanted): (String, Wanted<'_>)| {
        let is_alone = folded.get(&name.to_ascii_lowercase()) == Some(&1);
        if is_alone {
            return name;
        }
        encode(wanted.tenant, wanted.file, true)
    };
    names
        .into_iter()
        .map(|(name, wanted)| {
            let copy = Wanted { ..wanted };
            (rename((name, copy)), wanted)
        })
        .collect()
}

/// Encodes a tenant and a file as a name in the folder.
pub(super) fn encode(tenant: &str, file: &str, escape_capitals: bool) -> String {
    let mut name = String::new();
    if !tenant.is_empty() {
        escape(&mut name, tenant, escape_capitals);
        name.push('~');
    }
    escape(&mut name, file, escape_capitals);
    if !(name.ends_with(".yaml") || name.ends_with(".yml")) {
        name.push_str(SUFFIX);
    }
    if name.len() > MAX_NAME {
        name.truncate(KEPT);
        let version = Version::of_parts([tenant.as_bytes(), file.as_bytes()]);
        name.push_str(&format!("~~{version}.yaml"));
    }
    name
}

/// Appends the escaped name of a tenant or a file.
fn escape(name: &mut String, text: &str, escape_capitals: bool) {
    let start = name.len();
    for byte in text.bytes() {
        let is_safe = match byte {
            b'A'..=b'Z' => !escape_capitals,
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => true,
            b'.' => name.len() > start,
            _ => false,
        };
        if is_safe {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
}

/// Decodes a name in a rules folder to its tenant and file; the tenant is empty for a file without one.
/// Returns `None` for names that are cut, or that no file is given.
///
/// `team-a~alerts.yaml` is the file `alerts.yaml` of the tenant `team-a`. Bytes other than ASCII
/// letters, digits, `_`, `-` and `.` are written as `%` with two hexadecimal digits, as is a `.` at
/// the start; `~.yaml` stands at the end of files that have no such extension; names of more than
/// 200 bytes are cut and end in `~~` and a hash.
pub fn decode_name(name: &str) -> Option<(String, String)> {
    let body = name.strip_suffix(SUFFIX).unwrap_or(name);
    let (tenant, file) = body.split_once('~').unwrap_or(("", body));
    let (tenant, file) = (unescape(tenant)?, unescape(file)?);
    // Every pair is encoded in one way, or in two if it has capitals.
    let is_spelling = |capitals| encode(&tenant, &file, capitals) == name;
    (is_spelling(false) || is_spelling(true)).then_some((tenant, file))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(encode("", "alerts.yaml", false), "alerts.yaml");
        assert_eq!(encode("team-a", "alerts.yml", false), "team-a~alerts.yml");
        assert_eq!(encode("team-a", "alerts", false), "team-a~alerts~.yaml");
        assert_eq!(encode("a/b", "../c.yaml", false), "a%2fb~%2e.%2fc.yaml");
        assert_eq!(encode("", ".hidden.yaml", false), "%2ehidden.yaml");
        assert_eq!(encode("..", "Ü\n", false), "%2e.~%c3%9c%0a~.yaml");
        assert_eq!(encode("", "", false), "~.yaml");
        assert_eq!(encode("a", ".yaml", false), "a~%2eyaml~.yaml");
        assert_eq!(encode("A", "b.yaml", true), "%41~b.yaml");
    }

    fn odd() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[aA~%./]{0,6}(\\.yaml|\\.yml|)",
            "[a-c]{0,300}",
        ]
    }

    proptest! {
        #[test]
        fn every_name_is_safe_and_leads_back(tenant in odd(), file in odd(), capitals: bool) {
            let name = encode(&tenant, &file, capitals);
            prop_assert!(name.len() <= MAX_NAME && !name.starts_with('.'), "{}", name);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.%~".contains(&byte)), "{}", name);
            prop_assert!(name.ends_with(".yaml") || name.ends_with(".yml"), "{}", name);
            match decode_name(&name) {
                Some(found) => prop_assert_eq!(found, (tenant, file)),
                None => prop_assert!(name.contains("~~"), "{}", name),
            }
        }

        #[test]
        fn two_names_are_never_one_even_where_case_does_not_count(
            (a, b) in ((odd(), odd()), (odd(), odd())),
            same in any::<bool>(),
        ) {
            let b = if same { (a.0.to_uppercase(), a.1.to_uppercase()) } else { b };
            let file = || std::sync::Arc::new(StoredFile::new(crate::RuleFile::default()));
            let rules = |name: &str| std::sync::Arc::new(crate::TenantRules::new([(name.into(), file())]));
            let mut set = RuleSet::default().with(a.0.as_str().into(), rules(&a.1));
            let both = match set.get(&b.0) {
                Some(rules) => rules.with_file(b.1.as_str().into(), file()),
                None => crate::TenantRules::new([(b.1.as_str().into(), file())]),
            };
            set = set.with(b.0.as_str().into(), std::sync::Arc::new(both));
            let plan = plan(&set);
            prop_assert_eq!(plan.len(), if a == b { 1 } else { 2 });
            let folded: std::collections::BTreeSet<_> = plan.keys().map(|name| name.to_ascii_lowercase()).collect();
            prop_assert_eq!(folded.len(), plan.len());
        }
    }
}
