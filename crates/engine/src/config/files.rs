//! Paths in the configuration are relative to the file that names them.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::keys::{Entry, Shape, each};

/// Puts the folder of `file` in front of every relative path in the table. Values of a wrong type
/// are left unchanged; their readers report them.
pub(crate) fn resolve(table: &mut DeTable<'_>, keys: &'static [Entry], file: &str) {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    if !folder.as_os_str().is_empty() {
        in_table(table, keys, folder);
    }
}

fn in_table(table: &mut DeTable<'_>, keys: &'static [Entry], folder: &Path) {
    for key in each(keys) {
        if let Some(value) = table.get_mut(key.name) {
            in_value(value, key.shape, folder);
        }
    }
}

fn in_value(value: &mut Spanned<DeValue<'_>>, shape: Shape, folder: &Path) {
    match (value.get_mut(), shape) {
        (DeValue::String(text), Shape::Path) if !text.is_empty() => {
            // An absolute path replaces the one that it is joined to.
            *text = folder.join(&**text).display().to_string().into();
        }
        (DeValue::Array(array), Shape::List(shape) | Shape::OneOrMany(shape)) => {
            for item in array.iter_mut() {
                in_value(item, *shape, folder);
            }
        }
        (found, Shape::Either(one, other)) => {
            let fits = |shape: &&&Shape| match found {
                DeValue::Table(_) => matches!(shape, Shape::Table(_) | Shape::Map(_)),
                DeValue::Array(_) => matches!(shape, Shape::List(_) | Shape::OneOrMany(_)),
                _ => matches!(shape, Shape::Path | Shape::OneOrMany(_)),
            };
            if let Some(shape) = [one, other].iter().find(fits) {
                in_value(value, **shape, folder);
            }
        }
        (_, Shape::OneOrMany(shape)) => in_value(value, *shape, folder),
        (DeValue::Table(table), Shape::Map(shape)) => {
            for (_, item) in table.iter_mut() {
                in_value(item, *shape, folder);
            }
        }
        (DeValue::Table(table), Shape::Table(keys)) => in_table(table, keys, folder),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use metrifold_base::{OneOrMany, keys};

    use super::*;

    keys! {
        struct Group {
            /// A file.
            file: Option<PathBuf> = unset("x"),
            /// Text.
            text: Option<String> = unset("x"),
            /// Files.
            files: Option<OneOrMany<PathBuf>> = unset("x"),
            /// More of the kind.
            more: Vec<Inner> = unset([]),
        }
    }

    keys! {
        struct Inner {
            /// A file.
            file: Option<PathBuf> = unset("x"),
        }
    }

    fn resolved(text: &str, file: &str) -> String {
        use metrifold_base::keys::Keys;
        let mut table = DeTable::parse(text).unwrap().into_inner();
        resolve(&mut table, Group::ENTRIES, file);
        crate::config::canonical::canonical(&table)
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_their_file() {
        let text = "file = 'a'\ntext = 'a'\nfiles = ['b/*.yml', '/c']\nmore = [{ file = '../d' }]";
        assert_eq!(
            resolved(text, "/etc/m/x.toml"),
            r#"{"file" = "/etc/m/a", "files" = ["/etc/m/b/*.yml", "/c"], "more" = [{"file" = "/etc/m/../d"}], "text" = "a"}"#
        );
        assert_eq!(
            resolved("files = 'a'", "conf/x.toml"),
            r#"{"files" = "conf/a"}"#
        );
        assert_eq!(resolved("file = 'a'", "x.toml"), r#"{"file" = "a"}"#);
    }

    #[test]
    fn values_of_a_wrong_type_are_left_alone() {
        let text = "file = 1\nfiles = { a = 1 }\nmore = 'x'";
        assert_eq!(
            resolved(text, "/etc/x.toml"),
            r#"{"file" = 1, "files" = {"a" = 1}, "more" = "x"}"#
        );
    }
}
