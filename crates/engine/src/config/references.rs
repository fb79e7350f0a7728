//! Checks references to providers of targets: `discovery = "NAME"`, in any table or component that
//! has the key.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::keys::each;

use crate::component::ComponentInfo;

use super::diagnostic::Diagnostic;
use super::discovery::NAME as KEY;
use super::document::{Around, Document};
use super::suggest;

/// Reports references to providers that do not exist.
pub(crate) fn check(document: &Document<'_>, found: &mut Vec<Diagnostic>) {
    let tables = document.tables.iter();
    let names: Vec<&str> = tables
        .filter_map(|(_, global)| global.name.strip_prefix(KEY)?.strip_prefix('.'))
        .collect();
    for (info, global) in &document.tables {
        let takes = each(info.keys).iter().any(|key| key.name == KEY);
        if let (true, DeValue::Table(table)) = (takes, global.value.get_ref()) {
            look(&global.name, table, &global.around, &names, found);
        }
    }
    for declared in &document.components {
        let Some(DeValue::String(type_name)) = declared.table.get("type").map(Spanned::get_ref)
        else {
            continue;
        };
        let mut infos = inventory::iter::<ComponentInfo>
            .into_iter()
            .filter(|info| info.kind == declared.kind && info.name == &**type_name);
        if infos.any(|info| each(info.keys).iter().any(|key| key.name == KEY)) {
            let owner = format!("{}.{}", declared.kind.table(), declared.id);
            look(&owner, &declared.table, &declared.around, &names, found);
        }
    }
}

fn look(
    owner: &str,
    table: &DeTable<'_>,
    around: &Around,
    names: &[&str],
    found: &mut Vec<Diagnostic>,
) {
    let Some(value) = table.get(KEY) else {
        return;
    };
    // A value of another type is reported when the table is decoded.
    let named: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    };
    for value in named {
        let DeValue::String(name) = value.get_ref() else {
            continue;
        };
        if names.contains(&&**name) {
            continue;
        }
        let help = match suggest::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it under [{KEY}.NAME]"),
        };
        let diagnostic = Diagnostic::error(format!("{owner}: there is no provider `{name}`"));
        let at = around.place(value.span());
        found.push(diagnostic.at(at).with_help(help));
    }
}
