//! Named listeners: `[listeners.NAME]`, which components and `[api]` use in place of keys of their
//! own (`listener = "NAME"`).
//!
//! The keys are copied into the table that names the listener before it is read. A named listener therefore
//! behaves like one of the component's own: which components may share it, which files are watched,
//! and which components are rebuilt when it changes.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::Problems;
use metrifold_base::keys::{Entry, Keys, Shape, each};
use metrifold_http::ListenerKeys;

use crate::component::ComponentInfo;

use super::diagnostic::Diagnostic;
use super::document::{Around, Declared, Global};
use super::path::{KeyPath, Step};
use super::source::Place;
use super::tables::{TableConfig, TableInfo};
use super::{files, globals, suggest};

impl TableConfig for ListenerKeys {
    const NAME: &'static str = "listeners";

    fn validate(&self, problems: &mut Problems) {
        self.validate(problems);
    }
}

inventory::submit! { TableInfo::named::<ListenerKeys>("A listener that sources use with `listener = \"NAME\"`, and can share.") }

/// The key with which a component names a listener.
const KEY: &str = "listener";

/// The declared listeners by name. A listener's table is `None` if it has errors, which have been
/// reported.
pub(crate) struct Named<'i> {
    by_name: BTreeMap<String, One<'i>>,
    /// Whether a component names a listener in an invalid way, so that any listener may be meant:
    /// unused ones are not reported then.
    unclear: bool,
}

/// Result of resolving the key that names a listener.
enum Resolved {
    /// The component names no listener.
    None,
    /// The listener's keys have replaced its name.
    Right(Place),
    /// The listener does not exist or has errors.
    Wrong(Place),
}

struct One<'i> {
    place: Place,
    table: Option<DeTable<'i>>,
    used: bool,
}

impl<'i> Named<'i> {
    /// The listeners that are declared among these tables.
    pub(crate) fn declared(tables: &[(&'static TableInfo, Global<'i>)]) -> Self {
        let listeners = tables.iter().filter_map(|(info, global)| {
            let name = global.name.strip_prefix("listeners.")?;
            let DeValue::Table(mut table) = global.value.get_ref().clone() else {
                return None;
            };
            // Relative paths start at the listener's file, not at the component's.
            let file = std::path::absolute(global.around.file.name()).unwrap_or_default();
            files::resolve(&mut table, info.keys, &file.display().to_string());
            let one = One {
                place: global.place.clone(),
                table: Some(table),
                used: false,
            };
            Some((name.to_owned(), one))
        });
        Self {
            by_name: listeners.collect(),
            unclear: false,
        }
    }

    /// Marks the listeners that are missing from `read` as wrong.
    pub(crate) fn keep(&mut self, read: &[globals::Read]) {
        for (name, one) in &mut self.by_name {
            let full = format!("listeners.{name}");
            if !read.iter().any(|read| *read.name == *full) {
                one.table = None;
            }
        }
    }

    /// Copies a listener's keys into the table of a component that names it.
    pub(crate) fn resolve(&mut self, declared: &mut Declared<'i>, found: &mut Vec<Diagnostic>) {
        let Some(keys) = keys_of(declared) else {
            return;
        };
        let name = format!("{}.{}", declared.kind.table(), declared.id);
        let (table, around) = (&mut declared.table, &mut declared.around);
        let mut resolved = self.resolve_below(keys, table, &name, around, found);
        if takes_listener(keys) {
            resolved.push(self.resolve_in(table, &KeyPath::default(), &name, around, found));
        }
        for resolved in resolved {
            match resolved {
                Resolved::None => {}
                Resolved::Right(place) => declared.listener = Some(place),
                Resolved::Wrong(place) => {
                    declared.listener = Some(place);
                    declared.broken = true;
                }
            }
        }
    }

    /// Does the same for a table that is not a component. Returns whether all names resolve.
    pub(crate) fn resolve_table(
        &mut self,
        info: &TableInfo,
        global: &mut Global<'i>,
        found: &mut Vec<Diagnostic>,
    ) -> bool {
        let DeValue::Table(table) = global.value.get_mut() else {
            return true;
        };
        let around = &mut global.around;
        let mut resolved = self.resolve_below(info.keys, table, &global.name, around, found);
        if takes_listener(info.keys) {
            let root = KeyPath::default();
            resolved.push(self.resolve_in(table, &root, &global.name, around, found));
        }
        !resolved.iter().any(|it| matches!(it, Resolved::Wrong(_)))
    }

