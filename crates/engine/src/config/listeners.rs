//! Listeners that have a name: `[listeners.NAME]`, which components take in place of the keys of
//! their own (`listener = "NAME"`).
//!
//! The keys are put into the component's table before it is read, so that whatever holds for a
//! listener of its own holds for a named one: who may share it, which files are watched, and what
//! is built anew when they change.

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

inventory::submit! { TableInfo::named::<ListenerKeys>("A listener that sources take by `listener = \"NAME\"`, and may share.") }

/// The key by which a component takes a listener.
const KEY: &str = "listener";

/// The listeners by name. The table is none when it is wrong, which has been reported.
pub(crate) struct Named<'i> {
    by_name: BTreeMap<String, One<'i>>,
    /// Somebody names a listener in a way that is wrong, so that nobody knows which is meant.
    unclear: bool,
}

/// What became of the key that names a listener.
enum Resolved {
    /// The component names no listener.
    None,
    /// The listener's keys are in its place.
    Right(Place),
    /// There is no such listener, or it is wrong itself.
    Wrong(Place),
}

struct One<'i> {
    place: Place,
    table: Option<DeTable<'i>>,
    used: bool,
}

impl<'i> Named<'i> {
    /// Those that are declared among these tables.
    pub(crate) fn declared(tables: &[(&'static TableInfo, Global<'i>)]) -> Self {
        let listeners = tables.iter().filter_map(|(info, global)| {
            let name = global.name.strip_prefix("listeners.")?;
            let DeValue::Table(mut table) = global.value.get_ref().clone() else {
                return None;
            };
            // What it names is beside its own file, wherever the component stands.
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

    /// Those among them that are not among these tables, which were read, are wrong.
    pub(crate) fn keep(&mut self, read: &[globals::Read]) {
        for (name, one) in &mut self.by_name {
            let full = format!("listeners.{name}");
            if !read.iter().any(|read| read.name == full) {
                one.table = None;
            }
        }
    }

    /// Puts a listener's keys into the table of a component that names it.
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

    /// The same for a table that is no component, and for the tables in it. Says whether all is
    /// right.
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
        let resolved = self.resolve_below(info.keys, table, &global.name, around, found);
        !resolved.iter().any(|it| matches!(it, Resolved::Wrong(_)))
    }

    /// The same for the tables in a table of these keys.
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

    /// Puts a listener's keys in the place of its name. `path` leads to the table within `owner`.
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
                // The address that is missing without the listener is not reported as a second
                // error.
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

    /// The keys that a value stands for; none if they are wrong.
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
            // The name may come from a variable, whose value is shown nowhere.
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

    /// Warns of listeners that nothing takes.
    pub(crate) fn warn_of_unused(&self, found: &mut Vec<Diagnostic>) {
        let unused = self.by_name.iter().filter(|(_, one)| !one.used);
        for (name, one) in unused.filter(|_| !self.unclear) {
            let message = format!("nothing listens on listeners.{name}");
            let help = format!("name it by listener = \"{name}\" in a source, or remove it");
            let diagnostic = Diagnostic::warning(message).at(one.place.clone());
            found.push(diagnostic.with_help(help));
        }
    }
}

/// The keys of a component's type, if there is such a type.
fn keys_of(declared: &Declared<'_>) -> Option<&'static [Entry]> {
    let Some(DeValue::String(type_name)) = declared.table.get("type").map(Spanned::get_ref) else {
        return None;
    };
    let mut infos = inventory::iter::<ComponentInfo>.into_iter();
    let info = infos.find(|info| info.kind == declared.kind && info.name == &**type_name);
    info.map(|info| info.keys)
}

/// Whether a listener can be named among these keys.
fn takes_listener(keys: &'static [Entry]) -> bool {
    each(keys).iter().any(|key| key.name == KEY)
}
