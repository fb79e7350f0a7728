//! The nearest known name to one that is not known.

/// The candidate that was most likely meant, when one is near enough to be worth a mention.
pub(crate) fn nearest<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The distance is quadratic in the length, and no real name is this long.
    if wrong.len() > 200 {
        return None;
    }
    let folded = wrong.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|name| {
            let other = name.to_ascii_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&folded, &other), name)
        })
        .filter(|(distance, name)| *distance <= (wrong.len().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
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
}