    /// Does the same for the tables within a table that has these keys.
    fn resolve_below(
        &mut self,
        keys: &'static [Entry],
        table: &mut DeTable<'i>,
        owner: &str,
        around: &mut Around,
        found: &mut Vec<Diagnostic>,
    ) -> Vec<Resolved> {
        let mut all = Vec::new();
        for key in each(keys) {
            let Shape::Table(entries) = key.shape else {
                continue;
            };
            let Some(DeValue::Table(table)) = table.get_mut(key.name).map(Spanned::get_mut) else {
                continue;
            };
            if takes_listener(entries) {
                let path = KeyPath(vec![Step::Key(key.name.to_owned())]);
                all.push(self.resolve_in(table, &path, owner, around, found));
            }
        }
        all
    }

    /// Replaces a listener's name by its keys. `path` leads to the table within `owner`.
    fn resolve_in(
        &mut self,
        table: &mut DeTable<'i>,
        path: &KeyPath,
        owner: &str,
        around: &mut Around,
        found: &mut Vec<Diagnostic>,
    ) -> Resolved {
        let Some(value) = table.remove(KEY) else {
            return Resolved::None;
        };
        let at = around.place(value.span());
        match self.keys(&value, table) {
            Ok(Some(keys)) => {
                table.extend(keys);
                Resolved::Right(at)
            }
            wrong => {
                // Without the listener its address is missing as well, which is not reported as a
                // second error.
                let keys = each(ListenerKeys::ENTRIES);
                around
                    .removed
                    .extend(keys.iter().map(|key| path.join(key.name)));
                if let Err((message, help)) = wrong {
                    self.unclear = true;
                    let diagnostic = Diagnostic::error(format!("{owner}: {message}"));
                    found.push(diagnostic.at(at.clone()).with_help(help));
                }
                Resolved::Wrong(at)
            }
        }
    }

    /// The keys of the listener that a value names; `None` if that listener has errors.
    fn keys(
        &mut self,
        value: &Spanned<DeValue<'i>>,
        table: &DeTable<'i>,
    ) -> Result<Option<DeTable<'i>>, (String, String)> {
        let DeValue::String(name) = value.get_ref() else {
            let message = "listener is not the name of a listener".to_owned();
            return Err((message, "put the name in quotes".to_owned()));
        };
        let own = each(ListenerKeys::ENTRIES);
        let own = own.iter().find(|key| table.contains_key(key.name));
        if let Some(key) = own {
            let message = format!("`{}` cannot be set together with listener", key.name);
            // The name may come from a variable, whose value must not be shown.
            let help = "set it in the listener's own table, or remove listener".to_owned();
            return Err((message, help));
        }
        let names = self.by_name.keys().map(String::as_str);
        let near = suggest::nearest(name, names).map(str::to_owned);
        match (self.by_name.get_mut(&**name), near) {
            (Some(one), _) => {
                one.used = true;
                Ok(one.table.clone())
            }
            (None, Some(near)) => Err((
                "there is no listener of this name".to_owned(),
                format!("did you mean `{near}`?"),
            )),
            (None, None) => Err((
                "there is no listener of this name".to_owned(),
                "declare it under [listeners.NAME]".to_owned(),
            )),
        }
    }

    /// Warns of listeners that no component uses.
    pub(crate) fn warn_of_unused(&self, found: &mut Vec<Diagnostic>) {
        let unused = self.by_name.iter().filter(|(_, one)| !one.used);
        for (name, one) in unused.filter(|_| !self.unclear) {
            let message = format!("nothing listens on listeners.{name}");
            let help =
                format!("name it by listener = \"{name}\" in a source or in [api], or remove it");
            let diagnostic = Diagnostic::warning(message).at(one.place.clone());
            found.push(diagnostic.with_help(help));
        }
    }
}

/// Copies the keys of the listener that a table names into it. `named` returns the listener of a
/// name. For a configuration that may have errors, which are not reported.
pub(crate) fn resolve_silently<'i>(
    table: &mut DeTable<'i>,
    named: impl FnOnce(&str) -> Option<DeTable<'i>>,
) {
    let name = table.remove(KEY).map(Spanned::into_inner);
    if let Some(DeValue::String(name)) = name {
        table.extend(named(&name).unwrap_or_default());
    }
}

/// The keys of a component's type, if the type exists.
fn keys_of(declared: &Declared<'_>) -> Option<&'static [Entry]> {
    let Some(DeValue::String(type_name)) = declared.table.get("type").map(Spanned::get_ref) else {
        return None;
    };
    let mut infos = inventory::iter::<ComponentInfo>.into_iter();
    let info = infos.find(|info| info.kind == declared.kind && info.name == &**type_name);
    info.map(|info| info.keys)
}

/// Whether these keys include `listener`.
fn takes_listener(keys: &'static [Entry]) -> bool {
    each(keys).iter().any(|key| key.name == KEY)
}
