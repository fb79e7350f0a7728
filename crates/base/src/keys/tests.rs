//! One statement gives a struct, its deserialization and its table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{Period, keys, words};

use super::*;

words! {
    /// A colour.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Colour {
        /// As blood.
        Red = "red",
        /// As the sea.
        DeepBlue = "deep_blue",
    }
}

keys! {
    /// A group.
    #[derive(Debug, PartialEq)]
    struct Group {
        /// Its file,
        /// on two lines.
        #[name = "file"]
        path: Option<PathBuf> = unset("/x"),
        /// Its time.
        time: Period = default("1m30s"),
    }
}

keys! {
    /// A group with a key that must be given.
    #[derive(Debug, PartialEq)]
    struct Login {
        /// Its user.
        user: String = required("anna"),
    }
}

keys! {
    /// All modes.
    #[derive(Debug, PartialEq)]
    struct All {
        /// Many.
        many: usize = default(16),
        /// Its colour.
        colour: Colour = default("deep_blue"),
        /// Its labels.
        labels: BTreeMap<String, String> = default({ job = "x", instance = "y" }),
        /// Its names.
        names: Vec<String> = default(["a", "b"]),
        /// A table.
        table: Group = table,
        /// A table that may be off.
        login: Option<Login> = optional,
        group: Group = include,
    }
}

fn read(text: &str) -> Result<All, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
}

#[test]
fn what_is_absent_is_what_its_documentation_says() {
    let nothing = read("").unwrap();
    assert_eq!(nothing.table.time, Period::secs(90));
    assert_eq!(nothing.colour, Colour::DeepBlue);
    assert_eq!(nothing.login, None);
    for key in list(All::ENTRIES) {
        if let KeyDefault::Value(text) = key.default {
            assert_eq!(read(&format!("{} = {text}", key.name)).unwrap(), nothing);
        }
    }
}

#[test]
fn keys_are_listed_by_their_full_names() {
    let listed: Vec<String> = list(All::ENTRIES)
        .iter()
        .map(|key| format!("{} {:?} {}", key.name, key.default, key.doc))
        .collect();
    assert_eq!(
        listed,
        [
            "many Value(\"16\") Many.",
            "colour Value(\"\\\"deep_blue\\\"\") Its colour.",
            "labels Value(\"{ job = \\\"x\\\", instance = \\\"y\\\" }\") Its labels.",
            "names Value(\"[\\\"a\\\", \\\"b\\\"]\") Its names.",
            "table Table A table.",
            "table.file Unset(\"\\\"/x\\\"\") Its file, on two lines.",
            "table.time Value(\"\\\"1m30s\\\"\") Its time.",
            "login Off A table that may be off.",
            "login.user Unset(\"\\\"anna\\\"\") Its user.",
            "file Unset(\"\\\"/x\\\"\") Its file, on two lines.",
            "time Value(\"\\\"1m30s\\\"\") Its time.",
        ]
    );
}

keys! {
    /// Tables in lists and under names.
    #[derive(Debug, PartialEq)]
    struct Nested {
        /// Some logins.
        logins: Vec<Login> = unset([{ user = "anna" }]),
        /// Logins by name.
        named: BTreeMap<String, Vec<Login>> = unset({ a = [{ user = "anna" }] }),
        /// An optional table.
        inner: Option<Inner> = optional,
    }
}

keys! {
    /// A list in a table that may be off.
    #[derive(Debug, PartialEq)]
    struct Inner {
        /// Some logins.
        logins: Vec<Login> = required([{ user = "anna" }]),
    }
}

#[test]
fn keys_of_tables_in_lists_and_under_names_are_listed_on_demand() {
    let names = |listed: Vec<Listed>| -> Vec<(String, bool)> {
        let name = |key: Listed| (key.name, matches!(key.default, KeyDefault::Required(_)));
        listed.into_iter().map(name).collect()
    };
    let named = |expected: &[(&str, bool)]| -> Vec<(String, bool)> {
        let named = |(name, required): &(&str, bool)| ((*name).to_owned(), *required);
        expected.iter().map(named).collect()
    };
    let flat = [
        ("logins", false),
        ("named", false),
        ("inner", false),
        ("inner.logins", false),
    ];
    assert_eq!(names(list(Nested::ENTRIES)), named(&flat));
    let nested = [
        ("logins", false),
        ("logins[].user", true),
        ("named", false),
        ("named.NAME[].user", true),
        ("inner", false),
        ("inner.logins", false),
        ("inner.logins[].user", true),
    ];
    assert_eq!(names(list_nested(Nested::ENTRIES)), named(&nested));
    let flat = list_nested(All::ENTRIES).into_iter().map(|key| key.name);
    assert!(flat.eq(list(All::ENTRIES).into_iter().map(|key| key.name)));
}

#[test]
fn given_values_are_taken_wherever_their_key_is_stated() {
    let all = read("many = 1\nfile = '/a'\ntable.file = '/b'\nlogin.user = 'u'").unwrap();
    assert_eq!(all.many, 1);
    assert_eq!(all.group.path, Some("/a".into()));
    assert_eq!(all.table.path, Some("/b".into()));
    assert_eq!(all.login, Some(Login { user: "u".into() }));
}

#[test]
fn mistakes_are_told_in_the_words_that_serde_has_for_them() {
    for (text, message) in [
        (
            "mony = 1",
            "unknown field `mony`, expected one of `many`, `colour`, `labels`, `names`, `table`, `login`, `file`, `time`",
        ),
        ("login = {}", "missing field `user`"),
        (
            "colour = 'pink'",
            "unknown variant `pink`, expected `red` or `deep_blue`",
        ),
        (
            "table = 1",
            "invalid type: integer `1`, expected a table of keys",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), message);
    }
}
