//! Mappings, lists and scalars of the tree as the keys of a rule file: aliases followed, merge
//! keys applied, keys that stand twice refused.

use std::collections::{HashMap, HashSet};

use super::Limits;
use super::problem::{Key, Problems};
use crate::yaml::{Content, Id, Node, Place, Resolved, Tree, resolve, too_many_nodes};

/// The deepest chain of merge keys. Nobody needs more than two.
const MAX_MERGES: usize = 16;

/// A key of a mapping and what stands there, aliases followed.
pub(super) struct Field {
    pub(super) name: String,
    /// Where the key stands.
    pub(super) place: Place,
    pub(super) value: Id,
}

/// Reads nodes as what they have to be and notes where they are something else.
pub(super) struct Reader<'t> {
    tree: &'t Tree,
    pub(super) problems: Problems,
    visits: usize,
    max_visits: usize,
    bytes: usize,
    max_bytes: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(tree: &'t Tree, limits: &Limits) -> Self {
        Self {
            tree,
            problems: Problems::new(limits.problems),
            visits: 0,
            max_visits: limits.nodes,
            bytes: 0,
            max_bytes: limits.bytes,
        }
    }

    pub(super) fn place(&self, id: Id) -> Place {
        self.tree.raw(id).place
    }

    /// The node for which `id` stands. Aliases repeat nodes, so visits are bounded: past that,
    /// everything is empty.
    fn node(&mut self, id: Id) -> Option<&'t Node> {
        self.visits += 1;
        let node = self.tree.raw(self.tree.target(id));
        if self.visits == self.max_visits {
            let message = too_many_nodes(self.max_visits);
            self.problems.push(node.place, &Key::File, message);
        }
        (self.visits < self.max_visits).then_some(node)
    }

    /// Whether nothing stands there.
    pub(super) fn is_null(&self, id: Id) -> bool {
        let node = self.tree.raw(self.tree.target(id));
        matches!(node.content, Content::Scalar { .. }) && resolve(node) == Ok(Resolved::Null)
    }

    /// The items of a list.
    pub(super) fn list(&mut self, id: Id, key: &Key<'_>) -> &'t [Id] {
        let Some(node) = self.node(id) else {
            return &[];
        };
        match &node.content {
            Content::Sequence(items) => items,
            _ if self.is_null(id) => &[],
            _ => {
                self.unfit(
                    node,
                    key,
                    "a list: write one item per line, each after `- `",
                );
                &[]
            }
        }
    }

    /// A scalar's text; none if nothing stands there.
    pub(super) fn text(&mut self, id: Id, key: &Key<'_>) -> Option<String> {
        let node = self.node(id)?;
        let Content::Scalar { text, .. } = &node.content else {
            self.unfit(node, key, "text: quote it if it begins with [ or {");
            return None;
        };
        match resolve(node) {
            Ok(Resolved::Null) => None,
            Ok(_) => self.copy(text, node.place),
            Err(message) => {
                self.problems.push(node.place, key, message);
                None
            }
        }
    }

    /// A copy of a text. Aliases repeat texts, so their bytes are bounded: past that, there is none.
    fn copy(&mut self, text: &str, place: Place) -> Option<String> {
        let before = self.bytes;
        self.bytes = before.saturating_add(text.len());
        if self.bytes <= self.max_bytes {
            return Some(text.to_owned());
        }
        if before <= self.max_bytes {
            let message = format!(
                "file holds more than {} bytes, aliases expanded: split it",
                self.max_bytes
            );
            self.problems.push(place, &Key::File, message);
        }
        None
    }

    /// A whole number.
    pub(super) fn integer(&mut self, id: Id, key: &Key<'_>) -> Option<i64> {
        let node = self.node(id)?;
        let resolved = match (&node.content, resolve(node)) {
            (Content::Scalar { .. }, Ok(resolved)) => resolved,
            (Content::Scalar { .. }, Err(message)) => {
                self.problems.push(node.place, key, message);
                return None;
            }
            _ => Resolved::Boolean,
        };
        match resolved {
            Resolved::Null => None,
            Resolved::Integer(number) => Some(number),
            // Prometheus cuts off what follows the point.
            Resolved::Float(number) if number < i64::MAX as f64 => Some(number as i64),
            _ => {
                self.unfit(node, key, "a whole number of 64 bits, without quotes");
                None
            }
        }
    }

    /// The keys of a mapping, those that are merged into it last. A null key is ignored, as
    /// Prometheus does. None if it is no mapping.
    pub(super) fn fields(&mut self, id: Id, key: &Key<'_>, what: &str) -> Option<Vec<Field>> {
        let node = self.node(id)?;
        if !matches!(node.content, Content::Mapping(_)) {
            if !self.is_null(id) {
                self.unfit(node, key, what);
            }
            return None;
        }
        let mut merge = Merge {
            set: HashSet::new(),
            open: Vec::new(),
            fields: Vec::new(),
        };
        self.flatten(id, key, &mut merge);
        Some(merge.fields)
    }

    fn flatten(&mut self, id: Id, key: &Key<'_>, merge: &mut Merge) {
        let id = self.tree.target(id);
        let Some(node) = self.node(id) else { return };
        let Content::Mapping(children) = &node.content else {
            return;
        };
        if merge.open.contains(&id) || merge.open.len() == MAX_MERGES {
            let message = format!(
                "merge keys contain themselves, or more than {MAX_MERGES} of each other: write the keys out"
            );
            self.problems.push(node.place, key, message);
            return;
        }
        merge.open.push(id);
        self.refuse_repeated(children, key);
        let mut merged = None;
        for pair in children.as_chunks::<2>().0 {
            let [name, value] = *pair;
            if is_merge(self.tree.raw(name)) {
                merged = Some(value);
                continue;
            }
            self.add(name, value, key, merge);
        }
        if let Some(value) = merged {
            self.merge(value, key, merge);
        }
        merge.open.pop();
    }

    fn add(&mut self, name: Id, value: Id, key: &Key<'_>, merge: &mut Merge) {
        let node = self.tree.raw(self.tree.target(name));
        if !matches!(node.content, Content::Scalar { .. }) {
            self.unfit(node, key, "text as a key");
            return;
        }
        let Some(text) = self.text(name, key) else {
            return;
        };
        let within = merge.open.len() > 1;
        if within && merge.set.contains(&text) {
            return;
        }
        // A key that is a number overrides nothing that is merged, in Prometheus.
        if within || matches!(resolve(node), Ok(Resolved::Text(_))) {
            merge.set.insert(text.clone());
        }
        merge.fields.push(Field {
            name: text,
            place: self.tree.raw(name).place,
            value: self.tree.target(value),
        });
    }

    fn merge(&mut self, value: Id, key: &Key<'_>, merge: &mut Merge) {
        let tree = self.tree;
        let is_mapping = |id: Id| matches!(tree.raw(tree.target(id)).content, Content::Mapping(_));
        let node = tree.raw(value);
        let maps = match &node.content {
            Content::Sequence(items) => items.to_vec(),
            _ => vec![value],
        };
        for map in maps {
            if is_mapping(map) {
                self.flatten(map, key, merge);
            } else {
                let node = tree.raw(map);
                self.unfit(node, key, "a mapping, or a list of them, after a merge key");
            }
        }
    }

    /// Notes keys that stand twice in one mapping, however they are quoted.
    fn refuse_repeated(&mut self, children: &[Id], key: &Key<'_>) {
        #[derive(PartialEq, Eq, Hash)]
        enum Identity<'a> {
            Scalar(&'a str),
            Alias(Id),
            Collection(bool),
        }
        let mut first: HashMap<Identity<'_>, Place> = HashMap::new();
        for pair in children.as_chunks::<2>().0 {
            let node = self.tree.raw(pair[0]);
            let identity = match &node.content {
                Content::Scalar { text, .. } => Identity::Scalar(text),
                Content::Alias(target) => Identity::Alias(*target),
                Content::Sequence(_) => Identity::Collection(true),
                Content::Mapping(_) => Identity::Collection(false),
            };
            let name = match identity {
                Identity::Scalar(text) => text,
                _ => "of this kind",
            };
            if let Some(place) = first.get(&identity) {
                let message = format!(
                    "key {name:?} already stands at line {}: leave one of them",
                    place.line
                );
                self.problems.push(node.place, key, message);
            } else {
                first.insert(identity, node.place);
            }
        }
    }

    fn unfit(&mut self, node: &Node, key: &Key<'_>, wanted: &str) {
        let found = match &node.content {
            Content::Scalar { text, .. } if text.chars().count() <= 20 => format!("{text:?}"),
            Content::Scalar { .. } => "a scalar".to_owned(),
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
            Content::Alias(_) => "an alias of something else".to_owned(),
        };
        let message = format!("found {found} in the place of {wanted}");
        self.problems.push(node.place, key, message);
    }
}

/// A mapping while others are merged into it.
struct Merge {
    /// Keys that what is merged later must not override.
    set: HashSet<String>,
    /// The mappings that are being merged, outermost first.
    open: Vec<Id>,
    fields: Vec<Field>,
}

fn is_merge(node: &Node) -> bool {
    let Content::Scalar { text, plain } = &node.content else {
        return false;
    };
    &**text == "<<" && node.tag.as_deref().map_or(*plain, |tag| tag == "!!merge")
}
