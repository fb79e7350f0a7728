//! Suggests the known name that is most similar to an unknown one.

use super::synonyms;

/// The most similar candidate, if it is similar enough to be suggested.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length, and no real name is this long.
    if wrong.len() > 200 {
        return None;
    }
    let folded = folded(wrong);
    candidates
        .into_iter()
        .map(|name| (distance(&folded, name), name))
        .filter(|(distance, name)| *distance <= (wrong.len().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// The likely meaning of a word of ours or of a related program's, such as Prometheus or Vector:
/// one of the names, or a key below one of them.
pub(crate) fn meant<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str>
where
    'static: 'a,
{
    let folded = folded(wrong);
    if let Some(same) = names.iter().find(|name| **name == folded) {
        return Some(same);
    }
    let known = |meant: &&'static str| {
        let first = meant.split('.').next().unwrap_or_default();
        names.contains(&first)
    };
    let synonym = synonyms::of(&folded).iter().find(|meant| known(meant));
    match synonym {
        Some(meant) => Some(meant),
        None => nearest(wrong, names.iter().copied()),
    }
}

/// Lists all names, the most similar first.
pub(crate) fn by_relevance(wrong: &str, names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let quoted = |names: &[&str]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    if wrong.len() <= 200 {
        let folded = folded(wrong);
        // Shared words count more than shared letters.
        let shared = |name: &str| {
            let words = folded.split('_').filter(|word| word.len() > 2);
            words.filter(|word| name.contains(*word)).count()
        };
        names.sort_by_cached_key(|name| std::cmp::Reverse(shared(name)));
    }
    quoted(&names)
}

fn distance(folded: &str, name: &str) -> usize {
    strsim::damerau_levenshtein(folded, &self::folded(name))
}

/// Normalizes a name to our spelling: `tlsConfig` and `tls-config` become `tls_config`.
fn folded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c == '-' {
            '_'
        } else {
            c.to_ascii_lowercase()
        });
    }
    out
}

/// Lists names for a help text: at most a dozen, quoted.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let mut text = quoted.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["endpoint", "tenant_id", "tls"];
        assert_eq!(nearest("endpiont", names), Some("endpoint"));
        assert_eq!(nearest("Tenant-ID", names), Some("tenant_id"));
        assert_eq!(nearest("ssl", names), None);
        assert_eq!(nearest("colour", names), None);
    }

    #[test]
    fn words_of_neighbours_are_understood() {
        let sink = [
            "endpoint",
            "tls",
            "relabel",
            "queue",
            "timeout",
            "authorization",
        ];
        for (theirs, ours) in [
            ("url", "endpoint"),
            ("tls_config", "tls"),
            ("tlsConfig", "tls"),
            ("write_relabel_configs", "relabel"),
            ("queue_config", "queue"),
            ("buffer", "queue"),
            ("remote_timeout", "timeout"),
            ("bearer_token_file", "authorization.credentials_file"),
        ] {
            assert_eq!(meant(theirs, &sink), Some(ours), "{theirs}");
        }
        // Not suggested where the key does not exist.
        assert_eq!(meant("url", &["address"]), None);
        assert_eq!(
            meant("prometheus_remote_write", &["remote_write"]),
            Some("remote_write")
        );
    }

    #[test]
    fn lists_are_whole_and_begin_with_what_shares_a_word() {
        let names = ["acknowledge", "body_timeout", "header_timeout", "path"];
        assert_eq!(
            by_relevance("read_timeout_ms", &names),
            "`body_timeout`, `header_timeout`, `acknowledge`, `path`"
        );
    }
}
