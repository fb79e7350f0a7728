//! The registered component types, for help texts.

use metrifold_model::Kind;

use crate::component::ComponentInfo;

use super::suggest;

/// The names of all types of a kind.
pub(crate) fn type_names(kind: Kind) -> Vec<&'static str> {
    inventory::iter::<ComponentInfo>
        .into_iter()
        .filter(|info| info.kind == kind)
        .map(|info| info.name)
        .collect()
}

/// The kinds that have a type of this name.
pub(crate) fn kinds_of(name: &str) -> Vec<Kind> {
    [Kind::Source, Kind::Transform, Kind::Sink]
        .into_iter()
        .filter(|kind| type_names(*kind).contains(&name))
        .collect()
}

/// Lists type names for a help text.
pub(crate) fn type_list(kind: Kind) -> String {
    format!(
        "{} types: {}",
        kind.as_str(),
        suggest::list(type_names(kind))
    )
}
