//! Divides Observatorium's files into their entries, so that each is parsed by itself, and not again
//! while its text stays the same.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Key of the hashes of texts, so that nobody can choose entries with the same hash.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Entries in the order of their file.
#[derive(Debug)]
pub(crate) struct Entries<T> {
    pub(crate) all: Vec<Arc<T>>,
    /// Hashes of their texts, in the same order; empty if the texts are not known.
    texts: Vec<u64>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            texts: Vec::new(),
        }
    }
}

impl<T> Entries<T> {
    /// Entries whose texts are not known.
    pub(super) fn of(all: impl IntoIterator<Item = T>) -> Self {
        Self {
            all: all.into_iter().map(Arc::new).collect(),
            texts: Vec::new(),
        }
    }

    /// Adds the entry of a text. It is taken from the previous ones if it is there, else parsed.
    pub(super) fn add<E>(
        &mut self,
        text: &str,
        before: &mut Before<'_, T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<(), E> {
        let hash = hash(text);
        let entry = match before.entry(hash) {
            Some(entry) => Arc::clone(entry),
            None => Arc::new(parse(text)?),
        };
        self.texts.push(hash);
        self.all.push(entry);
        Ok(())
    }
}

/// Finds previous entries by their texts. Most follow each other as before.
pub(super) struct Before<'a, T> {
    entries: Option<&'a Entries<T>>,
    /// Index of the entry that probably comes next.
    next: usize,
    by_text: OnceCell<HashMap<u64, usize>>,
}

impl<'a, T> Before<'a, T> {
    pub(super) fn new(entries: Option<&'a Entries<T>>) -> Self {
        Self {
            entries,
            next: 0,
            by_text: OnceCell::new(),
        }
    }

    fn entry(&mut self, hash: u64) -> Option<&'a Arc<T>> {
        let entries = self.entries?;
        let texts = &entries.texts;
        let at = match texts.get(self.next) {
            Some(next) if *next == hash => self.next,
            _ => {
                let by_text = || texts.iter().copied().zip(0..).collect();
                *self.by_text.get_or_init(by_text).get(&hash)?
            }
        };
        self.next = at + 1;
        entries.all.get(at)
    }
}

/// A keyed hash of a text.
pub(super) fn hash(text: &str) -> u64 {
    KEY.hash_one(text)
}

/// The text of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'t> {
    /// Index of the key of its list.
    pub(super) key: usize,
    /// Number of its first line in the file.
    pub(super) line: usize,
    pub(super) text: &'t str,
}

/// The entries of the lists under these keys, in the order of the file. `None` if the file has another
/// form than the usual one, so that it must be parsed as a whole.
pub(super) fn divide<'t>(text: &'t str, keys: &[&str]) -> Option<Vec<Part<'t>>> {
    let mut entries = Vec::new();
    let mut seen = vec![false; keys.len()];
    let mut key = None;
    // Depth of the current list, and the start of its open entry.
    let (mut depth, mut open) = (None, None);
    let mut at = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let start = at;
        at += line.len();
        let content = line.trim_end();
        let inner = content.trim_start_matches(' ');
        if inner.is_empty() || inner.starts_with('#') {
            continue;
        }
        let indent = content.len() - inner.len();
        let listed = content.strip_suffix(':');
        let listed = listed.and_then(|name| keys.iter().position(|key| *key == name));
        if let Some(listed) = listed {
            close(&mut entries, key, &mut open, &text[..start]);
            if std::mem::replace(&mut seen[listed], true) {
                return None;
            }
            (key, depth) = (Some(listed), None);
        } else if inner.starts_with("- ") && key.is_some() && depth.is_none_or(|it| it == indent) {
            close(&mut entries, key, &mut open, &text[..start]);
            (depth, open) = (Some(indent), Some((number, start)));
        } else if open.is_none() || depth.is_none_or(|depth| indent <= depth) {
            let begins = content == "---" && key.is_none();
            if !begins {
                return None;
            }
        }
    }
    close(&mut entries, key, &mut open, text);
    Some(entries)
}

/// Ends the open entry where `text` ends.
fn close<'t>(
    entries: &mut Vec<Part<'t>>,
    key: Option<usize>,
    open: &mut Option<(usize, usize)>,
    text: &'t str,
) {
    if let (Some(key), Some((line, start))) = (key, open.take()) {
        let text = &text[start..];
        entries.push(Part { key, line, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_usual_form_are_divided_and_others_are_not() {
        let keys = ["roles", "roleBindings"];
        let text = "---\n# all\nroles:\n- name: a\n  x: [1,\n   2]\n\n- name: b\nroleBindings:\n  - name: c\n    y:\n    - z\n  # end\n";
        let entries = divide(text, &keys).unwrap();
        let expected = [
            (0, 4, "- name: a\n  x: [1,\n   2]\n\n"),
            (0, 8, "- name: b\n"),
            (1, 10, "  - name: c\n    y:\n    - z\n  # end\n"),
        ];
        let expected = expected.map(|(key, line, text)| Part { key, line, text });
        assert_eq!(entries, expected);
        for other in [
            "roles: []\n",
            "roles:\n- a: 1\nroles:\n- a: 2\n",
            "roles:\n- a: 1\nother: 1\n",
            "roles:\n- a: 1\n...\n",
            "roles:\n- a: 1\n---\nroles:\n- b\n",
            "roles:\n-\n  a: 1\n",
            "roles:\n- a: 1\n\t- b\n",
            "roles:\n  - a: 1\n - b: 2\n",
            "{roles: [{a: 1}]}\n",
            "- a\n",
        ] {
            assert_eq!(divide(other, &keys), None, "{other}");
        }
        assert_eq!(divide("", &keys), Some(Vec::new()));
    }
}
